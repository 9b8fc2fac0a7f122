"""The run directory: atomic writing, lock, metrics, checkpoints, bad input, full and read-only disks."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import yaml
from small_disks import small_disk

from gdas_tf.config.config import Config
from gdas_tf.errors import RunError, UsageError
from gdas_tf.files import atomic_path, atomic_write, read_json, write_json
from gdas_tf.runs.run import FILES, Run


@pytest.fixture
def run(tmp_path) -> Run:
    return Run.create(tmp_path / "run", Config.preset("quick"))


def start_python(code: str, *arguments: object) -> subprocess.Popen:
    """Starts Python with a script; the caller waits for what it prints."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


# --- atomic writing ---------------------------------------------------------------------------------------


def test_atomic_write_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new folder" / "file.txt"
    atomic_write(path, "one")
    atomic_write(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["file.txt"]


def test_failure_keeps_what_was_there(tmp_path):
    path = tmp_path / "file.txt"
    atomic_write(path, "old")
    with pytest.raises(ZeroDivisionError), atomic_path(path) as temporary:
        temporary.write_text("half")
        assert path.read_text() == "old"
        1 / 0  # noqa: B018
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_folders_are_replaced_whole(tmp_path):
    path = tmp_path / "saved_model"
    for content in ("one", "two"):
        with atomic_path(path) as temporary:
            (temporary / "variables").mkdir(parents=True)
            (temporary / content).write_text(content)
    assert sorted(os.listdir(path)) == ["two", "variables"]
    assert os.listdir(tmp_path) == ["saved_model"]


def test_temporary_path_keeps_the_suffix(tmp_path):
    with atomic_path(tmp_path / "model.keras") as temporary:
        assert temporary.suffix == ".keras"
        temporary.write_bytes(b"")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on the disk"),
        (OSError(errno.EROFS, "Read-only file system"), "read-only"),
        (PermissionError(errno.EACCES, "Permission denied"), "permission denied"),
        (RuntimeError("HDF5 write failed: No space left on device"), "no space left on the disk"),
    ],
)
def test_disk_errors_become_one_line(error, reason, tmp_path):
    path = tmp_path / "file.txt"
    atomic_write(path, "old")
    with pytest.raises(RunError, match=f"cannot write {path}: .*{reason}"), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_other_errors_pass_through(tmp_path):
    with pytest.raises(KeyError), atomic_path(tmp_path / "file.txt"):
        raise KeyError("mine")


def test_failed_atomic_write_leaves_no_folder(tmp_path):
    (tmp_path / "export").mkdir()
    with pytest.raises(KeyError), atomic_path(tmp_path / "export" / "tf_serving" / "model") as temporary:
        temporary.mkdir()
        (temporary / "1").touch()
        raise KeyError
    assert [path.name for path in tmp_path.rglob("*")] == ["export"]


def test_folder_in_the_way_of_a_path(tmp_path):
    (tmp_path / "file").write_text("I am a file")
    with pytest.raises(RunError, match="a part of the path is a file"):
        atomic_write(tmp_path / "file" / "below.txt", "x")


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 512 KiB of its own."""
    with small_disk(tmp_path / "disk", "512k") as folder:
        yield folder


def test_full_disk_keeps_run_intact(tiny_disk):
    run = Run.create(tiny_disk / "run", Config())
    run.save_checkpoint("search", {"weights": np.arange(1000)}, 1)
    run.append_metrics("search", {"epoch": 1})
    with pytest.raises(RunError, match=r"checkpoint.npz: no space left on the disk; free some"):
        run.save_checkpoint("search", {"weights": np.zeros(100_000)}, 2)
    arrays, epochs_done = run.load_checkpoint("search")
    assert epochs_done == 1
    np.testing.assert_array_equal(arrays["weights"], np.arange(1000))
    with pytest.raises(RunError, match="metrics.jsonl: no space left"):
        for epoch in range(2, 100_000):
            run.append_metrics("search", {"epoch": epoch, "text": "x" * 1000})
    lines = run.metrics("search")  # every line is whole
    assert [line["epoch"] for line in lines] == list(range(1, len(lines) + 1))
    assert not list(tiny_disk.rglob(".tmp-*"))


def test_read_only_disk(tiny_disk):
    run = Run.create(tiny_disk / "run", Config())
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    for write in (
        lambda: Run.create(tiny_disk / "other", Config()),
        lambda: run.append_metrics("search", {}),
        lambda: run.save_checkpoint("search", {}, 1),
        lambda: run.lock().__enter__(),
    ):
        with pytest.raises(RunError, match=r"cannot write .*: the disk is read-only; choose another place"):
            write()


def test_partly_written_metrics_line_is_taken_back(run, monkeypatch):
    run.append_metrics("search", {"epoch": 1})
    real_open = open

    class FullDisk:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def write(self, data):
            return self.file.write(data[:3])

        def __getattr__(self, name):
            return getattr(self.file, name)

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", lambda *args, **more: FullDisk(real_open(*args, **more)))
        with pytest.raises(RunError, match="no space left"):
            run.append_metrics("search", {"epoch": 2})
    assert run.metrics("search") == [{"epoch": 1}]


def test_kill_in_the_middle_of_writing(run):
    run.save_checkpoint("search", {"weights": np.ones(3)}, 1)
    process = start_python(
        """
        import sys, time
        from gdas_tf.runs.run import Run
        from gdas_tf.files import atomic_path
        run = Run.open(sys.argv[1])
        with run.lock(), atomic_path(run.file("search/checkpoint.npz")) as temporary:
            temporary.write_bytes(b"half a checkpoint")
            print("writing", flush=True)
            time.sleep(60)
        """,
        run.path,
    )
    assert process.stdout.readline() == "writing\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(run.path.rglob(".tmp-*"))
    with run.lock():  # the lock of the killed process is free, and its leftovers are gone
        assert not list(run.path.rglob(".tmp-*"))
        assert run.load_checkpoint("search")[1] == 1


# --- run directory ----------------------------------------------------------------------------------------


def test_create_and_open(tmp_path):
    config = Config.preset("quick").override({"seed": 5})
    created = Run.create(tmp_path / "a" / "b", config)
    opened = Run.open(created.path)
    assert opened.config == config
    assert opened.file("config.yaml").read_text().startswith("seed: 5\n")


def test_create_in_an_empty_folder(tmp_path):
    assert Run.create(tmp_path, Config()).file("config.yaml").is_file()


def test_create_touches_nothing_that_exists(tmp_path, run):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("dear reader")
    with pytest.raises(UsageError, match="not empty and not a run directory"):
        Run.create(folder, Config())
    assert os.listdir(folder) == ["thesis.txt"]
    before = run.file("config.yaml").read_text()
    with pytest.raises(UsageError, match="exists already; resume it, or choose another run directory"):
        Run.create(run.path, Config())
    assert run.file("config.yaml").read_text() == before
    with pytest.raises(UsageError, match="it is a file"):
        Run.create(folder / "thesis.txt", Config())


def test_open_what_is_no_run_directory(tmp_path, run):
    with pytest.raises(UsageError, match="does not exist"):
        Run.open(tmp_path / "absent")
    with pytest.raises(UsageError, match="has no config.yaml"):
        Run.open(tmp_path)
    run.file("config.yaml").write_text("search: {epochs: none at all}")
    with pytest.raises(UsageError, match=r"damaged: .*search.epochs: found 'none at all'"):
        Run.open(run.path)


def test_file_names_are_those_of_the_table(run):
    assert run.file("search/logits.npz") == run.path / "search" / "logits.npz"
    assert run.file("pictures/normal.png").name == "normal.png"
    with pytest.raises(KeyError, match="genotpye.json"):
        run.file("genotpye.json")
    assert all(FILES.values())


def test_lock_is_exclusive(run):
    process = start_python(
        """
        import sys, time
        from gdas_tf.runs.run import Run
        with Run.open(sys.argv[1]).lock():
            print("locked", flush=True)
            time.sleep(60)
        """,
        run.path,
    )
    assert process.stdout.readline() == "locked\n"
    with pytest.raises(UsageError, match="another process is using it"), run.lock():
        pass
    process.kill()
    process.wait()
    with run.lock():
        pass


def test_versions_and_commands(run):
    run.record_command(["run", "--data", "my photos"])
    run.record_command(["run", "--resume"])
    found = read_json(run.file("versions.json"))
    assert found["commands"] == ["gdas-tf run --data 'my photos'", "gdas-tf run --resume"]
    assert found["numpy"] == np.__version__
    assert found["machine"]["cores"] >= 1
    assert {"python", "gdas-tf", "tensorflow", "keras", "onnxruntime"} <= set(found)


def test_a_run_knows_where_it_was_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Run.create("r", Config())
    run.record_command()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    run = Run.open("../r")
    run.record_command(["run", "../r", "--resume"])
    assert run.made_in == tmp_path
    assert read_json(run.file("versions.json"))["commands"] == ["gdas-tf run ../r --resume"]
    run.file("versions.json").unlink()  # older versions wrote it later, and without the folder
    assert run.made_in is None
    run.record_command(["run"])
    assert run.made_in is None


def test_onnx_files_of_a_run(run):
    assert run.onnx_files() == []
    for name in ("model_int8.onnx", "model.onnx", ".tmp-1-model.onnx", "verification.json"):
        atomic_write(run.path / "export" / name, b"")
    assert [file.name for file in run.onnx_files()] == ["model.onnx", "model_int8.onnx"]


def test_json_of_numpy_values(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"f": np.float32(0.5), "i": np.int64(3), "a": np.eye(2), "nan": float("nan"), "p": path})
    assert read_json(path) == {"f": 0.5, "i": 3, "a": [[1, 0], [0, 1]], "nan": None, "p": str(path)}
    path.write_text("{")
    with pytest.raises(UsageError, match="damaged"):
        read_json(path)
    with pytest.raises(UsageError, match="No such file"):
        read_json(tmp_path / "absent.json")


# --- metrics ----------------------------------------------------------------------------------------------


def test_metrics_append_and_truncate(run):
    assert run.metrics("search") == []
    for epoch in (1, 2, 3):
        run.append_metrics("search", {"epoch": epoch, "loss": np.float32(epoch) / 2})
    assert run.metrics("search")[1] == {"epoch": 2, "loss": 1.0}
    run.truncate_metrics("search", 2)
    run.append_metrics("search", {"epoch": 3, "loss": 9.0})
    assert [line["loss"] for line in run.metrics("search")] == [0.5, 1.0, 9.0]
    assert run.metrics("retrain") == []


def test_damaged_metrics_are_named(run):
    run.append_metrics("search", {"epoch": 1})
    with open(run.file("search/metrics.jsonl"), "a") as file:
        file.write("garbage\n")
    with pytest.raises(UsageError, match="metrics.jsonl, line 2: damaged; found 'garbage'"):
        run.metrics("search")


# --- checkpoints ------------------------------------------------------------------------------------------


def test_checkpoint_round_trip(run):
    assert run.load_checkpoint("search") is None
    arrays = {
        "conv/kernel:0": np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32),
        "step": np.int64(7),
    }
    run.save_checkpoint("search", arrays, 4)
    loaded, epochs_done = Run.open(run.path).load_checkpoint("search")
    assert epochs_done == 4
    assert set(loaded) == set(arrays)
    for name, value in arrays.items():
        np.testing.assert_array_equal(loaded[name], value)
        assert loaded[name].dtype == np.asarray(value).dtype


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "text", "pickle"])
def test_damaged_checkpoint_is_one_line(run, damage):
    run.save_checkpoint("search", {"weights": np.arange(10_000)}, 4)
    path = run.file("search/checkpoint.npz")
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 0xFF
    path.write_bytes(
        {"truncated": content[: len(content) // 2], "flipped": content, "empty": b"", "text": b"hello"}.get(
            damage, b"\x80\x04N."
        )
    )
    with pytest.raises(UsageError) as error:
        run.load_checkpoint("search")
    assert str(error.value).startswith(f"checkpoint {path} is damaged")
    assert "\n" not in str(error.value)


def test_checkpoint_of_another_configuration_names_the_fields(run):
    run.save_checkpoint("search", {}, 1)
    other = Run(run.path, run.config.override({"search.channels": 99, "seed": 3}))
    with pytest.raises(UsageError, match=r"seed = 0 there, 3 now; search.channels = \d+ there, 99 now"):
        other.load_checkpoint("search")
    # What the search does not depend on may change.
    later = Run(run.path, run.config.override({"retrain.epochs": 1, "data.data_dir": "/elsewhere"}))
    assert later.load_checkpoint("search") is not None


def test_checkpoint_of_another_genotype(run):
    write_json(run.file("genotype.json"), {"normal": 1})
    run.save_checkpoint("retrain", {}, 1)
    assert run.load_checkpoint("retrain") is not None
    write_json(run.file("genotype.json"), {"normal": 2})
    with pytest.raises(UsageError, match="genotype = another one there"):
        run.load_checkpoint("retrain")


def test_configuration_of_later_stages_may_change(run):
    run.save_checkpoint("search", {}, 1)
    run.set_config(run.config.override({"retrain.epochs": 3}))
    assert Run.open(run.path).config.retrain.epochs == 3
    before = run.file("config.yaml").read_text()
    with pytest.raises(
        UsageError, match=r"search was made with another configuration \(search.epochs = \d+ there, 1"
    ):
        run.set_config(run.config.override({"search.epochs": 1}))
    assert run.file("config.yaml").read_text() == before


def test_finished(run):
    assert not run.finished("search")
    for epoch in range(run.config.search.epochs):
        assert not run.finished("search")
        run.append_metrics("search", {"epoch": epoch + 1})
    atomic_write(run.file("search/logits.npz"), b"")
    assert run.finished("search")
    assert run.begun("search")
    assert not run.begun("retrain")


def test_importing_needs_no_tensorflow():
    code = "import sys, json, gdas_tf.config.sections, gdas_tf.runs.run; print(json.dumps(list(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"tensorflow", "keras", "numpy"}.isdisjoint(json.loads(result.stdout))


def _age(run: Run) -> None:
    """Writes the configuration of a run as it was before there were options for head and weights."""
    new = ("head_norm", "initializer")
    values = yaml.safe_load(run.file("config.yaml").read_text())
    for section in ("search", "retrain"):
        values[section] = {name: value for name, value in values[section].items() if name not in new}
        values[section]["macro"] = {"autodl": "official"}.get(values[section]["macro"], "paper")
    run.file("config.yaml").write_text(yaml.safe_dump(values))
    path = run.file("retrain/checkpoint.npz")
    if path.exists():
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        about = json.loads(str(arrays["about.json"][()]))
        about["depends_on"] |= {name: values[name] for name in ("retrain",)}
        np.savez(path, **{**arrays, "about.json": np.array(json.dumps(about))})


@pytest.mark.parametrize("macro", ["paper", "autodl"])
def test_a_retraining_from_before_goes_on_as_it_began(macro, tmp_path):
    # It had batch norm in its head and He's weights, before there were options for them.
    config = Config.preset("quick").override(
        {"retrain.head_norm": True, "retrain.initializer": "he", "retrain.macro": macro}
    )
    run = Run.create(tmp_path / "run", config)
    run.append_metrics("retrain", {"epoch": 1, "loss": 1.0})
    run.save_checkpoint("retrain", {"weight": np.zeros(3)}, 1)
    _age(run)
    assert "head_norm" not in run.file("config.yaml").read_text()
    again = Run.open(run.path)
    assert again.config == config
    arrays, done = again.load_checkpoint("retrain")
    assert done == 1 and list(arrays) == ["weight"]
    with pytest.raises(UsageError, match="retrain.head_norm = True there, False now"):
        again.set_config(config.override({"retrain.head_norm": False}))


def test_a_run_from_before_that_has_only_searched_takes_the_defaults_of_now(tmp_path):
    run = Run.create(tmp_path / "run", Config.preset("quick"))
    run.append_metrics("search", {"epoch": 1, "loss": 1.0})
    _age(run)
    assert Run.open(run.path).config == Config.preset("quick")


def test_a_checkpoint_of_another_head_is_refused(run):
    run.save_checkpoint("retrain", {"weight": np.zeros(3)}, 1)
    run.config = run.config.override({"retrain.head_norm": True})
    with pytest.raises(UsageError, match="retrain.head_norm = False there, True now"):
        run.load_checkpoint("retrain")


@pytest.mark.parametrize("call", [Run.check_free, Run.open])
def test_an_unknown_home_folder_is_named(call, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="run directory ~nobody-of-this-name/r: the home folder"):
        call("~nobody-of-this-name/r")
    assert not list(tmp_path.iterdir())
