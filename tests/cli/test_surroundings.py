"""What is set for other projects, notebooks and terminals does not change what a command does."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from gdas_tf.cli.surroundings import own_surroundings
from gdas_tf.export.serving.repository import find_models

_ROOT = Path(__file__).parents[2]
_OURS = ("KERAS_", "MPL", "TF_", "ORT_", "PYTHONIOENCODING", "PYTHONUTF8", "LC_ALL", "LANG")
_TINY = [
    *("--search-epochs", "1", "--search-channels", "2", "--search-nodes", "1"),
    *("--search-operations", "skip_connect,conv_1x1"),
]


def _python(arguments: list[object], folder: Path, **environment: str) -> subprocess.CompletedProcess:
    """Runs Python in a folder, which is also HOME, with none of the variables that the tests set."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    kept |= {"HOME": str(folder), "CUDA_VISIBLE_DEVICES": "-1", **environment}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=kept, encoding="utf-8")


def _gdas(arguments: list[object], folder: Path, **environment: str) -> subprocess.CompletedProcess:
    return _python(["-m", "gdas_tf.cli", *arguments], folder, **environment)


@pytest.fixture(scope="module")
def searched(tmp_path_factory) -> Path:
    """A folder with a run `r`: searched and derived in surroundings without any settings."""
    folder = tmp_path_factory.mktemp("searched")
    done = _gdas(["search", "r", *_TINY], folder)
    assert done.returncode == 0, done.stderr
    assert _gdas(["derive", "r"], folder).returncode == 0
    return folder


# --- Keras ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_settings_of_keras_change_nothing(searched, tmp_path):
    (tmp_path / ".keras").mkdir()
    settings = {
        "backend": "torch",
        "image_data_format": "channels_first",
        "floatx": "float16",
        "epsilon": 0.5,
        "nnx_enabled": True,
    }
    file = tmp_path / ".keras" / "keras.json"
    file.write_text(json.dumps(settings))
    variables = {"KERAS_BACKEND": "jax", "KERAS_MAX_EPOCHS": "0", "KERAS_MAX_STEPS_PER_EPOCH": "1"}
    done = _gdas(["search", "r", *_TINY], tmp_path, **variables)
    assert done.returncode == 0, done.stderr
    with (
        np.load(tmp_path / "r/search/logits.npz") as ours,
        np.load(searched / "r/search/logits.npz") as wanted,
    ):
        for name in wanted.files:
            np.testing.assert_array_equal(ours[name], wanted[name])
    small = ["--genotype", "normal=skip@0 reduction=fixed", "--retrain-epochs", 1, "--retrain-channels", 2]
    done = _gdas(["retrain", *small], tmp_path, KERAS_BACKEND="torch")
    assert done.returncode == 0, done.stderr
    assert json.loads(file.read_text()) == settings


@pytest.mark.slow
def test_nothing_is_left_in_the_home(searched):
    assert not (searched / ".keras").exists()


def test_the_environment_is_as_before(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setenv("KERAS_MAX_EPOCHS", "3")
    monkeypatch.delenv("MPLBACKEND", raising=False)
    before = dict(os.environ)
    with own_surroundings(debug=False):
        assert os.environ["KERAS_BACKEND"] == "tensorflow" and os.environ["MPLBACKEND"] == "agg"
        assert "KERAS_MAX_EPOCHS" not in os.environ
    assert dict(os.environ) == before


def test_library_with_another_backend_is_one_error(tmp_path):
    modules = ["networks.derived", "training.search", "training.retraining", "optimizers.torch_sgd"]
    code = f"""
import importlib
for module in {modules}:
    try:
        importlib.import_module(f"gdas_tf.{{module}}")
    except Exception as error:
        print(f"{{type(error).__name__}}: {{error}}")
"""
    done = _python(["-c", code], tmp_path, KERAS_BACKEND="torch")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(modules)
    for line in done.stdout.splitlines():
        assert line.startswith("UsageError: Keras ")
        assert "KERAS_BACKEND to tensorflow" in line


def test_library_without_keras_takes_any_backend(tmp_path):
    code = "import gdas_tf.spaces.genotype, gdas_tf.config.sections, gdas_tf.export.inference"
    assert _python(["-c", code], tmp_path, KERAS_BACKEND="torch").returncode == 0


def test_every_module_takes_the_keras_that_is_checked():
    """An import of its own, above the checked one, would fail before the error that says what to do."""
    for path in (_ROOT / "gdas_tf").rglob("*.py"):
        if path.name == "keras_backend.py":
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert not {name for name in names if name.split(".")[0] == "keras"}, path


@pytest.mark.parametrize(
    ("setting", "value"), [("image_data_format", "channels_first"), ("floatx", "float16")]
)
def test_library_with_other_settings_says_what_to_call(setting, value, monkeypatch):
    import keras

    from gdas_tf.errors import UsageError
    from gdas_tf.networks.derived import build_network
    from gdas_tf.spaces.base import SearchSpace
    from gdas_tf.spaces.genotype import GENOTYPES
    from gdas_tf.supernet.network import Supernet

    before = getattr(keras.config, setting)()
    getattr(keras.config, f"set_{setting}")(value)
    try:
        for build in (
            lambda: build_network(GENOTYPES["GDAS_V1"], (8, 8, 1), 3, channels=2, cells=1),
            lambda: Supernet(SearchSpace(), classes=3),
        ):
            with pytest.raises(UsageError, match=f"call keras.config.set_{setting}"):
                build()
    finally:
        getattr(keras.config, f"set_{setting}")(before)


# --- pictures, noise, telemetry ---------------------------------------------------------------------------


@pytest.mark.slow
def test_pictures_with_the_backend_of_a_notebook(tmp_path):
    done = _gdas(["draw", "GDAS_V1"], tmp_path, MPLBACKEND="module://not_installed.backend_inline")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "pictures" / "normal.png").exists()


@pytest.mark.slow
def test_tensorflow_says_nothing_of_itself(searched):
    commands = [
        ["retrain", "r", "--retrain-epochs", 1, "--retrain-channels", 2],
        ["evaluate", "r"],
    ]
    for command in commands:
        done = _gdas(command, searched)
        assert done.returncode == 0, done.stderr
        for word in ("WARNING", "oneDNN", "cuda", "rebuild TensorFlow", "absl", "computation_placer"):
            assert word not in done.stderr, command


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory) -> Path:
    """An image classifier of no learned weights: images [n, 3, 8, 8] to their mean colour."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    tensors = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", ["n", 3, 8, 8]), ("y", ["n", 3]))
    ]
    graph = helper.make_graph(nodes, "graph", tensors[:1], tensors[1:])
    path = tmp_path_factory.mktemp("onnx") / "m.onnx"
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 18)]), path)
    return path


@pytest.mark.slow
def test_telemetry_of_onnxruntime_is_off(onnx_file, tmp_path):
    seen = tmp_path / "seen.py"  # a test with the real reports would send some
    seen.write_text(
        "import os, sys, builtins\n"
        "real = builtins.__import__\n"
        "def watch(name, *rest, **options):\n"
        "    if name.split('.')[0] == 'onnxruntime' and 'onnxruntime' not in sys.modules:\n"
        "        with open(os.environ['SEEN'], 'a') as file:\n"
        "            print(os.environ.get('ORT_DISABLE_TELEMETRY'), file=file)\n"
        "    return real(name, *rest, **options)\n"
        "builtins.__import__ = watch\n"
    )
    (tmp_path / "sitecustomize.py").write_text("import seen\n")
    short = ["--benchmark-seconds", 0.01, "--benchmark-rounds", 1, "--benchmark-batch-sizes", 1]
    for wanted, variables in (("1", {}), ("0", {"ORT_DISABLE_TELEMETRY": "0"})):
        record = tmp_path / f"seen-{wanted}"
        # The measurement starts a process of its own for the memory.
        environment = {"PYTHONPATH": str(tmp_path), "SEEN": str(record), **variables}
        done = _gdas(["benchmark", onnx_file, *short], tmp_path, **environment)
        assert done.returncode == 0, done.stderr
        assert record.read_text().splitlines() == [wanted, wanted]
    done = _gdas(["benchmark", onnx_file, *short], tmp_path)
    assert done.returncode == 0


def test_no_trace_of_onnxruntime_in_the_home(onnx_file, tmp_path):
    from PIL import Image

    home = tmp_path / "home"
    home.mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    done = _gdas(["predict", onnx_file, tmp_path / "red.png"], home)
    assert done.returncode == 0, done.stderr
    assert not list(home.rglob("*"))


# --- terminals --------------------------------------------------------------------------------------------


def test_stdout_that_knows_ascii_alone(onnx_file, tmp_path):
    from PIL import Image

    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    (tmp_path / "names.txt").write_text("café\ngrün\n東京\n", encoding="utf-8")
    arguments = ["predict", onnx_file, "red.png", "--class-names", "names.txt"]
    narrow = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "1"}
    done = _gdas(arguments, tmp_path, **narrow)
    assert done.returncode == 0, done.stderr
    assert r"caf\xe9" in done.stdout
    done = _gdas([*arguments, "--json"], tmp_path, **narrow)
    assert json.loads(done.stdout)["predictions"][0]["classes"][0]["label"] == "café"
    assert _gdas([*arguments, "--csv"], tmp_path, **narrow).returncode == 0
    assert _gdas(["run", "--help"], tmp_path, **narrow).returncode == 0
    done = _gdas([*arguments, "--json"], tmp_path)
    assert "café" in done.stdout  # where it can be printed it is


def test_a_folder_with_an_equals_sign_is_no_name(onnx_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("lr=0.1/1", "1"):
        Path(path).mkdir(parents=True)
        Path(path, "model.onnx").write_bytes(onnx_file.read_bytes())
    Path("a=b.onnx").write_bytes(onnx_file.read_bytes())
    from gdas_tf.errors import UsageError

    with pytest.raises(UsageError, match=r"name it, as by model=lr=0\.1"):
        find_models(["lr=0.1"])
    [model] = find_models(["model=lr=0.1"])
    assert (model.name, model.path) == ("model", Path("lr=0.1/1/model.onnx"))
    with pytest.raises(UsageError, match="name it, as by model=a=b.onnx"):
        find_models(["a=b.onnx"])
    [model] = find_models(["b=a=b.onnx"])
    assert (model.name, model.path) == ("b", Path("a=b.onnx"))
    Path("c.onnx").write_bytes(onnx_file.read_bytes())
    [model] = find_models(["b=c.onnx"])  # no such path: a name
    assert (model.name, model.path) == ("b", Path("c.onnx"))
