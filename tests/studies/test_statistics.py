"""Statistics of studies: known answers, simulation, and real random cells."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from gdas_tf.errors import UsageError
from gdas_tf.studies.statistics import (
    against_best,
    best_of,
    compare,
    detectable,
    hedges,
    holm,
    power,
    summarize,
)

# Student's sleep data (Biometrika 1908): R gives t.test(a, b) p = 0.07939, interval -3.3654832 to 0.2054832,
# and t.test(a, b, paired = TRUE) p = 0.002833, interval -2.4598858 to -0.7001142.
SLEEP = (
    (0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0),
    (1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4),
)


def test_welch_is_that_of_a_known_case() -> None:
    found = compare(*SLEEP)
    assert found.difference == pytest.approx(-1.58)
    assert found.welch == pytest.approx(0.07939, abs=1e-5)
    assert found.interval == pytest.approx((-3.3654832, 0.2054832), abs=1e-6)


def test_pairs_are_compared_as_pairs() -> None:
    found = compare(*SLEEP, paired=True)
    assert found.welch == pytest.approx(0.002833, abs=1e-6)
    assert found.interval == pytest.approx((-2.4598858, -0.7001142), abs=1e-6)
    # Nine differences of one sign and a zero, which counts with both signs: 4 of 1024 sums are as far out.
    assert found.permutation == pytest.approx(4 / 1024)


def test_the_permutation_test_counts_all_relabellings() -> None:
    # Of the 20 ways to choose 3 of 6, this one and its mirror image are the furthest apart.
    assert compare([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]).permutation == pytest.approx(2 / 20)


def test_samples_without_spread_are_compared() -> None:
    assert compare([1.0, 1.0], [1.0, 1.0]).welch == 1.0
    assert compare([2.0, 2.0], [1.0, 1.0]).welch == 0.0
    assert compare([2.0, 2.0], [1.0, 1.0]).effect is None


def test_fewer_than_two_values_are_refused() -> None:
    with pytest.raises(UsageError, match="found 1 and 2 values; at least two of each"):
        compare([1.0], [1.0, 2.0])


def test_holm_multiplies_by_the_number_that_is_left_and_never_falls() -> None:
    # The example of R's p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm").
    assert holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])
    assert holm([0.03, 0.01, 0.9]) == pytest.approx([0.06, 0.03, 0.9])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_effect_is_hedges_g() -> None:
    # Means 3 and 1 of deviation 1 each: d = 2, times J(4) = sqrt(2) Γ(2) / (2 Γ(1.5)) = 0.7979.
    a, b = [2.0, 3.0, 4.0], [0.0, 1.0, 2.0]
    assert hedges(a, b) == pytest.approx(2 * 0.797885, abs=1e-5)


def test_the_interval_of_a_mean_is_students() -> None:
    found = summarize([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (found.n, found.mean) == (5, 3.0)
    assert found.deviation == pytest.approx(1.5811388)
    assert found.interval == pytest.approx((3 - 1.9632432, 3 + 1.9632432), abs=1e-6)  # 2.776445 * s / sqrt 5
    assert summarize([1.0]).interval is None


def decided(first: np.ndarray, second: np.ndarray, paired: bool = False) -> np.ndarray:
    """The decisive p of many draws at once, [draws, values] each."""
    from scipy import stats

    if paired:
        return stats.ttest_rel(first, second, axis=1).pvalue
    tests = (stats.ttest_ind(first, second, axis=1, equal_var=equal) for equal in (False, True))
    return np.maximum(*(test.pvalue for test in tests))


def test_the_larger_one_of_two_tests_decides_and_gives_the_interval() -> None:
    from scipy import stats

    generator = np.random.default_rng(3)
    by_student = 0
    for _ in range(20):
        a, b = generator.standard_normal(3), generator.standard_normal(8)
        found = compare(a, b)
        assert found.decisive == max(found.welch, found.student) == decided(a[None], b[None])[0]
        by_student += found.student > found.welch
        test = stats.ttest_ind(a, b, equal_var=found.student > found.welch)
        assert found.interval == tuple(test.confidence_interval(0.95))
        assert (found.decisive < 0.05) == (not found.interval[0] < 0.0 < found.interval[1])
    assert 0 < by_student < 20


@pytest.mark.parametrize("alpha", [0.05, 0.01])
@pytest.mark.parametrize("sizes", [(5, 10), (3, 3), (4, 20), (2, 15)])
def test_the_power_statement_holds_in_a_simulation(sizes: tuple[int, int], alpha: float) -> None:
    difference, draws = detectable(*sizes, alpha=alpha), 20_000
    generator = np.random.default_rng(0)
    a = generator.standard_normal((draws, sizes[0])) + difference
    b = generator.standard_normal((draws, sizes[1]))
    margin = 4 * np.sqrt(0.8 * 0.2 / draws)
    assert np.mean(decided(a, b) < alpha) == pytest.approx(0.8, abs=margin)
    none = power(0.0, *sizes, alpha=alpha)
    assert np.mean(decided(a - difference, b) < alpha) == pytest.approx(none, abs=margin / 2)
    assert none < alpha


@pytest.mark.parametrize("pairs", [2, 4, 10])
def test_the_power_of_pairs_holds_in_a_simulation(pairs: int) -> None:
    difference, draws = detectable(pairs, pairs, paired=True), 20_000
    a = np.random.default_rng(0).standard_normal((draws, pairs)) + difference
    seen = np.mean(decided(a, np.zeros_like(a), paired=True) < 0.05)
    assert seen == pytest.approx(0.8, abs=4 * np.sqrt(0.8 * 0.2 / draws))
    assert power(0.0, pairs, pairs, paired=True) == pytest.approx(0.05, abs=1e-6)


def test_a_large_difference_is_seen() -> None:
    assert power(30.0, 5, 10) == pytest.approx(1.0)
    assert power(0.0, 200, 200) == pytest.approx(0.05, abs=1e-3)


def test_the_best_of_some_is_that_of_all_ways_to_draw_them() -> None:
    import itertools

    values = [3.0, 1.0, 4.0, 1.5, 9.0]
    for draws in (1, 2, 4, 5):
        ways = [max(chosen) for chosen in itertools.combinations(values, draws)]
        assert best_of(values, draws) == pytest.approx(np.mean(ways))
    ways = [max(chosen) for chosen in itertools.product(values, repeat=7)]
    assert best_of(values, 7) == pytest.approx(np.mean(ways))


def test_the_best_is_chosen_by_one_measure_and_counted_by_another() -> None:
    assert best_of([1.0, 2.0, 3.0], 3, selected_by=[9.0, 1.0, 2.0]) == 1.0
    # Equal ones are as good as each other, in whatever order they stand.
    assert (
        best_of([1.0, 3.0], 2, selected_by=[5.0, 5.0])
        == best_of([3.0, 1.0], 2, selected_by=[5.0, 5.0])
        == 2.0
    )


def test_a_selection_that_knows_nothing_gains_nothing() -> None:
    generator = np.random.default_rng(1)
    found = [best_of(generator.standard_normal(20), 10, generator.standard_normal(20)) for _ in range(2000)]
    assert np.mean(found) == pytest.approx(0.0, abs=4 / np.sqrt(2000))


def test_the_interval_against_the_best_covers_the_truth() -> None:
    generator = np.random.default_rng(2)
    truth = -1.0293754  # the mean of a normal less the expected best of 4 (Harter 1961)
    covered, draws = 0, 40
    for number in range(draws):
        a, b = generator.standard_normal(8), generator.standard_normal(12)
        _, (low, high) = against_best(a, b, 4, seed=number)
        covered += low < truth < high
    assert covered >= 32  # 95 % of 40 are 38; fewer than 32 come by chance once in ten thousand


@pytest.mark.filterwarnings("ignore:Precision loss occurred")  # where two real cells are equally good
def test_random_cells_are_not_called_different(shared) -> None:
    """Two samples of 214 real random cells differ by chance alone: 5 % at most are called different."""
    with open(shared / "data" / "darts_space" / "random214.csv", newline="") as file:
        values = np.array([float(row["best_test_acc"]) for row in csv.DictReader(file)])
    assert len(values) == 214
    generator, draws = np.random.default_rng(0), 20_000
    for first, second in ((5, 10), (3, 6), (4, 4), (2, 15), (4, 20)):
        chosen = np.argsort(generator.random((draws, len(values))), axis=1)[:, : first + second]
        drawn = values[chosen]
        assert np.mean(decided(drawn[:, :first], drawn[:, first:]) < 0.05) <= 0.05
