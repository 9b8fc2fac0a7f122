"""What a study has found, as sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gdas_tf.studies.grid import Study
from gdas_tf.studies.statistics import ALPHA


def label(study: Study, arm: str) -> str:
    """Returns what to call an arm in a sentence."""
    if study.drawn() == [arm]:
        return "the mean random cell"
    return "the search" if arm == "search" else f"“{arm}”"


def sentence(study: Study, found: Mapping[str, Any]) -> str:
    """Returns the answer to a question: what differs from what, and by how much, or that nothing shows."""
    first, second = label(study, found["first"]), label(study, found["second"])
    points = found["difference"]
    numbers = brackets(found)
    random = study.arms[found["second"]].cells == "random"
    if found["p"] < ALPHA:
        verb = ("beat" if points > 0 else "was worse than") if random else "was better than"
        if points < 0 and not random:
            first, second = second, first
        return f"{_capital(first)} {verb} {second} by {abs(points):.2f} points ({numbers})."
    if random:
        claim = f"No evidence that {first} beats {second}"
        how = f"it was {abs(points):.2f} points {'better' if points >= 0 else 'worse'}"
    else:
        claim = f"No evidence that {first} and {second} differ"
        how = f"{first} was {abs(points):.2f} points {'better' if points >= 0 else 'worse'}"
    return f"{claim}: {how} ({numbers})."


def brackets(found: Mapping[str, Any]) -> str:
    """Returns interval, p and numbers of a comparison."""
    low, high = found["interval"]
    corrected = f" after Holm's correction for {found['of']} comparisons" if found["of"] > 1 else ""
    n = f"n = {found['n'][0]} pairs" if found["paired"] else f"n = {found['n'][0]} and {found['n'][1]}"
    return f"95 % interval {low:.2f} to {high:.2f}, {probability(found['p'])}{corrected}, {n}"


def hard_sentence(study: Study, found: Mapping[str, Any]) -> str:
    """Returns how a search stands against the best of as many random cells as the same compute buys."""
    first, points, (low, high) = label(study, found["first"]), found["difference"], found["interval"]
    cells = f"the best of {found['draws']} random cells" if found["draws"] > 1 else "a single random cell"
    how = f"{abs(points):.2f} points {'better' if points >= 0 else 'worse'}"
    numbers = f"{100 * found['level']:.3g} % interval {low:.2f} to {high:.2f} by bootstrap"
    if low > 0 and found["draws"] > found["of"]:
        verdict = f"nothing is claimed, as there are {found['of']} random cells, whose best is worse"
    elif low > 0:
        verdict = f"{first} beat it"
    elif high < 0:
        verdict = f"{first} is beaten"
    else:
        verdict = f"no evidence that {first} beats it"
    return f"Against {cells}, which the same compute buys: {verdict}; it was {how} ({numbers})."


def repeated_sentence(found: Mapping[str, Any]) -> str:
    """Returns how much of the spread of random cells is the cell's, and what a search could gain by it."""
    claim = "Random cells differ by more than the seed of their training"
    if found["p"] >= ALPHA:
        claim = f"No evidence that {_small(claim)}"
    low, high = (f"{100 * end:.0f}" for end in found["interval"])
    return (
        f"{claim} ({100 * found['share']:.0f} % of the variance is the cell's, 95 % interval {low} to "
        f"{high} %, {probability(found['p'])}, n = {found['n']} cells, {found['trainings']} trainings each). "
        f"The best of {found['of']} cells would be {found['gain']:.2f} points above the mean, at most "
        f"{found['most_gain']:.2f} by that interval."
    )


def not_asked(study: Study) -> str | None:
    """Returns why searches were not compared with the best random cell; None if there are not both."""
    if not (study.searched() and study.drawn()):
        return None
    return (
        "Against the best of the random cells: not asked, as it is chosen by a validation part of the "
        "training, and there is none (retrain.validation)."
    )


def disagreement(study: Study, arm: str, agreement: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Returns a warning where the cells of an arm's seeds agree no better than random ones, or None.

    Args:
        study: the study.
        arm: the arm.
        agreement: `gdas_tf.studies.agreement.Agreement` as mappings, by the kind of cell.
    """
    parts = [
        f"{kind} cells of two seeds have {100 * found['share']:.0f} % of their edges in common, random ones "
        f"{100 * found['by_chance']:.0f} % ({probability(found['probability'])})"
        for kind, found in agreement.items()
        if found["probability"] >= ALPHA
    ]
    if not parts:
        return None
    return (
        f"No evidence that the seeds of {label(study, arm)} agree: {'; '.join(parts)}. Another seed may find "
        "quite another cell: take that of no single search for the best one."
    )


def grown(study: Study, earlier: Sequence[Mapping[str, Any]]) -> str | None:
    """Returns a warning where runs were added after a report was seen; None where none were."""
    if not earlier:
        return None
    seen = ", ".join(f"{one['seeds']} and {one['random']}" for one in earlier)
    return (
        f"Runs were added after a report was seen (seeds and random cells then: {seen}; now {study.seeds} "
        f"and {study.random}), so that p is smaller than it should be: whoever looks until a difference "
        "shows will find one. A new study with another seed would tell."
    )


def probability(p: float) -> str:
    """Returns `p = 0.004`, or `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _small(text: str) -> str:
    return text[:1].lower() + text[1:]
