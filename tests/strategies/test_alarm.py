"""The alarm: what is said of a search whose result is a coin flip or degenerate."""

from __future__ import annotations

import numpy as np
import pytest

from gdas_tf.config.config import Config
from gdas_tf.pipeline.certainty import how_certain
from gdas_tf.spaces.base import SearchSpace
from gdas_tf.spaces.genotype import Genotype
from gdas_tf.strategies.alarm import EdgeCertainty, certainties, warnings
from gdas_tf.strategies.derivation import derive

SPACE = SearchSpace()
EPOCHS = 40


def walk(seed: int = 0) -> np.ndarray:
    """Logits that stray without any preference."""
    steps = 0.05 * np.random.default_rng(seed).standard_normal((EPOCHS + 1, 14, 8))
    return np.cumsum(steps, axis=0)


def drift(operations: list[str], noise: float = 0.02, seed: int = 0) -> np.ndarray:
    """Logits that go steadily towards one operation on each edge, with noise from epoch to epoch."""
    slope = np.zeros((14, 8))
    for edge in range(14):
        slope[edge, SPACE.operations.index(operations[edge % len(operations)])] = 0.1
    epochs = np.arange(EPOCHS + 1)[:, None, None]
    return epochs * slope + noise * np.random.default_rng(seed).standard_normal((EPOCHS + 1, 14, 8))


def look(normal: np.ndarray, reduction: np.ndarray | None = None):
    history = {"normal": normal} | ({} if reduction is None else {"reduction": reduction})
    genotype = derive(normal[-1], None if reduction is None else reduction[-1], SPACE)
    found = certainties(history, SPACE, genotype)
    return found, warnings(found, genotype)


def test_a_search_that_strays_is_called_a_coin_flip() -> None:
    warned = 0
    for seed in range(20):
        found, lines = look(walk(seed))
        assert len(found["normal"]) == 14
        assert sum(edge.kept for edge in found["normal"]) == 8
        warned += any("normal cell is a coin flip" in line for line in lines)
    assert warned >= 15  # what is kept are the edges that strayed the furthest


def test_a_search_that_is_sure_is_not() -> None:
    for seed in range(20):
        found, lines = look(drift(["sep_conv_3x3", "dil_conv_5x5", "sep_conv_5x5"], seed=seed))
        assert not any(edge.coin_flip for edge in found["normal"])
        assert lines == []


def test_the_margin_is_that_of_the_best_and_the_second_and_the_noise_that_of_its_changes() -> None:
    history = np.zeros((9, 14, 8))
    history[:, 0, 2] = [0, 1, 2, 3, 4, 5, 6, 7, 9]
    history[:, 0, 5] = [0, 0, 0, 0, 0, 2, 0, 1, 1]
    found, _ = look(history)
    edge = found["normal"][0]
    assert (edge.best, edge.second, edge.margin) == ("sep_conv_3x3", "dil_conv_5x5", 8.0)
    # The changes of the difference are 1, 1, 1, 1, -1, 3, 0 and 2, of deviation 1.1952286.
    assert edge.noise == pytest.approx(1.1952286 * 8**0.5)
    assert not edge.coin_flip


def test_none_is_told_of_where_it_is_the_best_on_most_edges() -> None:
    logits = drift(["sep_conv_3x3"])
    logits[:, :8, 0] = 100.0
    found, lines = look(logits)
    assert sum(edge.none_is_best for edge in found["normal"]) == 8
    assert any("none is the best operation on 8 of the 14 edges of the normal cell" in line for line in lines)
    assert any("what was derived are second choices" in line for line in lines)
    assert {edge.best for edge in found["normal"]} == {"sep_conv_3x3"}


def test_edges_that_none_was_derived_on_are_cut_off() -> None:
    bars = "|none~0|+|skip_connect~0|none~1|+|none~0|skip_connect~1|none~2|"
    genotype = Genotype.from_text(bars)
    edge = EdgeCertainty(0, 0, "none", "nor_conv_3x3", 0.1, None, True, True)
    lines = warnings({"normal": [edge] * 6}, genotype)
    assert "on 6 of the 6 edges of the normal cell, so that they are cut off" in lines[0]
    assert "search.none excluded" in lines[0]


def test_a_cell_of_skip_and_pooling_is_called_degenerate() -> None:
    _, lines = look(drift(["skip_connect", "avg_pool_3x3"]))
    assert len(lines) == 1
    assert "degenerate: 8 of its 8 edges are skip_connect, pooling or none" in lines[0]
    assert "derive.ranks 3,4" in lines[0]
    _, lines = look(drift(["sep_conv_3x3"]), drift(["skip_connect"]))
    assert lines == []  # a reduction cell of skips is another matter: its skips have convolutions


def test_of_few_epochs_no_noise_is_known() -> None:
    found, lines = look(walk()[:3])
    assert all(edge.noise is None and not edge.coin_flip for edge in found["normal"])
    assert lines == []


def test_of_a_strategy_without_logits_a_degenerate_cell_alone_is_told(tmp_path) -> None:
    config = Config()
    np.savez(tmp_path / "a.npz", best_normal=np.zeros((3, 14), np.int32))
    assert how_certain(tmp_path / "a.npz", config) == {"edges": {}, "warnings": []}
    idle = Genotype.from_text("normal=skip@0+max3@1/sep3@0+avg3@1 reduction=sep3@0+sep3@1/sep3@0+sep3@1")
    (line,) = how_certain(tmp_path / "a.npz", config, idle)["warnings"]
    assert "degenerate: 3 of its 4 edges" in line and "derive.ranks" not in line
    np.savez(tmp_path / "b.npz", normal=np.zeros((3, 5, 2)))  # an array of its own by this name
    assert how_certain(tmp_path / "b.npz", config) == {"edges": {}, "warnings": []}


def test_a_run_says_it_of_its_file(tmp_path) -> None:
    np.savez(tmp_path / "a.npz", normal=walk(3), reduction=walk(4))
    found = how_certain(tmp_path / "a.npz", Config())
    assert set(found["edges"]) == {"normal", "reduction"}
    assert {"node", "input", "best", "second", "margin", "noise", "kept", "coin_flip"} <= set(
        found["edges"]["normal"][0]
    )
