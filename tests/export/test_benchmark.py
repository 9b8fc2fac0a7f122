"""Benchmark: any ONNX image classifier, intervals, table, CSV, picture; without TensorFlow."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gdas_tf.errors import RunError, UsageError
from gdas_tf.export.benchmark import benchmark_models, draw_benchmark, format_table, write_csv
from gdas_tf.export.benchmark.files import OPEN_SHAPE, encode_pixels, open_file, predicted_classes
from gdas_tf.export.benchmark.measuring import prediction_interval
from gdas_tf.export.inference import Classifier

SIDE, CLASSES = 8, 4


def classifier_file(
    path: Path,
    *,
    channels_first: bool = False,
    batch: int | str = "batch",
    dtype: int = TensorProto.FLOAT,
    channels: int = 3,
    width: int = 1,
) -> Path:
    """An image classifier that answers with the class of the first channel's mean: 0..63 is class 0, ….

    Its class c has the score -|mean - (c + 0.5) / 4|; `width` repeats work, to make it slower.
    """
    shape = [batch, channels, SIDE, SIDE] if channels_first else [batch, SIDE, SIDE, channels]
    constants = {
        "centres": (np.arange(CLASSES, dtype=np.float32) + 0.5) / CLASSES,
        "first": np.array([0], np.int64),
        "spatial": np.array([2, 3] if channels_first else [1, 2], np.int64),
        "scale": np.float32(255 if dtype == TensorProto.UINT8 else 1).reshape(()),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["floats", "scale"], ["x0"]),
        *(helper.make_node("Sin", [f"x{i}"], [f"s{i}"]) for i in range(width - 1)),
        *(helper.make_node("Asin", [f"s{i}"], [f"x{i + 1}"]) for i in range(width - 1)),
        helper.make_node("ReduceMean", [f"x{width - 1}", "spatial"], ["means"], keepdims=0),
        helper.make_node("Gather", ["means", "first"], ["mean"], axis=1),
        helper.make_node("Sub", ["mean", "centres"], ["distance"]),
        helper.make_node("Abs", ["distance"], ["size"]),
        helper.make_node("Neg", ["size"], ["scores"]),
    ]
    nodes = [*nodes[:2], *sorted(nodes[2:-5], key=lambda node: int(node.input[0][1:])), *nodes[-5:]]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("image", dtype, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, CLASSES])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def images() -> tuple[np.ndarray, np.ndarray]:
    """Pictures of one grey each, and their classes; one in ten has a wrong label."""
    random = np.random.default_rng(0)
    greys = random.integers(0, 256, 70).astype(np.uint8)
    pixels = np.broadcast_to(greys[:, None, None, None], (70, SIDE, SIDE, 3)).copy()
    labels = greys // 64
    labels[::10] = (labels[::10] + 1) % CLASSES
    return pixels, labels.astype(np.int32)


@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize("batch", ["batch", 1, 16])
@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8])
def test_any_layout_batch_and_type(
    tmp_path: Path, images: tuple[np.ndarray, np.ndarray], channels_first: bool, batch: int | str, dtype: int
) -> None:
    path = classifier_file(tmp_path / "m.onnx", channels_first=channels_first, batch=batch, dtype=dtype)
    classifier = open_file(path)
    assert classifier.image_shape == (SIDE, SIDE, 3)
    assert classifier.layout == ("nchw" if channels_first else "nhwc")
    found = predicted_classes(classifier, images[0])
    assert (found == images[1]).mean() == 0.9

    result = benchmark_models([path], batch_sizes=(3,), seconds=0.01, rounds=2, warm_up=1, memory=False)
    (measurement,) = result["measurements"]
    assert measurement["batch_size"] == 3
    # A file of a fixed batch size is called as often as it takes.
    assert len(classifier.calls(encode_pixels(classifier, images[0][:3]))) == (3 if batch == 1 else 1)


def test_result_table_csv_picture(tmp_path: Path, images: tuple[np.ndarray, np.ndarray]) -> None:
    fast = classifier_file(tmp_path / "fast.onnx")
    slow = classifier_file(tmp_path / "slow.onnx", channels_first=True, width=60)
    pixels, labels = images
    result = benchmark_models(
        [fast, slow], batch_sizes=(1, 4), threads=(1, 2), seconds=0.1, rounds=3, images=pixels, labels=labels
    )
    result = json.loads(json.dumps(result))
    assert [item["accuracy"] for item in result["files"]] == [0.9, 0.9]
    assert [item["bytes"] for item in result["files"]] == [fast.stat().st_size, slow.stat().st_size]
    assert [item["input"] for item in result["files"]] == ["float32 NHWC 8x8x3", "float32 NCHW 8x8x3"]
    settings = [(item["batch_size"], item["threads"], item["file"]) for item in result["measurements"]]
    assert settings == [(b, t, f) for b in (1, 4) for t in (1, 2) for f in ("fast.onnx", "slow.onnx")]
    for item in result["measurements"]:
        assert 0 < item["p50_ms"] <= item["p95_ms"] <= item["p99_ms"]
        low, high = item["p50_interval_ms"]
        assert low <= item["p50_ms"] * 1.001 and item["p50_ms"] <= high * 1.001
        assert item["calls"] >= 6
        assert 10 < item["peak_mib"] < 2000
    first, second = result["measurements"][:2]
    assert first["speed"] == 1 and first["speed_interval"] == [1, 1]
    assert second["speed"] < 1

    table = format_table(result)
    assert "fast.onnx" in table and "90.00%" in table and "against fast.onnx" in table
    assert len({len(line) for line in table.splitlines()[:9]}) == 1

    write_csv(result, tmp_path / "result.csv")
    rows = list(csv.DictReader((tmp_path / "result.csv").open()))
    assert len(rows) == 8
    assert float(rows[1]["p50_ms"]) == result["measurements"][1]["p50_ms"]
    assert float(rows[1]["speed_interval_low"]) <= float(rows[1]["speed"])

    for name in ("with.png", "without.svg"):
        if name.startswith("without"):
            for item in result["files"]:
                del item["accuracy"]
        draw_benchmark(result, tmp_path / name)
        assert (tmp_path / name).stat().st_size > 5000


@pytest.mark.parametrize(("files", "title"), [(1, "latency of a batch"), (2, "accuracy against latency")])
def test_picture_compares_accuracies_if_there_are_two(
    files: int, title: str, tmp_path: Path, images: tuple[np.ndarray, np.ndarray]
) -> None:
    paths = [classifier_file(tmp_path / f"{number}.onnx") for number in range(files)]
    result = benchmark_models(
        paths, batch_sizes=[1], seconds=0.01, warm_up=1, memory=False, images=images[0], labels=images[1]
    )
    with matplotlib.rc_context({"svg.fonttype": "none"}):  # text as text
        draw_benchmark(result, tmp_path / "picture.svg")
    assert title in (tmp_path / "picture.svg").read_text()


def test_a_folder_named_like_the_package_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in a checkout of this project, where the README has people begin.
    (tmp_path / "gdas_tf").mkdir()
    (tmp_path / "gdas_tf/__init__.py").write_text("raise ImportError('not the one installed')\n")
    monkeypatch.chdir(tmp_path)
    path = classifier_file(tmp_path / "m.onnx")
    result = benchmark_models([path], batch_sizes=[1], threads=[1], seconds=0.01, warm_up=1)
    assert result["measurements"][0]["peak_mib"] > 10


def test_rounds_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each round measures each file in each setting before the next begins, with another file first."""
    paths = [classifier_file(tmp_path / f"{name}.onnx") for name in "ab"]
    order = []
    run = Classifier.run

    def noted(self: Classifier, images: np.ndarray) -> np.ndarray:
        if not order or order[-1] != (self.path.stem, len(images)):
            order.append((self.path.stem, len(images)))
        return run(self, images)

    monkeypatch.setattr(Classifier, "run", noted)
    benchmark_models(paths, batch_sizes=(1, 2), seconds=0.01, rounds=2, memory=False)
    assert order == [("a", 1), ("b", 1), ("a", 2), ("b", 2), ("b", 1), ("a", 1), ("b", 2), ("a", 2)]


def test_each_round_loads_the_files_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loaded file keeps its place in memory, which its speed depends on: two runs would differ by more."""
    paths = [classifier_file(tmp_path / f"{name}.onnx") for name in "ab"]
    measured: dict[str, list[object]] = {"a": [], "b": []}
    run = Classifier.run

    def noted(self: Classifier, images: np.ndarray) -> np.ndarray:
        if self.session not in measured[self.path.stem]:
            measured[self.path.stem].append(self.session)
        return run(self, images)

    monkeypatch.setattr(Classifier, "run", noted)
    benchmark_models(paths, batch_sizes=(1, 2), seconds=0.01, rounds=3, memory=False)
    assert {name: len(sessions) for name, sessions in measured.items()} == {"a": 3, "b": 3}


@pytest.mark.parametrize("change", [Path.unlink, classifier_file], ids=["gone", "other"])
def test_a_file_that_changes_meanwhile(
    change: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = classifier_file(tmp_path / "m.onnx")
    os.utime(path, (0, 0))
    run = Classifier.run

    def changed(self: Classifier, images: np.ndarray) -> np.ndarray:
        if path.exists():
            change(path)
        return run(self, images)

    monkeypatch.setattr(Classifier, "run", changed)
    with pytest.raises(RunError, match=r"m\.onnx: it changed while it was measured; measure it again"):
        benchmark_models([path], batch_sizes=(1,), seconds=0.01, rounds=2, memory=False)


def test_files_that_leave_their_size_open(tmp_path: Path) -> None:
    model = onnx.load(classifier_file(tmp_path / "m.onnx"))
    for axis in (1, 2):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"size_{axis}"
    onnx.save(model, tmp_path / "m.onnx")
    result = benchmark_models(
        [tmp_path / "m.onnx"], batch_sizes=(1,), seconds=0.01, rounds=1, warm_up=1, memory=False
    )
    assert result["files"][0]["input"] == f"float32 NHWC {'x'.join(map(str, OPEN_SHAPE))}"


def test_accuracy_of_a_file_of_another_range(tmp_path: Path, images: tuple[np.ndarray, np.ndarray]) -> None:
    """The file's metadata say what its input takes: benchmark reads it as predict and serve do."""
    model = onnx.load(classifier_file(tmp_path / "m.onnx"))
    scale = next(item for item in model.graph.initializer if item.name == "scale")
    scale.CopyFrom(numpy_helper.from_array(np.float32(255).reshape(()), "scale"))
    helper.set_model_props(model, {"input_range": "0..255"})
    onnx.save(model, tmp_path / "m.onnx")
    pixels, labels = images
    result = benchmark_models(
        [tmp_path / "m.onnx"],
        batch_sizes=(1,),
        seconds=0.01,
        rounds=1,
        memory=False,
        images=pixels,
        labels=labels,
    )
    assert result["files"][0]["accuracy"] == 0.9


def test_interval_holds_another_round() -> None:
    random = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        values = random.lognormal(0, 0.1, 6)
        low, high = prediction_interval(values[:5])
        assert low <= values[:5].min() and values[:5].max() <= high
        held += low <= values[5] <= high
    assert 0.92 <= held / 400 <= 0.98
    assert prediction_interval(np.ones(1)) is None


def test_images_that_do_not_fit_are_noted(tmp_path: Path) -> None:
    path = classifier_file(tmp_path / "m.onnx")
    settings = {"batch_sizes": (1,), "seconds": 0.01, "rounds": 2, "memory": False}
    for shape, label, words in (((9, 9, 3), 0, "images are"), ((SIDE, SIDE, 3), 7, "8 classes")):
        images, labels = np.zeros((2, *shape), np.uint8), np.full(2, label)
        result = benchmark_models([path], images=images, labels=labels, **settings)
        assert words in result["files"][0]["note"]
        assert words in format_table(result)


def test_bad_input(tmp_path: Path) -> None:
    good = classifier_file(tmp_path / "good.onnx")
    (tmp_path / "bad.onnx").write_bytes(good.read_bytes()[:200])
    (tmp_path / "text.onnx").write_text("no model")
    cases = {
        "missing.onnx": "there is no such file",
        "bad.onnx": "onnxruntime cannot load it: damaged or not an ONNX file",
        "text.onnx": "onnxruntime cannot load it: damaged or not an ONNX file",
    }
    for name, words in cases.items():
        with pytest.raises(UsageError, match=f"{name}: {words}"):
            benchmark_models([tmp_path / name])
    with pytest.raises(UsageError, match="no file to measure"):
        benchmark_models([])
    with pytest.raises(UsageError, match="named twice"):
        benchmark_models([good, good])
    with pytest.raises(UsageError, match="found 'cuda'; onnxruntime has here: cpu"):
        benchmark_models([good], providers=("cuda",))

    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["c"])],
        "sum",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "ab"],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, [1])],
    )
    onnx.save(helper.make_model(graph, ir_version=8), tmp_path / "sum.onnx")
    with pytest.raises(UsageError, match="found 2 inputs; an image classifier has one"):
        benchmark_models([tmp_path / "sum.onnx"])


def test_file_that_fails_when_run(tmp_path: Path) -> None:
    """A reshape that only fits one batch size."""
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["image", "shape"], ["y"])],
        "reshape",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, None])],
        [numpy_helper.from_array(np.array([2, SIDE * SIDE * 3]), "shape")],
    )
    onnx.save(
        helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 18)]),
        tmp_path / "r.onnx",
    )
    with pytest.raises(RunError, match=r"r\.onnx: fails at batch size 3"):
        benchmark_models([tmp_path / "r.onnx"], batch_sizes=(2, 3), seconds=0.01, rounds=1, memory=False)


def test_same_names_are_told_apart(tmp_path: Path) -> None:
    paths = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        paths.append(classifier_file(tmp_path / folder / "model.onnx"))
    result = benchmark_models(paths, batch_sizes=(1,), seconds=0.01, rounds=2, memory=False)
    assert [item["file"] for item in result["files"]] == ["one/model.onnx", "two/model.onnx"]


def test_needs_no_tensorflow(tmp_path: Path) -> None:
    path = classifier_file(tmp_path / "m.onnx")
    program = f"""
import sys
from collections.abc import Callable
from gdas_tf.export.benchmark import benchmark_models, format_table, draw_benchmark
result = benchmark_models([{str(path)!r}], batch_sizes=(1,), seconds=0.01, rounds=2, memory=False)
draw_benchmark(result, {str(tmp_path / "p.png")!r})
print(sorted({{"tensorflow", "keras", "onnx", "tensorflow_datasets", "sklearn"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_command_needs_no_tensorflow(tmp_path: Path) -> None:
    path = classifier_file(tmp_path / "m.onnx")
    program = f"""
import sys
from collections.abc import Callable
from gdas_tf.cli.main import main
code = main(["benchmark", {str(path)!r}, "--benchmark-seconds", "0.01", "--benchmark-batch-sizes", "1"])
print(code, sorted({{"tensorflow", "keras", "onnx", "tensorflow_datasets", "sklearn"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"
