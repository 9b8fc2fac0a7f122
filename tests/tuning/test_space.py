"""What may be varied, and what a range that is none is answered."""

from __future__ import annotations

import pytest

from gdas_tf.config.config import Config
from gdas_tf.errors import UsageError
from gdas_tf.tuning import space
from gdas_tf.tuning.space import Choices, Range

SECTIONS = ("data", "retrain", "derive")


def _make(**given: object) -> space.Space:
    return space.make({name.replace("__", "."): one for name, one in given.items()}, Config(), SECTIONS, "x")


def test_ranges_and_choices_are_read_as_the_fields_are() -> None:
    found = _make(
        retrain__learning_rate="1e-3..0.1:log",
        retrain__channels="8..32:8",
        retrain__epochs="2..5",
        retrain__drop_path="0, 0.1,0.2",
        retrain__nesterov="true,false",
        retrain__macro=["paper", "autodl"],
        data__image_size="none,16",
        derive__ranks="1,2;2,3",
        retrain__weight_decay={"low": "1e-5", "high": 1e-2, "log": True},
    )
    assert found["retrain.learning_rate"] == Range("retrain.learning_rate", 0.001, 0.1, log=True)
    assert found["retrain.channels"] == Range("retrain.channels", 8, 32, step=8, whole=True)
    assert found["retrain.epochs"] == Range("retrain.epochs", 2, 5, whole=True)
    assert found["retrain.drop_path"] == Choices("retrain.drop_path", (0.0, 0.1, 0.2))
    assert found["retrain.nesterov"].values == (True, False)
    assert found["data.image_size"].values == (None, 16)
    assert found["derive.ranks"].values == ([1, 2], [2, 3])
    assert found["retrain.weight_decay"].log
    # A file says the same.
    assert space.make(space.to_json(found), Config(), SECTIONS, "x") == found
    assert found["retrain.learning_rate"].position(0.01) == pytest.approx(0.5)
    assert found["derive.ranks"].position([2, 3]) == 1.0


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("retrain.drop_path", "0.5", "which is no choice; accepted are LOW..HIGH"),
        ("retrain.drop_path", "0,2", "found 2; it must be below 1"),
        ("retrain.drop_path", "0.1,0.1", "found 0.1 twice"),
        ("retrain.drop_path", "0..0.5:log", "on a logarithmic scale the lower limit is above 0"),
        ("retrain.learning_rate", "0.1..0.01", "found 0.1..0.01, which is no range"),
        ("retrain.learning_rate", "0.1..0.1", "which is no range"),
        ("retrain.learning_rate", "a..b", "found 'a'; accepted is a number"),
        ("retrain.learning_rate", "..", "found ''; accepted is a number"),
        ("retrain.learning_rate", "0.1..0.2:half", "found the step 'half'; accepted is log, or a number"),
        ("retrain.learning_rate", "0.1..0.2:5", "found the step '5'"),
        ("retrain.channels", "8..32:0.5", "a whole number above 0 and up to 24"),
        ("retrain.channels", "1..8", "found 1; it must be at least 2"),
        ("retrain.macro", {"low": 1, "high": 2}, "the field is no number; accepted are some of paper"),
        ("retrain.macro", "paper,papre", "found 'papre'; accepted: paper"),
        ("retrain.channels", {"low": 2}, "accepted are low, high, and log or step"),
        ("retrain.channels", 8, "found 8; accepted are LOW..HIGH"),
        (
            "retrain.drop",
            "0,0.1",
            "unknown configuration field 'retrain.drop'; did you mean retrain.drop_path?",
        ),
        ("seed", "1,2", "cannot be varied: trials would be judged by different images"),
        ("data.name", "digits,cifar10", "cannot be varied: trials would be judged by different images"),
        ("retrain.jit_compile", "true,false", "cannot be varied: it changes how long a trial takes"),
        ("search.channels", "4,8", "the objective x does not depend on it; it does on data, retrain, derive"),
        ("darts.order", "1,2", "unknown configuration field"),
    ],
)
def test_a_range_that_is_none_is_told_of_in_one_line(field: str, value: object, told: str) -> None:
    with pytest.raises(UsageError, match=rf"^vary {field}: ") as error:
        space.make({field: value}, Config(), SECTIONS, "x")
    assert told in str(error.value) and "\n" not in str(error.value)


def test_flags_and_files_name_fields(tmp_path) -> None:
    assert space.read_flags(["retrain.drop_path = 0,0.1"]) == {"retrain.drop_path": "0,0.1"}
    for bad in (["retrain.drop_path"], ["=1"], ["a="], ["a=1", "a=2"]):
        with pytest.raises(UsageError, match="^vary "):
            space.read_flags(bad)
    path = tmp_path / "ranges.yaml"
    path.write_text(
        "retrain:\n  drop_path: [0, 0.1]\n  channels: {low: 8, high: 16}\nsearch.channels: 4..8\n"
    )
    found = space.read_file(path)
    assert list(found) == ["retrain.drop_path", "retrain.channels", "search.channels"]
    for text in ("", "- 1\n", "a: [", "a: 1\na: 2\n"):
        path.write_text(text)
        with pytest.raises(UsageError, match="space file"):
            space.read_file(path)
    with pytest.raises(UsageError, match="space file .* cannot read it"):
        space.read_file(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match="nothing is varied"):
        space.make({}, Config(), SECTIONS, "x")
