"""Cells that were trained several times: how much of their spread is the cells', and how much the seeds'."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from gdas_tf.errors import UsageError
from gdas_tf.studies.statistics import ALPHA, LEVEL, POWER


@dataclasses.dataclass(frozen=True)
class Components:
    """The parts of the variance of networks.

    Attributes:
        n, trainings: number of cells, and of trainings of each.
        share: of the variance that is the cells', the intraclass correlation ICC(1), from 0 on.
        interval: of it.
        p: that cells which do not differ have shares as large or larger, by the F test.
        cell: standard deviation of the cells, without what their seeds add.
        seed: standard deviation of trainings of one cell.
        most: what `cell` is at the upper end of the interval.
    """

    n: int
    trainings: int
    share: float
    interval: tuple[float, float]
    p: float
    cell: float
    seed: float
    most: float


def components(values: Sequence[Sequence[float]]) -> Components:
    """Divides the variance of cells that were trained several times, by a one-way analysis of variance.

    The intraclass correlation and its interval are those of Shrout & Fleiss (Psychological Bulletin 1979),
    case 1.

    Args:
        values: of each cell that of each training, [n, trainings], at least two of both.

    Raises:
        UsageError: there are fewer than two cells or trainings.
    """
    from scipy import stats

    x = np.asarray(values, np.float64)
    if x.ndim != 2 or min(x.shape) < 2:
        raise UsageError(
            f"repeated trainings: found {x.shape}; at least two cells and two trainings are needed"
        )
    n, k = x.shape
    within = float(x.var(axis=1, ddof=1).mean())
    between = float(k * x.mean(axis=1).var(ddof=1))
    if within == 0.0:  # a ratio of variances is no number then
        share, p = (1.0, 0.0) if between > 0.0 else (0.0, 1.0)
        return Components(n, k, share, (share, share), p, math.sqrt(between / k), 0.0, math.sqrt(between / k))
    ratio, freedoms = between / within, (n - 1, n * (k - 1))
    ends = (
        ratio / stats.f.ppf(0.5 + LEVEL / 2, *freedoms),
        ratio * stats.f.ppf(0.5 + LEVEL / 2, *reversed(freedoms)),
    )
    share, low, high = (max(float((each - 1) / (each + k - 1)), 0.0) for each in (ratio, *ends))
    total = max((between - within) / k, 0.0) + within
    return Components(
        n,
        k,
        share,
        (low, high),
        float(stats.f.sf(ratio, *freedoms)),
        math.sqrt(share * total),
        math.sqrt(within),
        math.sqrt(high * total),
    )


def seen_share(n: int, trainings: int, wanted: float = POWER, alpha: float = ALPHA) -> float:
    """Returns the smallest share of the cells in the variance that the F test sees with a probability.

    Args:
        n, trainings: number of cells, and of trainings of each.
        wanted: the probability.
        alpha: largest probability to see one where there is none.
    """
    from scipy import stats

    freedoms = (n - 1, n * (trainings - 1))
    # The ratio of the variances is F times 1 + k share / (1 - share).
    factor = stats.f.isf(alpha, *freedoms) / stats.f.isf(wanted, *freedoms)
    return float((factor - 1) / (factor - 1 + trainings))


def best_of_normal(count: int) -> float:
    """Returns the expected largest of some standard normal values."""
    from scipy import integrate, stats

    def density(x: float) -> float:
        return x * count * stats.norm.pdf(x) * stats.norm.cdf(x) ** (count - 1)

    return float(integrate.quad(density, -10.0, 10.0)[0])
