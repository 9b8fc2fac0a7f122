"""float16, int8, LiteRT, Triton, TensorFlow Serving: what they compute, and what the report says of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import onnx
import onnxruntime
import pytest

from gdas_tf.export import exporter, quantization
from gdas_tf.export.exporter import export_model, format_verification
from gdas_tf.export.float16 import to_float16
from gdas_tf.export.onnx_model import describe, to_onnx
from gdas_tf.export.onnx_passes import count_operators
from gdas_tf.export.quantization import prepare, quantize
from gdas_tf.networks.derived import build_network
from gdas_tf.spaces.genotype import GENOTYPES, Genotype

SHAPE = (12, 12, 3)
CLASSES = ("zero", "one", "two", "three")
# Both reductions of size, pooling at stride 1 and 2, a state that is read with and without its ReLU.
GENOTYPE = Genotype.from_text(
    "normal=sep3@0+skip@1/avg3@0+max3@1/dil3@2+skip@0/sep5@1+avg3@3 "
    "reduction=skip@0+sep3@1/avg3@0+max3@1/dil5@0+skip@2/max3@1+avg3@2"
)


def make(genotype: Genotype, shape: tuple[int, int, int] = SHAPE, head_norm: bool = False) -> keras.Model:
    """A network of 6 channels, which is no multiple of 8, with batch norms that do something.

    Its weights are He's: untrained, those of PyTorch would let all images have the same probabilities.
    """
    model = build_network(
        genotype,
        shape,
        len(CLASSES),
        channels=6,
        cells=1,
        head_norm=head_norm,
        initializer="he",
        mean=(0.5,) * 3,
        std=(0.3,) * 3,
        seed=0,
    )
    random = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            size = layer.gamma.shape
            spread = [random.uniform(0.7, 1.3, size) for _ in range(2)]
            shift = [random.normal(0, 0.2, size) for _ in range(2)]
            layer.set_weights([spread[0], *shift, spread[1]])
    logits = model.get_layer("logits")
    logits.set_weights([0.2 * weight for weight in logits.get_weights()])
    return model


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return make(GENOTYPE)


@pytest.fixture(scope="module")
def floats(model: keras.Model) -> onnx.ModelProto:
    return to_onnx(model, describe(model, CLASSES, GENOTYPE))


def pictures() -> np.ndarray:
    """Smooth pictures, more alike to photographs than noise is; float32 in [0, 1]."""
    random = np.random.default_rng(2)
    coarse = random.random((48, 3, 3, 3), np.float32)
    return np.repeat(np.repeat(coarse, 4, axis=1), 4, axis=2)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return pictures()


def data_of(model: keras.Model, images: np.ndarray) -> SimpleNamespace:
    """A data set of images, float32 in [0, 1], the labels of which are what the network says of them."""
    pixels = (255 * images).astype(np.uint8)
    labels = model.predict_on_batch(pixels / np.float32(255)).argmax(1).astype(np.int32)
    split = SimpleNamespace(images=pixels, labels=labels)
    return SimpleNamespace(
        name="made up", class_names=CLASSES, classes=len(CLASSES), image_shape=SHAPE, train=split, test=split
    )


def session(model: onnx.ModelProto, optimized: Path | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if optimized:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    return session(model).run(None, {"image": images})[0]


def test_float16_has_one_cast_in_and_one_out(floats: onnx.ModelProto, images: np.ndarray) -> None:
    half = to_float16(floats)
    assert count_operators(half) == count_operators(floats) | {"Cast": 2}
    kinds = {item.data_type for item in half.graph.initializer if item.name.endswith("kernel")}
    assert kinds == {onnx.TensorProto.FLOAT16}
    assert half.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    np.testing.assert_allclose(run(half, images), run(floats, images), atol=5e-3)
    metadata = {item.key: item.value for item in half.metadata_props}
    assert metadata["precision"] == "float16"
    assert json.loads(metadata["class_names"]) == list(CLASSES)
    assert len(half.SerializeToString()) < 0.8 * len(floats.SerializeToString())


def test_prepared_for_int8_computes_the_same(floats: onnx.ModelProto, images: np.ndarray) -> None:
    prepared = prepare(floats)
    np.testing.assert_allclose(run(prepared, images), run(floats, images), atol=1e-5)
    assert "AveragePool" not in count_operators(prepared)
    for item in prepared.graph.initializer:
        if item.name.endswith("kernel") and len(item.dims) == 4:
            assert item.dims[0] % quantization.CHANNELS == 0


@pytest.mark.parametrize("size", [(13, 13), (12, 11)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_prepared_for_int8_joins_reductions_of_any_size(size: tuple[int, int]) -> None:
    model = make(GENOTYPE, (*size, 3))
    floats = to_onnx(model, describe(model, CLASSES, GENOTYPE))
    prepared = prepare(floats)
    images = np.random.default_rng(3).random((4, *size, 3), np.float32)
    np.testing.assert_allclose(run(prepared, images), run(floats, images), atol=1e-5)
    reductions = [
        node for node in prepared.graph.node if node.op_type == "Conv" and node.name.endswith("concat")
    ]
    # skip_connect in both reduction cells, and the input of each cell that comes after one.
    assert len(reductions) == sum(layer.name.endswith("_first") for layer in model.layers)
    assert not any("picked" in node.name for node in prepared.graph.node)


def test_grouped_convolutions_become_dense() -> None:
    fixed = Genotype(GENOTYPES["GDAS_V1"].normal, None)
    model = make(fixed)
    floats = to_onnx(model, describe(model, CLASSES))
    prepared = prepare(floats)
    random = np.random.default_rng(0).random((4, *SHAPE), np.float32)
    np.testing.assert_allclose(run(prepared, random), run(floats, random), atol=1e-5)
    for node in prepared.graph.node:
        options = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        weight = next((item for item in prepared.graph.initializer if item.name in node.input[1:2]), None)
        if node.op_type == "Conv" and options.get("group", 1) > 1:
            assert weight.dims[1] == 1


@pytest.mark.parametrize(("head_norm", "transposes", "closeness"), [(True, 1, 0.05), (False, 4, 0.07)])
def test_int8_computes_in_8_bits_throughout(
    head_norm: bool,
    transposes: int,
    closeness: float,
    floats: onnx.ModelProto,
    images: np.ndarray,
    tmp_path: Path,
) -> None:
    if head_norm:
        model = make(GENOTYPE, head_norm=True)
        floats = to_onnx(model, describe(model, CLASSES, GENOTYPE))
    quantized = quantize(floats, images)
    assert quantized.method in quantized.agreement
    # The weights are random, and what 8 bits make of them differs from draw to draw.
    np.testing.assert_allclose(run(quantized.model, images), run(floats, images), atol=closeness)
    assert {item.key: item.value for item in quantized.model.metadata_props}["precision"] == "int8"

    session(quantized.model, tmp_path / "optimized.onnx")
    operators = count_operators(onnx.load(tmp_path / "optimized.onnx"))
    # One step into 8 bits and none back: the classifier itself returns floats.
    assert operators.get("QuantizeLinear", 0) == 1
    assert operators.get("DequantizeLinear", 0) == 0
    assert not {"Conv", "Relu", "MaxPool", "AveragePool", "Concat", "Add", "Gemm"} & set(operators)
    # Where no convolution follows the last cell, onnxruntime changes the layout for one of its sums.
    assert operators["Transpose"] <= transposes


def test_other_calibrations_are_tried_until_one_is_good_enough(
    floats: onnx.ModelProto, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []
    kept = {"minmax": 0.5, "percentile": 0.9, "entropy": 0.7}
    wanted = np.arange(24) % 4

    def fake(prepared: onnx.ModelProto, images: np.ndarray, method: str) -> onnx.ModelProto:
        tried.append(method)
        return onnx.ModelProto(producer_name=method)

    def classes(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
        share = kept.get(model.producer_name, 1)
        return np.where(np.arange(24) < 24 * share, wanted, wanted + 1)

    monkeypatch.setattr(quantization, "_quantize", fake)
    monkeypatch.setattr(quantization, "_classes", classes)
    result = quantize(floats, images)
    assert tried == ["minmax", "percentile", "entropy"]
    assert (result.method, result.model.producer_name) == ("percentile", "percentile")
    kept["minmax"] = 1
    assert quantize(floats, images).method == "minmax"
    assert tried[3:] == ["minmax"]


@pytest.mark.slow
def test_all_formats(model: keras.Model, images: np.ndarray, tmp_path: Path) -> None:
    data = data_of(model, images)
    report = export_model(
        model, data, tmp_path, formats=tuple(exporter.FORMATS), calibration_images=32, genotype=GENOTYPE
    )
    formats = json.loads((tmp_path / "verification.json").read_text())["formats"]
    assert set(formats) == set(exporter.FORMATS)
    for name, entry in formats.items():
        exact = name not in ("onnx_float16", "onnx_int8", "tflite_int8")
        assert entry["largest_difference"] < (1e-5 if exact else 0.2), name
        assert entry["bytes"] > 10_000 and (tmp_path / entry["file"]).exists()
        if exact:
            assert entry["agreement"] == 1
    assert formats["onnx_int8"]["calibration"]["images"] == 32
    assert formats["tflite"]["operators"]["CONV_2D"] > 10
    assert formats["triton"]["nodes"] == formats["onnx"]["nodes"]
    assert formats["tflite_int8"]["bytes"] < formats["tflite"]["bytes"]
    table = format_verification(report)
    assert all(entry["file"] in table for entry in formats.values())
    assert (tmp_path / "tf_serving/model/1/saved_model.pb").is_file()

    repository = tmp_path / "triton/model"
    assert (repository / "labels.txt").read_text().splitlines() == list(CLASSES)
    service = pytest.importorskip("tritonclient.grpc.service_pb2")
    text_format = pytest.importorskip("google.protobuf.text_format")
    config = text_format.Parse(
        (repository / "config.pbtxt").read_text(), service.ModelConfigResponse().config
    )
    assert (config.name, config.backend, config.max_batch_size) == ("model", "onnxruntime", 64)
    assert [(item.name, list(item.dims)) for item in config.input] == [("image", list(SHAPE))]
    assert [(item.name, list(item.dims)) for item in config.output] == [("probabilities", [4])]
    assert config.dynamic_batching.max_queue_delay_microseconds == 1000


_EXPORT = """
import hashlib, json, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_export_formats import CLASSES, GENOTYPE, data_of, keras, pictures
from gdas_tf.export import exporter
model = keras.models.load_model({model!r})
found = []
for number in range({times}):
    folder = Path({folder!r}) / str(number)
    exporter.export_model(
        model, data_of(model, pictures()), folder, formats=tuple(exporter.FORMATS), calibration_images=32,
        genotype=GENOTYPE,
    )
    files = [item for item in sorted(folder.rglob("*")) if item.is_file()]
    digests = [hashlib.sha256(item.read_bytes()).hexdigest() for item in files]
    found.append(dict(zip((str(item.relative_to(folder)) for item in files), digests, strict=True)))
print(json.dumps(found))
"""


@pytest.mark.slow
def test_exports_of_one_network_give_the_same_bytes(model: keras.Model, tmp_path: Path) -> None:
    """Three in one process and one in another, which hashes text differently: all files of all formats."""
    model.save(tmp_path / "model.keras")
    exports = []
    for times in (3, 1):
        program = _EXPORT.format(
            tests=str(Path(__file__).parent),
            model=str(tmp_path / "model.keras"),
            times=times,
            folder=str(tmp_path / str(times)),
        )
        environment = {**os.environ, "PYTHONHASHSEED": str(times)}
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
        )
        exports += json.loads(done.stdout.splitlines()[-1])
    assert {"model.onnx", "saved_model/fingerprint.pb", "verification.json"} < set(exports[0])
    for other in exports[1:]:
        assert other == exports[0]


def test_loss_of_accuracy_is_reported(model: keras.Model, images: np.ndarray, tmp_path: Path) -> None:
    data = data_of(model, images)

    def constant(path: Path) -> dict[str, exporter.verification.Predictor]:
        return {"": lambda pixels: np.tile(np.float32([0, 0, 0, 1]), (len(pixels), 1))}

    form = exporter.Format("bad", lambda material, path: path.write_text("x"), constant, exact=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(exporter.FORMATS, "onnx_int8", form)
        report = export_model(model, data, tmp_path, formats=("onnx_int8",))
    lost = 100 * (data.test.labels != 3).mean()
    assert lost > 1
    assert report["formats"]["onnx_int8"]["warning"] == f"loses {lost:.1f} points of accuracy"
    assert f"onnx_int8: loses {lost:.1f} points" in format_verification(report)
