"""Folders as people have them: splits without labels, run directories, links, thumbnails, other suffixes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from gdas_tf.data.dataset import DataSet, load_dataset
from gdas_tf.data.images import suffixes
from gdas_tf.data.picture_files import PictureFinder
from gdas_tf.errors import UsageError
from gdas_tf.runs.run import Run


def pictures(count: int, *folders: Path, seed: int = 0, suffix: str = "png") -> None:
    """Writes different pictures into each of some folders."""
    for place, folder in enumerate(folders):
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng([seed, place]).integers(0, 256, (count, 12, 12, 3), np.uint8)
        for number, image in enumerate(pixels):
            Image.fromarray(image).save(folder / f"{number:03}.{suffix}")


def load(path: Path, **options) -> DataSet:
    return load_dataset(str(path), **options)


def total(data: DataSet) -> int:
    return len(data.train) + len(data.test)


def different(data: DataSet) -> set[bytes]:
    return {image.tobytes() for split in (data.train, data.test) for image in split.images}


def refused(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def notes(caplog: pytest.LogCaptureFixture):
    """Returns the notes since the last call."""

    def take() -> list[str]:
        found = [record.message for record in caplog.records if record.name == "gdas_tf"]
        caplog.clear()
        return found

    return take


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    pictures(10, tmp_path / "pets" / "cat", tmp_path / "pets" / "dog")
    return tmp_path / "pets"


# --- splits and classes


def test_split_without_class_folders(tmp_path: Path, notes) -> None:
    """As competitions have of images without labels; held out is what would be without it."""
    root = tmp_path / "d"
    pictures(10, root / "train" / "cat", root / "train" / "dog")
    without = load(root)
    assert notes() == []
    pictures(10, root / "test", seed=1)
    data = load(root)
    assert notes() == [
        f"folder {root}: test is left alone, as it has no class folders; a part of train is held out"
    ]
    np.testing.assert_array_equal(data.test.images, without.test.images)
    assert total(data) == 20
    shutil.rmtree(root / "test")
    (root / "test").mkdir()
    assert total(load(root)) == 20 and len(notes()) == 1
    pictures(3, root / "val" / "cat", root / "val" / "dog", seed=2)
    assert len(load(root).test) == 6
    assert notes() == [
        f"folder {root}: test is left alone, as it has no class folders; the test images are those of val"
    ]


def test_split_with_folders_that_are_no_classes(tmp_path: Path) -> None:
    pictures(4, tmp_path / "train" / "cat", tmp_path / "train" / "dog", tmp_path / "test" / "unknown")
    assert "unknown is no class; the classes of the training images are cat, dog; rename it" in refused(
        tmp_path
    )


def test_class_called_train(tmp_path: Path, notes) -> None:
    root = tmp_path / "d"
    pictures(6, root / "bus", root / "plane", root / "train" / "steam", root / "train" / "diesel")
    line = refused(root)
    assert (
        "train is taken for the training images" in line and "bus, plane beside it has images as well" in line
    )
    assert "if train is a class, give it another name" in line
    for name in ("steam", "diesel"):  # without subfolders it can only be a class
        shutil.rmtree(root / "train" / name)
    pictures(6, root / "train")
    assert load(root).class_names == ("bus", "plane", "train")
    assert notes() == []


def test_folders_beside_two_splits_are_named(tmp_path: Path, notes) -> None:
    for split in ("train", "test", "val"):
        pictures(4, tmp_path / split / "cat", tmp_path / split / "dog")
    pictures(4, tmp_path / "extra")
    (tmp_path / "annotations").mkdir()
    assert len(load(tmp_path).train) == 8
    assert notes() == [f"folder {tmp_path}: val, extra is left alone, beside train and test"]


@pytest.mark.parametrize("name", ["test", "Validation"])
def test_split_among_classes(pets: Path, name: str) -> None:
    pictures(4, pets / name)
    assert f"{name} stands among the classes" in refused(pets)
    assert "move the classes into a folder train" in refused(pets)


def test_splits_without_classes(tmp_path: Path) -> None:
    pictures(4, tmp_path / "train", tmp_path / "test")
    assert "test, train has no class folders; put the images of each class into" in refused(tmp_path)


def test_classes_valid_and_invalid(tmp_path: Path) -> None:
    pictures(5, tmp_path / "valid", tmp_path / "invalid")
    assert load(tmp_path).class_names == ("invalid", "valid")


# --- run directories


def test_run_directories_are_no_classes(pets: Path, notes) -> None:
    for folder in (pets / "runs" / "quick", pets / "cat" / "try"):
        Run.create(folder, _config()).record_command(["run", "--data", "."])
        pictures(4, folder / "pictures", seed=3)
    data = load(pets)
    assert (data.class_names, total(data)) == (("cat", "dog"), 20)
    assert notes() == [f"folder {pets}: left alone: cat/try (run directory), runs/quick (run directory)"]
    Run.create(pets / "another", _config()).record_command(["run"])
    assert load(pets).class_names == ("cat", "dog")


def test_run_directory_among_the_classes_of_a_split(tmp_path: Path) -> None:
    pictures(4, *(tmp_path / split / name for split in ("train", "test") for name in ("cat", "dog")))
    for split in ("train", "test"):
        Run.create(tmp_path / split / "quick", _config()).record_command(["run"])
    assert load(tmp_path).class_names == ("cat", "dog")


def test_a_configuration_alone_makes_no_run_directory(pets: Path) -> None:
    (pets / "cat" / "config.yaml").write_text("of: another program\n")
    assert total(load(pets)) == 20


def _config():
    from gdas_tf.config.config import Config

    return Config.preset("quick")


# --- links


def test_links_that_lead_back(pets: Path, notes) -> None:
    """Each real folder once, else dogs get the label of cats and test images are trained on."""
    (pets / "cat" / "up").symlink_to("..")
    (pets / "dog" / "self").symlink_to(".")
    (pets / "dog" / "above").symlink_to(pets.parent.parent)
    (pets / "dog" / "cats").symlink_to(pets / "cat")
    data = load(pets)
    assert total(data) == 20 and len(different(data)) == 20
    assert notes() == [
        f"folder {pets}: left alone: cat/up (link to {pets}), dog/above (link to {pets.parent.parent}), "
        "dog/cats (link to cat), dog/self (link to dog)"
    ]


def test_links_to_folders_elsewhere(pets: Path, tmp_path: Path, notes) -> None:
    pictures(5, tmp_path / "pool" / "bird", tmp_path / "pool" / "more", seed=4)
    (pets / "bird").symlink_to(tmp_path / "pool" / "bird")
    (pets / "cat" / "more").symlink_to(tmp_path / "pool" / "more")
    data = load(pets)
    assert (data.class_names, total(data)) == (("bird", "cat", "dog"), 30)
    assert notes() == []
    (pets / "dog" / "more").symlink_to(tmp_path / "pool" / "more")
    assert total(load(pets)) == 30 and len(notes()) == 1
    (pets / "cat" / "itself").symlink_to("itself")
    assert total(load(pets)) == 30


def test_two_classes_that_are_one_folder(pets: Path) -> None:
    (pets / "kitty").symlink_to("cat")
    assert "kitty and cat are the same folder, through a link" in refused(pets)
    (pets / "kitty").unlink()
    (pets / "again").symlink_to(".")
    assert f"again and {pets} are the same folder" in refused(pets)


def test_test_images_that_are_the_training_images(tmp_path: Path) -> None:
    pictures(4, tmp_path / "train" / "cat", tmp_path / "train" / "dog")
    (tmp_path / "val").symlink_to("train")
    assert "val and train are the same folder" in refused(tmp_path)
    (tmp_path / "val").unlink()
    (tmp_path / "val").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "val" / name).symlink_to(tmp_path / "train" / name)
    assert "val/cat and train/cat are the same folder" in refused(tmp_path)


def test_folder_that_cannot_be_read(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (pets / "dog" / "secret").mkdir()
    scandir = os.scandir

    def guarded(path):
        if Path(path).name == "secret":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    assert f"folder {pets / 'dog' / 'secret'}: cannot read it: Permission denied" in refused(pets)


# --- folders and files of the system


@pytest.mark.parametrize(
    "name",
    [
        "@eaDir",
        "$RECYCLE.BIN",
        "System Volume Information",
        "lost+found",
        "#recycle",
        "__MACOSX",
        ".thumbnails",
    ],
)
def test_folders_of_the_system(pets: Path, notes, name: str) -> None:
    pictures(1, pets / name / "x.png", pets / "cat" / name, pets / "cat" / "deeper" / name.swapcase(), seed=5)
    data = load(pets)
    assert (data.class_names, total(data)) == (("cat", "dog"), 20)
    for file in ("Thumbs.db", "desktop.ini", ".DS_Store", "._000.png"):
        (pets / "cat" / file).write_bytes(b"x")
    assert total(load(pets)) == 20
    assert notes() == []


# --- other suffixes


def test_files_left_alone_are_counted(pets: Path, notes) -> None:
    for number in range(6):
        (pets / "cat" / f"00{number}.png").rename(pets / "cat" / f"00{number}.HEIC")
    (pets / "cat" / "006.png").rename(pets / "cat" / "006")
    pictures(2, pets, seed=6)
    assert total(load(pets)) == 13
    assert notes() == [
        f"folder {pets}: left alone: 6 x .heic, 1 without suffix, 2 outside of the classes' folders"
    ]
    for file in (pets / "cat").glob("*.png"):
        file.rename(file.with_suffix(".heif"))
    line = refused(pets)
    assert (
        "no image of class cat; every class needs some; left alone there: 6 x .heic, 3 x .heif, 1 with"
        in line
    )
    assert "accepted are .apng, " in line and ".webp" in line


@pytest.mark.parametrize(
    ("suffix", "feature"), [("avif", "avif"), ("jp2", "jpg_2000"), ("webp", "webp"), ("MPO", None)]
)
def test_pictures_that_predict_takes_are_trained_on(
    tmp_path: Path, notes, suffix: str, feature: str | None
) -> None:
    if feature is not None and not features.check(feature):
        pytest.skip(f"this Pillow has no {feature}")
    pictures(4, tmp_path / "a", tmp_path / "b", suffix=suffix)
    assert total(load(tmp_path)) == 8 and notes() == []


def test_pictures_that_this_pillow_cannot_read(
    tmp_path: Path, notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures(4, tmp_path / "a", tmp_path / "b")
    (tmp_path / "a" / "x.avif").write_bytes(b"x")
    monkeypatch.setattr(features, "check", lambda feature: feature != "avif")
    suffixes.cache_clear()
    try:
        assert ".avif" not in suffixes() and ".webp" in suffixes()
        assert total(load(tmp_path)) == 8
        assert notes() == [f"folder {tmp_path}: left alone: 1 x .avif"]
    finally:
        suffixes.cache_clear()


def test_finder_keeps_order(tmp_path: Path) -> None:
    for name in ("b/1.png", "a/2.PNG", "c.jpg", "a/b/3.gif"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    found = PictureFinder(tmp_path).find(tmp_path).files
    assert [str(file.relative_to(tmp_path)) for file in found] == ["a/2.PNG", "a/b/3.gif", "b/1.png", "c.jpg"]


@pytest.mark.slow
def test_the_command_line_shows_notes_as_lines(pets: Path) -> None:
    """Once, on stderr, without what loggers of other libraries put before it."""
    (pets / "cat" / "x.heic").touch()
    code = (
        "from gdas_tf.numerics.starting import start_tensorflow; start_tensorflow()\n"
        f"from gdas_tf.data.dataset import load_dataset; load_dataset({str(pets)!r})"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stderr.splitlines().count(f"folder {pets}: left alone: 1 x .heic") == 1
    assert found.stdout == ""
