"""What the library finds out before a run begins."""

from __future__ import annotations

import os

import pytest

from gdas_tf.config.config import Config
from gdas_tf.data.dataset import DataSet, load_dataset
from gdas_tf.errors import UsageError
from gdas_tf.operations.base import OPERATIONS
from gdas_tf.preflight import STAGES, check_before_start, check_text, every_operation
from gdas_tf.spaces.base import SearchSpace
from gdas_tf.spaces.genotype import GENOTYPES


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return load_dataset("digits")


@pytest.mark.parametrize("genotype", [None, GENOTYPES["GDAS_V1"], GENOTYPES["DARTS_V2"]])
def test_a_run_that_will_do(genotype, digits, tmp_path):
    before = dict(os.environ)
    check_before_start(Config.preset("quick"), digits, STAGES, genotype, tmp_path)
    assert not list(tmp_path.iterdir())
    assert {**before, "ORT_DISABLE_TELEMETRY": "1"} == dict(os.environ)


def test_the_recipe_of_the_paper_on_digits(digits):
    """Its crop and CutOut are for images of 32 pixels; each stage has its own."""
    config = Config().override({"data.padding": 4})
    with pytest.raises(
        UsageError, match=r"retrain\.cutout: found 16 pixels for images 8x8; it must be from 0"
    ):
        check_before_start(config, digits, ["search", "retrain"])
    check_before_start(config, digits, ["search"])


def test_only_stages_to_come_are_checked(digits):
    config = Config.preset("quick").override({"benchmark.providers": "none-such"})
    check_before_start(config, digits, ["search", "retrain", "export", "draw"])
    with pytest.raises(UsageError, match="benchmark.providers: found 'none-such'"):
        check_before_start(config, digits, ["benchmark"])


@pytest.mark.parametrize("operations", ["gdas", "gdas-12", "conv_3x3,none,skip_connect"])
def test_every_operation_is_in_both_cells(operations):
    space = SearchSpace.named(operations)
    for fixed in (False, True):
        genotype = every_operation(space, fixed)
        assert (genotype.reduction is None) == fixed
        for cell in genotype.cells.values():
            assert {edge.operation for node in cell for edge in node} == set(space.operations)
    assert set(SearchSpace.named("gdas-12").operations) <= set(OPERATIONS)


def test_texts():
    check_text("class", "café 東京")
    with pytest.raises(UsageError, match=r"class 'caf\\xe9': .*; rename it"):
        check_text("class", os.fsdecode(b"caf\xe9"))
    # What an ASCII locale makes of a name in UTF-8.
    with pytest.raises(UsageError, match=r"class 'caf\\xc3\\xa9': .*LC_ALL to C.UTF-8"):
        check_text("class", "caf\udcc3\udca9")
    with pytest.raises(UsageError, match=r"class '\\ud800': .*rename it"):
        check_text("class", "\ud800")
