"""The checklist of Lindauer & Hutter, "Best Practices for Scientific Research on Neural Architecture Search"
(JMLR 21, 2020), filled in by the program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gdas_tf.studies.grid import Study


def checklist(study: Study, found: Mapping[str, Any]) -> list[dict[str, str]]:
    """Returns the questions with `answer` (yes, partly, no, not known) and `evidence`.

    Args:
        study: the study.
        found: what `gdas_tf.studies.analysis.analyse` has found so far.
    """
    random = [arm["name"] for arm in found["arms"] if arm["cells"] == "random"]
    around = found["surroundings"]
    one_machine, one_version = len(around["machines"]) == 1, len(around["versions"]) == 1
    seconds = around["process_seconds"]
    load = around["load"]
    counts = ", ".join(f"{arm['name']}: {arm['runs']}" for arm in found["arms"])
    compute = [
        f"{arm['name']}: {arm['search_seconds'] + arm['training_seconds']:.0f} s a run"
        for arm in found["arms"]
    ]
    own = any(run["own_test_images"] for run in found["runs"])
    differing = sorted(
        {field for arm in study.arms.values() for field in arm.changes if field.startswith("retrain")}
    )
    confounders = (
        f"machine: {'; '.join(around['machines']) or 'not recorded'}; "
        f"load at the start of a run {load[0]:.1f} to {load[1]:.1f}"
        if load
        else "load not recorded"
    )
    alone = (found["plan"] or {}).get("jobs", 1)
    return [
        _row(
            "code",
            "Is the code of the final training, of the search space and of the search released?",
            "yes",
            "gdas-tf, version " + ", ".join(str(each.get("gdas-tf")) for each in around["versions"]),
        ),
        _row(
            "code",
            "Are the hyperparameters and the seeds of search and final training given?",
            "yes",
            "study.yaml and the config.yaml of each run directory; the seeds are in the table of runs",
        ),
        _row(
            "comparison",
            "Do all methods have the same data, the same split, search space and final training?",
            "partly" if differing else "yes",
            (
                f"what differs on purpose: {', '.join(differing)}"
                if differing
                else "one configuration for all arms"
            )
            + (
                "; the data have no test images of their own, so that each run holds out others, by its seed"
                if own
                else "; the test images are those of the data set"
            ),
        ),
        _row(
            "comparison",
            "Is the evaluation protocol the same, and are test images kept from every choice?",
            "yes",
            "all networks were evaluated once, after the last was trained; logits learn on D_V, a half of "
            "the training images; "
            + (
                "a best random cell is chosen by the validation part of its training"
                if found["against_best"]
                else "no best random cell is chosen"
            ),
        ),
        _row(
            "comparison",
            "Were confounding factors controlled (hardware, versions, load, order of runs)?",
            "yes" if one_machine and one_version and alone == 1 else "partly",
            f"{confounders}; {len(around['versions'])} set of versions"
            + ("s" if len(around["versions"]) != 1 else "")
            + f"; {alone} runs at a time; the arms took turns",
        ),
        _row(
            "comparison",
            "Was it compared to random sampling and to random search?",
            "yes" if random else "no",
            (
                f"random cells, trained alike: {', '.join(random)}"
                + ("; and the best of as many as the same compute buys" if found["against_best"] else "")
                if random
                else "the study has no arm of random cells"
            ),
        ),
        _row(
            "comparison",
            "Is performance compared over time?",
            "yes",
            "the incumbent against compute is drawn; " + ", ".join(compute),
        ),
        _row(
            "comparison",
            "Were there several runs, with seeds and spread?",
            "partly" if found["earlier"] else "yes",
            f"{counts}; seeds from one, {study.seed}; deviation, interval, tests, Holm's correction"
            + ("; runs were added after a report was seen" if found["earlier"] else ""),
        ),
        _row(
            "comparison",
            "Were ablations made?",
            "yes" if len(study.searched()) > 1 else "no",
            f"arms: {', '.join(study.arms)}",
        ),
        _row(
            "comparison",
            "Were tabular or surrogate benchmarks used for an evaluation in depth?",
            "yes" if study.base().search.space == "nasbench201" else "no",
            f"search space {study.base().search.space}; all networks were trained here",
        ),
        _row(
            "reporting",
            "Is the time of the whole method given, end to end, and not of the search alone?",
            "yes",
            f"search and final training in the table of methods; all processes of runs together "
            f"{seconds / 3600:.2f} h",
        ),
        _row(
            "reporting",
            "Is it said how hyperparameters were tuned, and what that took?",
            "not known",
            "the program cannot know what was tried before this study; say it",
        ),
        _row(
            "reporting",
            "Are all settings of the experiment given?",
            "yes",
            f"what differs from the paper's constants is listed: {len(found['changed_from_preset'])} fields",
        ),
    ]


def _row(group: str, question: str, answer: str, evidence: str) -> dict[str, str]:
    return {"group": group, "question": question, "answer": answer, "evidence": evidence}
