"""The result of a benchmark as a table and as a CSV file."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gdas_tf.files import atomic_write


def format_table(result: dict[str, Any]) -> str:
    """Returns the result of `benchmark_models` as a table for the terminal."""
    files = {item["file"]: item for item in result["files"]}
    compared, providers = len(files) > 1, len({item["provider"] for item in result["measurements"]}) > 1
    header = [
        "file",
        *(["provider"] if providers else []),
        "threads",
        "batch",
        "p50 ms",
        "interval",
        "p95",
        "p99",
    ]
    header += ["images/s", *(["speed", "interval"] if compared else []), "peak MiB", "file MiB", "accuracy"]
    rows = [header]
    for item in result["measurements"]:
        about = files[item["file"]]
        row = [item["file"], *([item["provider"].removesuffix("ExecutionProvider")] if providers else [])]
        row += [str(item["threads"] or "all"), str(item["batch_size"]), _figure(item["p50_ms"])]
        row += [_interval(item["p50_interval_ms"]), _figure(item["p95_ms"]), _figure(item["p99_ms"])]
        row += [_figure(item["images_per_second"])]
        if compared:
            row += [f"{item['speed']:.2f}", _interval(item["speed_interval"], 2)]
        row += [_figure(item["peak_mib"]), f"{about['bytes'] / 2**20:.2f}"]
        row += [f"{about['accuracy']:.2%}" if about.get("accuracy") is not None else "-"]
        rows.append(row)
    if all(row[-1] == "-" for row in rows[1:]):
        rows = [row[:-1] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if not i else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    notes = [
        f"{item['file']}: accuracy not measured: {item['note']}"
        for item in result["files"]
        if item.get("note")
    ]
    images = {item["images"] for item in result["files"] if item.get("images")}
    if images:
        notes.insert(0, f"accuracy: on {' or '.join(map(str, sorted(images)))} test images")
    if compared:
        notes.insert(0, f"speed: against {result['files'][0]['file']}, in the same round")
    return "\n".join([*lines, *notes])


def write_csv(result: dict[str, Any], path: str | Path) -> None:
    """Writes the measurements as CSV, one line for each file and setting.

    Raises:
        RunError: the disk is full or read-only.
    """
    files = {item["file"]: item for item in result["files"]}
    text = io.StringIO()
    writer = None
    for item in result["measurements"]:
        row = {}
        for key, value in item.items():
            if key.endswith(("interval", "interval_ms")):
                row[f"{key}_low"], row[f"{key}_high"] = value or (None, None)
            else:
                row[key] = value
        row |= {key: files[item["file"]].get(key) for key in ("bytes", "accuracy")}
        if writer is None:
            writer = csv.DictWriter(text, list(row), lineterminator="\n")
            writer.writeheader()
        writer.writerow(row)
    atomic_write(path, text.getvalue())


def _figure(value: float | None) -> str:
    """Returns a number with three digits that count."""
    if value is None:
        return "-"
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if 0 < value < 100 else f"{value:.0f}"


def _interval(bounds: Sequence[float] | None, digits: int | None = None) -> str:
    if bounds is None:
        return "-"
    return "-".join(f"{value:.{digits}f}" if digits is not None else _figure(value) for value in bounds)
