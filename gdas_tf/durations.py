"""Durations as people write them: `8 s`, `3 min 20 s`, `2h`."""

from __future__ import annotations

import re

from gdas_tf.errors import UsageError


def duration(seconds: float) -> str:
    """Returns a duration as a person would say it: `8 s`, `3 min 20 s`, `2 h 5 min`."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def parse_duration(text: str) -> float:
    """Returns the seconds of a duration: `2h`, `90min`, `1h30min`, `600s`, `600`.

    Raises:
        UsageError: it is none.
    """
    units = {"h": 3600.0, "min": 60.0, "m": 60.0, "s": 1.0, "": 1.0, "d": 86400.0}
    compact = re.sub(r"\s+", "", text.lower())
    parts = re.findall(r"(\d+(?:\.\d+)?)(min|h|m|s|d)?", compact)
    seconds = sum(float(number) * units[unit] for number, unit in parts)
    if not parts or "".join(number + unit for number, unit in parts) != compact or seconds <= 0:
        raise UsageError(f"budget: found {text!r}; accepted are durations as 2h, 90min, 1h30min or 600s")
    return seconds
