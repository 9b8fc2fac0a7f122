"""The layout of a cell's graph: nothing overlaps, whatever the graph."""

from __future__ import annotations

import random

import numpy as np
import pytest

from gdas_tf.drawing.layout import MARGIN, Box, Curve, Item, Layout, Link, _minimise, place

CLEAR = 3.0  # points that must be left between a box and anything that isn't its own


def check_layout(layout: Layout, links: list[Link], items: list[Item]) -> None:
    """Asserts what every layout has to keep."""
    for item, box in zip(items, layout.boxes, strict=True):
        assert box.right - box.left == pytest.approx(item.width)
        assert box.top - box.bottom >= item.height - 1e-6
        assert box.left >= MARGIN - 1e-6
        assert box.bottom >= MARGIN - 1e-6
        assert box.right <= layout.width - MARGIN + 1e-6
        assert box.top <= layout.height - MARGIN + 1e-6
    for i, a in enumerate(layout.boxes):
        for b in layout.boxes[:i]:
            assert not overlap(grow(a, CLEAR), b), f"boxes {a} and {b} overlap"
    for link, curve in zip(links, layout.curves, strict=True):
        source, target = layout.boxes[link.source], layout.boxes[link.target]
        assert curve.start.x == pytest.approx(source.right)
        assert source.bottom < curve.start.y < source.top
        assert curve.end.x == pytest.approx(target.left)
        assert target.bottom < curve.end.y < target.top
        points = sample(curve)
        assert (np.diff(points[:, 0]) >= -1e-6).all(), "a link turns back"
        assert points.min() >= 0
        assert points[:, 0].max() <= layout.width
        assert points[:, 1].max() <= layout.height
        for number, box in enumerate(layout.boxes):
            if number not in link:
                assert not inside(points, grow(box, CLEAR)).any(), f"link {link} meets box {number}"
        for own in (source, target):
            assert not inside(points, grow(own, -1e-3)).any(), f"link {link} runs through its own box"


def grow(box: Box, by: float) -> Box:
    return Box(box.left - by, box.bottom - by, box.right + by, box.top + by)


def overlap(a: Box, b: Box) -> bool:
    return a.left < b.right and b.left < a.right and a.bottom < b.top and b.bottom < a.top


def inside(points: np.ndarray, box: Box) -> np.ndarray:
    x, y = points.T
    return (box.left < x) & (x < box.right) & (box.bottom < y) & (y < box.top)


def sample(curve: Curve) -> np.ndarray:
    """Points along a curve, [n, 2], close together."""
    t = np.linspace(0.0, 1.0, 60)[:, None]
    pieces = []
    for piece in curve.pieces:
        a, b, c, d = (np.array(point) for point in piece)
        pieces.append((1 - t) ** 3 * a + 3 * t * (1 - t) ** 2 * b + 3 * t**2 * (1 - t) * c + t**3 * d)
    for before, after in zip(curve.pieces, curve.pieces[1:], strict=False):
        assert before[-1] == after[0], "a link is torn"
    return np.concatenate(pieces)


def crossings(layout: Layout) -> int:
    """Pairs of curves that meet elsewhere than at the ends, counted where they change sides."""
    count = 0
    curves = [sample(curve) for curve in layout.curves]
    for i, a in enumerate(curves):
        for b in curves[:i]:
            left, right = max(a[0, 0], b[0, 0]), min(a[-1, 0], b[-1, 0])
            if left < right:
                x = np.linspace(left + 0.5, right - 0.5, 500)
                side = np.sign(np.interp(x, a[:, 0], a[:, 1]) - np.interp(x, b[:, 0], b[:, 1]))
                side = side[side != 0]
                count += int((side[1:] != side[:-1]).sum())
    return count


def _random_graph(seed: int) -> tuple[list[Item], list[Link]]:
    generator = random.Random(seed)
    columns = generator.randint(2, 7)
    items = [
        Item(column, generator.uniform(10, 100), generator.uniform(10, 40))
        for column in range(columns)
        for _ in range(generator.randint(1, 5))
    ]
    links = []
    for _ in range(generator.randint(1, 24)):
        a, b = generator.sample(range(len(items)), 2)
        if items[a].column != items[b].column:
            links.append(Link(*sorted((a, b), key=lambda i: items[i].column)))
    return items, links + links[:1]


@pytest.mark.parametrize("seed", range(60))
def test_nothing_overlaps_in_any_graph(seed: int):
    items, links = _random_graph(seed)
    check_layout(place(items, links), links, items)


def test_the_result_depends_on_the_graph_alone():
    items, links = _random_graph(4)
    first = place(items, links)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    assert place(items, links) == first


def test_a_line_is_straight():
    items = [Item(column, 20.0, 20.0) for column in range(4)]
    links = [Link(0, 1), Link(1, 2), Link(2, 3)]
    layout = place(items, links)
    assert len({box.center.y for box in layout.boxes}) == 1
    assert layout.height == pytest.approx(20.0 + 2 * MARGIN)


def test_a_long_link_is_straight_between_its_ends():
    items = (
        [Item(0, 20.0, 20.0)] + [Item(column, 20.0, 20.0) for column in range(1, 6)] + [Item(6, 20.0, 20.0)]
    )
    links = [Link(i, i + 1) for i in range(6)] + [Link(0, 6)]
    layout = place(items, links)
    heights = {round(point.y, 3) for piece in layout.curves[-1].pieces[1:-1] for point in piece}
    assert len(heights) == 1


def test_a_graph_without_need_to_cross_has_no_crossing():
    # A comb: the naive order (0 to 3 in each column) crosses; the ladder's rungs can all be level.
    items = [Item(0, 20.0, 20.0) for _ in range(4)] + [Item(1, 60.0, 20.0) for _ in range(4)]
    links = [Link(0, 7), Link(1, 5), Link(2, 6), Link(3, 4)]
    layout = place(items, links)
    assert crossings(layout) == 0
    assert all(curve.start.y == pytest.approx(curve.end.y, abs=0.2) for curve in layout.curves)


def test_links_that_cross_must_cross_once():
    items = [Item(0, 20.0, 20.0), Item(0, 20.0, 20.0), *(Item(1, 60.0, 20.0) for _ in range(4))]
    items += [Item(2, 20.0, 20.0), Item(2, 20.0, 20.0)]
    links = [Link(0, 2), Link(0, 3), Link(1, 4), Link(1, 5), Link(2, 6), Link(4, 6), Link(3, 7), Link(5, 7)]
    assert crossings(place(items, links)) == 1


def test_the_first_item_stands_above_the_others():
    items = [Item(0, 20.0, 20.0), Item(0, 20.0, 20.0), Item(1, 20.0, 20.0), Item(1, 20.0, 20.0)]
    for links in ([Link(0, 2), Link(1, 3)], [Link(0, 3), Link(1, 2)]):
        layout = place(items, links)
        assert layout.boxes[0].center.y > layout.boxes[1].center.y
        assert crossings(layout) == 0


def test_a_box_grows_with_its_links():
    items = [Item(0, 20.0, 20.0), *(Item(1, 20.0, 20.0) for _ in range(8))]
    links = [Link(0, i) for i in range(1, 9)]
    layout = place(items, links)
    assert layout.boxes[0].top - layout.boxes[0].bottom > 50.0
    starts = sorted(curve.start.y for curve in layout.curves)
    assert min(b - a for a, b in zip(starts, starts[1:], strict=False)) > 5.0


def test_the_minimum_under_constraints():
    """Karush, Kuhn & Tucker: the slope at the minimum is a sum of the constraints that are met exactly."""
    generator = np.random.default_rng(0)
    for _ in range(20):
        root, rows = generator.normal(size=(5, 5)), generator.normal(size=(4, 5))
        matrix, vector, least = root @ root.T + np.eye(5), generator.normal(size=5), generator.normal(size=4)
        y = _minimise(matrix, vector, rows, least)
        slack = rows @ y - least
        assert slack.min() > -1e-9
        met = rows[slack < 1e-9]
        duals = np.linalg.lstsq(met.T, matrix @ y + vector, rcond=None)[0]
        np.testing.assert_allclose(met.T @ duals, matrix @ y + vector, atol=1e-8)
        assert duals.size == 0 or duals.min() > -1e-9


def test_a_node_stands_amid_its_links():
    items = [Item(0, 20.0, 20.0), *(Item(1, 60.0, 20.0) for _ in range(4)), Item(2, 20.0, 20.0)]
    links = [Link(0, i) for i in range(1, 5)] + [Link(i, 5) for i in range(1, 5)]
    layout = place(items, links)
    middle = np.mean([box.center.y for box in layout.boxes[1:5]])
    assert layout.boxes[0].center.y == pytest.approx(middle, abs=0.2)
    assert layout.boxes[5].center.y == pytest.approx(middle, abs=0.2)
