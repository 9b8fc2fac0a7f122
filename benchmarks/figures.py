"""What the benchmarks have in common: figures over rounds, and where PyTorch is."""

from __future__ import annotations

import statistics
from pathlib import Path

BESIDE = Path(__file__).resolve().parents[2]
"""The folder that the repository lies in, and what it is compared with."""

TORCH_PYTHON = str(BESIDE / "venv-torch" / "bin" / "python")
"""The Python that README.md of this folder installs PyTorch into."""


def spread(values: list[float]) -> dict[str, float]:
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def three(values: dict[str, float], digits: int = 2) -> str:
    """A spread as text: min / median / max."""
    return " / ".join(f"{values[key]:.{digits}f}" for key in ("min", "median", "max"))
