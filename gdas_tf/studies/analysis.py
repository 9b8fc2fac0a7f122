"""Everything that the report of a study says, as plain values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gdas_tf.errors import RunError
from gdas_tf.files import read_json
from gdas_tf.pipeline.certainty import how_certain
from gdas_tf.runs.best_epoch import MEASURE, kept_line
from gdas_tf.runs.run import Run
from gdas_tf.spaces.genotype import Genotype
from gdas_tf.strategies.alarm import weightless
from gdas_tf.studies import sentences
from gdas_tf.studies.advice import advice, chosen
from gdas_tf.studies.agreement import agreement
from gdas_tf.studies.checklist import checklist
from gdas_tf.studies.folder import StudyFolder
from gdas_tf.studies.grid import FEWEST, Cell, Study, cells
from gdas_tf.studies.plan import what_it_sees
from gdas_tf.studies.published import beside_published
from gdas_tf.studies.repeats import best_of_normal, components
from gdas_tf.studies.statistics import ALPHA, against_best, best_of, compare, detectable, holm, summarize

_SEARCHED = 100  # cells, the best of which is what a search could find


def analyse(folder: StudyFolder, failed: Mapping[str, str]) -> dict[str, Any]:
    """Returns what a study has found.

    Args:
        folder: of the study.
        failed: the runs that failed, with the reasons.

    Raises:
        RunError: an arm has less than two measured runs.
    """
    study = folder.study()
    latency = folder.latency()
    runs = [_run(folder, study, cell, latency) for cell in cells(study) if folder.measured(cell) is not None]
    by_arm = {arm: [run for run in runs if run["arm"] == arm] for arm in study.arms}
    for arm, found in by_arm.items():
        if len(found) < FEWEST:
            reason = next((failed[name] for name in failed), "they are not done yet")
            raise RunError(
                f"study {folder.path}: arm {arm} has {len(found)} of {study.runs(arm)} runs; at least "
                f"{FEWEST} are needed for a report ({reason})"
            )
    comparisons = _comparisons(study, by_arm)
    hard = _hard(study, by_arm)
    arms = [_arm(study, arm, found) for arm, found in by_arm.items()]
    repeats = _repeats(study, by_arm)
    earlier = folder.earlier_reports()
    result: dict[str, Any] = {
        "study": {name: getattr(study, name) for name in ("name", "about", "seed", *folder.may_grow)},
        "verdict": (comparisons or repeats or [{"sentence": _best_arm(by_arm)}])[0]["sentence"],
        "hard_verdict": hard[0]["sentence"] if hard else sentences.not_asked(study),
        "sees": what_it_sees(study),
        "plan": folder.plan(),
        "earlier": earlier,
        "warnings": _warnings(study, arms, earlier),
        "arms": arms,
        "comparisons": comparisons,
        "against_best": hard,
        "repeats": repeats,
        "chosen": chosen(runs),
        "runs": runs,
        "failed": dict(failed),
        "published": beside_published(study, by_arm),
        "changed_from_preset": _settings(study),
    }
    result["advice"] = advice(folder, study, result)
    result["surroundings"] = _surroundings(folder, study)
    result["checklist"] = checklist(study, result)
    return result


def _run(folder: StudyFolder, study: Study, cell: Cell, latency: Mapping[str, float]) -> dict[str, Any]:
    """What there is to say of one run."""
    path = folder.run_path(cell)
    run, measured = Run.open(path), folder.measured(cell)
    genotype = Genotype.load(run.file("genotype.json"))
    searching = [] if cell.random else run.metrics("search")
    training = run.metrics("retrain")
    result = {
        "name": cell.name,
        "arm": cell.arm,
        "number": cell.number,
        "random": cell.random,
        "seed": cell.config.seed,
        "genotype": genotype.to_text(),
        "search_of": cell.search_of,
        "accuracy": 100.0 * measured["accuracy"],
        "val_loss": kept_line(training, run.config.retrain.keep).get(MEASURE),
        **{
            key: measured[key] for key in ("images", "loss", "parameters", "multiply_adds", "own_test_images")
        },
        **{key: measured[key] for key in ("data", "image_shape", "classes", "training_images")},
        "latency_ms": latency.get(cell.name),
        "search_seconds": sum(line["seconds"] for line in searching),
        "training_seconds": sum(line["seconds"] for line in training),
        "weightless": weightless(genotype.normal) / sum(map(len, genotype.normal)),
        "warnings": [],
        "none_best": None,
        "coin_flips": None,
    }
    if not cell.random:
        certain = how_certain(run.file("search/logits.npz"), run.config, genotype)
        result["warnings"] = certain["warnings"]
        if edges := certain["edges"].get("normal"):
            kept = [edge for edge in edges if edge["kept"]]
            result["none_best"] = sum(edge["none_is_best"] for edge in edges) / len(edges)
            result["coin_flips"] = sum(edge["coin_flip"] for edge in kept) / len(kept)
    return result


def _arm(study: Study, arm: str, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A row of the table of methods."""
    config, random = study.arm_config(arm), study.arms[arm].cells == "random"
    errors = [100.0 - run["accuracy"] for run in runs]
    genotypes = [Genotype.from_text(run["genotype"]) for run in runs]
    agreements = {}
    if not random:
        for kind in ("normal", "reduction"):
            found = agreement(genotypes, config.space, kind, study.seed)
            if found is not None:
                agreements[kind] = dataclasses.asdict(found)
    return {
        "name": arm,
        "cells": study.arms[arm].cells,
        "changes": study.arms[arm].changes,
        "runs": len(runs),
        "error": dataclasses.asdict(summarize(errors)),
        "best_error": min(errors),
        **{
            key: _mean([run[key] for run in runs])
            for key in ("parameters", "multiply_adds", "latency_ms", "search_seconds", "training_seconds")
        },
        **{key: _mean([run[key] for run in runs]) for key in ("weightless", "none_best", "coin_flips")},
        "warned": sum(bool(run["warnings"]) for run in runs),
        "agreement": agreements,
    }


def _warnings(
    study: Study, arms: Sequence[Mapping[str, Any]], earlier: Sequence[Mapping[str, Any]]
) -> list[str]:
    """What to know before any number of a report is believed."""
    lines = [sentences.disagreement(study, arm["name"], arm["agreement"]) for arm in arms]
    return [line for line in (sentences.grown(study, earlier), *lines) if line is not None]


def _comparisons(study: Study, by_arm: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The answers to the questions of a study, in points of accuracy."""
    result = []
    for first, second in study.pairs():
        shared = _shared(by_arm[first], by_arm[second])
        if shared:  # two genotypes of one search are no independent samples
            a, b = zip(*shared, strict=True)
        else:
            a, b = ([run["accuracy"] for run in by_arm[arm]] for arm in (first, second))
        found = compare(a, b, study.seed, paired=bool(shared))
        result.append(
            {
                "first": first,
                "second": second,
                "n": [len(a), len(b)],
                **dataclasses.asdict(found),
                "decisive": found.decisive,
                "detectable": detectable(len(a), len(b), paired=bool(shared)),
                "of": len(study.pairs()),
            }
        )
    corrected = holm([found["decisive"] for found in result])
    for found, p in zip(result, corrected, strict=True):
        found["p"] = p
        found["sentence"] = sentences.sentence(study, found)
    return result


def _shared(
    first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]
) -> list[tuple[float, float]]:
    """Pairs of accuracies of runs that share a search; empty where not two do."""
    by_search = {run["search_of"] or run["name"]: run["accuracy"] for run in first if not run["random"]}
    pairs = [
        (by_search[key], run["accuracy"])
        for run in second
        if not run["random"] and (key := run["search_of"] or run["name"]) in by_search
    ]
    return pairs if len(pairs) >= FEWEST else []


def _hard(study: Study, by_arm: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Every search against the best of as many random cells as the same compute buys.

    The best random cell is the one of the least loss on the validation part of its retraining; what counts
    is its accuracy on the test images. Pairs whose random cells have no validation part are left out.
    """
    result = []
    searched = study.searched()
    pairs = [pair for pair in study.pairs() if pair[0] in searched and pair[1] not in searched]
    level = 1.0 - ALPHA / max(len(pairs), 1)  # Bonferroni's: all intervals hold at once
    for first, second in pairs:
        found, random = by_arm[first], by_arm[second]
        chosen_by = _validated(random)
        if chosen_by is None:
            continue
        of_search = _mean([run["search_seconds"] for run in found]) or 0.0
        of_training = _mean([run["training_seconds"] for run in found]) or 0.0
        of_random = _mean([run["training_seconds"] for run in random]) or math.inf
        draws = max(1, math.floor((of_search + of_training) / of_random))
        accuracies = [[run["accuracy"] for run in runs] for runs in (found, random)]
        difference, interval = against_best(*accuracies, draws, chosen_by, study.seed, level)
        result.append(
            {
                "first": first,
                "second": second,
                "draws": draws,
                "of": len(random),
                "search_seconds": of_search,
                "training_seconds": of_training,
                "random_seconds": of_random,
                "difference": difference,
                "interval": list(interval),
                "level": level,
            }
        )
        result[-1]["sentence"] = sentences.hard_sentence(study, result[-1])
    return result


def _repeats(study: Study, by_arm: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """How much of the spread of random cells is the cell's, by arms that train them again."""
    result = []
    for base, others in study.repeated().items():
        by_number = [{run["number"]: run["accuracy"] for run in by_arm[arm]} for arm in (base, *others)]
        numbers = sorted(set.intersection(*map(set, by_number)))
        if len(numbers) < FEWEST:
            continue
        values = [[accuracies[number] for accuracies in by_number] for number in numbers]
        found = dataclasses.asdict(components(values))
        of = best_of_normal(_SEARCHED)
        found |= {"arm": base, "repeats": others, "accuracies": values, "of": _SEARCHED}
        found |= {"gain": of * found["cell"], "most_gain": of * found["most"]}
        found["by_test_images"] = _by_test_images([run for arm in (base, *others) for run in by_arm[arm]])
        found["sentence"] = sentences.repeated_sentence(found)
        result.append(found)
    return result


def _by_test_images(runs: Sequence[Mapping[str, Any]]) -> float | None:
    """How far accuracies stray, in points, because each run holds out test images of its own; None if not so.

    The standard deviation of a binomial share.
    """
    if not any(run["own_test_images"] for run in runs):
        return None
    accuracy, images = (float(np.mean([run[key] for run in runs])) for key in ("accuracy", "images"))
    return 100.0 * math.sqrt(accuracy / 100.0 * (1.0 - accuracy / 100.0) / images)


def _validated(runs: Sequence[Mapping[str, Any]]) -> list[float] | None:
    """What the best of some networks is chosen by, more is better: the validation loss with its sign turned;
    None where one of them has no validation part."""
    losses = [run["val_loss"] for run in runs]
    return None if None in losses else [-loss for loss in losses]


def incumbents(result: Mapping[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """Returns by arm the expected best accuracy after 1, 2, … runs, against their seconds of compute.

    As in `best_of` the order of the runs is random; the best is chosen by its validation loss, and its
    accuracy on the test images counts. Arms without a validation part are left out.
    """
    curves = {}
    for arm in result["arms"]:
        runs = [run for run in result["runs"] if run["arm"] == arm["name"]]
        each = arm["search_seconds"] + arm["training_seconds"]
        chosen_by = _validated(runs)
        if chosen_by is not None:
            accuracies = [run["accuracy"] for run in runs]
            curves[arm["name"]] = [
                (draws * each, best_of(accuracies, draws, chosen_by)) for draws in range(1, len(runs) + 1)
            ]
    return curves


def _best_arm(by_arm: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    means = {arm: _mean([run["accuracy"] for run in runs]) for arm, runs in by_arm.items()}
    best = max(means, key=means.get)
    return f"Nothing was asked to be compared; “{best}” had the best mean accuracy, {means[best]:.2f} %."


def _settings(study: Study) -> dict[str, Any]:
    from gdas_tf.config.config import Config, differences

    paper = Config.preset("paper").to_dict()
    found = {name: now for name, _, now in differences(paper, study.base().to_dict())}
    found.pop("seed", None)
    return found


def _surroundings(folder: StudyFolder, study: Study) -> dict[str, Any]:
    """Machines, versions, load and order of the runs: what may confound a comparison."""
    machines, versions, loads, order, seconds = [], [], [], [], 0.0
    for cell in cells(study):
        path = folder.run_path(cell) / "versions.json"
        if path.is_file():
            found = read_json(path)
            machine = found.pop("machine", {})
            text = f"{machine.get('processor')}, {machine.get('cores')} cores, {machine.get('system')}"
            machines.append(text)
            versions.append(
                {key: found.get(key) for key in ("python", "tensorflow", "keras", "numpy", "gdas-tf")}
            )
        outcome = folder.outcome(cell.name)
        if outcome is not None:
            loads.append(outcome.get("load"))
            seconds += outcome.get("seconds") or 0.0
            order.append((folder.outcome_path(cell.name).stat().st_mtime, cell.name))
    known = [load for load in loads if load is not None]
    return {
        "machines": list(dict.fromkeys(machines)),
        "versions": [dict(pairs) for pairs in dict.fromkeys(tuple(each.items()) for each in versions)],
        "load": [min(known), max(known)] if known else None,
        "order": [name for _, name in sorted(order)],
        "process_seconds": seconds,
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
