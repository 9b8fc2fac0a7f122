"""Images that took long to decode are decoded once; what is kept is a shortcut and nothing more."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gdas_tf.data import decoded
from gdas_tf.data.dataset import load_dataset


@pytest.fixture(autouse=True)
def all_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoded, "SLOW", -1.0)


def pictures(root: Path, count: int = 12, parts: tuple[str, ...] = ("",)) -> Path:
    """A folder of images of two classes, each of a colour of its own."""
    for number in range(count):
        file = root / parts[number % len(parts)] / "ab"[number // 2 % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 8), (number, 100, 200)).save(file)
    return root


def folders(cache: Path) -> list[Path]:
    return [path for path in cache.iterdir() if path.is_dir()]


def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "gdas_tf.data.sources.image_folder.read_file", lambda *_: pytest.fail("decoded again")
    )


def same(one, other) -> bool:
    return all(
        np.array_equal(getattr(getattr(one, part), name), getattr(getattr(other, part), name))
        for part in ("train", "test")
        for name in ("images", "labels")
    )


@pytest.mark.parametrize("parts", [("",), ("train", "test")], ids=["held out", "test folder"])
def test_the_second_time_nothing_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: tuple[str, ...]
) -> None:
    root, cache = pictures(tmp_path / "pets", parts=parts), tmp_path / "cache"
    monkeypatch.setattr(decoded, "_BATCH", 5)
    monkeypatch.setattr("gdas_tf.data.store._CHUNK", 5)
    expected = load_dataset(str(root), cache_dir=cache)
    other = load_dataset(str(root), cache_dir=tmp_path / "other", seed=7)
    no_decoding(monkeypatch)
    assert same(load_dataset(str(root), cache_dir=cache), expected)
    # What is held out is drawn of what is kept: another seed decodes nothing, either.
    assert same(load_dataset(str(root), cache_dir=cache, seed=7), other)
    assert len(folders(cache)) == 1


def test_images_that_are_decoded_fast_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoded, "SLOW", 60.0)
    load_dataset(str(pictures(tmp_path / "pets")), cache_dir=tmp_path / "cache")
    load_dataset("digits", cache_dir=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    root, cache = pictures(tmp_path / "pets"), tmp_path / "cache"
    expected = load_dataset(str(root))
    name = os.fsencode(root / "a" / "0")
    os.rename(name + b".png", name + b"\xe9.png")
    assert same(load_dataset(str(root), cache_dir=cache), expected)
    assert len(folders(cache)) == 1


def test_changed_images_and_other_sizes_are_decoded(tmp_path: Path) -> None:
    root, cache = pictures(tmp_path / "pets"), tmp_path / "cache"
    load_dataset(str(root), cache_dir=cache)
    file = root / "a" / "0.png"
    before = file.stat()
    Image.new("RGB", (9, 8), (255, 100, 200)).save(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # the time of the change stays another
    data = load_dataset(str(root), cache_dir=cache)
    images = np.concatenate([data.train.images, data.test.images])
    assert (images[..., 0] == 255).all((1, 2)).sum() == 1
    assert load_dataset(str(root), cache_dir=cache, image_size=8).image_shape == (8, 8, 3)
    # The same names, sizes and times in another folder are other images.
    load_dataset(str(pictures(tmp_path / "others" / "pets")), cache_dir=cache)
    assert len(folders(cache)) == 4


@pytest.mark.parametrize("damage", ["cut", "gone", "other"])
def test_what_is_damaged_is_decoded_again(tmp_path: Path, damage: str) -> None:
    root, cache = pictures(tmp_path / "pets"), tmp_path / "cache"
    expected = load_dataset(str(root), cache_dir=cache)
    (folder,) = folders(cache)
    file = folder / "train_images.npy"
    if damage == "cut":
        os.truncate(file, file.stat().st_size - 1)
    elif damage == "gone":
        file.unlink()
    else:
        np.save(file, np.zeros((3, 8, 9, 3), np.uint8))
    assert same(load_dataset(str(root), cache_dir=cache), expected)
    assert folders(cache) == [folder]
    assert np.load(file).shape[0] == 12  # and kept again


def test_where_nothing_can_be_kept_it_goes_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = pictures(tmp_path / "pets")
    expected = load_dataset(str(root), cache_dir=tmp_path / "cache")
    (tmp_path / "file").write_text("")
    assert same(load_dataset(str(root), cache_dir=tmp_path / "file"), expected)
    monkeypatch.setattr(decoded, "_MARGIN", 2**62)
    assert same(load_dataset(str(root), cache_dir=tmp_path / "full"), expected)
    assert not folders(tmp_path / "full")
    monkeypatch.setattr("gdas_tf.data.store.default_cache_dir", lambda: Path("~nobody/no"))
    assert same(load_dataset(str(root)), expected)


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    roots = [pictures(tmp_path / name) for name in ("one", "two", "three")]
    for root in roots[:2]:
        load_dataset(str(root), cache_dir=cache)
    by_name = {path.name.split("-")[1]: path for path in folders(cache)}
    os.utime(by_name["one"], (1, 1))
    os.utime(by_name["two"], (2, 2))
    load_dataset(str(roots[0]), cache_dir=cache)  # used: two is the oldest now
    size = sum(file.stat().st_size for file in by_name["one"].iterdir())
    monkeypatch.setattr(decoded, "LIMIT", 2 * size)
    load_dataset(str(roots[2]), cache_dir=cache)
    assert {path.name.split("-")[1] for path in folders(cache)} == {"one", "three"}
