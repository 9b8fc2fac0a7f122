"""The command line, end to end on a tiny data set: every subcommand, resuming after a kill, bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from gdas_tf.cli.main import COMMANDS, main
from gdas_tf.config.config import Config
from gdas_tf.runs.run import FILES, Run
from gdas_tf.spaces.genotype import Genotype

TINY = [
    *("--search-epochs", "4", "--search-channels", "2", "--search-nodes", "2", "--search-batch-size", "8"),
    *("--search-operations", "none,skip_connect,conv_3x3,avg_pool_3x3"),
    *("--retrain-epochs", "4", "--retrain-channels", "4", "--retrain-batch-size", "16"),
    *("--benchmark-seconds", "0.02", "--benchmark-warm-up", "1"),
]

SMALLEST = [
    *("--search-epochs", "3", "--search-channels", "2", "--search-nodes", "1", "--search-batch-size", "32"),
    *("--search-operations", "skip_connect,conv_1x1"),
]
"""A search of which only the course counts."""

SMALL_CELLS = "normal=skip@0+conv3@1/skip@0+max3@2 reduction=fixed"

CANDIDATES = {"search/candidates.json", "search/candidates.jsonl", "search/trials"}
"""Files that only strategies write which compare candidates."""

ON_REQUEST = {"search/tensorboard", "retrain/tensorboard", "budget.json"}
"""Files that only an option makes."""


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> Path:
    """Noisy bars at three places: 8x8 pixels, grey, three classes."""
    generator = np.random.default_rng(0)
    labels = np.arange(240) % 3
    images = generator.integers(0, 60, (240, 8, 8, 1))
    for image, label in zip(images, labels, strict=True):
        image[:, 3 * label : 3 * label + 2] += 150
    path = tmp_path_factory.mktemp("data") / "bars.npz"
    np.savez(path, images=images.astype(np.uint8), labels=labels)
    return path


class Result:
    """What a command printed and returned."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> dict:
        return json.loads(self.out)


@pytest.fixture
def gdas(capsys, tmp_path, monkeypatch):
    """Runs a command line in this process, in an empty directory."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Result:
        code = main([str(argument) for argument in arguments])
        return Result(code, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def finished(tiny_data, tmp_path_factory) -> tuple[Run, Result]:
    """A run that was never stopped, and what it printed. Made as a user makes it: by a process of its own."""
    directory = tmp_path_factory.mktemp("finished") / "run"
    process = start("run", directory, "--data", tiny_data, *TINY, "--json")
    out, err = process.communicate()
    result = Result(process.returncode, out, err)
    assert result.code == 0, result.err
    return Run.open(directory), result


def start(*arguments: object) -> subprocess.Popen:
    """Starts a command line in a process of its own."""
    command = [sys.executable, "-m", "gdas_tf.cli", *map(str, arguments)]
    # A shell starts what it runs in the background with Ctrl-C ignored, and children inherit that.
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def stop_at(process: subprocess.Popen, metrics: Path, lines: int, how: signal.Signals) -> str:
    """Sends a signal to a process once a metrics file has so many lines; returns what it wrote to stderr."""
    while process.poll() is None:
        if metrics.exists() and metrics.read_bytes().count(b"\n") >= lines:
            process.send_signal(how)
            break
        time.sleep(0.005)
    return process.communicate()[1]


def copy_of(run: Run, directory: Path) -> Run:
    subprocess.run(["cp", "-r", str(run.path), str(directory)], check=True)
    return Run.open(directory)


def weights(path: Path) -> list[np.ndarray]:
    import keras

    return keras.saving.load_model(path, compile=False).get_weights()


# --- help -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(command, gdas):
    result = gdas(command, "--help")
    assert result.code == 0
    assert result.out.startswith(f"usage: gdas-tf {command}")
    assert "examples:" in result.out
    assert f"gdas-tf {command}" in result.out.split("examples:")[1]


def test_help_imports_nothing_slow():
    calls = [["--help"], *([command, "--help"] for command in COMMANDS)]
    slow = {"tensorflow", "keras", "matplotlib", "numpy", "sklearn", "onnxruntime", "fastapi", "yaml"}
    code = f"""
import contextlib, io, sys
from gdas_tf.cli.main import main
for call in {calls}:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        main(call)
    assert "usage: gdas-tf" in said.getvalue(), call
    print(*call, sorted({slow} & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == [f"{' '.join(call)} []" for call in calls]


def test_overview_lists_every_subcommand(gdas):
    result = gdas("--help")
    assert result.code == 0
    assert all(f"    {command} " in result.out or f"    {command}\n" in result.out for command in COMMANDS)


def test_defaults_in_help_are_those_of_the_presets(gdas):
    text = " ".join(gdas("run", "--help").out.split())
    epochs = [f"{name} {Config.preset(name).search.epochs}" for name in ("quick", "small", "robust")]
    assert f"[{', '.join(epochs)}, else 250]" in text
    assert "[quick off, else on]" in text
    assert "[seed pairs, autodl pairs, else edges]" in text


# --- configuration ----------------------------------------------------------------------------------------


def test_print_config_is_a_config_file(gdas, tmp_path):
    result = gdas("run", "--preset", "small", "--search-epochs", 7, "--no-data-flip", "--print-config")
    assert result.code == 0
    Path("mine.yaml").write_text(result.out)
    config = Config.from_file("mine.yaml")
    assert config == Config.preset("small").override({"search.epochs": 7, "data.flip": False})
    again = gdas("run", "--config", "mine.yaml", "--seed", 3, "--print-config", "--json")
    assert Config.from_dict(again.json) == config.override({"seed": 3})
    assert os.listdir(tmp_path) == ["mine.yaml"]  # nothing was begun


def test_print_config_of_a_run_directory(gdas, finished):
    run, _ = finished
    result = gdas("retrain", run.path, "--retrain-epochs", 9, "--print-config", "--json")
    assert Config.from_dict(result.json) == run.config.override({"retrain.epochs": 9})


# --- the pipeline -----------------------------------------------------------------------------------------


def test_run_makes_every_file_and_one_json_object(finished):
    run, result = finished
    missing = [name for name in FILES if name not in CANDIDATES | ON_REQUEST and not run.file(name).exists()]
    assert not missing
    assert set(result.json["files"]) == set(FILES) - CANDIDATES - ON_REQUEST
    assert all(Path(path).exists() for path in result.json["files"].values())
    assert result.json["test_accuracy"] > 0.5  # chance is a third
    assert result.json["test_images"] == 48
    assert result.json["onnx_bytes"] == run.file("export/model.onnx").stat().st_size
    assert result.json["latency"]["batch_size"] == 1
    assert 0 < result.json["latency"]["p50_ms"] <= result.json["latency"]["p95_ms"]
    assert result.json["throughput"]["batch_size"] == 64
    assert result.json["throughput"]["images_per_second"] > 0
    assert Genotype.from_text(result.json["genotype"]) == Genotype.load(run.file("genotype.json"))
    metadata = {item.key: item.value for item in onnx.load(run.file("export/model.onnx")).metadata_props}
    assert result.json["parameters"] == json.loads(metadata["parameters"])  # one number, wherever it is told
    versions = json.loads(run.file("versions.json").read_text())
    assert versions["commands"][0].startswith(f"gdas-tf run {run.path}")
    assert "Warning" not in result.err
    assert "Traceback" not in result.err


def test_pictures_are_complete(finished):
    run, _ = finished
    names = {path.name for path in run.file("pictures").iterdir()}
    assert {"normal.png", "normal.svg", "search.png", "retraining.png"} <= names


@pytest.mark.slow
def test_stages_one_by_one_make_what_run_makes(gdas, finished, tiny_data):
    run, whole = finished
    assert gdas("search", "one", "--data", tiny_data, *TINY[: TINY.index("--retrain-epochs")]).code == 0
    derived = gdas("derive", "one")
    assert derived.code == 0
    assert derived.out.splitlines()[0] == whole.json["genotype"]
    options = TINY[TINY.index("--retrain-epochs") : TINY.index("--benchmark-seconds")]
    assert gdas("retrain", "one", *options).code == 0
    evaluated = gdas("evaluate", "one", "--json")
    assert evaluated.json["accuracy"] == whole.json["test_accuracy"]
    exported = gdas("export", "one", "--json")
    assert exported.code == 0
    measured = gdas("benchmark", "one", *TINY[TINY.index("--benchmark-seconds") :], "--json")
    assert measured.json["files"][0]["accuracy"] == exported.json["formats"]["onnx"]["accuracy"]
    assert gdas("draw", "one").code == 0
    one = Run.open("one")
    assert not [name for name in FILES if name not in CANDIDATES | ON_REQUEST and not one.file(name).exists()]
    for ours, theirs in zip(weights(one.file("model.keras")), weights(run.file("model.keras")), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("content", ['{"broken', '{"images": 3}', "[]"])
def test_benchmark_of_a_damaged_verification(gdas, finished, tmp_path, content):
    run = copy_of(finished[0], tmp_path / "copy")
    run.file("export/verification.json").write_text(content)
    before = run.file("export/benchmark.json").read_bytes()
    assert "verification.json" in complaint(gdas("benchmark", run.path), 2)
    assert run.file("export/benchmark.json").read_bytes() == before


def test_benchmark_prints_what_it_cannot_write(gdas, finished, tmp_path):
    (tmp_path / "file").touch()
    short = [*TINY[TINY.index("--benchmark-seconds") :], "--picture", tmp_path / "file" / "picture.png"]
    result = gdas("benchmark", finished[0].file("export/model.onnx"), *short)
    assert result.code == 1
    assert "p50 ms" in result.out and "a part of the path is a file" in result.err


@pytest.mark.slow
def test_closing_table(gdas, finished, tmp_path):
    run = copy_of(finished[0], tmp_path / "copy")
    result = gdas("run", run.path, "--resume")  # everything but the measurements is there already
    assert result.code == 0
    names = [line.split("  ")[1] for line in result.out.splitlines() if line]
    for name in ("test accuracy", "parameters", "ONNX file", "latency, batch 1", "throughput, batch 64"):
        assert names.count(name) == 1
    assert all(str(run.file(name)) in result.out for name in FILES if name not in CANDIDATES | ON_REQUEST)


# --- stages on artefacts ----------------------------------------------------------------------------------


def test_derive_from_logits(gdas, finished):
    run, _ = finished
    options = ["--search-nodes", "2", "--search-operations", run.config.search.operations]
    logits = run.file("search/logits.npz")
    result = gdas("derive", "--logits", logits, *options, "--derive-ranks", "2,3", "--output", "other.json")
    assert result.code == 0
    assert Genotype.load("other.json").to_text() == result.out.splitlines()[0]
    assert Genotype.load("other.json") != Genotype.load(run.file("genotype.json"))


@pytest.mark.parametrize(
    "form",
    ["file", pytest.param("name", marks=pytest.mark.slow), pytest.param("text", marks=pytest.mark.slow)],
)
def test_retrain_a_genotype(form, gdas, finished, tiny_data):
    genotype = {
        "file": str(finished[0].file("genotype.json")),
        "name": "GDAS_F1",
        "text": SMALL_CELLS,
    }[form]
    options = ["--retrain-epochs", 1, "--retrain-channels", 2, "--data", tiny_data, "--json"]
    result = gdas("retrain", "--genotype", genotype, *options)
    assert result.code == 0, result.err
    run = Run.open("runs/bars-quick")
    assert str(run.path) == result.json["run_directory"]
    assert Genotype.load(run.file("genotype.json")) == (
        Genotype.from_text(genotype) if form == "text" else Genotype.load(genotype)
    )
    assert run.file("model.keras").exists()


def test_evaluate_a_model_file(gdas, finished, tiny_data):
    run, whole = finished
    result = gdas("evaluate", run.file("model.keras"), "--data", tiny_data, "--json")
    assert result.json["accuracy"] == whole.json["test_accuracy"]


def test_draw_a_genotype(gdas):
    result = gdas("draw", "GDAS_V1", "--output", "there")
    assert result.code == 0
    assert {"normal.png", "normal.svg", "reduction.png", "reduction.svg"} <= set(os.listdir("there"))
    assert all(Path(line).exists() for line in result.out.splitlines())


@pytest.mark.slow
def test_default_run_directories_are_numbered(gdas, tiny_data):
    options = ["--retrain-epochs", 1, "--retrain-channels", 2, "--data", tiny_data, "--genotype", SMALL_CELLS]
    for expected in ("runs/bars-quick", "runs/bars-quick-2"):
        assert gdas("retrain", *options, "--json").json["run_directory"] == expected
    resumed = gdas("retrain", *options, "--resume", "--json")
    assert resumed.json["run_directory"] == "runs/bars-quick-2"


# --- stopping and resuming --------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_twice_and_resumed_ends_like_never_stopped(gdas, finished, tiny_data, tmp_path):
    reference, _ = finished
    directory = tmp_path / "killed"
    for stage, resume in (("search", []), ("retrain", ["--resume"])):
        process = start("run", directory, "--data", tiny_data, *TINY, *resume)
        stop_at(process, directory / stage / "metrics.jsonl", 2, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        assert not Run.open(directory).finished(stage)
    result = gdas("run", directory, "--resume", "--json")
    assert result.code == 0, result.err
    run = Run.open(directory)
    assert run.file("genotype.json").read_text() == reference.file("genotype.json").read_text()
    with (
        np.load(run.file("search/logits.npz")) as ours,
        np.load(reference.file("search/logits.npz")) as theirs,
    ):
        assert set(ours.files) == set(theirs.files)
        for name in ours.files:
            np.testing.assert_array_equal(ours[name], theirs[name])
    for stage in ("search", "retrain"):
        for ours, theirs in zip(run.metrics(stage), reference.metrics(stage), strict=True):
            assert {**ours, "seconds": 0} == {**theirs, "seconds": 0}
    model, expected = weights(run.file("model.keras")), weights(reference.file("model.keras"))
    for ours, theirs in zip(model, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("how", "code", "words"),
    [
        (signal.SIGINT, 130, "stopped by Ctrl-C"),
        pytest.param(signal.SIGTERM, 143, "stopped by SIGTERM", marks=pytest.mark.slow),
    ],
)
def test_interrupt_says_how_to_go_on(how, code, words, tiny_data, tmp_path):
    directory = tmp_path / "run"
    search = [*SMALLEST, "--search-epochs", 400]  # long enough to be stopped
    process = start("search", directory, "--data", tiny_data, *search)
    err = stop_at(process, directory / "search" / "metrics.jsonl", 1, how)
    assert process.returncode == code
    assert err.splitlines()[-1] == f"gdas-tf: {words}; go on with: gdas-tf search {directory} --resume"
    assert "Traceback" not in err


# --- bad input --------------------------------------------------------------------------------------------


def complaint(result: Result, code: int) -> str:
    """Returns the one line of a failed command."""
    assert result.code == code, result.err
    assert result.out == ""
    lines = [line for line in result.err.splitlines() if line.startswith("gdas-tf: ")]
    assert lines == [result.err.splitlines()[-1]]
    assert "Traceback" not in result.err
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serch"], "invalid choice: 'serch'"),
        ([], "required: SUBCOMMAND"),
        (["run", "--preset", "tiny"], "invalid choice: 'tiny'"),
        (["run", "--data", "no-such-data"], "no-such-data"),
        (["run", "--search-epochs", "0"], "--search-epochs: found 0; it must be at least 1"),
        (["run", "--search-epochs", "many"], "--search-epochs: found 'many'; accepted is a whole number"),
        (["run", "--run-dir", 300 * "x"], "no file can have a name as long as xxx"),
        (["run", "--data", 300 * "x"], "there is no such folder or file, and no data set of that name"),
        (["run", "--search-sampler", "dice"], "--search-sampler: found 'dice'; accepted: gumbel, direct"),
        (["run", "--search-operations", "conv_9x9"], "conv_9x9"),
        (["run", "--search-operations", "none"], "at least one besides none"),
        (["run", "--derive-ranks", "1,9"], "--derive-ranks: found 1,9; accepted are 1 to 5"),
        (["run", "--epochs", "3"], "unrecognized arguments: --epochs"),
        (["run", "--config", "absent.yaml"], "absent.yaml: cannot read it: No such file"),
        (["run", "a", "--run-dir", "b"], "found both a and b"),
        (["run", "--resume"], "there is none to resume at runs/digits-quick"),
        (["derive"], "give a run directory, or --logits"),
        (["derive", "absent"], "absent: it does not exist"),
        (["derive", "--logits", "absent.npz"], "absent.npz: there is no such file"),
        (["retrain"], "give a run directory, --genotype"),
        (["retrain", "absent"], "there is none; make it by gdas-tf search"),
        (["retrain", "--genotype", "GDAS_V9"], "GDAS_V9"),
        (["retrain", "--genotype", "absent.json"], "absent.json: there is no such file"),
        (
            ["retrain", "--genotype", "normal=sep3@0+skip@7 reduction=fixed"],
            "normal cell, node 0, edge 1: input 7",
        ),
        (["evaluate"], "give a run directory or a MODEL.keras"),
        (["evaluate", "absent.keras"], "absent.keras: there is no such file"),
        (["export", "absent.keras"], "absent.keras: there is no such file"),
        (["benchmark", "absent.onnx"], "absent.onnx"),
        (["benchmark", "absent.onnx", "--output", "figures.txt"], "figures.txt"),
        (["benchmark", "absent.onnx", "--picture", "figures.jpg"], "figures.jpg"),
        (["draw"], "give a run directory or a genotype"),
        (["draw", "normal=sep3@0 reduction=?"], "reduction cell, node 0, edge 0"),
    ],
)
def test_wrong_use_is_one_line_and_leaves_nothing(arguments, words, gdas, tmp_path):
    line = complaint(gdas(*arguments), 2)
    assert words in line
    assert os.listdir(tmp_path) == []


def write_pictures(folder: Path, classes: dict[str, int], size: int = 8) -> None:
    from PIL import Image

    generator = np.random.default_rng(0)
    for name, count in classes.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = generator.integers(0, 255, (size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


def make_one_class(folder: Path) -> None:
    write_pictures(folder, {"cat": 5})


def make_empty_class(folder: Path) -> None:
    write_pictures(folder, {"cat": 5, "dog": 0})


def make_broken_picture(folder: Path) -> None:
    write_pictures(folder, {"cat": 5, "dog": 5})
    (folder / "dog" / "3.png").write_bytes(b"\x89PNG no more")


def make_unequal_sizes(folder: Path) -> None:
    write_pictures(folder, {"cat": 5})
    write_pictures(folder, {"dog": 5}, size=9)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (make_one_class, ["photos", "cat"]),
        (make_empty_class, ["dog"]),
        (make_broken_picture, ["3.png"]),
        (make_unequal_sizes, ["--data-image-size"]),
    ],
)
def test_bad_folders(make, words, gdas, tmp_path):
    make(tmp_path / "photos")
    line = complaint(gdas("run", "--data", "photos"), 2)
    assert all(word in line for word in words)
    assert os.listdir(tmp_path) == ["photos"]


def test_labels_out_of_range(gdas, tmp_path):
    np.savez("bad.npz", images=np.zeros((20, 8, 8, 1), np.uint8), labels=np.arange(20) - 1)
    assert "labels" in complaint(gdas("run", "--data", "bad.npz"), 2)
    assert os.listdir(tmp_path) == ["bad.npz"]


def test_damaged_npz(gdas):
    Path("bad.npz").write_bytes(b"PK\x03\x04 no more")
    assert "bad.npz" in complaint(gdas("run", "--data", "bad.npz"), 2)


def test_existing_run_directory_is_not_touched(gdas, finished):
    run, _ = finished
    # The lock is an empty file that is opened anew by whoever takes it; everything else is the run's.
    files = [path for path in run.path.rglob("*") if path.name != ".lock"]
    before = {path: path.stat().st_mtime_ns for path in files}
    line = complaint(gdas("run", run.path), 2)
    assert f"run directory {run.path}: it exists already; go on with it by --resume" in line
    line = complaint(gdas("run", run.path, "--resume", "--search-channels", 3, "--seed", 5), 2)
    assert "seed = 0 there, 5 now; --search-channels = 2 there, 3 now" in line
    line = complaint(gdas("retrain", run.path), 2)
    assert "its retrain has begun already; go on with it by --resume" in line
    line = complaint(gdas("derive", run.path, "--derive-ranks", "2,3"), 2)
    assert "--derive-ranks = [1, 2] there, [2, 3] now" in line
    changed = [path for path, time_ns in before.items() if path.stat().st_mtime_ns != time_ns]
    assert not changed


def test_other_folders_are_not_touched(gdas, tmp_path):
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("dear reader")
    assert "not empty and not a run directory" in complaint(gdas("run", "mine"), 2)
    assert "it is a file" in complaint(gdas("run", "mine/thesis.txt"), 2)
    assert os.listdir("mine") == ["thesis.txt"]


def test_run_directory_in_use(gdas, finished):
    with finished[0].lock():
        script = "import sys; from gdas_tf.cli.main import main; sys.exit(main(sys.argv[1:]))"
        command = [sys.executable, "-c", script, "derive", str(finished[0].path)]
        process = subprocess.run(command, capture_output=True, text=True)
    line = complaint(Result(process.returncode, process.stdout, process.stderr), 2)
    assert "another process is using it" in line


def damage_config(run: Run) -> str:
    run.file("config.yaml").write_text("search: [")
    return "is damaged"


def damage_checkpoint(run: Run) -> str:
    run.file("search/checkpoint.npz").write_bytes(b"PK\x03\x04")
    run.truncate_metrics("search", 2)
    return "checkpoint.npz is damaged"


def damage_metrics(run: Run) -> str:
    run.file("search/metrics.jsonl").write_text("{\n")
    return "metrics.jsonl, line 1: damaged"


@pytest.mark.parametrize("damage", [damage_config, damage_checkpoint, damage_metrics])
def test_damaged_run_directory(damage, gdas, finished, tmp_path):
    run = copy_of(finished[0], tmp_path / "copy")
    words = damage(run)
    assert words in complaint(gdas("run", run.path, "--resume"), 2)


def test_damaged_artefacts(gdas, finished, tmp_path):
    run = copy_of(finished[0], tmp_path / "copy")
    run.file("model.keras").write_bytes(b"PK\x03\x04")
    assert "model.keras: damaged" in complaint(gdas("evaluate", run.path), 2)
    run.file("search/logits.npz").write_bytes(b"")
    assert "logits.npz: cannot read it as an .npz file" in complaint(gdas("derive", run.path), 2)
    run.file("genotype.json").write_text('{"normal": []}')
    assert "genotype.json" in complaint(gdas("retrain", run.path, "--resume"), 2)


def test_logits_of_another_search_space(gdas, finished):
    logits = finished[0].file("search/logits.npz")
    line = complaint(gdas("derive", "--logits", logits), 2)
    assert "set --search-operations and --search-nodes" in line


def test_model_that_does_not_fit_the_data(gdas, finished):
    line = complaint(gdas("evaluate", finished[0].file("model.keras"), "--data", "digits"), 2)
    assert "found 10 classes instead of 3" in line
    assert "classes 3, 4, 5 and 4 more are new" in line


@pytest.mark.slow
def test_disk_fills_up_in_the_middle(gdas, tiny_data, tmp_path, monkeypatch):
    import errno

    real = Run.save_checkpoint

    def full(self, stage, arrays, epochs_done):
        if epochs_done > 1:
            with monkeypatch.context() as patch:
                patch.setattr(os, "replace", raise_full)
                return real(self, stage, arrays, epochs_done)
        return real(self, stage, arrays, epochs_done)

    def raise_full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    arguments = ["search", "run", "--data", tiny_data, *SMALLEST]
    with monkeypatch.context() as patch:
        patch.setattr(Run, "save_checkpoint", full)
        line = complaint(gdas(*arguments), 1)
    assert "checkpoint.npz: no space left on the disk; free some; when that is mended" in line
    assert line.endswith("go on with: gdas-tf search run --resume")
    assert Run.open("run").load_checkpoint("search")[1] == 1
    assert gdas(*arguments, "--resume").code == 0


def test_debug_shows_the_traceback(gdas):
    with pytest.raises(Exception, match="does not exist"):
        main(["derive", "absent", "--debug"])
