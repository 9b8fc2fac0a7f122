"""Layered layout of a cell's graph: where boxes and curves go so that nothing overlaps. Plain geometry.

The steps are those of Sugiyama, Tagawa & Toda ("Methods for Visual Understanding of Hierarchical System
Structures", 1981) and of graphviz: items stand in columns from left to right; a link over several columns
gets a waypoint in each one between; the order in the columns is chosen for few crossings; the heights come
from a quadratic problem that pulls linked items level and keeps neighbours apart.

Links run level inside the columns and bend only in the gaps between them, where there are no boxes. So no
link touches a box other than its two ends, whatever the graph is.
"""

from __future__ import annotations

import dataclasses
import graphlib
import math
import random
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

MARGIN = 14.0
"""Empty border around the picture, in points."""

_APART = 9.0  # between two boxes of a column, or a box and a link that passes
_APART_TARGETS = 8.0  # added between boxes that lead to different ones
_PORT_STEP = 7.0  # between two links at the same side of a box
_RESTARTS = 24
_REWEIGHTINGS = 6
_LEVEL = 20.0  # how much links that are nearly level are made level, in points


class Point(NamedTuple):
    """A place, in points, y upwards."""

    x: float
    y: float


@dataclasses.dataclass(frozen=True)
class Item:
    """A box of the graph.

    Args:
        column: number of its column, from 0 on the left; links lead to higher columns.
        width, height: its size in points; `place` makes it higher if its links need it.
    """

    column: int
    width: float
    height: float


class Link(NamedTuple):
    """A directed connection between two items, given by their positions in the list of items."""

    source: int
    target: int


class Box(NamedTuple):
    """A placed item: its borders, in points."""

    left: float
    bottom: float
    right: float
    top: float

    @property
    def center(self) -> Point:
        """The middle of the box."""
        return Point((self.left + self.right) / 2, (self.bottom + self.top) / 2)


class Curve(NamedTuple):
    """A placed link: cubic Bézier pieces of four points each; a piece begins where the one before it ends."""

    pieces: tuple[tuple[Point, Point, Point, Point], ...]

    @property
    def start(self) -> Point:
        """The point on the border of the source."""
        return self.pieces[0][0]

    @property
    def end(self) -> Point:
        """The point on the border of the target."""
        return self.pieces[-1][-1]


@dataclasses.dataclass(frozen=True)
class Layout:
    """A placed graph, from (0, 0) at the bottom left to (width, height), in points."""

    width: float
    height: float
    boxes: tuple[Box, ...]
    curves: tuple[Curve, ...]


def place(items: Sequence[Item], links: Sequence[Link]) -> Layout:
    """Places the items and links of a graph.

    Boxes don't overlap, and no curve meets a box other than its ends. The result depends on the arguments
    alone. The first item of column 0 stands above the others of its column.

    Args:
        items: the boxes; each column from 0 to the last one has one at least.
        links: each leads from a lower column to a higher one; two links may have the same ends.
    """
    graph = _Graph(items, links)
    order = _order_columns(graph)
    ports = _place_ports(graph, order)
    heights = _place_vertically(graph, order, ports)
    return _draw(graph, order, ports, heights)


class _Graph:
    """The graph with its waypoints; vertices are numbered: first the items, then the waypoints."""

    def __init__(self, items: Sequence[Item], links: Sequence[Link]) -> None:
        self.columns = [item.column for item in items]
        self.chains: list[list[int]] = []
        for source, target in links:
            passed = range(items[source].column + 1, items[target].column)
            waypoints = list(range(len(self.columns), len(self.columns) + len(passed)))
            self.columns += passed
            self.chains.append([source, *waypoints, target])

        self.items = len(items)
        self.after: list[list[int]] = [[] for _ in self.columns]
        self.before: list[list[int]] = [[] for _ in self.columns]
        for chain in self.chains:
            for left, right in zip(chain, chain[1:], strict=False):
                self.after[left].append(right)
                self.before[right].append(left)

        ports = [max(len(self.after[i]), len(self.before[i]), 1) for i in range(self.items)]
        self.heights = [
            max(item.height, (count + 0.5) * _PORT_STEP) for item, count in zip(items, ports, strict=True)
        ] + [0.0] * (len(self.columns) - self.items)
        self.widths = [item.width for item in items] + [0.0] * (len(self.columns) - self.items)

    def is_waypoint(self, vertex: int) -> bool:
        return vertex >= self.items


Order = list[list[int]]
"""The vertices of each column from the top down."""


def _order_columns(graph: _Graph) -> Order:
    """Chooses the order of the vertices in all columns so that few links cross.

    Barycentre sweeps and swaps of neighbours, from several starts; the best result is kept.
    """
    columns: Order = [[] for _ in range(max(graph.columns) + 1)]
    for vertex, column in enumerate(graph.columns):
        columns[column].append(vertex)

    generator = random.Random(0)
    best: tuple[tuple[int, int], Order] | None = None
    for start in range(_RESTARTS):
        order = [list(column) for column in columns]
        if start:
            for column in order:
                generator.shuffle(column)
        order = _improve_order(graph, order)
        # Of orders with equally many crossings the one with the shortest ways.
        cost = (_crossings(graph, order), _spread(graph, order))
        if best is None or cost < best[0]:
            best = (cost, order)
    assert best is not None
    order = best[1]
    if order[0][0] != 0 and order[0][-1] == 0:
        order = [column[::-1] for column in order]
    return order


def _improve_order(graph: _Graph, order: Order) -> Order:
    best, fewest = order, _crossings(graph, order)
    for sweep in range(12):
        order = [list(column) for column in order]
        forward = sweep % 2 == 0
        span = range(1, len(order)) if forward else range(len(order) - 2, -1, -1)
        for number in span:
            fixed = {vertex: i for i, vertex in enumerate(order[number - 1 if forward else number + 1])}
            neighbours = graph.before if forward else graph.after
            old = {vertex: i for i, vertex in enumerate(order[number])}

            def barycentre(vertex: int, fixed: dict = fixed, neighbours: list = neighbours, old: dict = old):
                places = [fixed[other] for other in neighbours[vertex]]
                return (sum(places) / len(places) if places else old[vertex], old[vertex])

            order[number].sort(key=barycentre)
        _swap_neighbours(graph, order)
        count = _crossings(graph, order)
        if count < fewest:
            best, fewest = order, count
    return best


def _swap_neighbours(graph: _Graph, order: Order) -> None:
    """Swaps neighbours of a column as long as that takes crossings away; changes `order`."""
    improved = True
    while improved:
        improved = False
        for number, column in enumerate(order):
            places = {}
            for near in (number - 1, number + 1):
                if 0 <= near < len(order):
                    places |= {vertex: i for i, vertex in enumerate(order[near])}
            for i in range(len(column) - 1):
                upper, lower = column[i], column[i + 1]
                now = swapped = 0
                for neighbours in (graph.before, graph.after):
                    for a in neighbours[upper]:
                        for b in neighbours[lower]:
                            now += places[a] > places[b]
                            swapped += places[a] < places[b]
                if swapped < now:
                    column[i], column[i + 1] = lower, upper
                    improved = True


def _segments(graph: _Graph, order: Order) -> Iterable[list[tuple[int, int]]]:
    """For each gap between columns, the places of its links' ends in the columns on both sides."""
    for left, right in zip(order, order[1:], strict=False):
        places = {vertex: i for i, vertex in enumerate(right)}
        yield [(i, places[other]) for i, vertex in enumerate(left) for other in graph.after[vertex]]


def _crossings(graph: _Graph, order: Order) -> int:
    return sum(
        (a[0] - b[0]) * (a[1] - b[1]) < 0
        for segments in _segments(graph, order)
        for i, a in enumerate(segments)
        for b in segments[:i]
    )


def _spread(graph: _Graph, order: Order) -> int:
    """How far links go up and down, counted in places from the middle of the columns, squared."""
    sizes = [len(column) for column in order]
    return sum(
        ((2 * a - sizes[gap]) - (2 * b - sizes[gap + 1])) ** 2
        for gap, segments in enumerate(_segments(graph, order))
        for a, b in segments
    )


Ports = list[tuple[float, float]]
"""For each chain, the height of its start and of its end above the middle of the box there."""


def _place_ports(graph: _Graph, order: Order) -> Ports:
    """Spreads the links at each side of a box, in the order of where they go: they don't cross there."""
    places = {vertex: i for column in order for i, vertex in enumerate(column)}
    starts = [0.0] * len(graph.chains)
    ends = [0.0] * len(graph.chains)
    for item in range(graph.items):
        for offsets, at, near in ((starts, 0, 1), (ends, -1, -2)):
            chains = [i for i, chain in enumerate(graph.chains) if chain[at] == item]
            chains.sort(key=lambda i, near=near: (places[graph.chains[i][near]], i))
            for position, i in enumerate(chains):
                offsets[i] = ((len(chains) - 1) / 2 - position) * _PORT_STEP
    return list(zip(starts, ends, strict=True))


def _place_vertically(graph: _Graph, order: Order, ports: Ports) -> np.ndarray:
    """Returns the height of the middle of each vertex.

    Waypoints of a link share one height wherever the order of the columns allows it, so that long links are
    straight. The heights minimise the height differences along all links, squared and absolute: the squares
    put a node amid its links, the absolute values make links level that nearly are.
    """
    groups = _straighten(graph, order)
    apart = [
        (groups[upper], groups[lower], _distance(graph, upper, lower))
        for column in order
        for upper, lower in zip(column, column[1:], strict=False)
    ]
    size = max(groups) + 1
    rows = np.zeros((len(apart), size))
    for row, (upper, lower, _) in enumerate(apart):
        rows[row, upper], rows[row, lower] = 1.0, -1.0
    distances = np.array([distance for *_, distance in apart])

    rises, offsets = [], []  # a link rises by rise @ heights + offset
    for chain, (start, end) in zip(graph.chains, ports, strict=True):
        for left, right in zip(chain, chain[1:], strict=False):
            if groups[left] != groups[right]:
                rise = np.zeros(size)
                rise[groups[right]], rise[groups[left]] = 1.0, -1.0
                rises.append(rise)
                offsets.append((end if right == chain[-1] else 0.0) - (start if left == chain[0] else 0.0))
    rise, offset = np.array(rises), np.array(offsets)

    heights = np.zeros(size)
    weights = np.ones(len(rise))
    for _ in range(_REWEIGHTINGS):
        # The little extra pull to the middle keeps the whole in place.
        matrix = rise.T @ (rise * weights[:, None]) + 1e-3 * np.eye(size)
        heights = _minimise(matrix, rise.T @ (weights * offset), rows, distances)
        weights = 1.0 + _LEVEL / (np.abs(rise @ heights + offset) + 1.0)

    # Rounded, so that the picture doesn't depend on the machine's last digits; then exactly apart again.
    heights = np.round(heights, 1)
    for _ in range(size):
        for upper, lower, distance in apart:
            heights[lower] = min(heights[lower], heights[upper] - distance)
    return heights[groups]


def _straighten(graph: _Graph, order: Order) -> list[int]:
    """Numbers the vertices, with one number for waypoints that get the same height.

    Two waypoints in a row of a link are put together unless that contradicts the order of the columns, as
    where two links cross.
    """
    groups = list(range(len(graph.columns)))

    def possible(merged: list[int]) -> bool:
        below: dict[int, set[int]] = {}
        for column in order:
            for upper, lower in zip(column, column[1:], strict=False):
                below.setdefault(merged[upper], set()).add(merged[lower])
        sorter = graphlib.TopologicalSorter(below)
        try:
            sorter.prepare()
        except graphlib.CycleError:
            return False
        return True

    for chain in sorted(graph.chains, key=len, reverse=True):
        for left, right in zip(chain[1:-1], chain[2:-1], strict=False):
            merged = [groups[left] if group == groups[right] else group for group in groups]
            if possible(merged):
                groups = merged
    numbers = {group: i for i, group in enumerate(sorted(set(groups)))}
    return [numbers[group] for group in groups]


def _minimise(matrix: np.ndarray, vector: np.ndarray, rows: np.ndarray, least: np.ndarray) -> np.ndarray:
    """Minimises y @ matrix @ y / 2 + vector @ y subject to rows @ y >= least.

    With z the offset of y from the free minimum, in coordinates in which the matrix is the identity, that is
    the shortest z with A z >= b, which non-negative least squares give (Lawson & Hanson, "Solving Least
    Squares Problems", 1974, chapter 23). Linear programming of absolute values alone does not put a node amid
    its links.

    Args:
        matrix: symmetric and positive definite.
        vector: [n].
        rows: [m, n], of constraints that some y fulfils.
        least: [m].
    """
    from scipy.optimize import nnls

    free = -np.linalg.solve(matrix, vector)
    if not len(rows):
        return free
    inverse = np.linalg.inv(np.linalg.cholesky(matrix))
    system = np.vstack([inverse @ rows.T, least - rows @ free])
    target = np.zeros(len(system))
    target[-1] = 1.0
    residual = system @ nnls(system, target)[0] - target
    return free - inverse.T @ (residual[:-1] / residual[-1])


def _distance(graph: _Graph, upper: int, lower: int) -> float:
    distance = (graph.heights[upper] + graph.heights[lower]) / 2 + _APART
    boxes = not graph.is_waypoint(upper) and not graph.is_waypoint(lower)
    if boxes and not set(graph.after[upper]) & set(graph.after[lower]):
        distance += _APART_TARGETS
    return distance


def _draw(graph: _Graph, order: Order, ports: Ports, heights: np.ndarray) -> Layout:
    """Turns heights into boxes and curves; the columns move apart as far as the links rise between them."""
    rises = [0.0] * (len(order) - 1)
    ways = []
    for chain, (start, end) in zip(graph.chains, ports, strict=True):
        levels = [float(heights[vertex]) for vertex in chain]
        levels[0] += start
        levels[-1] += end
        ways.append(levels)
        for vertex, a, b in zip(chain, levels, levels[1:], strict=False):
            rises[graph.columns[vertex]] = max(rises[graph.columns[vertex]], abs(a - b))

    widths = [max(graph.widths[vertex] for vertex in column) for column in order]
    lefts = [MARGIN]
    for width, rise in zip(widths, rises, strict=False):
        lefts.append(lefts[-1] + width + 26.0 + 2.6 * math.sqrt(rise))
    rights = [left + width for left, width in zip(lefts, widths, strict=True)]

    halves = np.array(graph.heights) / 2
    bottom = float((heights - halves).min()) - MARGIN
    top = float((heights + halves).max()) + MARGIN
    boxes = []
    for i in range(graph.items):
        middle = (lefts[graph.columns[i]] + rights[graph.columns[i]]) / 2
        y = float(heights[i]) - bottom
        half = graph.heights[i] / 2
        boxes.append(Box(middle - graph.widths[i] / 2, y - half, middle + graph.widths[i] / 2, y + half))

    curves = []
    for chain, levels in zip(graph.chains, ways, strict=True):
        points = [Point(boxes[chain[0]].right, levels[0] - bottom)]
        for vertex, level in zip(chain[1:-1], levels[1:-1], strict=True):
            column = graph.columns[vertex]
            points += [Point(lefts[column], level - bottom), Point(rights[column], level - bottom)]
        points.append(Point(boxes[chain[-1]].left, levels[-1] - bottom))
        first, last = graph.columns[chain[0]], graph.columns[chain[-1]]
        # The bends lie exactly in the gaps; a box narrower than its column gets a level piece before them.
        points.insert(1, Point(rights[first], points[0].y))
        points.insert(-1, Point(lefts[last], points[-1].y))
        curves.append(Curve(tuple(_bend(a, b) for a, b in zip(points, points[1:], strict=False) if a != b)))
    return Layout(rights[-1] + MARGIN, top - bottom, tuple(boxes), tuple(curves))


def _bend(a: Point, b: Point) -> tuple[Point, Point, Point, Point]:
    """A curve between two points that is level at both; curves over the same gap cross only if they must."""
    middle = (a.x + b.x) / 2
    return a, Point(middle, a.y), Point(middle, b.y), b
