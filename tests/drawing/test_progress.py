"""The picture of a search that has no logits: its metrics and its candidates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from gdas_tf.drawing import curves


def test_progress_of_a_search_without_logits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    drawn: list[Figure] = []
    monkeypatch.setattr(curves, "save", lambda figure, path: drawn.append(figure))
    metrics = [
        {"epoch": i + 1, "seconds": 1.0, "accuracy": 0.5, "loss": 1.0, "reward": 0.5} for i in range(40)
    ]
    metrics[-1]["best_loss"] = 0.9
    candidates = [{"loss": 3.0}, {"loss": None}, {"loss": 2.0}, {"loss": 2.5}]
    titles = {"reward": "Reward of the controller"}
    assert curves.draw_progress(metrics, candidates, titles, tmp_path / "a.png")
    panels = {axes.get_title(loc="left") or axes.get_title(): axes for axes in drawn[0].axes if axes.axison}
    assert list(panels) == ["Accuracy", "Loss", "Reward of the controller", "Loss of the candidates"]
    # One value has no line to be seen by.
    assert [line.get_marker() for line in panels["Loss"].lines] == ["", "o"]
    best = panels["Loss of the candidates"].lines[1].get_ydata()
    np.testing.assert_array_equal(best, [3.0, 3.0, 2.0, 2.0])
    assert not curves.draw_progress([{"epoch": 1, "seconds": 0.1}], [], {}, tmp_path / "b.png")
