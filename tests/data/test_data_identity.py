"""What a network was made on: kept with it, and compared whenever data are loaded for it again.

The pictures are noise, so no honest accuracy can be far from chance; the tests look at which images are
measured, and at what is refused.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
from PIL import Image

from gdas_tf.cli.main import main
from gdas_tf.config.config import Config
from gdas_tf.data.dataset import DataSet, Split, load_dataset
from gdas_tf.data.identity import (
    DataIdentity,
    DataRecord,
    Draw,
    check_same_data,
    describe_change,
    image_hashes,
    images_digest,
    untrained_part,
)
from gdas_tf.errors import UsageError
from gdas_tf.networks.model_file import read_model_record, save_model
from gdas_tf.runs.data_record import read_record, record_data
from gdas_tf.runs.run import Run

GENOTYPE = "normal=sep3@0+skip@1 reduction=avg3@0+skip@1"
SMALL = ["--retrain-epochs", "1", "--retrain-channels", "4", "--retrain-cells", "1", "--data-padding", "0"]


def pictures(folder: Path, names: list[str], seed: int) -> None:
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.fromarray(generator.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / f"{name}.png")


def numbers(count: int) -> list[str]:
    return [f"{number:03d}" for number in range(count)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with pictures `d` of two classes, and a run directory `r` whose seed is 1."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        pictures(Path("d/cat"), numbers(25), 1)
        pictures(Path("d/dog"), numbers(25), 2)
        arguments = [
            "retrain",
            "--run-dir",
            "r",
            "--data",
            "d",
            "--seed",
            "1",
            "--genotype",
            GENOTYPE,
            *SMALL,
        ]
        assert main(arguments) == 0
    return folder


@pytest.fixture
def place(trained, tmp_path, monkeypatch) -> Path:
    """A copy of `trained` that is the current directory."""
    shutil.copytree(trained, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def gdas(capsys):
    """Runs a command line; returns its exit code, stdout and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return call


def refused(result: tuple[int, str, str]) -> str:
    code, out, err = result
    assert code == 2 and not out
    line = err.splitlines()[-1]
    assert line.startswith("gdas-tf: error: ")
    return line


# --- the record -------------------------------------------------------------------------------------------


def test_run_directory_and_model_keep_the_record(place):
    data = load_dataset("d", seed=1)
    record, carried = read_record(Run.open("r")), read_model_record("r/model.keras")
    assert record.identity == carried.identity == data.identity
    assert data.identity.class_names == ("cat", "dog")
    assert data.identity.image_shape == (8, 8, 3)
    assert (data.identity.train_images, data.identity.test_images) == (40, 10)
    assert data.identity.draw == Draw(1, 0.2)
    np.testing.assert_array_equal(record.train_hashes, data.train.hashes)
    np.testing.assert_array_equal(record.test_hashes, data.test.hashes)
    np.testing.assert_array_equal(carried.train_hashes, np.sort(data.train.hashes))


def test_model_file_is_an_ordinary_one_with_the_same_bytes_each_time(place):
    model = keras.saving.load_model("r/model.keras", compile=False)
    record = read_record(Run.open("r"))
    for name in ("one.keras", "two.keras"):
        save_model(model, name, record)
    assert Path("one.keras").read_bytes() == Path("two.keras").read_bytes()
    for path in ("r/model.keras", "one.keras"):
        with zipfile.ZipFile(path) as file:
            assert sorted(file.namelist()) == ["config.json", "metadata.json", "model.weights.h5"]
            assert {item.date_time for item in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}
            assert json.loads(file.read("metadata.json")).keys() == {"keras_version", "gdas_tf"}


def test_identity_as_json():
    identity = DataIdentity("d", ("a", "ä"), (8, 9, 1), 3, "x", 2, "y", Draw(5, 0.3))
    for value in (identity, replace(identity, draw=None)):
        assert DataIdentity.from_json(json.loads(json.dumps(value.to_json()))) == value
    read = {"data.image_size": (8, 9), "data.image_channels": 1}
    assert identity.options == {"seed": 5, "data.test_fraction": 0.3, **read}
    large = replace(identity, image_shape=(8, 1025, 1), draw=None)  # no option resizes to it
    assert large.options == {"data.image_channels": 1}
    square = replace(identity, image_shape=(9, 9, 3), draw=None)
    assert square.options == {"data.image_size": 9, "data.image_channels": 3}
    for damaged in (
        None,
        [],
        {},
        {**identity.to_json(), "train": 3},
        {**identity.to_json(), "image_shape": [1]},
    ):
        with pytest.raises(ValueError, match="identity"):
            DataIdentity.from_json(damaged)


def test_digest_depends_on_pixels_and_labels_but_not_on_order(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (2500, 3, 4, 2), np.uint8)
    labels = np.arange(2500) % 7
    hashes = image_hashes(images)
    assert hashes.dtype == np.uint64 and len(set(hashes.tolist())) == 2500
    np.testing.assert_array_equal(image_hashes(images[::-1])[::-1], hashes)
    np.save(tmp_path / "images.npy", images)
    np.testing.assert_array_equal(image_hashes(np.load(tmp_path / "images.npy", mmap_mode="r")), hashes)
    order = np.random.default_rng(1).permutation(2500)
    digest = images_digest(hashes, labels)
    assert images_digest(hashes[order], labels[order].astype(np.int32)) == digest
    assert images_digest(hashes, labels[order]) != digest
    changed = images.copy()
    changed[1234, 0, 0, 0] ^= 1
    assert (image_hashes(changed) != hashes).tolist() == [number == 1234 for number in range(2500)]


# --- data that change -------------------------------------------------------------------------------------


def test_unchanged_data_are_measured_as_before(place, gdas):
    code, out, err = gdas("evaluate", "r", "--json")
    assert code == 0 and "data" not in err
    assert json.loads(out)["images"] == 10 and "data_change" not in json.loads(out)


def add() -> None:
    pictures(Path("d/cat"), ["zzz"], 9)


def repeat() -> None:
    shutil.copy("d/cat/000.png", "d/cat/zzz.png")


def remove() -> None:
    Path("d/dog/003.png").unlink()


def alter() -> None:
    pictures(Path("d/cat"), ["004"], 9)


def mix_up() -> None:
    Path("d/cat/001.png").rename("d/cat/swap")
    Path("d/dog/001.png").rename("d/cat/001.png")
    Path("d/cat/swap").rename("d/dog/001.png")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (add, "1 image is new"),
        (repeat, "1 image is new"),
        (remove, "1 image is gone"),
        (alter, "1 image is new, 1 image is gone"),
        (mix_up, "pixels, labels or test images are others"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
@pytest.mark.parametrize("command", ["evaluate", "export"])
def test_changed_images_are_refused(place, gdas, change, said, command):
    change()
    line = refused(gdas(command, "r"))
    assert said in line and "--accept-changed-data" in line
    assert not Path("r/evaluation.json").exists() and not Path("r/export").exists()


def test_line_counts_the_test_images_that_were_trained_on(place, gdas):
    add()
    data = load_dataset("d", seed=1)
    moved = int(np.isin(data.test.hashes, read_record(Run.open("r")).train_hashes).sum())
    assert moved > 1  # one more image moves others among the test images: this is what the record is for
    counted = f"{moved} of the {len(data.test)} images that are test images now were trained on"
    assert counted in refused(gdas("evaluate", "r"))


def test_accepted_change_measures_all_that_was_not_trained_on(place, gdas):
    before = json.loads(gdas("evaluate", "r", "--json")[1])
    trained_on = read_record(Run.open("r")).train_hashes
    for file in sorted(Path("d/cat").glob("*.png")):
        if image_hashes(np.asarray(Image.open(file))[None])[0] in trained_on:
            shutil.copy(file, "d/cat/repeat.png")
            break
    code, out, err = gdas("evaluate", "r", "--accept-changed-data", "--json")
    result = json.loads(out)
    assert code == 0 and "measured are the 10 images that it was not trained on" in err
    assert "1 image is new" in result.pop("data_change")
    assert "1 image is new" in json.loads(Path("r/evaluation.json").read_text())["data_change"]
    assert result["loss"] == pytest.approx(before["loss"], rel=1e-5)  # the old test images, in another order
    assert result["class_accuracy"] == before["class_accuracy"]
    add()
    code, out, _ = gdas("evaluate", "r/model.keras", "--data", "d", "--accept-changed-data", "--json")
    assert code == 0 and json.loads(out)["images"] == 11


@pytest.mark.slow
def test_export_of_accepted_data_carries_what_was_trained_on(place, gdas):
    remove(), add()
    code, out, _ = gdas("export", "r", "--accept-changed-data", "--export-formats", "onnx", "--json")
    assert code == 0 and "1 image is gone" in json.loads(out)["data_change"]
    model = onnx.load("r/export/model.onnx")
    carried = json.loads({item.key: item.value for item in model.metadata_props}["data"])
    assert DataIdentity.from_json(carried) == read_record(Run.open("r")).identity


def test_training_goes_on_with_the_same_data_only(place, gdas):
    Path("r/model.keras").unlink()  # as if it had been killed before its end
    add()
    line = refused(gdas("retrain", "r", "--resume"))
    assert "1 image is new" in line and "begin another run directory" in line
    commands = json.loads(Path("r/versions.json").read_text())["commands"]
    assert len(commands) == 1  # a command that was refused did nothing
    Path("d/cat/zzz.png").unlink()
    assert gdas("retrain", "r", "--resume")[0] == 0


def test_retraining_takes_the_data_of_its_search(place):
    data = load_dataset("d", seed=1)
    run = Run.create("s", Config())
    assert record_data(run, "search", data).identity == data.identity
    other = replace(data, train=data.test, test=data.train)
    assert record_data(run, "search", other).identity == other.identity  # no step was done on the first
    run.append_metrics("search", {"epoch": 1})
    record_data(run, "retrain", other)
    with pytest.raises(UsageError, match="not what run directory s was made on"):
        record_data(run, "retrain", data)
    assert read_record(run).identity == other.identity


@pytest.mark.slow
def test_test_folder_that_goes_away(tmp_path, monkeypatch, gdas):
    monkeypatch.chdir(tmp_path)
    for number, folder in enumerate(("train/cat", "train/dog", "test/cat", "test/dog")):
        pictures(Path("d", folder), numbers(10), number)
    assert gdas("retrain", "--run-dir", "r", "--data", "d", "--genotype", GENOTYPE, *SMALL)[0] == 0
    assert gdas("evaluate", "r")[0] == 0
    assert gdas("evaluate", "r/model.keras", "--data", "d", "--seed", "7")[0] == 0  # nothing is drawn
    shutil.rmtree("d/test")
    line = refused(gdas("evaluate", "r"))
    assert "it had test images of its own, and has none now, 20 images are gone" in line
    assert "4 of the 4 images that are test images now were trained on" in line
    assert "the network was trained on all of its images" in refused(
        gdas("evaluate", "r", "--accept-changed-data")
    )
    Path("r/model.keras").unlink()
    assert "it had test images of its own" in refused(gdas("retrain", "r", "--resume"))


# --- classes ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_renamed_class_is_refused_by_its_names(place, gdas):
    Path("d/cat").rename("d/kitten")  # the labels of the two classes are the other way round now
    for command in ("evaluate", "export"):
        for arguments in (["r"], ["r/model.keras", "--data", "d"], ["r", "--accept-changed-data"]):
            line = refused(gdas(command, *arguments))
            assert "class cat is gone, class kitten is new" in line
    assert not Path("r/export").exists() and not Path("export").exists()


def test_folder_that_became_a_class_is_refused_by_its_name(place, gdas):
    pictures(Path("d/fox"), numbers(5), 7)
    assert "class fox is new" in refused(gdas("evaluate", "r"))


def test_other_order_of_the_classes_is_refused():
    split = Split(np.zeros((2, 8, 8, 1), np.uint8), np.array([0, 1], np.int32))
    data = DataSet("d", ("a", "b"), split, split, (0.5,), (0.5,))
    turned = replace(data, class_names=("b", "a"))
    with pytest.raises(UsageError, match="they are in another order"):
        check_same_data(DataRecord.of(data), turned, "run directory r")
    larger = Split(np.zeros((2, 9, 9, 1), np.uint8), split.labels)
    with pytest.raises(
        UsageError, match=r"its images are 9x9x1; run directory r was made on images of 8x8x1"
    ):
        check_same_data(DataRecord.of(data), replace(data, train=larger, test=larger), "run directory r")


# --- files alone ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_model_alone_is_measured_on_what_was_held_out_from_it(place, gdas):
    of_run = json.loads(gdas("evaluate", "r", "--json")[1])
    for seed in ([], ["--seed", "1", "--preset", "small"]):
        result = json.loads(gdas("evaluate", "r/model.keras", "--data", "d", *seed, "--json")[1])
        assert result["loss"] == of_run["loss"] and result["accuracy"] == of_run["accuracy"]
    for command, given in (("evaluate", ["--seed", "0"]), ("export", ["--data-test-fraction", "0.3"])):
        line = refused(gdas(command, "r/model.keras", "--data", "d", *given, "--accept-changed-data"))
        assert "which were drawn with seed 1 and --data-test-fraction 0.2" in line
    Path("mine.yaml").write_text("seed: 0\n")
    assert "seed 1" in refused(gdas("evaluate", "r/model.keras", "--data", "d", "--config", "mine.yaml"))


@pytest.mark.slow
def test_model_alone_reads_images_at_its_size(place, gdas):
    for file in Path("d").rglob("*.png"):  # a user's photographs are larger, and not of one size
        Image.open(file).resize((16 + len(file.name) % 3, 12 + int(file.stem) % 2), 0).save(file)
    arguments = ["--data", "d", "--data-image-size", "8", "--seed", "3", "--genotype", GENOTYPE, *SMALL]
    assert gdas("retrain", "--run-dir", "q", *arguments)[0] == 0
    of_run = json.loads(gdas("evaluate", "q", "--json")[1])
    alone = json.loads(gdas("evaluate", "q/model.keras", "--data", "d", "--json")[1])
    assert alone["loss"] == of_run["loss"]


@pytest.mark.slow
def test_exports_carry_the_identity_and_benchmark_follows_it(place, gdas):
    fast = [
        "--benchmark-seconds",
        "0.02",
        "--benchmark-warm-up",
        "1",
        "--benchmark-batch-sizes",
        "1",
        "--json",
    ]
    exported = json.loads(gdas("export", "r/model.keras", "--data", "d", "--json")[1])
    identity = read_model_record("r/model.keras").identity
    assert (
        DataIdentity.from_json(json.loads(Path("export/saved_model/assets.extra/data.json").read_text()))
        == identity
    )
    accuracy = exported["accuracy"]
    code, out, err = gdas("benchmark", "export/model.onnx", "--data", "d", *fast)
    assert code == 0 and "cannot be known" not in err
    assert json.loads(out)["files"][0]["accuracy"] == accuracy

    model = onnx.load("export/model.onnx")
    metadata = {item.key: item.value for item in model.metadata_props}
    onnx.helper.set_model_props(model, {key: value for key, value in metadata.items() if key != "data"})
    onnx.save(model, "foreign.onnx")
    code, out, err = gdas("benchmark", "foreign.onnx", "export/model.onnx", "--data", "d", *fast)
    assert code == 0
    assert "model foreign.onnx does not say what data it was made on: it cannot be known which images" in err
    assert [file["accuracy"] for file in json.loads(out)["files"]] == [accuracy, accuracy]

    other = replace(identity, test_digest="another", draw=Draw(2, 0.2))
    onnx.helper.set_model_props(model, {**metadata, "data": json.dumps(other.to_json())})
    onnx.save(model, "other.onnx")
    line = refused(gdas("benchmark", "other.onnx", "export/model.onnx", "--data", "d", *fast))
    assert "held out different images" in line
    assert gdas("benchmark", "other.onnx", "export/model.onnx", *fast)[0] == 0  # speed alone needs no data
    add()
    line = refused(gdas("benchmark", "export/model.onnx", "--data", "d", *fast))
    assert "it has 41 training and 10 test images, it had 40 and 10" in line


def test_model_of_others_is_measured_with_a_warning(place, gdas):
    keras.saving.load_model("r/model.keras", compile=False).save("foreign.keras")
    assert read_model_record("foreign.keras") is None
    code, out, err = gdas("evaluate", "foreign.keras", "--data", "d", "--json")
    assert code == 0 and json.loads(out)["images"] == 10
    assert "model foreign.keras does not say what data it was made on" in err
    assert "drawn with seed 0 and --data-test-fraction 0.2" in err


# --- run directories of older versions, and damaged ones --------------------------------------------------


@pytest.mark.slow
def test_run_directory_without_a_record(place, gdas):
    for name in ("data.json", "data.npz"):
        Path("r", name).unlink()
    add()
    assert "1 image" not in (line := refused(gdas("evaluate", "r"))) and "not what run directory r" in line
    keras.saving.load_model("r/model.keras", compile=False).save("r/model.keras")
    code, _, err = gdas("evaluate", "r")
    assert code == 0 and "it cannot be checked that the data are as they were" in err
    Path("r/model.keras").unlink()
    code, _, err = gdas("retrain", "r", "--resume")
    assert code == 0 and "cannot be checked" in err
    assert not Path("r/data.json").exists()  # on which data it began is not known
    assert read_model_record("r/model.keras") is None


def test_data_that_were_moved(place, gdas):
    Path("d").rename("elsewhere")
    assert gdas("evaluate", "r", "--data", "elsewhere")[0] == 0


@pytest.mark.parametrize("content", ["", "[]", '{"name": "d"}'])
def test_damaged_record(place, gdas, content):
    Path("r/data.json").write_text(content)
    assert "data.json and data.npz" in refused(gdas("evaluate", "r"))


# --- which images test a network --------------------------------------------------------------------------


def made_up(train: list[int], test: list[int], draw: Draw | None) -> DataSet:
    """Images that differ by one number each."""

    def split(values: list[int]) -> Split:
        images = np.broadcast_to(np.array(values, np.uint8)[:, None, None, None], (len(values), 8, 8, 1))
        return Split(np.ascontiguousarray(images), np.array(values, np.int32) % 2)

    return DataSet("made up", ("even", "odd"), split(train), split(test), (0.5,), (0.5,), draw)


@pytest.mark.parametrize("draw", [Draw(0, 0.5), None])
def test_no_test_image_was_trained_on(draw):
    record = DataRecord.of(made_up([1, 2, 3, 4], [5, 6], draw))
    now = made_up([5, 1, 8, 2], [6, 3, 4, 7], draw)
    result = untrained_part(record, now)
    values = result.test.images[:, 0, 0, 0].tolist()
    assert sorted(values) == ([5, 6, 7, 8] if draw else [6, 7])
    assert (result.test.labels == np.array(values) % 2).all()
    assert not np.isin(result.test.hashes, record.train_hashes).any()
    assert result.train.images[:, 0, 0, 0].tolist() == ([1, 2] if draw else [5, 1, 8, 2])
    with pytest.raises(UsageError, match="trained on all of its images"):
        untrained_part(record, made_up([1, 2], [3, 4], draw))


def test_change_in_words():
    record = DataRecord.of(made_up([1, 2, 3, 4], [5, 6], Draw(0, 0.5)))
    assert describe_change(record, made_up([4, 3, 2, 1], [6, 5], None)) is None  # the same, in another order
    own = describe_change(record, made_up([1, 2, 3, 4], [5, 6, 7, 8], None))
    assert own == "it has test images of its own now, which it had not, 2 images are new"
    carried = DataRecord(record.identity)
    assert describe_change(carried, made_up([1, 2, 3], [5, 6], Draw(0, 0.5))) == (
        "it has 3 training and 2 test images, it had 4 and 2"
    )
    assert "as many images" in describe_change(carried, made_up([1, 2, 3, 9], [5, 6], Draw(0, 0.5)))


# --- a path that is relative ------------------------------------------------------------------------------


@pytest.mark.slow
def test_relative_data_from_another_folder(place, gdas, monkeypatch):
    made_in = Path.cwd()
    Path("r/versions.json").write_text(json.dumps({"made_in": str(made_in), "commands": []}))
    Path("below").mkdir()
    monkeypatch.chdir("below")
    line = refused(gdas("evaluate", "../r"))
    assert "data d: there is no such file or folder in the current folder" in line
    assert f"relative to where run directory ../r was made, {made_in}; go on with it there" in line
    Path("../r/versions.json").unlink()  # of an older version: nobody knows where it was made
    assert "was made" not in refused(gdas("evaluate", "../r"))
    Path("d").symlink_to(made_in / "d")
    assert gdas("evaluate", "../r")[0] == 0
