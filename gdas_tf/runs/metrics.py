"""Files of metrics: one line of JSON per epoch, and the same as a table."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gdas_tf.errors import UsageError
from gdas_tf.files import atomic_write, plain, writing


def append_line(path: Path, values: Mapping[str, Any]) -> None:
    """Adds a line; NumPy values are converted.

    Raises:
        RunError: the disk is full; no half line is left behind.
    """
    line = (json.dumps(plain(values)) + "\n").encode()
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            try:
                if file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                file.truncate(end)
                raise


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Returns all lines; none of a file that is not there.

    Raises:
        UsageError: a line is damaged.
    """
    if not path.exists():
        return []
    result = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise UsageError(f"{path}, line {number}: damaged; found {line[:40]!r} instead of JSON")
        result.append(value)
    return result


def keep_lines(path: Path, count: int) -> None:
    """Keeps the first `count` lines; a file that has no more is not touched."""
    lines = read_lines(path)
    if len(lines) > count:
        atomic_write(path, "".join(json.dumps(line) + "\n" for line in lines[:count]))


def write_table(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Writes lines as CSV: a column for each name in any of them, empty where a line has none.

    Raises:
        RunError: the disk is full or read-only; the table before is intact.
    """
    text = io.StringIO()
    table = csv.DictWriter(text, list(dict.fromkeys(name for line in lines for name in line)))
    table.writeheader()
    table.writerows(lines)
    atomic_write(path, text.getvalue())
