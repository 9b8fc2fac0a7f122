"""What a report says beside its tests: the best random cell, chosen by the validation part; and warnings."""

from __future__ import annotations

import pytest

from gdas_tf.files import write_json
from gdas_tf.studies.analysis import _hard, _repeats, _warnings, incumbents
from gdas_tf.studies.folder import StudyFolder
from gdas_tf.studies.grid import Study
from gdas_tf.studies.sentences import not_asked

STUDY = Study(name="one", arms={"search": {}, "random": {"cells": "random"}})


def run(arm: str, accuracy: float, val_loss: float | None, search: float = 0.0) -> dict:
    return {
        "arm": arm,
        "accuracy": accuracy,
        "val_loss": val_loss,
        "search_seconds": search,
        "training_seconds": 10.0,
    }


def by_arm(*val_losses: float | None) -> dict[str, list[dict]]:
    """Two searches as long as two trainings, and three random cells, the first the worst on test images."""
    return {
        "search": [run("search", 80.0, 0.5, search=20.0), run("search", 82.0, 0.4, search=20.0)],
        "random": [
            run("random", accuracy, loss)
            for accuracy, loss in zip((70.0, 75.0, 79.0), val_losses, strict=True)
        ],
    }


@pytest.mark.parametrize(
    "val_losses, best", [((0.3, 0.2, 0.1), 79.0), ((0.1, 0.2, 0.3), 70.0), ((0.3, 0.1, 0.2), 75.0)]
)
def test_the_best_random_cell_is_chosen_by_the_validation_loss(val_losses, best: float) -> None:
    found = _hard(STUDY, by_arm(*val_losses))[0]
    assert found["draws"] == 3  # a search and its training take as long as three trainings
    assert found["difference"] == pytest.approx(81.0 - best)
    assert found["interval"][0] < found["difference"] < found["interval"][1]


def test_a_best_of_more_cells_than_there_are_is_not_called_beaten() -> None:
    runs = by_arm(0.3, 0.2, 0.1)
    accuracies = {"search": (95.0, 95.1), "random": (79.0, 79.1, 79.2)}
    for arm, values in accuracies.items():
        for one, accuracy in zip(runs[arm], values, strict=True):
            one["accuracy"] = accuracy
    assert "the search beat it" in _hard(STUDY, runs)[0]["sentence"]
    for one in runs["search"]:
        one["search_seconds"] = 30.0
    (found,) = _hard(STUDY, runs)
    assert (found["draws"], found["of"]) == (4, 3) and found["interval"][0] > 0
    assert "nothing is claimed, as there are 3 random cells" in found["sentence"]


def test_intervals_against_the_best_are_wider_where_there_are_several() -> None:
    runs = by_arm(0.3, 0.2, 0.1)
    both = {"search": {}, "other": {"search.epochs": 3}, "random": {"cells": "random"}}
    several = _hard(Study(name="two", arms=both), {**runs, "other": runs["search"]})
    assert [one["level"] for one in several] == [0.975, 0.975]
    assert "97.5 % interval" in several[0]["sentence"]
    (alone,) = _hard(STUDY, runs)
    assert alone["level"] == 0.95 and "95 % interval" in alone["sentence"]
    assert several[0]["interval"][0] < alone["interval"][0] < alone["interval"][1] < several[0]["interval"][1]


def test_the_incumbent_is_the_one_of_the_least_validation_loss() -> None:
    runs = by_arm(0.1, 0.2, 0.3)
    arms = [
        {"name": name, "search_seconds": 0.0, "training_seconds": 10.0 * (number + 1)}
        for number, name in enumerate(runs)
    ]
    curves = incumbents({"arms": arms, "runs": [one for found in runs.values() for one in found]})
    assert curves["search"] == [(10.0, pytest.approx(81.0)), (20.0, pytest.approx(82.0))]
    # The mean of all; two of three, of whom the first is among two times out of three; the first.
    expected = [224 / 3, (70.0 + 70.0 + 75.0) / 3, 70.0]
    assert curves["random"] == [(20.0 * (n + 1), pytest.approx(value)) for n, value in enumerate(expected)]


def test_without_a_validation_part_the_question_is_not_asked() -> None:
    assert _hard(STUDY, by_arm(None, None, None)) == []
    assert "retrain.validation" in not_asked(STUDY)
    assert not_asked(Study(name="one", arms={"a": {}, "b": {}})) is None


def test_seeds_that_do_not_agree_are_warned_of() -> None:
    def arm(normal: float, reduction: float) -> dict:
        found = {"share": 0.2, "by_chance": 0.17}
        kinds = {"normal": normal, "reduction": reduction}
        return {
            "name": "search",
            "agreement": {kind: {**found, "probability": p} for kind, p in kinds.items()},
        }

    assert _warnings(STUDY, [arm(0.01, 0.049), {"name": "random", "agreement": {}}], []) == []
    (line,) = _warnings(STUDY, [arm(0.3, 0.01)], [])
    assert "reduction" not in line
    (line,) = _warnings(STUDY, [arm(0.3, 0.4)], [])
    assert "(p = 0.300); reduction cells of two seeds have 20 %" in line
    assert line.startswith("No evidence that the seeds of the search agree: normal cells of two seeds have")
    assert "20 % of their edges in common, random ones 17 % (p = 0.300)" in line


def test_runs_that_were_added_after_a_report_are_told(tmp_path) -> None:
    folder = StudyFolder(tmp_path)

    def report(seeds: int, random: int) -> list[str]:
        """Reports on so many runs; returns the warnings."""
        study = STUDY.model_copy(update={"seeds": seeds, "random": random})
        folder.write(study)
        earlier = folder.earlier_reports()
        planned = {"seeds": seeds, "random": random}
        write_json(tmp_path / "report.json", {"study": planned, "verdict": "No.", "earlier": earlier})
        return _warnings(study, [], earlier)

    assert report(3, 6) == report(3, 6) == []
    assert "then: 3 and 6; now 5 and 6" in report(5, 6)[0]
    assert "then: 3 and 6; now 5 and 6" in report(5, 6)[0]  # again, with no more runs
    assert "then: 3 and 6, 5 and 6; now 5 and 9" in report(5, 9)[0]
    for damaged in ("{", "[]", '{"study": []}'):
        (tmp_path / "report.json").write_text(damaged)
        assert folder.earlier_reports() == []


def test_what_is_the_cells_is_counted_over_the_cells_that_all_arms_have() -> None:
    arms = {"random": {"cells": "random"}, "again": {"cells": "random", "same_as": "random"}}
    study = Study(name="noise", arms=arms)

    def runs(*accuracies: float, own: bool = False) -> list[dict]:
        facts = {"own_test_images": own, "images": 400}
        return [{"number": number, "accuracy": one, **facts} for number, one in enumerate(accuracies, 1)]

    first, again = runs(60.0, 70.0, 80.0, 10.0), runs(61.0, 69.0, 80.5)
    (found,) = _repeats(study, {"random": first, "again": again})
    assert found["accuracies"] == [[60.0, 61.0], [70.0, 69.0], [80.0, 80.5]]
    assert found["sentence"].startswith("Random cells differ by more than the seed of their training (100 %")
    assert "n = 3 cells, 2 trainings each" in found["sentence"]
    assert found["gain"] == pytest.approx(2.5076 * found["cell"], rel=1e-4)
    assert _repeats(study, {"random": first, "again": again[:1]}) == []
    (found,) = _repeats(study, {"random": first[:3], "again": runs(80.0, 61.0, 69.0)})
    assert found["sentence"].startswith("No evidence that random cells differ by more than the seed")
    assert found["by_test_images"] is None
    drawn = {arm: runs(80.0, 80.0, 80.0, own=True) for arm in ("random", "again")}
    assert _repeats(study, drawn)[0]["by_test_images"] == pytest.approx(2.0)  # 100 sqrt(0.8 0.2 / 400)
