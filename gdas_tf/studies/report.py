"""The report of a study: one HTML file without anything from elsewhere, Markdown, and JSON."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gdas_tf.drawing import studies as pictures
from gdas_tf.drawing.cells import draw_cell
from gdas_tf.durations import duration
from gdas_tf.files import atomic_write, write_json
from gdas_tf.runs.run import Run
from gdas_tf.spaces.genotype import Genotype
from gdas_tf.studies.analysis import analyse, incumbents
from gdas_tf.studies.folder import StudyFolder
from gdas_tf.studies.grid import Study
from gdas_tf.studies.sentences import probability
from gdas_tf.user_files import read_npz

_PAGE = Path(__file__).with_name("page")
_TITLES = {
    "samples": "Every run, and the mean of each arm",
    "sizes": "Accuracy against parameters",
    "incumbents": "Incumbent against compute",
    "preferences": "The most probable operation, share of all edges, mean over the seeds",
    "repeats": "Random cells, trained again",
    "agreement": "Agreement of the seeds' genotypes",
}


def write_report(folder: StudyFolder, failed: Mapping[str, str]) -> dict[str, Any]:
    """Writes report.html, report.md and report.json into the folder of a study.

    Args:
        folder: of the study.
        failed: the runs that failed, with the reasons.

    Returns:
        What report.json holds, with `files`, the paths by name.

    Raises:
        RunError: an arm has less than two runs, or the disk is full.
    """
    result = analyse(folder, failed)
    study = folder.study()
    drawn = _draw(folder, study, result)
    cells = _draw_cells(folder, study, result)
    write_json(folder.path / "report.json", result)
    atomic_write(folder.path / "report.md", _render("report.md", study, result, folder, drawn, cells))
    atomic_write(folder.path / "report.html", _render("report.html", study, result, folder, drawn, cells))
    files = {name: str(folder.path / name) for name in ("report.html", "report.md", "report.json")}
    return {**result, "files": files}


def _render(
    template: str,
    study: Study,
    result: Mapping[str, Any],
    folder: StudyFolder,
    drawn: Mapping[str, Path],
    cells: Mapping[str, Mapping[str, Path]],
) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_PAGE),
        autoescape=template.endswith(".html"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "fixed": lambda value, places=2: "–" if value is None else f"{value:.{places}f}",
        "percent": lambda value: "–" if value is None else f"{100 * value:.0f} %",
        "count": _count,
        "seconds": _seconds,
        "p": probability,
        "inline": _inline,
        "relative": lambda path: path.relative_to(folder.path).as_posix(),
    }
    text = environment.get_template(template).render(
        **{**result, "study": study}, pictures=drawn, titles=_TITLES, cells=cells
    )
    return text.rstrip() + "\n"


def _draw(folder: StudyFolder, study: Study, result: Mapping[str, Any]) -> dict[str, Path]:
    """Draws the curves; returns the pictures by name."""
    place = folder.path / "pictures"
    names = [arm["name"] for arm in result["arms"]]
    drawn = {name: place / f"{name}.svg" for name in ("samples", "sizes")}
    samples = {name: [run["accuracy"] for run in result["runs"] if run["arm"] == name] for name in names}
    pictures.draw_samples(samples, drawn["samples"])
    pictures.draw_sizes(result["runs"], names, drawn["sizes"])
    if result["repeats"]:
        drawn["repeats"] = place / "repeats.svg"
        repeats = {one["arm"]: one["accuracies"] for one in result["repeats"]}
        pictures.draw_repeats(repeats, drawn["repeats"])
    if curves := incumbents(result):
        drawn["incumbents"] = place / "incumbents.svg"
        pictures.draw_incumbents(curves, drawn["incumbents"])
    histories = _histories(folder, study, result)
    if histories:
        drawn["preferences"] = place / "preferences.svg"
        pictures.draw_preferences(histories, study.base().space, drawn["preferences"])
    rows = [
        (f"{arm['name']}: {kind}", found["share"], found["by_chance"])
        for arm in result["arms"]
        for kind, found in arm["agreement"].items()
    ]
    if rows:
        drawn["agreement"] = place / "agreement.svg"
        pictures.draw_agreement(rows, drawn["agreement"])
    return drawn


def _histories(
    folder: StudyFolder, study: Study, result: Mapping[str, Any]
) -> dict[str, dict[str, np.ndarray]]:
    """Logits of all seeds by arm and kind of cell; arms that took the search of another are left out."""
    space = study.base().space
    shape = (space.edge_count, len(space.operations))
    found: dict[str, dict[str, np.ndarray]] = {}
    for arm in study.searched():
        if study.arm_config(arm).space.operations != space.operations:
            continue
        runs = [run for run in result["runs"] if run["arm"] == arm and run["search_of"] is None]
        by_kind: dict[str, list[np.ndarray]] = {}
        for run in runs:
            path = folder.run_path(run["name"]) / "search" / "logits.npz"
            for kind, values in read_npz(path, f"logits {path}", "a search writes such files").items():
                if kind in ("normal", "reduction") and values.ndim == 3 and values.shape[1:] == shape:
                    by_kind.setdefault(kind, []).append(values)
        if by_kind:
            found[arm] = {kind: np.stack(values) for kind, values in by_kind.items()}
    return found


def _draw_cells(folder: StudyFolder, study: Study, result: Mapping[str, Any]) -> dict[str, dict[str, Path]]:
    """Draws the cells of the run of each searched arm that stands in the middle by accuracy."""
    found = {}
    for arm in study.searched():
        runs = sorted(
            (run for run in result["runs"] if run["arm"] == arm),
            key=lambda run: (run["accuracy"], run["name"]),
        )
        name = runs[(len(runs) - 1) // 2]["name"]
        genotype = Genotype.load(Run.open(folder.run_path(name)).file("genotype.json"))
        # A name that a search gave it, as random-3, may be that of another run here.
        genotype = dataclasses.replace(genotype, name=None)
        paths = {kind: folder.path / "pictures" / f"{name}-{kind}.svg" for kind in ("normal", "reduction")}
        for kind, path in paths.items():
            if kind == "normal" or genotype.reduction is not None:
                draw_cell(genotype, kind, path)
        found[f"{arm} ({name})"] = {kind: path for kind, path in paths.items() if path.is_file()}
    return found


def _inline(path: Path) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def _count(value: float | None) -> str:
    if value is None:
        return "–"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.2f} {unit}"
    return f"{value:.0f}"


def _seconds(value: float | None) -> str:
    return "–" if value is None else duration(value)
