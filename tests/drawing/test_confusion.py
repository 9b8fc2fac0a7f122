"""The picture of a confusion matrix, and what is said of it in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from gdas_tf.drawing import confusion
from gdas_tf.errors import UsageError
from gdas_tf.pipeline.confusion import draw_evaluation, lowest_class, most_confused

RESULT = {
    "images": 10,
    "accuracy": 0.6,
    "balanced_accuracy": 0.5,
    "class_accuracy": {"cat": 0.75, "dog": 0.25, "none": None},
    "confusion": [[3, 1, 0], [2, 1, 1], [0, 0, 0]],
}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    figures: list[Figure] = []
    monkeypatch.setattr(confusion, "save", lambda figure, path: figures.append(figure))
    return figures


def test_each_cell_has_its_number_and_the_share_of_its_row(drawn: list[Figure], tmp_path: Path) -> None:
    draw_evaluation(RESULT, tmp_path / "a.png")
    axes = drawn[0].axes[0]
    assert {tuple(map(int, text.get_position())): text.get_text() for text in axes.texts} == {
        (0, 0): "3",
        (1, 0): "1",
        (0, 1): "2",
        (1, 1): "1",
        (2, 1): "1",
    }
    shares = np.asarray(axes.images[0].get_array())
    np.testing.assert_allclose(shares, [[0.75, 0.25, 0], [0.5, 0.25, 0.25], [0, 0, 0]])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog", "none"]
    assert axes.get_title(loc="left") == "10 test images: accuracy 60.0%, balanced 50.0%"


def test_many_classes_are_shades_alone(drawn: list[Figure], tmp_path: Path) -> None:
    confusion.draw_confusion(
        np.eye(40, dtype=int).tolist(), list(map(str, range(40))), "", tmp_path / "a.png"
    )
    assert not drawn[0].axes[0].texts
    with pytest.raises(UsageError, match="there are 2 classes"):
        confusion.draw_confusion([[1]], ["a", "b"], "", tmp_path / "a.png")


def test_what_is_said_of_classes() -> None:
    assert lowest_class(RESULT) == ("dog", 0.25, 4)
    assert most_confused(RESULT) == ("dog", "cat", 2)
    assert most_confused({**RESULT, "confusion": [[4, 0, 0], [0, 4, 0], [0, 0, 0]]}) is None
