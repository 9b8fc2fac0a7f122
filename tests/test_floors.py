"""The structure of the package: which folder may import which, and that no two import each other.

docs/architecture.md tells what the floors are for.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

ROOTS = {"gdas_tf": "gdas_tf", "cli": "gdas_tf.cli", "export": "gdas_tf.export"}
"""Folders of the checkout, by the package that each installs as (setup.py)."""

FLOORS: tuple[tuple[str, ...], ...] = (
    (
        "errors",
        "durations",
        "notes",
        "files",
        "user_files",
        "registry",
        "plugins",
        "machine",
        "cluster",
        "distribution",
        "keras_backend",
        "runtime",
        "numerics",
    ),
    ("operations", "optimizers"),
    ("spaces", "data"),
    ("supernet", "networks", "drawing"),
    ("strategies", "zoo", "costs", "config"),
    ("runs", "training"),
    ("export",),
    ("pipeline", "preflight"),
    ("studies", "tuning"),
    ("cli",),
)
"""From the ground up. What stands on one floor may import what stands on the same floor or below."""

LONGEST = 450
"""Lines that a file may have."""


def modules() -> dict[str, Path]:
    found = {}
    for folder, package in ROOTS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join((package, *(part for part in parts if part != "__init__")))] = path
    return found


MODULES = modules()


def imported(name: str) -> set[str]:
    """Modules of the package that a module imports, anywhere in it but for annotations alone."""
    found = set()
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    for node in _without_annotations(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [one if one in MODULES else node.module for one in inside]
        else:
            continue
        found |= {one for one in names if one in MODULES}
    return found - {"gdas_tf"}


def _without_annotations(tree: ast.AST):
    """All nodes of a tree but those below `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and getattr(child.test, "id", None) == "TYPE_CHECKING":
            continue
        yield child
        yield from _without_annotations(child)


def floor(name: str) -> int:
    noun = name.removeprefix("gdas_tf.").split(".")[0]
    for number, nouns in enumerate(FLOORS):
        if noun in nouns:
            return number
    pytest.fail(f"{name} stands on no floor: give {noun} one in FLOORS, and in docs/architecture.md")


@pytest.mark.parametrize("name", [name for name in MODULES if name != "gdas_tf"])
def test_imports_go_down(name: str) -> None:
    above = {other for other in imported(name) if floor(other) > floor(name)}
    assert not above, f"{name} imports {', '.join(sorted(above))} from a floor above its own"


def test_no_two_modules_import_each_other() -> None:
    graph = {name: imported(name) for name in MODULES}
    done: set[str] = set()

    def follow(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"an import circle: {' -> '.join((*path[path.index(name) :], name))}"
        if name not in done:
            for other in sorted(graph[name]):
                follow(other, (*path, name))
            done.add(name)

    for name in graph:
        follow(name, ())


@pytest.mark.parametrize("name", MODULES)
def test_no_file_is_too_long(name: str) -> None:
    lines = len(MODULES[name].read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST, f"{name} has {lines} lines; {LONGEST} are the most: split it"


def test_the_command_line_alone_imports_itself_and_the_export() -> None:
    for name in MODULES:
        for other in imported(name):
            if other.startswith("gdas_tf.cli"):
                assert name.startswith("gdas_tf.cli"), f"{name} imports {other}"
            if other.startswith("gdas_tf.export"):
                allowed = (
                    "gdas_tf.export",
                    "gdas_tf.pipeline",
                    "gdas_tf.preflight",
                    "gdas_tf.studies",
                    "gdas_tf.tuning",
                    "gdas_tf.cli",
                )
                assert name.startswith(allowed), f"{name} imports {other}"
