"""The YAML file of a search space of one's own: what it may say, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from gdas_tf.errors import UsageError
from gdas_tf.spaces.base import OPERATION_SETS, SearchSpace
from gdas_tf.spaces.custom import is_file_name, make, read

ALL = """
plugins: [ops/mine.py, ~/other.py]
operations: [none, skip_connect, nor_conv_3x3]
inputs: 1
nodes: 3
keep: all
output: last
reduction: false
with_none: true
macro:
  between: residual
  stem: 1
  preprocess: false
  head_norm: true
  cells: 2
  channels: 8
"""


def test_all_that_a_file_may_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/her")
    path = tmp_path / "mine.yaml"
    path.write_text(ALL)
    definition, plugins = read(path)
    assert plugins == (str(tmp_path / "ops" / "mine.py"), "/home/her/other.py")
    assert make(definition) == SearchSpace(
        ("none", "skip_connect", "nor_conv_3x3"),
        nodes=3,
        name="custom",
        inputs=1,
        keep="all",
        output="last",
        reduction=False,
        between="residual",
        stem=1,
        preprocess=False,
        head_norm=True,
        with_none=True,
        cells=2,
        channels=8,
    )


def test_what_a_file_does_not_say_is_as_in_darts() -> None:
    assert make({"operations": "gdas-4"}) == SearchSpace(OPERATION_SETS["gdas-4"], name="custom")
    assert make({"operations": "conv_1x1, skip_connect", "inputs": 1, "nodes": 1}).inputs_per_node == 1
    assert make({"operations": ["conv_1x1"], "keep": 3}).inputs_per_node == 3


def test_names_of_files() -> None:
    assert [is_file_name(name) for name in ("a.yaml", "b/c.YML", "darts", 3)] == [True, True, False, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nodess: 3", "unknown key 'nodess'; did you mean nodes"),
        ("nodes: 3", "operations is missing; name gdas, gdas-4"),
        ("operations: 3", "operations is 3; accepted is a list of names"),
        ("operations: [conv3x3]", "unknown operation 'conv3x3'; did you mean conv_3x3"),
        ("operations: [[conv_3x3]]", r"unknown operation \['conv_3x3'\]; did you mean conv_3x3"),
        ("operations: [none]", "operations are none; name at least one besides none"),
        ("operations: [conv_3x3]\nnodes: 0", "nodes is 0; accepted is a whole number from 1"),
        ("operations: [conv_3x3]\ninputs: '2'", "inputs is '2'; accepted are 1, 2"),
        ("operations: [conv_3x3]\nkeep: many", "keep is 'many'; accepted are all, or a number of edges"),
        ("operations: [conv_3x3]\nkeep: 6", "keep is 6; accepted are all, or 1 to 5 edges"),
        ("operations: [conv_3x3]\noutput: sum", "output is 'sum'; accepted are concatenation, last"),
        ("operations: [conv_3x3]\nreduction: maybe", "reduction is 'maybe'; accepted are true and false"),
        ("operations: [conv_3x3]\nmacro: 3", "macro is 3; accepted are the keys between, stem"),
        ("operations: [conv_3x3]\nmacro: {stems: 2}", "macro: unknown key 'stems'; did you mean stem"),
        ("operations: [conv_3x3]\nmacro: {cells: -1}", "cells is -1; accepted is a whole number from 1"),
        ("operations: [conv_3x3]\nmacro: {preprocess: false}", "inputs is 2 and preprocess is False"),
        ("plugins: {a: 1}", "plugins is {'a': 1}; accepted is a list of Python files"),
        ("- conv_3x3", r"found \['conv_3x3'\]; accepted are the keys plugins, operations"),
        ("a: [", "not YAML"),
        ("nodes: 1\nnodes: 2", "line 2: the key 'nodes' stands twice"),
    ],
)
def test_bad_files_are_one_line_that_names_the_file(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=f"^search space {path}: .*{message}") as error:
        make(read(path)[0], f"search space {path}")
    assert "\n" not in str(error.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="none.yaml: cannot read it: No such file"):
        read(tmp_path / "none.yaml")
