"""The command line finds out before the first step what would fail later, and later takes what there is."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from gdas_tf import pipeline
from gdas_tf.cli.main import main
from gdas_tf.errors import DivergedError, RunError, UsageError
from gdas_tf.runs.run import Run

TINY = [
    *("--search-epochs", "1", "--search-channels", "2", "--search-nodes", "2", "--search-batch-size", "8"),
    *("--search-operations", "none,skip_connect,conv_3x3,avg_pool_3x3"),
    *("--retrain-epochs", "1", "--retrain-channels", "4", "--retrain-batch-size", "16"),
    *("--benchmark-seconds", "0.02", "--benchmark-warm-up", "1", "--benchmark-rounds", "1"),
    *("--benchmark-batch-sizes", "1", "--data", "bars.npz"),
]


SEARCH, REST = TINY[: TINY.index("--retrain-epochs")], TINY[TINY.index("--retrain-epochs") :]
CELLS = "normal=skip@0+conv3@1 reduction=fixed"


def bars() -> None:
    """Writes the data set bars.npz: noisy bars, 8x8."""
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 3
    images = generator.integers(0, 60, (60, 8, 8, 1))
    for image, label in zip(images, labels, strict=True):
        image[:, 3 * label : 3 * label + 2] += 150
    np.savez("bars.npz", images=images.astype(np.uint8), labels=labels)


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> Path:
    """A run directory that is searched and derived."""
    folder = tmp_path_factory.mktemp("found")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        bars()
        assert main(["search", "run", *SEARCH, "--data", "bars.npz"]) == 0
        assert main(["derive", "run"]) == 0
    return folder / "run"


@pytest.fixture
def gdas(capsys, tmp_path, monkeypatch):
    """Runs a command line in this process, in a directory with the data set bars.npz."""
    monkeypatch.chdir(tmp_path)
    bars()

    def call(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def no_stage(monkeypatch):
    """Fails when a stage begins."""

    def begun(job) -> None:
        raise AssertionError("a stage has begun")

    for name in pipeline.STAGES:
        monkeypatch.setitem(pipeline.STAGES, name, begun)
    for name in ("run_search", "run_retraining"):
        monkeypatch.setattr(pipeline, name, begun)


# --- before the first step --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["run", "--retrain-cutout", "8"],
            "--retrain-cutout: found 8 pixels for images 8x8; it must be",
        ),
        (["run", "--search-cutout", "16"], "--search-cutout: found 16 pixels"),
        (["run", "--data-padding", "8"], "--data-padding: found 8 pixels"),
        (["search", "--data-padding", "8"], "--data-padding: found 8 pixels"),
        (["retrain", "--genotype", "GDAS_V1", "--retrain-cutout", "8"], "--retrain-cutout: found 8 pixels"),
        (["run", "--retrain-patience", "2"], "--retrain-patience: found 2, which goes by the loss on a val"),
        (
            ["run", "--retrain-validation", "0.01"],
            "--retrain-validation: 0.01 of 48 training images leaves none of class 0, which has 16,",
        ),
        (["run", "--retrain-channels", "1"], "--retrain-channels: found 1; it must be at least 2"),
        (
            ["run", "--benchmark-providers", "TPU"],
            "--benchmark-providers: found 'TPU'; onnxruntime has here",
        ),
    ],
)
def test_a_value_that_would_fail_later(arguments, words, gdas, no_stage, tmp_path):
    command, *options = arguments
    tiny = [] if command == "retrain" else TINY[: TINY.index("--retrain-epochs")]
    code, out, err = gdas(command, "run", *tiny, "--data", "bars.npz", *options)
    assert code == 2 and not out
    assert words in err.splitlines()[-1]
    assert os.listdir(tmp_path) == ["bars.npz"]


def test_a_network_that_cannot_be_built(gdas, no_stage, monkeypatch):
    import gdas_tf.networks.derived
    import gdas_tf.training.retraining  # noqa: F401  (before the change: it takes what it finds)

    def broken(genotype, image_shape, classes, **options):
        assert {edge.operation for node in genotype.reduction for edge in node} == {
            *("none", "skip_connect", "conv_3x3", "avg_pool_3x3")
        }
        assert (image_shape, classes, options["channels"]) == ((8, 8, 1), 3, 4)
        raise ValueError("the shapes do not match")

    monkeypatch.setattr(gdas_tf.networks.derived, "build_network", broken)
    code, _, err = gdas("run", "run", *TINY)
    assert code == 2
    assert "a network of 4 channels (--retrain-channels) for images of 8x8x1 (--data-image-size)" in err
    assert "the shapes do not match" in err


def test_the_network_of_a_large_recipe_is_tried(gdas, no_stage):
    code, _, err = gdas("run", "run", *TINY, "--retrain-channels", 37, "--retrain-stem", "imagenet")
    assert code == 1 and "a stage has begun" in err  # it can be built: the first stage comes


@pytest.mark.parametrize("command", ["run", "search", "retrain"])
def test_a_class_whose_name_cannot_be_written(command, gdas, no_stage, tmp_path):
    from PIL import Image

    for name in (b"dog", b"caf\xe9"):
        folder = os.path.join(os.fsencode(tmp_path), b"photos", name)
        os.makedirs(folder)
        for number in range(6):
            pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(os.path.join(folder, b"%d.png" % number))
    genotype = ["--genotype", "GDAS_V1"] if command == "retrain" else []
    code, _, err = gdas(command, "run", "--data", "photos", *genotype)
    line = err.splitlines()[-1]
    assert code == 2
    assert r"'caf\xe9'" in line and "cannot be read as text in UTF-8" in line and "rename it" in line
    assert not Path("run").exists()


def test_names_of_the_command_line_that_cannot_be_written(gdas, no_stage):
    for arguments in (["run", "r\udce9", *TINY], ["run", "r", *TINY, "--data", "d\udce9.npz"]):
        code, _, err = gdas(*arguments)
        assert code == 2 and "cannot be read as text in UTF-8" in err.splitlines()[-1]


def test_a_package_of_a_format_is_missing(gdas, no_stage, monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tf2onnx" else real(name))
    code, _, err = gdas("run", "run", *TINY, "--export-formats", "saved_model,onnx_int8")
    assert code == 2
    assert "--export-formats: onnx_int8 needs the package tf2onnx, which is not installed" in err
    code, _, err = gdas("run", "run", *TINY, "--export-formats", "saved_model")
    assert code == 1 and "a stage has begun" in err


def test_no_folder_for_temporary_files(gdas, no_stage, monkeypatch):
    import tempfile

    def unusable(*_):
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "TemporaryFile", unusable)
    code, _, err = gdas("run", "run", *TINY)
    assert code == 1 and "TMPDIR" in err.splitlines()[-1]


def test_a_folder_of_the_run_cannot_be_written(gdas, found):
    shutil.copytree(found, "run")
    Path("run/export").touch()
    code, _, err = gdas("run", "run", "--resume")
    assert code == 1 and "cannot write run/export" in err.splitlines()[-1]


def test_what_was_refused_is_not_kept(gdas, found):
    shutil.copytree(found, "run")
    before = Run.open("run").config
    assert gdas("retrain", "run", "--retrain-epochs", 1, "--retrain-cutout", 64)[0] == 2
    assert gdas("run", "run", "--resume", "--benchmark-providers", "TPU")[0] == 2
    assert Run.open("run").config == before


# --- later stages take what there is ----------------------------------------------------------------------


@pytest.mark.slow
def test_run_with_another_onnx_file_alone(gdas, found):
    shutil.copytree(found, "run")
    code, out, err = gdas("run", "run", "--resume", *REST, "--export-formats", "onnx_int8", "--json")
    assert code == 0, err
    result, run = json.loads(out), Run.open("run")
    file = run.file("export/model_int8.onnx")
    assert (result["onnx_file"], result["onnx_bytes"]) == ("model_int8.onnx", file.stat().st_size)
    assert result["latency"]["p50_ms"] > 0
    assert result["files"]["export/model_int8.onnx"] == str(file)
    assert "export/model.onnx" not in result["files"]


@pytest.mark.slow
def test_run_without_an_onnx_file(gdas, found):
    shutil.copytree(found, "run")
    code, out, err = gdas("run", "run", "--resume", *REST, "--export-formats", "saved_model,tflite")
    assert code == 0, err
    assert "[6/7] benchmark\nskipped: --export-formats names no ONNX file" in err
    rows = [line.split("  ")[1] for line in out.splitlines() if line]
    assert {"test accuracy", "run/export/saved_model", "run/export/model.tflite"} <= set(rows)
    assert not {row for row in rows if row.startswith(("ONNX", "latency", "throughput"))}
    assert "exported as tflite" in out
    assert all(Path(row).exists() for row in rows if row.startswith("run/"))
    code, out, _ = gdas("run", "run", "--resume", "--json")
    assert code == 0
    assert json.loads(out)["latency"] is None and json.loads(out)["stages"]["benchmark"] is None


# --- a failure says how to go on --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [(RunError("the disk is gone"), 1), (UsageError("the file is odd"), 2), (KeyError("surprise"), 1)],
)
def test_a_failure_after_a_finished_stage(error, code, gdas, found, monkeypatch):
    def searched(job) -> dict:
        shutil.copytree(found / "search", job.run.path / "search", dirs_exist_ok=True)
        return {"epochs": 1}

    def fail(job) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setitem(pipeline.STAGES, "search", searched)
        patch.setitem(pipeline.STAGES, "derive", fail)
        ended, _, err = gdas("run", "my run", *TINY)
    assert ended == code
    assert err.splitlines()[-1].endswith("when that is mended, go on with: gdas-tf run 'my run' --resume")


@pytest.mark.parametrize("command", ["search", pytest.param("retrain", marks=pytest.mark.slow)])
def test_a_failure_within_a_stage(command, gdas, monkeypatch):
    from gdas_tf.training.callbacks import MetricsLines

    def fail(*_) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr(MetricsLines, "on_epoch_end", fail)
    options = ["--genotype", CELLS, "--retrain-channels", 2] if command == "retrain" else SEARCH
    code, _, err = gdas(command, "run", *options, "--data", "bars.npz")
    assert code == 1
    assert err.splitlines()[-1].endswith(f"go on with: gdas-tf {command} run --resume")


@pytest.mark.slow
def test_a_training_that_diverged_would_do_so_again(gdas, found, monkeypatch):
    shutil.copytree(found, "run")

    def diverge(job) -> None:
        raise DivergedError("the retrain diverged; lower retrain.learning_rate")

    monkeypatch.setitem(pipeline.STAGES, "retrain", diverge)
    code, _, err = gdas("run", "run", "--resume", *REST)
    assert code == 1 and "--resume" not in err.splitlines()[-1]
    assert "gdas-tf retrain --genotype run/genotype.json --config run/config.yaml --run-dir ANOTHER" in err
    again = ["--genotype", "run/genotype.json", "--config", "run/config.yaml", "--run-dir", "another"]
    assert gdas("retrain", *again, "--retrain-learning-rate", 0.01)[0] == 0


def test_wrong_use_before_anything_is_done_has_no_such_advice(gdas):
    code, _, err = gdas("run", "run", *TINY, "--retrain-cutout", 64)
    assert code == 2 and "go on with" not in err


# --- small messages ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_model_file_that_was_cut_off(gdas):
    options = ["--genotype", CELLS, "--retrain-epochs", 1, "--retrain-channels", 2, "--data", "bars.npz"]
    assert gdas("retrain", "run", *options)[0] == 0
    path = Path("run/model.keras")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    code, _, err = gdas("evaluate", "run")
    assert code == 2
    assert "model run/model.keras: damaged or cut off" in err and "not found" not in err
    path.unlink()  # as the message says
    assert gdas("retrain", "run", "--resume")[0] == 0
    assert gdas("evaluate", "run")[0] == 0
