"""Where in a folder the classes' folders lie: in itself, or in its splits `train` and `test`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gdas_tf.data.picture_files import PictureFinder, seen
from gdas_tf.data.wording import listing
from gdas_tf.errors import UsageError
from gdas_tf.notes import note

TRAIN = ("train", "training")
TEST = ("test", "testing", "val", "valid", "validation")
"""Subfolders that hold the classes one level deeper; of several, the first in this order counts."""


@dataclass(frozen=True)
class Layout:
    """Where the classes' folders lie.

    Args:
        train: the folder of the training images' classes.
        test: that of the test images' classes; None if there are none apart.
        beside: subfolders beside the two, if `train` is one.
    """

    train: Path
    test: Path | None = None
    beside: tuple[Path, ...] = ()


def find_layout(path: Path, finder: PictureFinder) -> Layout:
    """Returns where the classes of a data set's folder lie.

    With a subfolder `train` that has subfolders they lie in it, and in the first of `TEST` that has
    subfolders. A split without them, as competitions have of unlabelled images, is left alone with a note.

    Raises:
        UsageError: splits stand where classes should, so that they would become some; or two splits are one
            folder.
    """
    names, _ = finder.subfolders(path)
    train = _first(path, names, TRAIN, finder)
    if train is None:
        _refuse_splits_as_classes(path, names)
        return Layout(path)
    test = _first(path, names, TEST, finder)
    meet_all(path, [folder for folder in (train, test) if folder], finder)
    for name in names:
        if name.lower() in TEST and not finder.subfolders(path / name)[0]:
            source = f"the test images are those of {test.name}" if test else "a part of train is held out"
            note(f"folder {path}: {name} is left alone, as it has no class folders; {source}")
    return Layout(train, test, tuple(path / name for name in names if path / name not in (train, test)))


def check_beside(path: Path, layout: Layout, finder: PictureFinder) -> None:
    """Makes sure that no class is dropped because another one is called `train`; notes what is left alone.

    To be called when the splits have been looked into, as links in them may lead to folders beside.

    Raises:
        UsageError: there are folders with images beside `train`, and no other split.
    """
    splits = [folder.name for folder in layout.beside if folder.name.lower() in (*TRAIN, *TEST)]
    others = [folder.name for folder in layout.beside if folder.name not in splits]
    others = [name for name in others if finder.find(path / name).files]
    if others and not splits and layout.test is None:
        raise UsageError(
            f"folder {path}: {layout.train.name} is taken for the training images, as it has subfolders, but "
            f"{listing(others)} beside it has images as well; if {layout.train.name} is a class, give it "
            f"another name; if it is not, move {listing(others)} elsewhere"
        )
    # Of splits without class folders `find_layout` spoke.
    splits = [name for name in splits if finder.subfolders(path / name)[0] or name.lower() in TRAIN]
    if others or splits:
        used = f"{layout.train.name} and {layout.test.name}" if layout.test else layout.train.name
        note(f"folder {path}: {listing([*splits, *others])} is left alone, beside {used}")


def meet_all(root: Path, folders: Sequence[Path], finder: PictureFinder) -> None:
    """Marks folders, so that none of them is found again through a link below another.

    Raises:
        UsageError: two are the same folder, or one was marked before.
    """
    for folder in folders:
        before = finder.meet(folder)
        if before is not None:
            raise UsageError(
                f"folder {root}: {folder.relative_to(root)} and {seen(before, root)} are the same folder, "
                "through a link; remove the link"
            )


def _first(path: Path, names: Sequence[str], wanted: Sequence[str], finder: PictureFinder) -> Path | None:
    """Returns the subfolder with the first of some names, in capitals or not, that has subfolders itself."""
    found = {name.lower(): path / name for name in reversed(names)}
    folders = [found[name] for name in wanted if name in found]
    return next((folder for folder in folders if finder.subfolders(folder)[0]), None)


def _refuse_splits_as_classes(path: Path, names: Sequence[str]) -> None:
    """A class may be called train, as of trains, or valid, as against invalid; not test or validation."""
    advice = "put the images of each class into a subfolder of its own"
    if names and all(name.lower() in (*TRAIN, *TEST) for name in names):
        raise UsageError(f"folder {path}: {listing(names)} has no class folders; {advice}")
    small = {name.lower() for name in names}
    splits = [
        name for name in names if name.lower() in TEST and (name.lower() != "valid" or "invalid" not in small)
    ]
    if splits:
        raise UsageError(
            f"folder {path}: {listing(splits)} stands among the classes {listing(names, 10)}; if it is a "
            "split, move the classes into a folder train beside it, or it elsewhere; if it is a class, give "
            "it another name"
        )
