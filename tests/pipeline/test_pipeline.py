"""The pipeline from the library: a configuration becomes a verified ONNX file, without the command line."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from gdas_tf import pipeline
from gdas_tf.config.config import Config
from gdas_tf.errors import MissingStageError, RunError, UsageError
from gdas_tf.export.benchmark.files import open_file
from gdas_tf.export.serving.images import load_image
from gdas_tf.files import read_json
from gdas_tf.runs.run import Run

SMALL = {
    "data.name": "bars.npz",
    "data.padding": 0,
    "search.epochs": 1,
    "search.channels": 2,
    "search.nodes": 2,
    "search.batch_size": 8,
    "search.operations": "none,skip_connect,conv_3x3,avg_pool_3x3",
    "retrain.epochs": 1,
    "retrain.channels": 4,
    "retrain.batch_size": 16,
    "export.formats": ("onnx",),
    "benchmark.seconds": 0.02,
    "benchmark.warm_up": 1,
    "benchmark.rounds": 1,
    "benchmark.batch_sizes": (1,),
}


@pytest.fixture
def config(tmp_path, monkeypatch) -> Config:
    """A small configuration, in a folder with its data."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 3
    images = generator.integers(0, 60, (60, 8, 8, 1))
    for image, label in zip(images, labels, strict=True):
        image[:, 3 * label : 3 * label + 2] += 150
    np.savez("bars.npz", images=images.astype(np.uint8), labels=labels)
    return Config.preset("quick").override(SMALL)


def test_from_a_configuration_to_a_verified_onnx_file(config, capfd):
    with pipeline.begin("runs/a", config) as job:
        results = pipeline.run_all(job)
    file = results["export"]["files"]["model.onnx"]
    assert onnxruntime.InferenceSession(file).get_inputs()[0].shape[1:] == [8, 8, 1]
    assert results["export"]["formats"]["onnx"]["largest_difference"] < 1e-4
    assert list(results) == list(pipeline.STAGES)
    assert json.dumps(results)
    run = Run.open("runs/a")
    assert read_json(run.file("versions.json"))["commands"] == []  # there was none
    assert "[1/7]" not in capfd.readouterr().err  # progress is for those who ask logging for it
    with pipeline.go_on("runs/a", resume=True) as job:
        again = pipeline.run_all(job)
    assert {name: again[name] for name in ("search", "derive", "retrain", "evaluate")} == {
        name: results[name] for name in ("search", "derive", "retrain", "evaluate")
    }
    with pipeline.go_on("runs/a") as job, pytest.raises(UsageError, match="search has begun already; resume"):
        pipeline.run_search(job)


@pytest.mark.slow
def test_images_that_are_not_square_from_search_to_a_classified_picture(config):
    values = {"data.image_size": "8x12", "data.balance": "sampler", "export.formats": "all"}
    with pipeline.begin("runs/wide", config.override(values)) as job:
        results = pipeline.run_all(job)
    assert all(entry["largest_difference"] < 0.05 for entry in results["export"]["formats"].values())
    assert Run.open("runs/wide").config.data.image_size == (8, 12)
    classifier = open_file(Path(results["export"]["files"]["model.onnx"]))
    assert classifier.image_shape == (8, 12, 1)
    picture = io.BytesIO()
    Image.new("L", (90, 60), 200).save(picture, "PNG")
    pixels = load_image(picture.getvalue(), classifier.image_shape)
    assert classifier.classify(pixels[None]).shape == (1, 3)
    with pipeline.go_on("runs/wide") as job:  # the data are read as they were
        assert pipeline.run_evaluation(job)["confusion"] == results["evaluate"]["confusion"]


def test_progress_goes_through_logging(config, caplog, monkeypatch):
    for name in pipeline.STAGES:
        monkeypatch.setitem(pipeline.STAGES, name, lambda job: {})
    caplog.set_level("INFO", "gdas_tf")
    with pipeline.begin("r", config) as job:
        results = pipeline.run_all(job)
    assert results["benchmark"] is None and job.results == results
    assert [record.message for record in caplog.records if record.levelname == "INFO"] == [
        *(f"[{number}/7] {name}" for number, name in enumerate(list(pipeline.STAGES)[:6], 1)),
        "skipped: export.formats names no ONNX file, and only those are measured",
        "[7/7] draw",
    ]


def test_results_of_finished_stages_stay(config, monkeypatch):
    def fail(job) -> None:
        raise RunError("the disk is gone")

    monkeypatch.setitem(pipeline.STAGES, "search", lambda job: {"epochs": 1})
    monkeypatch.setitem(pipeline.STAGES, "derive", fail)
    with pipeline.begin("r", config) as job, pytest.raises(RunError):
        pipeline.run_all(job)
    assert job.results == {"search": {"epochs": 1}}


def test_a_mistake_leaves_nothing_behind(config):
    with pytest.raises(UsageError), pipeline.begin("r", config.override({"data.name": "absent.npz"})):
        pass
    with pytest.raises(UsageError), pipeline.begin("r", config.override({"retrain.cutout": 8})) as job:
        pipeline.run_all(job)
    assert not Path("r").exists()
    Path("r").mkdir()
    with pytest.raises(UsageError, match="mine"), pipeline.begin("r", config):
        raise UsageError("mine")
    assert Path("r").is_dir() and not list(Path("r").iterdir())


@pytest.mark.parametrize(
    ("stage", "before"),
    [("derive", "search"), ("retrain", "derive"), ("evaluate", "retrain"), ("benchmark", "export")],
)
def test_a_stage_says_which_one_comes_first(stage, before, config):
    run = Run.create("r", config)
    with pytest.raises(MissingStageError) as caught:
        pipeline.STAGES[stage](pipeline.Job(run))
    assert (caught.value.stage, caught.value.directory) == (before, "r")


def test_importing_needs_no_tensorflow():
    code = "import sys, gdas_tf.pipeline; print(sorted({'tensorflow', 'keras', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
