"""The table of true accuracies: cells up to their notation, ranks, percentiles, damaged files."""

from __future__ import annotations

from pathlib import Path

import pytest

from gdas_tf.errors import UsageError
from gdas_tf.spaces.base import SPACES, SearchSpace
from gdas_tf.spaces.genotype import GENOTYPES, Genotype
from gdas_tf.spaces.table import Table

SMALL = """index,cell,c10_test,note,c100_val,params
0,|skip_connect~0|+|none~0|none~1|,50.5,first,10,7
1,|skip_connect~0|+|skip_connect~0|none~1|,90,x,20,8
2,|none~0|+|skip_connect~0|none~1|,90.0,,30,9
3, |none~0| + |none~1|none~0| ,10,,40,10
"""


@pytest.fixture
def table(tmp_path: Path) -> Table:
    (tmp_path / "small.csv").write_text(SMALL)
    return Table.load(tmp_path / "small.csv")


def bars(text: str) -> Genotype:
    return Genotype.from_text(text)


def test_ranks_and_percentiles(table: Table) -> None:
    assert (len(table), table.columns, table.best("c10_test")) == (4, ("c10_test", "c100_val"), 90.0)
    first = table.find(bars("|skip_connect~0|+|none~0|none~1|"))
    assert first.scores["c10_test"] == (50.5, 3, pytest.approx(100 / 3))
    assert first.scores["c100_val"] == (10.0, 4, 0.0)
    assert first.weights == 7
    for cell in ("|skip_connect~0|+|skip_connect~0|none~1|", "|none~0|+|skip_connect~0|none~1|"):
        assert table.find(bars(cell)).scores["c10_test"] == (90.0, 1, pytest.approx(200 / 3))


@pytest.mark.parametrize(
    "text",
    [
        "|none~0|+|none~1|none~0|",
        " |none~0| +|none~0| none~1|",
        "name=mine |none~0|+|none~0|none~1|",
        "inputs=1 output=last normal=none@0/none@1+none@0 reduction=fixed",
        "inputs=1 output=last space=custom normal=none@0/none@0+none@1 reduction=fixed",
    ],
)
def test_a_cell_is_found_however_it_is_written(table: Table, text: str) -> None:
    assert table.find(Genotype.from_text(text)).weights == 10


def test_columns_by_name(table: Table) -> None:
    assert (table.column(None), table.column("c100_val")) == ("c10_test", "c100_val")
    with pytest.raises(UsageError, match="no column of accuracies 'c100_vel'; did you mean c100_val"):
        table.column("c100_vel")


def test_what_is_not_in_the_table(table: Table) -> None:
    with pytest.raises(UsageError, match=r"does not have the cell \|none~0\|, among 4 cells"):
        table.find(bars("|none~0|"))
    with pytest.raises(UsageError, match="cells of one input .* name=GDAS_V1 .* is of another space"):
        table.find(GENOTYPES["GDAS_V1"])


def test_whether_a_table_fits_a_space(table: Table) -> None:
    with pytest.raises(UsageError, match="the search space darts .search.space. has others"):
        table.check_fits(SearchSpace())
    with pytest.raises(UsageError, match="does not have the cell"):
        table.check_fits(SPACES.get("nasbench201"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found the columns nothing; it must have one named cell"),
        ("a,b\n1,2\n", "found the columns a, b; it must have one named cell"),
        (
            "cell,params\n|none~0|,3\n",
            "no column of accuracies; accepted are names with one of the words acc",
        ),
        ("cell,test\n", "it has no cell"),
        ("cell,test,test\n", "the column 'test' stands there twice"),
        ("cell,test\n|none~0|,3\n|none~0|,4\n", r"line 3: the cell \|none~0\| stands there twice"),
        ("cell,test\n|none~0|,many\n", "line 2: test: found 'many'; accepted is an accuracy from 0 to 100"),
        ("cell,test\n|none~0|,101\n", "line 2: test: found '101'"),
        ("cell,test\n|none~0|\n", "line 2: test: found None"),
        ("cell,test,params\n|none~0|,1,1.5\n", "line 2: params: found '1.5'; accepted is a whole number"),
        ("cell,test\nnone~0,1\n", r"line 2: node 1: found 'none~0'; accepted is \|OP~INPUT"),
        ("cell,test\n|nane~0|,1\n", "line 2: node 1: unknown operation 'nane'; did you mean none"),
        ('cell,test\n"|none~0|,1\n', "no CSV file"),
    ],
)
def test_damaged_tables(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=f"^table {path}.*{message}") as error:
        Table.load(path)
    assert "\n" not in str(error.value)


def test_the_table_of_nasbench201(shared: Path) -> None:
    table = Table.load(shared / "data" / "nasbench201" / "nb201.csv")
    table.check_fits(SPACES.get("nasbench201"))
    assert len(table) == 15_625
    skips = "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|" + "|".join(
        f"skip_connect~{i}" for i in range(3)
    )
    entry = table.find(bars(skips + "|"))
    assert entry.scores["c10_test_200"].accuracy == 54.2967
    assert table.best("c10_test_200") == 94.3733
    assert entry.weights == 73_306
