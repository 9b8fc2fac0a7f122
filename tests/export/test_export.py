"""Export: SavedModel, ONNX, the clean-up of its graph, and the verification that lets a file out or not."""

from __future__ import annotations

import functools
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

from gdas_tf.errors import RunError, UsageError
from gdas_tf.export import exporter, formats, verification
from gdas_tf.export.exporter import export_model, format_verification
from gdas_tf.export.onnx_model import describe, to_onnx
from gdas_tf.export.onnx_passes import Graph, clean_up, count_operators
from gdas_tf.networks.derived import build_network
from gdas_tf.spaces.genotype import GENOTYPES, Genotype

CLASSES = ("zero", "one", "two", "three", "four")


def network(
    genotype: str | Genotype, shape: tuple[int, int, int], channels: int = 8, head_norm: bool = False
) -> keras.Model:
    """A small network, the batch norms of which are not the identity.

    Its weights are He's: untrained, those of PyTorch would let all images have the same probabilities.
    """
    if isinstance(genotype, str):
        genotype = GENOTYPES[genotype]
    model = build_network(
        genotype,
        shape,
        len(CLASSES),
        channels=channels,
        cells=1,
        mean=(0.4, 0.5, 0.6)[: shape[2]],
        std=(0.2, 0.25, 0.3)[: shape[2]],
        head_norm=head_norm,
        initializer="he",
        seed=1,
    )
    random = np.random.default_rng(2)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            size = layer.gamma.shape
            layer.set_weights(
                [
                    random.uniform(0.5, 1.5, size),
                    random.normal(0, 0.2, size),
                    random.normal(0, 0.2, size),
                    random.uniform(0.5, 1.5, size),
                ]
            )
    # Of probabilities that are all but 0 and 1 nothing could be seen.
    model.get_layer("logits").set_weights(
        [0.01 * weight for weight in model.get_layer("logits").get_weights()]
    )
    return model


def pixels_of(shape: tuple[int, int, int], count: int = 40) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, *shape), np.uint8)


def data_of(shape: tuple[int, int, int], count: int = 40) -> SimpleNamespace:
    """What the export needs of a data set."""
    labels = np.arange(count, dtype=np.int32) % len(CLASSES)
    split = SimpleNamespace(images=pixels_of(shape, count), labels=labels)
    return SimpleNamespace(
        name="made up", class_names=CLASSES, classes=len(CLASSES), image_shape=shape, train=split, test=split
    )


def run(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": images})[0]


@functools.cache
def converted(
    genotype: str | Genotype, shape: tuple[int, int, int], head_norm: bool = False
) -> tuple[keras.Model, onnx.ModelProto]:
    """A network and its ONNX model, made once for all tests."""
    model = network(genotype, shape, head_norm=head_norm)
    known = GENOTYPES.get(genotype) if isinstance(genotype, str) else genotype
    return model, to_onnx(model, describe(model, CLASSES, known, 0.5))


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return converted("GDAS_V1", (16, 16, 3))[0]


@pytest.fixture(scope="module")
def onnx_model() -> onnx.ModelProto:
    return converted("GDAS_V1", (16, 16, 3))[1]


# Dilated, strided, pooled, skipped, `none`; both reduction cells; even and odd sizes; grey; both stems.
ALL_KINDS = Genotype.from_text(
    "normal=dil3@0+avg3@1/none@0+none@1/conv3@0+sep7@2/max3@3+conv1@1 "
    "reduction=dil5@0+avg3@1/skip@0+dil3@1/none@0+none@1/skip@2+max3@1"
)


@pytest.mark.parametrize(
    ("genotype", "shape", "head_norm"),
    [
        ("GDAS_V1", (16, 16, 3), False),
        pytest.param("GDAS_V1", (16, 16, 3), True, marks=pytest.mark.slow),
        pytest.param("GDAS_F1", (17, 19, 3), False, marks=pytest.mark.slow),
        (ALL_KINDS, (13, 12, 1), True),
        pytest.param("DARTS_V2", (66, 65, 3), False, marks=pytest.mark.slow),
    ],
    ids=["even", "head norm", "fixed reduction, odd", "all operations, grey", "imagenet stem"],
)
def test_onnx_gives_the_probabilities_of_keras_and_is_clean(
    genotype: str | Genotype, shape: tuple[int, int, int], head_norm: bool
) -> None:
    model, written = converted(genotype, shape, head_norm)
    images = pixels_of(shape, 6).astype(np.float32) / 255
    wanted = model.predict_on_batch(images)
    assert wanted.max() < 0.99 and wanted.std(0).max() > 1e-3
    np.testing.assert_allclose(run(written, images), wanted, atol=2e-6)

    operators = count_operators(written)
    for joint in (node for node in written.graph.node if node.op_type == "Concat"):
        # A ReLU of all of it would be a pass over memory; one beside other readers cannot be avoided.
        readers = {node.op_type for node in written.graph.node if joint.output[0] in node.input}
        assert readers != {"Relu"}
    unwanted = {"BatchNormalization", "Cast", "Pad", "Slice", "Split", "Identity", "MatMul", "ReduceMean"}
    assert not unwanted & set(operators)
    # Channels go first, once, at the input; that is a Reshape for grey images.
    assert operators.get("Transpose", 0) + operators.get("Reshape", 0) == 1
    first = [node.op_type for node in written.graph.node[:4]]
    assert first[: first.index("Conv")] in (["Sub", "Mul", "Transpose"], ["Sub", "Mul", "Reshape"])


@pytest.mark.parametrize("head_norm", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_onnx_batch_norms_are_folded(head_norm: bool) -> None:
    """One convolution for each of Keras', for a batch norm of the head, and for each shifted branch."""
    model, onnx_model = converted("GDAS_V1", (16, 16, 3), head_norm)
    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
    convolutions = sum(isinstance(layer, kinds) for layer in model.layers)
    shifted = sum(isinstance(layer, keras.layers.Cropping2D) for layer in model.layers)
    operators = count_operators(onnx_model)
    assert operators["Conv"] == convolutions + head_norm + shifted
    assert operators["Add"] == sum(isinstance(layer, keras.layers.Add) for layer in model.layers)
    assert operators["Mul"] == operators["Sub"] == 1  # the standardization of the images


def test_onnx_names_and_metadata(model: keras.Model, onnx_model: onnx.ModelProto) -> None:
    (image,), (probabilities,) = onnx_model.graph.input, onnx_model.graph.output
    assert (image.name, probabilities.name) == ("image", "probabilities")
    sizes = [dim.dim_param or dim.dim_value for dim in image.type.tensor_type.shape.dim]
    assert sizes == ["batch", 16, 16, 3]
    metadata = {item.key: item.value for item in onnx_model.metadata_props}
    assert json.loads(metadata["class_names"]) == list(CLASSES)
    assert Genotype.from_json(metadata["genotype"]) == GENOTYPES["GDAS_V1"]
    assert json.loads(metadata["image_shape"]) == [16, 16, 3]
    assert json.loads(metadata["mean"]) == pytest.approx([0.4, 0.5, 0.6])
    assert json.loads(metadata["std"]) == pytest.approx([0.2, 0.25, 0.3])
    assert json.loads(metadata["parameters"]) == sum(np.prod(w.shape) for w in model.trainable_weights)
    assert json.loads(metadata["accuracy"]) == 0.5
    assert (metadata["input_range"], metadata["precision"]) == ("0..1", "float32")
    names = {node.name for node in onnx_model.graph.node}
    layers = {layer.name for layer in model.layers}
    others = {name for name in names - layers if name.removesuffix("_relu") not in layers}
    assert others == {"standardize_2", "logits_pool_2"}  # a layer of two nodes
    assert len(names) == len(onnx_model.graph.node)


@pytest.mark.slow
def test_onnx_is_the_same_file_each_time(model: keras.Model, onnx_model: onnx.ModelProto) -> None:
    again = to_onnx(model, describe(model, CLASSES, GENOTYPES["GDAS_V1"], 0.5))
    assert again.SerializeToString(deterministic=True) == onnx_model.SerializeToString(deterministic=True)


def test_two_layers_that_compute_the_same_are_one_node_named_after_the_first(model: keras.Model) -> None:
    twice = Genotype.from_text("normal=max3@1+skip@0/max3@1+sep3@0 reduction=max3@1+avg3@0/max3@1+avg3@1")
    small = network(twice, (12, 12, 3))
    layers = [layer.name for layer in small.layers if isinstance(layer, keras.layers.MaxPooling2D)]
    names = [item.name for item in to_onnx(small, {}).graph.node if item.op_type == "MaxPool"]
    assert len(layers) == 2 * len(names)
    assert names == layers[::2]


def image_graph(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], size: int) -> onnx.ModelProto:
    """A model of `image` [batch, 4, size, size] -> `y`."""
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        "graph",
        [onnx.helper.make_tensor_value_info("image", kind, ["batch", 4, size, size])],
        [onnx.helper.make_tensor_value_info("y", kind, None)],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)


def node(op_type: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    return onnx.helper.make_node(op_type, inputs.split(), [output], name=output, **attributes)


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("step", [2, 3])
@pytest.mark.parametrize("stride", [1, 2])
def test_slice_becomes_stride_and_dilation(size: int, kernel: int, step: int, stride: int) -> None:
    pad = kernel // 2
    graph = image_graph(
        [
            node("Slice", "image starts ends axes steps", "cut"),
            node("Conv", "cut w", "y", kernel_shape=[kernel] * 2, pads=[pad] * 4, strides=[stride] * 2),
        ],
        {
            "w": np.random.default_rng(0).normal(size=(2, 4, kernel, kernel)).astype(np.float32),
            "starts": np.zeros(2, np.int64),
            "ends": np.full(2, 10**9),
            "axes": np.array([2, 3]),
            "steps": np.full(2, step),
        },
        size,
    )
    images = np.random.default_rng(1).normal(size=(2, 4, size, size)).astype(np.float32)
    cleaned = clean_up(graph)
    assert count_operators(cleaned) == {"Conv": 1}
    np.testing.assert_allclose(run(cleaned, images), run(graph, images), atol=1e-5)


@pytest.mark.parametrize("size", [7, 8])
def test_shifted_branch_stays_a_convolution(size: int) -> None:
    """pad, x[1:, 1:], 1x1 convolution of stride 2: as PyTorch and TensorFlow write a factorized reduction."""
    graph = image_graph(
        [
            node("Pad", "image pads", "padded"),
            node("Slice", "padded starts ends axes", "cut"),
            node("Conv", "cut w", "y", kernel_shape=[1, 1], strides=[2, 2]),
        ],
        {
            "w": np.random.default_rng(0).normal(size=(3, 4, 1, 1)).astype(np.float32),
            "pads": np.array([0, 0, 0, 0, 0, 0, size % 2, size % 2]),
            "starts": np.ones(2, np.int64),
            "ends": np.full(2, 10**9),
            "axes": np.array([2, 3]),
        },
        size,
    )
    images = np.random.default_rng(1).normal(size=(2, 4, size, size)).astype(np.float32)
    cleaned = clean_up(graph)
    assert count_operators(cleaned) == {"Conv": 2}
    np.testing.assert_allclose(run(cleaned, images), run(graph, images), atol=1e-5)


def test_what_others_read_is_not_scaled() -> None:
    """A batch norm is not folded into a convolution whose output is read elsewhere, too."""
    graph = image_graph(
        [
            node("Conv", "image w", "x", kernel_shape=[1, 1]),
            node("Mul", "x scale", "scaled"),
            node("Add", "x scaled", "y"),
        ],
        {
            "w": np.random.default_rng(0).normal(size=(3, 4, 1, 1)).astype(np.float32),
            "scale": np.array([1, 2, 3], np.float32).reshape(1, 3, 1, 1),
        },
        8,
    )
    images = np.random.default_rng(1).normal(size=(2, 4, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(run(clean_up(graph), images), run(graph, images), atol=1e-5)


def test_order_of_the_nodes_is_that_of_the_structure() -> None:
    """Whatever order a converter wrote them in."""
    nodes = [
        node("Relu", "image", "a"),
        node("Neg", "image", "b"),
        node("Abs", "a", "c"),
        node("Add", "b c", "y"),
    ]
    for order in ((0, 1, 2, 3), (1, 0, 2, 3), (0, 2, 1, 3)):
        graph = Graph(image_graph([nodes[i] for i in order], {}, 8))
        graph.sort()
        assert [item.name for item in graph.nodes] == ["b", "a", "c", "y"]


def test_sweep_drops_what_nothing_reads() -> None:
    graph = Graph(
        image_graph([node("Relu", "image", "y"), node("Neg", "unused", "dead")], {"unused": np.ones(3)}, 8)
    )
    graph.sweep()
    assert [item.name for item in graph.nodes] == ["y"]
    assert not graph.constants


def test_export_writes_verified_files(model: keras.Model, tmp_path: Path) -> None:
    shape = (16, 16, 3)
    report = export_model(
        model, data_of(shape), tmp_path / "export", genotype=GENOTYPES["GDAS_V1"], images=30
    )
    assert sorted(item.name for item in (tmp_path / "export").iterdir()) == [
        "model.onnx",
        "saved_model",
        "verification.json",
    ]
    written = json.loads((tmp_path / "export/verification.json").read_text())
    assert written["images"] == 30
    for name in ("saved_model", "onnx"):
        entry = written["formats"][name]
        assert entry["largest_difference"] < 1e-5
        assert entry["agreement"] == 1
        assert entry["accuracy"] == written["accuracy"]
        assert entry["bytes"] > 100_000
    assert written["formats"]["onnx"]["opset"] == 18
    assert written["formats"]["onnx"]["operators"]["Conv"] > 50
    assert all(Path(path).exists() for path in report["files"].values())
    table = format_verification(report)
    assert "saved_model" in table and "model.onnx" in table

    import tensorflow as tf

    signatures = tf.saved_model.load(str(tmp_path / "export/saved_model")).signatures
    pixels = pixels_of(shape, 3)
    wanted = model.predict_on_batch(pixels.astype(np.float32) / 255)
    assert signatures["serving_default"].structured_input_signature[1]["image"].dtype == tf.float32
    given = signatures["serving_pixels"](image=tf.constant(pixels))["probabilities"].numpy()
    np.testing.assert_allclose(given, wanted, atol=1e-6)


@pytest.mark.slow
def test_partial_export_keeps_what_is_known_of_the_other_files(model: keras.Model, tmp_path: Path) -> None:
    def report() -> dict:
        return json.loads((tmp_path / "verification.json").read_text())

    data = data_of((16, 16, 3))
    export_model(model, data, tmp_path, formats=("onnx", "onnx_float16", "saved_model"), images=20)
    whole = report()
    returned = export_model(model, data, tmp_path, formats=("onnx",), images=30)
    assert list(returned["files"]) == ["model.onnx", "verification.json"]
    assert list(report()["formats"]) == list(returned["formats"]) == ["onnx", "onnx_float16", "saved_model"]
    for name in ("onnx_float16", "saved_model"):
        assert report()["formats"][name] == whole["formats"][name]
    assert [entry["images"] for entry in report()["formats"].values()] == [30, 20, 20]

    # A file that is gone or another one is not verified.
    (tmp_path / "model_float16.onnx").write_bytes(b"another")
    export_model(model, data, tmp_path, formats=("onnx",), images=20)
    assert list(report()["formats"]) == ["onnx", "saved_model"]

    # Nor are those of a network with one other weight.
    weights = model.get_weights()
    try:
        model.set_weights([weights[0] + np.float32(1e-3), *weights[1:]])
        export_model(model, data, tmp_path, formats=("onnx",), images=20)
    finally:
        model.set_weights(weights)
    assert list(report()["formats"]) == ["onnx"]
    (tmp_path / "verification.json").write_text("[]")
    export_model(model, data, tmp_path, formats=("onnx",), images=20)
    assert list(report()["formats"]) == ["onnx"]


@pytest.mark.slow
def test_a_format_of_ones_own(model: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "FORMATS", dict(formats.FORMATS))
    monkeypatch.setattr(exporter, "FORMATS", formats.FORMATS)

    def write(material: object, path: Path) -> None:
        material.model.save(path)

    def predictors(path: Path) -> dict[str, verification.Predictor]:
        return {"": verification.keras_predictor(keras.models.load_model(path))}

    formats.register("keras", formats.Format("copy.keras", write, predictors))
    report = export_model(model, data_of((16, 16, 3)), tmp_path, formats=("keras",), images=10)
    assert report["formats"]["keras"]["agreement"] == 1
    assert (tmp_path / "copy.keras").is_file()
    for name, file in (("keras", "other"), ("other", "model.onnx")):
        with pytest.raises(ValueError, match="is there already"):
            formats.register(name, formats.Format(file, write, predictors))


def test_names_of_formats_need_no_tensorflow() -> None:
    program = """
import sys
from gdas_tf.config.names import names
print(names("format"), sorted({"tensorflow", "keras", "onnx", "onnxruntime", "numpy"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{tuple(sorted(formats.FORMATS))} []"


def test_export_that_differs_is_refused_and_leaves_what_was_there(
    model: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.onnx").write_bytes(b"the old one")

    def off(path: Path) -> verification.Predictor:
        return lambda pixels: model.predict_on_batch(pixels.astype(np.float32) / 255) + np.float32(1e-3)

    monkeypatch.setattr(verification, "onnx_predictor", off)
    with pytest.raises(
        RunError, match=r"export onnx: a probability differs .* by 0\.001 .* nothing was written"
    ):
        export_model(model, data_of((16, 16, 3)), tmp_path, formats=("onnx",))
    assert (tmp_path / "model.onnx").read_bytes() == b"the old one"
    assert [item.name for item in tmp_path.iterdir()] == ["model.onnx"]


def test_another_class_is_refused_and_a_tie_is_not() -> None:
    reference = np.array([[0.6, 0.4], [0.50000001, 0.5]], np.float32)
    labels = np.array([0, 1])
    tie = verification.compare(np.array([[0.6, 0.4], [0.5, 0.50000006]], np.float32), reference, labels)
    assert (tie["ties"], tie["different_classes"], tie["agreement"]) == (1, 0, 1)
    verification.check("onnx", tie, 1e-4, 2)
    other = verification.compare(np.array([[0.4, 0.6], [0.50000001, 0.5]], np.float32), reference, labels)
    assert (other["different_classes"], other["accuracy_change"]) == (1, -0.5)
    with pytest.raises(RunError, match="1 of 2 held-out images get another class"):
        verification.check("onnx", other, 1, 2)


def test_not_a_number_is_refused() -> None:
    reference = np.array([[0.6, 0.4]], np.float32)
    broken = verification.compare(np.full((1, 2), np.nan, np.float32), reference, np.array([0]))
    with pytest.raises(RunError, match="differs"):
        verification.check("onnx", broken, 1e-4, 1)


def test_held_out_images_are_spread_over_the_split() -> None:
    split = SimpleNamespace(images=np.arange(100, dtype=np.uint8), labels=np.arange(100))
    images, labels = verification.held_out(split, 10)
    assert images.tolist() == labels.tolist() == [0, 11, 22, 33, 44, 55, 66, 77, 88, 99]
    assert len(verification.held_out(split, 1000)[1]) == 100


def test_bad_input(model: keras.Model, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"export.formats: found \['onxx'\]; accepted: onnx, "):
        export_model(model, data_of((16, 16, 3)), tmp_path, formats=("onxx",))
    with pytest.raises(UsageError, match=r"images \[8, 8, 1\] of 5 classes; the network takes \[16, 16, 3\]"):
        export_model(model, data_of((8, 8, 1)), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_disk(model: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def on_a_full_disk(material: object, path: Path) -> None:
        from gdas_tf.export.onnx_model import save_onnx

        path.symlink_to("/dev/full")
        save_onnx(onnx.ModelProto(producer_name="x" * 10**6), path)

    form = exporter.Format("model.onnx", on_a_full_disk, dict)
    monkeypatch.setitem(exporter.FORMATS, "onnx", form)
    with pytest.raises(RunError, match="no space left"):
        export_model(model, data_of((16, 16, 3)), tmp_path, formats=("onnx",))
    assert not list(tmp_path.iterdir())
