"""Figures over rounds, as all benchmarks compute and print them."""

from __future__ import annotations

import statistics


def spread(values: list[float]) -> dict[str, float]:
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def three(values: dict[str, float], digits: int = 2) -> str:
    """A spread as text: min / median / max."""
    return " / ".join(f"{values[key]:.{digits}f}" for key in ("min", "median", "max"))
