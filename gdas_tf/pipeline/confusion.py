"""What an evaluation says of single classes: its picture, and the two facts that people ask for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def draw_evaluation(result: Mapping[str, Any], path: Path) -> None:
    """Draws the confusion matrix of an evaluation.

    Args:
        result: what `gdas_tf.pipeline.evaluate_network` returns.
        path: the picture to write, .png or .svg.
    """
    from gdas_tf.drawing.confusion import draw_confusion

    title = f"{result['images']:,} test images: accuracy {result['accuracy']:.1%}, "
    title += f"balanced {result['balanced_accuracy']:.1%}"
    draw_confusion(result["confusion"], list(result["class_accuracy"]), title, path)


def lowest_class(result: Mapping[str, Any]) -> tuple[str, float, int]:
    """Returns the class of the lowest accuracy, that accuracy, and its number of test images."""
    known = {name: value for name, value in result["class_accuracy"].items() if value is not None}
    name = min(known, key=known.__getitem__)
    return name, known[name], sum(result["confusion"][list(result["class_accuracy"]).index(name)])


def most_confused(result: Mapping[str, Any]) -> tuple[str, str, int] | None:
    """Returns the class and the one that it is most often taken for, with how many of its images; None if
    every image was recognised."""
    names = list(result["class_accuracy"])
    wrong = [
        (count, row, column)
        for row, counts in enumerate(result["confusion"])
        for column, count in enumerate(counts)
        if row != column and count
    ]
    if not wrong:
        return None
    count, row, column = max(wrong, key=lambda item: item[0])
    return names[row], names[column], count
