"""Pictures of studies: every run is a point in them."""

from __future__ import annotations

import re
from pathlib import Path

from gdas_tf.drawing.studies import draw_repeats, draw_sizes


def points(path: Path) -> int:
    """The number of markers within the axes of an SVG file."""
    groups = re.findall(r'<g clip-path="[^"]*">(.*?)</g>', path.read_text(encoding="utf-8"), re.DOTALL)
    return sum(group.count("<use") for group in groups)


def test_every_training_after_the_first_is_a_point(tmp_path) -> None:
    cells = [[60.0, 61.0, 62.0], [70.0, 68.0, 69.0], [65.0, 65.5, 66.0]]
    draw_repeats({"random": cells}, tmp_path / "one.svg")
    assert points(tmp_path / "one.svg") == 6
    draw_repeats({"random": cells, "deep": [[50.0, 51.0], [52.0, 53.0]]}, tmp_path / "two.svg")
    assert points(tmp_path / "two.svg") == 8


def test_every_run_is_a_point(tmp_path) -> None:
    runs = [
        {"arm": arm, "parameters": 1000 * (number + 1), "accuracy": 60.0 + number}
        for arm, count in (("search", 2), ("random", 3))
        for number in range(count)
    ]
    draw_sizes(runs, ["search", "random"], tmp_path / "sizes.svg")
    assert points(tmp_path / "sizes.svg") == 5
