"""NAS-Bench-201 by the command line: a search judged by a table, resumed, to a served ONNX file; `lookup`."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from serving_helpers import serving
from table_helpers import accuracy, write_table

from gdas_tf.cli.main import main
from gdas_tf.spaces.base import SPACES
from gdas_tf.spaces.genotype import Genotype

SEARCH = "--search-epochs 2 --search-channels 4 --search-cells 1 --search-batch-size 8"
RETRAIN = """
    --retrain-epochs 1 --retrain-channels 4 --retrain-cells 1 --retrain-batch-size 16
    --export-formats onnx --benchmark-seconds 0.02 --benchmark-warm-up 1
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    images = np.random.default_rng(0).integers(0, 255, (120, 8, 8, 1), np.uint8)
    np.savez(folder / "data.npz", images=images, labels=np.arange(120) % 3)
    write_table(folder / "table.csv")
    return folder


@pytest.fixture
def folder(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for path in files.iterdir():
        (tmp_path / path.name).symlink_to(path)
    return tmp_path


def flat(genotype: Genotype) -> tuple[str, ...]:
    return tuple(edge.operation for node in genotype.normal for edge in node)


def test_a_search_that_is_judged_by_a_table(folder: Path, capsys: pytest.CaptureFixture) -> None:
    space = ["--data", "data.npz", "--search-space", "nasbench201", "--search-table", "table.csv"]
    assert main(["run", "run", *space, *SEARCH.split(), *RETRAIN.split(), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    genotype = Genotype.load("run/genotype.json")
    truth = summary["truth"]
    assert summary["genotype"] == truth["cell"] == genotype.to_bars()
    assert truth["accuracy"] == truth["epochs"][-1] == accuracy(flat(genotype))
    with np.load("run/search/logits.npz") as file:
        names = SPACES.get("nasbench201").operations
        expected = [accuracy(tuple(names[i] for i in row.argmax(1))) for row in file["normal"]]
    assert truth["epochs"] == expected and len(expected) == 3
    assert (truth["column"], truth["cells"]) == ("c10_test", 15_625)
    assert (folder / "run" / "pictures" / "true_accuracy.png").is_file()

    assert main(["lookup", "run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scores"] == truth["scores"]
    assert main(["derive", "run", "--search-table-column", "c10_val"]) == 0
    assert f"true accuracy (c10_val): {100 - truth['accuracy']:.2f} %" in capsys.readouterr().out
    # Another table is no other search.
    assert main(["run", "run", "--resume", "--search-table-column", "c10_test"]) == 0
    with serving("run/export/model.onnx") as server, urllib.request.urlopen(f"{server.url}/") as answer:
        assert answer.status == 200

    capsys.readouterr()
    retrain = ["retrain", "other", "--genotype", "GDAS_V1", "--data", "data.npz"]
    assert main([*retrain, "--search-space", "nasbench201"]) == 2
    assert "set --search-space to the space of the genotype" in capsys.readouterr().err


def test_lookup(folder: Path, capsys: pytest.CaptureFixture) -> None:
    best = "|nor_conv_1x1~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"
    assert main(["lookup", best, "--table", "table.csv"]) == 0
    printed = capsys.readouterr().out
    assert "c10_test *  55.00 %, rank 1 of 15,625, better than 99.6 % of the others" in printed
    assert "c10_val     45.00 %, rank 15,562 of 15,625, better than 0.0 % of the others" in printed
    assert main(["lookup", best, "--table", "table.csv", "--column", "c10_val", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rank"] == 15_562


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("lookup", "give a run directory or a genotype"),
        ("lookup |none~0|", "give the table, --table FILE.csv"),
        ("lookup |none~0| --table table.csv", "does not have the cell |none~0|, among 15625 cells"),
        ("lookup GDAS_V1 --table table.csv", "is of another space"),
        ("lookup |none~0| --table none.csv", "table none.csv: cannot read it: No such file"),
        ("lookup |none~0| --table data.npz", "table data.npz: it is not text"),
        ("lookup |none~0| --table table.csv --column c10", "no column of accuracies 'c10'; did you mean"),
        (
            "search run --data data.npz --search-table table.csv",
            "the search space darts (--search-space) has",
        ),
        (
            "search run --data data.npz --search-table-column a",
            "--search-table-column: it goes with --search-ta",
        ),
        (
            "search run --data data.npz --search-space nasbench201 --search-nodes 2 --search-table table.csv",
            "does not have the cell |none~0|+|none~0|none~1|",
        ),
    ],
)
def test_wrong_use(arguments: str, message: str, folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(arguments.split()) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert not (folder / "run").exists()
