"""What `gdas-tf inspect` finds in folders and arrays, good and bad, and the picture it draws."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from gdas_tf.cli.main import main
from gdas_tf.data.inspection import Inspection, inspect
from gdas_tf.drawing import data_set
from gdas_tf.errors import UsageError


def noise(path: Path, seed: int, size: tuple[int, int] = (12, 10), mode: str = "RGB") -> Path:
    """A picture that no other seed gives; size is width x height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    shape = (height, width) if mode == "L" else (height, width, 3)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 8, 3 and 2 training images and 1 test image each, with all that may be wrong."""
    root = tmp_path_factory.mktemp("photos")
    for number in range(6):
        noise(root / "train/a" / f"{number}.png", number)
    noise(root / "train/a/wide.png", 50, (40, 20))
    noise(root / "train/b/grey.png", 51, mode="L")
    for name in ("b", "c"):
        noise(root / "train" / name / "1.png", ord(name))
        noise(root / "test" / name / "1.png", 2 * ord(name))
    shutil.copy(root / "train/a/0.png", root / "train/a/copy.png")
    shutil.copy(root / "train/a/1.png", root / "test/a.png")
    (root / "test/a").mkdir()
    shutil.move(root / "test/a.png", root / "test/a/known.png")
    shutil.copy(root / "train/b/1.png", root / "train/c/other label.png")
    (root / "train/b/empty.png").touch()
    return root


@pytest.fixture(scope="module")
def found(folder: Path) -> Inspection:
    return inspect(str(folder))


def test_everything_in_a_folder_is_counted(found: Inspection) -> None:
    assert found.class_names == ("a", "b", "c")
    assert found.counts == {"train": [8, 3, 2], "test": [1, 1, 1]}
    assert found.sizes == {(10, 12): 14, (20, 40): 1}
    assert found.channels == {1: 1, 3: 14}
    assert found.unreadable == [("train/b/empty.png", "empty file")]
    assert found.unevenness == 4.0
    assert found.image_shape() is None and found.image_shape((8, 12)) == (8, 12, 3)


def test_copies_within_and_across_parts_and_classes(found: Inspection) -> None:
    groups = [sorted(place for _, place, _ in group) for group in found.duplicates]
    assert sorted(groups) == [
        ["test/a/known.png", "train/a/1.png"],
        ["train/a/0.png", "train/a/copy.png"],
        ["train/b/1.png", "train/c/other label.png"],
    ]
    assert found.copies() == {"train": 2, "test": 0, "across": 1, "other_class": 1}


def test_advice_names_what_to_do(found: Inspection) -> None:
    text = "\n".join(found.advice())
    for words in (
        "2 sizes: give one by data.image_size, as 32x40",
        "1 image cannot be read",
        "uneven (4.0 to 1): data.balance",
        "fewer than 20 training images of a, b, c",
        "1 test image among the training images",
        "1 image with copies under different classes",
    ):
        assert words in text
    json.dumps(found.to_json())


def test_nothing_to_say_of_clean_data() -> None:
    digits = inspect("digits")
    assert digits.image_shape() == (8, 8, 1) and sum(digits.counts["train"]) == 1797
    assert digits.advice() == [] and digits.unevenness == pytest.approx(183 / 174)
    assert digits.samples[3]().shape == (8, 8, 1)


def test_arrays_and_what_is_no_data_set(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 9, 7, 3), np.uint8)
    images[5] = images[0]
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(6) % 2)
    arrays = inspect(str(tmp_path / "a.npz"))
    assert arrays.copies() == {"train": 1, "test": 0, "across": 0, "other_class": 1}
    assert arrays.sizes == {(9, 7): 6} and "below 8 pixels" in arrays.advice()[0]
    with pytest.raises(UsageError, match="no such folder"):
        inspect(str(tmp_path / "none"))


def test_picture_has_each_class_from_the_largest_on_and_the_sizes(
    found: Inspection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(data_set, "save", lambda figure, path: drawn.append(figure))
    samples = {label: show() for label, show in found.samples.items()}
    names = ("few", "many", "some")
    data_set.draw_data_set(names, {"train": [2, 8, 3]}, found.sizes, samples, "photos", tmp_path / "a.png")
    bars, sizes = drawn[0].axes
    assert [label.get_text() for label in bars.get_yticklabels()] == ["many", "some", "few"]
    assert [bar.get_width() for bar in bars.patches] == [8, 3, 2]
    assert len(bars.artists) == 3  # an image of each
    assert sizes.collections[0].get_offsets().tolist() == [[12, 10], [40, 20]]


def test_command_tells_people_and_scripts(folder: Path, tmp_path: Path, capsys) -> None:
    picture = tmp_path / "photos.svg"
    assert main(["inspect", str(folder), "--presets", "none", "--picture", str(picture)]) == 0
    text = capsys.readouterr().out
    assert "train/b/empty.png: empty file" in text and "give one by --data-image-size" in text
    assert picture.read_text().startswith("<?xml")
    assert main(["inspect", str(folder), "--presets", "none", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["copies"]["across"] == 1 and result["presets"] == []
    assert result["classes"]["b"] == {"train": 3, "test": 1}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name a data set"),
        (["digits", "--presets", "fast"], "found 'fast'; accepted are quick, small"),
        (["digits", "--picture", "a.jpg"], "a .png or an .svg file"),
        (["digits", "--data-image-size", "8x4"], "at least 8"),
    ],
)
def test_wrong_use_is_one_line(arguments: list[str], words: str, capsys) -> None:
    assert main(["inspect", *arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and words in lines[0]
