"""Finds the picture files below a folder: what data sets and `predict` share.

What is no picture is counted rather than passed over in silence; folders that systems and programs make of
their own accord are never looked into.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gdas_tf.data.images import suffixes
from gdas_tf.data.wording import listing
from gdas_tf.errors import UsageError
from gdas_tf.files import is_run_directory

_SYSTEM_FOLDERS = frozenset(
    {
        *("$recycle.bin", "system volume information", "found.000"),  # Windows
        *("@eadir", "@tmp", "@sharebin", "#recycle", "#snapshot"),  # Synology: thumbnails, deleted files
        *("@recycle", "@recently-snapshot", "@transcode"),  # QNAP
        *("lost+found", "network trash folder", "temporary items"),  # Linux, macOS
    }
)
"""In small letters; so are all folders whose names begin with `.` or `__`, as `__MACOSX`."""

_SYSTEM_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})


@dataclass
class Found:
    """What lies below a folder.

    Args:
        files: the pictures, in the order of their names.
        others: how many files there are that are no pictures, by suffix (empty: without one).
        runs: run directories, which are not looked into.
        links: links to folders that are read by another path, each with that path.
    """

    files: list[Path] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    runs: list[Path] = field(default_factory=list)
    links: list[tuple[Path, Path]] = field(default_factory=list)

    def left_alone(self, root: Path) -> list[str]:
        """Returns what is not read, as `6 x .heic`, for a line to the user; paths as seen from `root`."""
        counts = [
            f"{count:,} {f'x {suffix}' if suffix else 'without suffix'}"
            for suffix, count in self.others.most_common()
        ]
        links = [f"{link.relative_to(root)} (link to {seen(target, root)})" for link, target in self.links]
        runs = [f"{run.relative_to(root)} (run directory)" for run in self.runs]
        return [listing(items, 5) for items in (counts, runs, links) if items]


def merged(items: Iterable[Found]) -> Found:
    """Returns all that was found in several folders."""
    whole = Found()
    for found in items:
        whole.files += found.files
        whole.others += found.others
        whole.runs += found.runs
        whole.links += found.links
    return whole


class PictureFinder:
    """Finds pictures in folders below one root, each real folder once, however many links lead to it.

    Args:
        root: the folder below which all others lie.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._met: dict[tuple[int, int], Path] = {}
        # A link to a folder above would lead through everything beside the root, and back into it.
        self.meet(root)
        for folder in root.resolve().parents:
            with contextlib.suppress(UsageError):
                self.meet(folder)

    def meet(self, folder: Path) -> Path | None:
        """Marks a folder, so that it is not found again through a link.

        Returns:
            The path by which it was marked before, or None.
        """
        with _readable(folder):
            about = folder.stat()
        before = self._met.setdefault((about.st_dev, about.st_ino), folder)
        return None if before is folder else before

    def subfolders(self, folder: Path) -> tuple[list[str], list[Path]]:
        """Returns the names of the subfolders in order, and apart from them the paths of run directories.

        Folders of the system are in neither.
        """
        with _readable(folder), os.scandir(folder) as entries:
            names = sorted(
                entry.name for entry in entries if _is_folder(entry) and not _of_system(entry.name)
            )
        runs = [folder / name for name in names if _is_run(folder / name)]
        return [name for name in names if folder / name not in runs], runs

    def find(self, *folders: Path) -> Found:
        """Returns what lies in folders, at any depth; these folders are read even if they are marked."""
        found = Found()
        waiting = list(folders)
        while waiting:
            folder = waiting.pop()
            with _readable(folder), os.scandir(folder) as entries:
                items = sorted(entries, key=lambda entry: (entry.is_symlink(), entry.name))
            for item in items:
                path = folder / item.name
                if _is_folder(item):
                    if _of_system(item.name):
                        continue
                    if _is_run(path):
                        found.runs.append(path)
                    elif before := self.meet(path):
                        found.links.append((path, before))
                    else:
                        waiting.append(path)
                else:
                    self._add(found, path, item)
        found.files.sort()
        return found

    def loose(self, folder: Path) -> int:
        """Returns the number of pictures that lie in a folder itself."""
        with _readable(folder), os.scandir(folder) as entries:
            return sum(is_picture(entry.name) and not _is_folder(entry) for entry in entries)

    @staticmethod
    def _add(found: Found, path: Path, entry: os.DirEntry[str]) -> None:
        if is_picture(entry.name):
            found.files.append(path)
        elif not entry.name.startswith(".") and entry.name.lower() not in _SYSTEM_FILES and path.is_file():
            found.others[path.suffix.lower()] += 1


def is_picture(name: str) -> bool:
    """Returns whether a file's name is that of a picture."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in suffixes()


def accepted() -> str:
    """Returns the suffixes of pictures, as a text."""
    return ", ".join(sorted(suffixes()))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _of_system(name: str) -> bool:
    return name.startswith((".", "__")) or name.lower() in _SYSTEM_FOLDERS


def _is_run(folder: Path) -> bool:
    # Other programs have a config.yaml, too.
    return is_run_directory(folder) and any((folder / name).exists() for name in ("versions.json", ".lock"))


def seen(path: Path, root: Path) -> str:
    """Returns a path as seen from a folder, if it lies below."""
    return str(path.relative_to(root)) if path != root and path.is_relative_to(root) else str(path)


@contextlib.contextmanager
def _readable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"folder {folder}: cannot read it: {error.strerror}") from error
