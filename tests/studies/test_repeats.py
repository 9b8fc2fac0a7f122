"""What is the cell's and what the seed's: a published example, simulation, and samples without spread."""

from __future__ import annotations

import numpy as np
import pytest

from gdas_tf.errors import UsageError
from gdas_tf.studies.repeats import best_of_normal, components, seen_share


def test_the_share_of_the_cells_is_the_intraclass_correlation() -> None:
    # Shrout & Fleiss 1979, table 2: ICC(1,1) is .17; R's psych gives p 0.16477, and 0.72 as upper end.
    table = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    found = components(table)
    assert (found.n, found.trainings) == (6, 4)
    assert found.share == pytest.approx(0.1657, abs=1e-4)
    assert found.p == pytest.approx(0.16477, abs=1e-5)
    assert found.interval == (0.0, pytest.approx(0.7226, abs=1e-4))
    assert found.cell**2 / (found.cell**2 + found.seed**2) == pytest.approx(found.share)
    assert found.cell < found.most


def test_deviations_of_cells_and_of_seeds_are_found_again() -> None:
    generator = np.random.default_rng(4)
    cells = 2.0 * generator.standard_normal((3000, 1))
    found = components(cells + generator.standard_normal((3000, 2)))
    assert (found.cell, found.seed) == (pytest.approx(2.0, abs=0.1), pytest.approx(1.0, abs=0.05))
    assert found.interval[0] < 0.8 < found.interval[1] and found.p < 1e-6
    none = components(generator.standard_normal((3000, 2)))
    assert none.share < 0.05  # of 3,000 pairs it strays by 0.018


def test_trainings_without_spread_are_divided() -> None:
    assert components([[1.0, 1.0], [2.0, 2.0]]).share == 1.0
    assert components([[1.0, 1.0], [1.0, 1.0]]).share == 0.0
    with pytest.raises(UsageError, match="at least two cells and two trainings"):
        components([[1.0], [2.0]])


def test_the_share_that_is_seen_is_seen_in_a_simulation() -> None:
    share, draws = seen_share(10, 2), 3000
    generator = np.random.default_rng(5)
    cells = np.sqrt(share) * generator.standard_normal((draws, 10, 1))
    values = cells + np.sqrt(1 - share) * generator.standard_normal((draws, 10, 2))
    seen = np.mean([components(one).p < 0.05 for one in values])
    assert seen == pytest.approx(0.8, abs=4 * np.sqrt(0.8 * 0.2 / draws))


def test_the_best_of_normal_values_is_that_of_the_tables() -> None:
    assert best_of_normal(4) == pytest.approx(1.0293754, abs=1e-6)  # Harter 1961
    assert best_of_normal(100) == pytest.approx(2.5075936, abs=1e-6)
