"""ONNX classifiers, ours and foreign ones, and the names they are served under."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from serving_helpers import CLASS_NAMES, make_model

from gdas_tf.errors import MissingStageError, UsageError
from gdas_tf.export.inference import Classifier, InputOptions
from gdas_tf.export.serving.repository import find_models, model_path


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(1).random((5, 8, 8, 3), np.float32)


@pytest.fixture
def expected(tmp_path: Path, images: np.ndarray) -> np.ndarray:
    """Probabilities of the reference model, which every variant below must reproduce."""
    return Classifier.load(make_model(tmp_path / "reference.onnx")).classify(images)


def test_our_own(tmp_path: Path, images: np.ndarray, expected: np.ndarray) -> None:
    classifier = Classifier.load(make_model(tmp_path / "a.onnx", metadata={"genotype": {"normal": []}}))
    assert classifier.image_shape == (8, 8, 3)
    assert classifier.class_names == CLASS_NAMES
    assert classifier.input_range == (0.0, 1.0)
    assert classifier.genotype == {"normal": []}
    assert not classifier.logits
    np.testing.assert_allclose(expected.sum(axis=1), 1, rtol=1e-5)
    assert np.ptp(expected, axis=0).max() > 0.1  # the images differ, and so do the answers
    for count in (1, 3):  # the batch doesn't matter
        np.testing.assert_allclose(classifier.classify(images[:count]), expected[:count], atol=1e-6)


@pytest.mark.parametrize(
    ("variant", "options"),
    [
        ({"layout": "nchw"}, InputOptions()),
        ({"batch": 1}, InputOptions()),
        ({"batch": 4, "layout": "nchw"}, InputOptions()),
        ({"softmax": False, "output_name": "logits", "input_name": "x"}, InputOptions()),
        ({"dtype": "float16"}, InputOptions()),
        ({"metadata": {}}, InputOptions(class_names=CLASS_NAMES)),
        ({"metadata": {}, "layout": "nchw", "softmax": False}, InputOptions(class_names=CLASS_NAMES)),
    ],
    ids=["nchw", "batch 1", "nchw, batch 4", "logits", "float16", "no metadata", "a foreign one"],
)
def test_variants_agree(
    tmp_path: Path, images: np.ndarray, expected: np.ndarray, variant: dict, options: InputOptions
) -> None:
    classifier = Classifier.load(make_model(tmp_path / "variant.onnx", **variant), options=options)
    assert classifier.logits == (not variant.get("softmax", True))
    assert classifier.class_names == CLASS_NAMES
    tolerance = 1e-2 if variant.get("dtype") == "float16" else 1e-5
    np.testing.assert_allclose(classifier.classify(images), expected, atol=tolerance)


def test_output_with_axes_of_one(tmp_path: Path, images: np.ndarray, expected: np.ndarray) -> None:
    """[images, classes, 1, 1], as networks without a flattening end in."""
    model = onnx.load(make_model(tmp_path / "a.onnx"))
    name = model.graph.output[0].name
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([2, 3]), "last"))
    model.graph.node.append(helper.make_node("Unsqueeze", [name, "last"], ["long"]))
    del model.graph.output[:]
    model.graph.output.append(
        helper.make_tensor_value_info("long", TensorProto.FLOAT, ["batch", len(CLASS_NAMES), 1, 1])
    )
    onnx.save(model, tmp_path / "long.onnx")
    classifier = Classifier.load(tmp_path / "long.onnx")
    np.testing.assert_allclose(classifier.classify(images), expected, atol=1e-6)


def test_pixels_in(tmp_path: Path, images: np.ndarray, expected: np.ndarray) -> None:
    """A network of uint8 pixels gets whole numbers of 0 to 255."""
    classifier = Classifier.load(make_model(tmp_path / "pixels.onnx", dtype="uint8"))
    batch = classifier.encode(images)
    assert batch.dtype == np.uint8
    np.testing.assert_array_equal(batch, np.rint(images * 255))
    np.testing.assert_allclose(classifier.classify(images), expected, atol=0.05)


def test_normalisation_and_range(tmp_path: Path, images: np.ndarray) -> None:
    path = make_model(tmp_path / "a.onnx", metadata={})
    shifted = Classifier.load(path, options=InputOptions(mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.25)))
    wanted = (images - np.float32([0.5, 0.4, 0.3])) / np.float32([0.2, 0.2, 0.25])
    np.testing.assert_allclose(shifted.encode(images), wanted, atol=1e-5)
    assert shifted.input_range is None
    signed = Classifier.load(path, options=InputOptions(input_range="-1..1"))
    np.testing.assert_allclose(signed.encode(images), images * 2 - 1, atol=1e-6)


def test_our_own_ignore_the_options(tmp_path: Path) -> None:
    """So that files of ours and of others can be served together."""
    options = InputOptions(image_size=(48, 192), class_names=("a", "b"), mean=(0.5,), input_range=None)
    path = make_model(tmp_path / "a.onnx")
    with pytest.raises(UsageError, match="image_size: found 48x192; the file takes 8x8"):
        Classifier.load(path, options=options)
    ours = make_model(tmp_path / "ours.onnx", metadata={"producer": "gdas-tf 0.1.0"})
    classifier = Classifier.load(ours, options=options)
    assert classifier.class_names == CLASS_NAMES
    assert classifier.options == InputOptions()


def test_open_sizes_need_an_option(tmp_path: Path) -> None:
    path = make_model(tmp_path / "open.onnx", metadata={}, layout="nchw")
    model = onnx.load(path)
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"size_{axis}"
    onnx.save(model, path)
    with pytest.raises(UsageError, match="give InputOptions.image_size, height and width"):
        Classifier.load(path)
    assert Classifier.load(path, options=InputOptions(image_size=(8, 8))).image_shape == (8, 8, 3)
    with pytest.raises(UsageError, match=r"does not run on images \[12, 10, 3\]"):
        Classifier.load(path, options=InputOptions(image_size=(12, 10)))


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        Classifier.load(tmp_path / "missing.onnx")
    (tmp_path / "damaged.onnx").write_bytes(make_model(tmp_path / "a.onnx").read_bytes()[:200])
    with pytest.raises(UsageError, match="damaged or not an ONNX file"):
        Classifier.load(tmp_path / "damaged.onnx")
    with pytest.raises(UsageError, match="5 classes and 2 class names"):
        Classifier.load(make_model(tmp_path / "names.onnx", metadata={"class_names": ["a", "b"]}))
    with pytest.raises(UsageError, match="7 channels"):
        Classifier.load(
            make_model(tmp_path / "channels.onnx", (8, 8, 7)), options=InputOptions(layout="nhwc")
        )
    with pytest.raises(UsageError, match="'0..7'"):
        Classifier.load(make_model(tmp_path / "range.onnx", metadata={"input_range": "0..7"}))
    vector = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [vector], [result])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9),
        tmp_path / "v.onnx",
    )
    with pytest.raises(UsageError, match="accepted are images of 4 axes"):
        Classifier.load(tmp_path / "v.onnx")


def test_names_and_versions(tmp_path: Path) -> None:
    for name in ("a.onnx", "old.onnx", "new.onnx", "many/one/1/model.onnx", "many/one/3/model.onnx"):
        make_model(tmp_path / name)
    found = find_models(
        [
            f"{tmp_path}/a.onnx",
            f"b={tmp_path}/old.onnx",
            f"b={tmp_path}/new.onnx",
            f"c:7={tmp_path}/a.onnx",
            f"{tmp_path}/many",
            f"two={tmp_path}/many/one",
        ]
    )
    assert [(model.name, model.version, model.path.parent.name) for model in found] == [
        ("a", 1, tmp_path.name),
        ("b", 1, tmp_path.name),
        ("b", 2, tmp_path.name),
        ("c", 7, tmp_path.name),
        ("one", 1, "1"),
        ("one", 3, "3"),
        ("two", 1, "1"),
        ("two", 3, "3"),
    ]


def test_run_directory(tmp_path: Path) -> None:
    from gdas_tf.config.config import Config
    from gdas_tf.runs.run import Run

    run = Run.create(tmp_path / "first", Config.preset("quick"))
    with pytest.raises(MissingStageError, match="it has no ONNX file; its stage export comes first"):
        find_models([str(run.path)])
    for name in ("model_int8.onnx", "model_float16.onnx"):  # what there is; of several, the most exact
        make_model(run.file(f"export/{name}"))
        assert find_models([str(run.path)])[0].path == run.file(f"export/{name}")
    make_model(run.file("export/model.onnx"))
    (model,) = find_models([str(run.path)])
    assert (model.name, model.version, model.path, model.run_directory) == (
        "first",
        1,
        run.file("export/model.onnx"),
        run.path,
    )
    assert model_path(run.path) == model.path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone.onnx"], "no such file"),
        (["a b=a.onnx"], "accepted are up to 64 letters"),
        (["x:1=a.onnx", "x:1=a.onnx"], "found twice"),
        (["x:0=a.onnx"], "begin with 1"),
        (["empty"], "no run directory"),
        (["a.keras"], "accepted are .onnx files"),
        ([""], "it is empty"),
    ],
)
def test_bad_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make_model(tmp_path / "a.onnx")
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.keras").touch()
    with pytest.raises(UsageError, match=message):
        find_models(arguments)
