"""Definitions of studies: arms, seeds, shared searches, and what is refused."""

from __future__ import annotations

import pytest

from gdas_tf.errors import UsageError
from gdas_tf.studies.built_in import STUDIES, built_in
from gdas_tf.studies.grid import Study, cells, slug
from gdas_tf.studies.work import draw

ARMS = {"a": {}, "random": {"cells": "random"}}


@pytest.mark.parametrize("name", list(STUDIES))
def test_every_study_that_has_a_name_can_be_run(name: str) -> None:
    study = built_in(name)
    found = cells(study)
    assert len({cell.name for cell in found}) == len(found)
    assert study.pairs() or study.repeated()
    assert any(cell.random for cell in found)


def test_table3_searches_once_for_three_ranks() -> None:
    found = {
        cell.name: cell for cell in cells(built_in("table3").model_copy(update={"seeds": 2, "random": 2}))
    }
    assert [name for name, cell in found.items() if not cell.random and cell.search_of is None] == [
        "frc-ranks-1-2-1",
        "frc-ranks-1-2-2",
    ]
    first, other = found["frc-ranks-1-2-2"], found["frc-ranks-3-4-2"]
    assert other.search_of == first.name
    assert other.config.seed == first.config.seed
    assert other.config.derive.ranks == (3, 4)
    assert other.config.search == first.config.search


def test_arms_take_turns() -> None:
    study = Study(name="s", arms=ARMS, seeds=2, random=3)
    assert [cell.name for cell in cells(study)] == ["a-1", "random-1", "a-2", "random-2", "random-3"]


def test_seeds_come_from_one_and_stay_when_runs_or_arms_are_added() -> None:
    few = {cell.name: cell.config.seed for cell in cells(Study(name="s", arms=ARMS, seeds=2, random=2))}
    more = cells(Study(name="s", arms={"new": {"search.epochs": 3}, **ARMS}, seeds=4, random=6))
    assert few.items() <= {cell.name: cell.config.seed for cell in more}.items()
    assert len(set(few.values())) == len(few)
    other = cells(Study(name="s", arms=ARMS, seeds=2, random=2, seed=1))
    assert not set(few.values()) & {cell.config.seed for cell in other}


def test_sections_and_dotted_names_mean_the_same(tmp_path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "config: {search: {epochs: 3}, data.name: digits}\n"
        "arms:\n  direct: {search: {sampler: direct}, derive.ranks: [2, 3]}\n  random: {cells: random}\n"
    )
    study = Study.from_file(path)
    assert study.name == "mine"
    config = study.arm_config("direct")
    assert (config.search.epochs, config.search.sampler, config.derive.ranks) == (3, "direct", (2, 3))
    assert study.pairs() == (("direct", "random"),)


def test_a_study_that_is_written_and_read_is_the_same() -> None:
    study = built_in("table1")
    assert Study(**study.model_dump(mode="json")) == study


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("arms: {a: {}}\nsedes: 3\n", "unknown key 'sedes'; did you mean seeds?"),
        ("arms: {a: {}}\nseeds: 1\n", "seeds: found 1; it must be at least 2, as one run has no spread"),
        ("name: x\n", "arms is missing"),
        ("arm: {a: {}}\n", "unknown key 'arm'; did you mean arms?"),
        ("arms: {}\n", "arms: found {}; accepted are names with changes of the configuration"),
        ("arms: [a, b]\n", "arms: found ['a', 'b']; accepted are names with changes"),
        ("arms: {a: {}, b: {}}\nquestions: [a, b]\n", "questions: found a; accepted are pairs of arms"),
        ("arms: {a: {}, b: {}}\nquestions: [[a]]\n", "questions: found ['a']; accepted are pairs of arms"),
        ("arms: {a: {}}\nseeds: many\n", "seeds: found 'many'"),
        ("arms: {a: 3}\n", "arm a: found 3; accepted are changes of the configuration"),
        ("arms: {a: {cells: rnadom}}\n", "found 'rnadom'; accepted: 'searched' or 'random'"),
        ("arms: {a: {}, A: {}}\n", "'a' and 'A' would have folders of one name"),
        ("arms: {a: {}}\nquestions: [[a, b]]\n", "there is no arm 'b'"),
        ("arms: {a: {}}\nquestions: [[a, a]]\n", "compared with itself"),
        ("arms: {a: {}}\narms: {b: {}}\n", "'arms' stands twice"),
        ("arms: {a: {}, b: {same_as: a}}\n", "arm b: found same_as 'a'; it goes with cells: random"),
        (
            "arms: {a: {cells: random}, b: {cells: random, same_as: c}}\n",
            "arms of random cells of their own (a)",
        ),
        ("arms: {a: {cells: random, same_as: a}}\n", "own (there are none)"),
        ("arms: {a: {cells: random, same_as: 3}}\n", "arms.a.same_as: found '3'"),
        ("[1, 2]\n", "it must hold name, arms and so on"),
    ],
)
def test_a_file_that_is_no_study_is_refused(tmp_path, text: str, message: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match="study file .*study.yaml: ") as error:
        Study.from_file(path)
    assert message in str(error.value)


def test_a_field_that_is_none_is_refused_with_the_arm() -> None:
    study = Study(name="s", arms={"a": {"search.epoch": 3}})
    with pytest.raises(UsageError, match="arm a: unknown configuration field 'search.epoch'; did you mean"):
        cells(study)
    with pytest.raises(UsageError, match="config: search.epochs: found 0"):
        Study(name="s", arms=ARMS, config={"search.epochs": 0}).base()


def test_an_unknown_study_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="study 'table2': there is no study, YAML file.*did you mean table"):
        built_in("table2")


def test_names_of_folders_are_plain() -> None:
    assert slug("FRC, ranks 1,2") == "frc-ranks-1-2"


def test_cells_that_are_trained_again_are_the_same_and_their_seeds_are_not() -> None:
    found = cells(built_in("noise"))
    first, again = ([cell for cell in found if cell.arm == arm] for arm in ("random", "again"))
    assert [draw(cell) for cell in first] == [draw(cell) for cell in again]
    assert len({draw(cell).to_text() for cell in first}) == len(first) == 16
    assert len({cell.config.seed for cell in found}) == 32
    assert [cell.drawn_by for cell in first] == [cell.config.seed for cell in first]


def test_cells_that_are_trained_again_are_compared_with_no_search() -> None:
    arms = {"search": {}, "random": {"cells": "random"}, "again": {"cells": "random", "same_as": "random"}}
    study = Study(name="s", arms=arms)
    assert study.pairs() == (("search", "random"),)
    assert study.repeated() == {"random": ["again"]}
    assert Study(**study.model_dump(mode="json")) == study
    other = {**arms, "again": {**arms["again"], "search.space": "nasbench201"}}
    with pytest.raises(
        UsageError, match="arm again: its cells are those of random, so its search space must"
    ):
        Study(name="s", arms=other).arm_config("again")
