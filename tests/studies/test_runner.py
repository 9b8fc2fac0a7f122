"""A study from the command line: killed, resumed, with a run that fails, and what is refused."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import psutil
import pytest
from small_disks import small_disk
from study_helpers import lay_out, run, start

from gdas_tf.runs.run import Run
from gdas_tf.studies.folder import StudyFolder
from gdas_tf.studies.grid import cells

pytestmark = pytest.mark.slow

ARMS = """
  ranks 1,2: {}
  ranks 2,1: {derive.ranks: [2]}
  random: {cells: random}
"""


def wait_for(condition, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)


def workers(folder: Path) -> list[psutil.Process]:
    """Processes of runs of a study, whoever started them."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if "gdas_tf.studies.work" in line and any(str(folder) in part for part in line):
            found.append(process)
    return found


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A study that was killed after its first run, with what was there then."""
    folder = tmp_path_factory.mktemp("study")
    lay_out(folder, ARMS.strip("\n") + "\n", seeds=2, random=3)
    process = start(folder, "mine.yaml", "out", "--jobs", "2")
    try:
        trained = folder / "out" / "runs" / "ranks-1-2-1" / "model.keras"
        wait_for(lambda: trained.exists() or process.poll() is not None)
        assert process.poll() is None, process.communicate()[1]
    finally:
        process.kill()
        process.communicate()
    return folder


def test_a_killed_study_leaves_no_process_behind(killed) -> None:
    wait_for(lambda: not workers(killed), 30.0)


def test_it_goes_on_and_a_run_that_fails_keeps_no_other_from_it(killed) -> None:
    out = killed / "out"
    first = (out / "runs" / "ranks-1-2-1" / "model.keras").stat().st_mtime_ns
    code, _, err = run(killed, "mine.yaml", "out")
    assert code == 2 and "exists already; go on with it by --resume" in err
    seeds = {cell.name: cell.config.seed for cell in cells(StudyFolder(out).study())}
    (killed / "break").write_text(str(seeds["random-2"]))
    code, text, err = run(killed, "out", "--resume", "--jobs", "2")
    assert code == 1, err
    assert "random-2: failed: ValueError: broken on purpose" in err or "broken on purpose" in err
    assert "1 runs failed and are not counted, as random-2" in err
    assert "gdas-tf study out --resume" in err
    assert "the mean random cell" in text
    assert (out / "runs" / "ranks-1-2-1" / "model.keras").stat().st_mtime_ns == first
    report = json.loads((out / "report.json").read_text())
    assert set(report["failed"]) == {"random-2"}
    assert [arm["runs"] for arm in report["arms"]] == [2, 2, 2]


def test_what_failed_is_tried_again_and_nothing_else(killed) -> None:
    out = killed / "out"
    (killed / "break").unlink(missing_ok=True)
    before = {
        path: path.stat().st_mtime_ns
        for pattern in ("runs/*/model.keras", "runs/*/evaluation.json", "measured/*")
        for path in out.glob(pattern)
    }
    code, text, err = run(killed, "out", "--resume", "--jobs", "2", "--json")
    assert code == 0, err
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())
    result = json.loads(text)
    assert result["failed"] == {}
    assert [arm["runs"] for arm in result["arms"]] == [2, 2, 3]
    by_name = {run["name"]: run for run in result["runs"]}
    assert by_name["ranks-2-1-2"]["search_of"] == "ranks-1-2-2"


def test_every_cell_is_an_ordinary_run_directory(killed) -> None:
    for cell in cells(StudyFolder(killed / "out").study()):
        there = Run.open(killed / "out" / "runs" / cell.name)
        assert there.finished("retrain")
        assert there.config.seed == cell.config.seed
        assert there.finished("search") != cell.random
    shared, own = (
        (killed / "out" / "runs" / name / "search" / "logits.npz").read_bytes()
        for name in ("ranks-2-1-1", "ranks-1-2-1")
    )
    assert shared == own


def test_the_report_needs_nothing_from_elsewhere(killed) -> None:
    page = (killed / "out" / "report.html").read_text(encoding="utf-8")
    text = (killed / "out" / "report.md").read_text(encoding="utf-8")
    report = json.loads((killed / "out" / "report.json").read_text())
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", page)
    assert report["verdict"] in text
    for part in ("Comparisons", "Hedges", "Not comparable", "Best practices", "Incumbent against compute"):
        assert part in page
    assert len(report["checklist"]) == 13
    assert all(row["ours"] is None for row in report["published"]["rows"])
    paired = [one for one in report["comparisons"] if one["paired"]]
    assert not paired  # both questions are about random cells
    assert {one["second"] for one in report["comparisons"]} == {"random"}
    assert report["hard_verdict"].startswith("Against ") and report["hard_verdict"] in text
    for one in report["runs"]:  # of the last epoch: a study holds images out of the training, and keeps it
        lines = Run.open(killed / "out" / "runs" / one["name"]).metrics("retrain")
        assert one["val_loss"] == lines[-1]["val_loss"]


def test_test_images_are_looked_at_after_the_last_training(killed) -> None:
    out = killed / "out"
    measured = {path.stem: path.stat().st_mtime_ns for path in (out / "measured").glob("*.json")}
    networks = [
        path.stat().st_mtime_ns
        for path in (out / "runs").glob("*/model.keras")
        if path.parent.name != "random-2"  # that one failed at first, and the others were measured without it
    ]
    assert min(measured.values()) > max(networks)


def test_another_study_is_refused_and_runs_may_be_added(killed) -> None:
    code, _, err = run(killed, "out", "--resume", "--search-epochs", "9")
    assert code == 2
    assert "it is another study (config.search.epochs = 4 there, 9 now)" in err
    code, _, err = run(killed, "out", "--resume", "--random", "2")
    assert code == 2 and "random = 3 there, 2 now" in err
    code, text, err = run(killed, "out", "--plan", "--random", "9", "--json")
    assert code == 0 and "9 random cells" in json.loads(text)["lines"][1], err
    code, text, err = run(killed, "out", "--resume", "--random", "4", "--jobs", "2", "--json")
    assert code == 0, err
    assert "warning: Runs were added after a report was seen (seeds and random cells then: 2 and 3" in err
    assert [arm["runs"] for arm in json.loads(text)["arms"]] == [2, 2, 4]
    other = killed / "other"
    other.mkdir(exist_ok=True)
    (other / "file").write_text("")
    code, _, err = run(killed, "mine.yaml", "other")
    assert code == 2 and "the folder is not empty and no study" in err


def test_what_cannot_be_done_is_refused_before_anything_is_made(tmp_path) -> None:
    lay_out(tmp_path, ARMS.strip("\n") + "\n", seeds=2, random=2)
    for arguments, message in (
        (["mine.yaml", "a", "--seeds", "1"], "seeds: found 1; it must be at least 2"),
        (["mine.yaml", "a", "--budget", "soon"], "budget: found 'soon'"),
        (["mine.yaml", "a", "--executor", "slurm"], "executor: found 'slurm'; accepted are local, dask"),
        (["mine.yaml", "a", "--executor", "dask"], "the address of its scheduler is missing"),
        (["mine.yaml", "a", "--scheduler", "tcp://x:1"], "it goes with the executor dask"),
        (["mine.yaml", "a", "--jobs", "0"], "jobs: found 0"),
        (["verdikt", "a"], "did you mean verdict?"),
        (["absent.yaml", "a"], "study file absent.yaml: there is no such file"),
        (["mine.yaml", "a", "--resume"], "there is none to go on with"),
    ):
        code, _, err = run(tmp_path, *arguments)
        assert code == 2, (arguments, err)
        assert message in err
        assert not (tmp_path / "a").exists(), arguments


def test_an_arm_that_cannot_be_trained_is_refused_before_the_first_run(tmp_path) -> None:
    lay_out(tmp_path, "  a: {retrain.cutout: 200}\n  random: {cells: random}\n", seeds=2, random=2)
    code, _, err = run(tmp_path, "mine.yaml", "a")
    assert code == 2, err
    assert "arm a: " in err and "cutout" in err
    assert not (tmp_path / "a").exists()


def test_ctrl_c_ends_all_and_says_how_to_go_on(tmp_path) -> None:
    lay_out(tmp_path, "  one: {cells: random}\n  two: {cells: random}\n", seeds=2, random=2)
    process = start(tmp_path, "mine.yaml", "a")
    wait_for(lambda: (tmp_path / "a" / "runs").exists() or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "go on with: gdas-tf study a --resume" in err
    assert "Traceback" not in err
    assert not workers(tmp_path)


def test_a_full_disk_ends_it_and_it_goes_on_when_there_is_space(tmp_path) -> None:
    lay_out(tmp_path, "  one: {cells: random}\n  two: {cells: random}\n", seeds=2, random=2, network="other")
    (tmp_path / "mine.yaml").open("a").write("questions: [[one, two]]\n")
    with small_disk(tmp_path / "out", "8m") as out:
        code, _, err = run(tmp_path, "mine.yaml", "out", "--jobs", "1", "--plan")
        assert code == 0, err
        seeds = {cell.name: cell.config.seed for cell in cells(StudyFolder(out).study())}
        (tmp_path / "fill").write_text(str(seeds["one-2"]))
        code, _, err = run(tmp_path, "out", "--resume", "--jobs", "1")
        last = err.splitlines()[-1]
        assert code == 1, err
        assert "no space left on the disk; free some" in last
        assert last.endswith("when that is mended, go on with: gdas-tf study out --resume")
        assert "Traceback" not in err
        finished = out / "runs" / "one-1" / "model.keras"
        written = finished.stat().st_mtime_ns
        assert not (out / "runs" / "two-2").exists()
        (tmp_path / "fill").unlink()
        (out / "ballast").unlink()
        code, _, err = run(tmp_path, "out", "--resume", "--jobs", "1")
        assert code == 0, err
        assert finished.stat().st_mtime_ns == written
        assert len(json.loads((out / "report.json").read_text())["runs"]) == 4


def test_random_cells_are_trained_again_with_other_seeds(tmp_path) -> None:
    arms = "  random: {cells: random}\n  again: {cells: random, same_as: random}\n"
    lay_out(tmp_path, arms, seeds=2, random=3, network="again")
    code, text, err = run(tmp_path, "mine.yaml", "out", "--jobs", "2", "--json")
    assert code == 0, err
    result = json.loads(text)
    (found,) = result["repeats"]
    assert (found["n"], found["trainings"]) == (3, 2)
    assert result["verdict"] == found["sentence"] and "n = 3 cells, 2 trainings each" in found["sentence"]
    for number in (1, 2, 3):
        first, again = (
            Run.open(tmp_path / "out" / "runs" / f"{arm}-{number}") for arm in ("random", "again")
        )
        genotypes = [there.file("genotype.json").read_bytes() for there in (first, again)]
        networks = [there.file("model.keras").read_bytes() for there in (first, again)]
        assert genotypes[0] == genotypes[1] and networks[0] != networks[1]
        assert first.config.seed != again.config.seed
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "How much of it is the cell" in page and "Random cells, trained again" in page
    assert "Comparisons" not in page and result["hard_verdict"] is None


def test_a_budget_is_measured_and_planned(tmp_path) -> None:
    lay_out(tmp_path, "  one: {}\n  random: {cells: random}\n", seeds=2, random=2)
    code, out, err = run(tmp_path, "mine.yaml", "a", "--budget", "20min", "--plan", "--json", "--jobs", "1")
    assert code == 0, err
    plan = json.loads(out)
    assert plan["seeds"] >= 2 and plan["random"] > plan["seeds"] - 1
    assert plan["planned_seconds"] <= 1200.0
    assert "standard deviations and more (80 % power)" in plan["lines"][1]
    assert not (tmp_path / "a" / "runs").exists()
    lay_out(tmp_path, "  one: {}\n  random: {cells: random}\n", seeds=2, random=2)
    code, _, err = run(tmp_path, "mine.yaml", "b", "--budget", "5s", "--jobs", "1")
    assert code == 2
    assert "5 s buy less than 2 runs of each arm" in err
    assert not (tmp_path / "b").exists()
    assert os.path.exists(tmp_path / "a" / "study.yaml")
