"""Words that the messages about data share."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path


def listing(items: Sequence[object], most: int = 3) -> str:
    """Returns the first few items and how many more there are."""
    shown = ", ".join(map(str, items[:most]))
    return f"{shown} and {len(items) - most} more" if len(items) > most else shown


def by(shape: Sequence[int]) -> str:
    """Returns a shape as text: 32x32x3."""
    return "x".join(map(str, shape))


def one_line(error: Exception, most: int = 300) -> str:
    """Returns what an error says, on one line of at most so many characters; its kind if it says nothing."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= most else f"{text[:most]}…"


def seen_from(path: str | Path) -> str:
    """Returns what to add to "there is no such file" of a relative path, as of a run made from elsewhere."""
    if Path(path).is_absolute():
        return ""
    with contextlib.suppress(OSError):  # the folder is gone
        return f"; a relative path counts from the current folder, {Path.cwd()}"
    return ""
