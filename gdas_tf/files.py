"""Writing files whole, JSON in and out, and what tells a run directory from other folders.

All writing is atomic: a file is written beside its place and renamed, so that a process that is killed at
any moment, or a disk that fills up, leaves what was there intact.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gdas_tf.errors import RunError, UsageError

TEMPORARY = ".tmp-"
"""What the name of a file that is being written begins with."""


_NO_SPACE = "no space left on the disk"
_NO_QUOTA = "the disk quota is used up"
_READ_ONLY = "the disk is read-only"


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns errors of the disk met inside into a `RunError` that names the file and the reason."""
    reasons = {
        errno.ENOSPC: f"{_NO_SPACE}; free some",
        errno.EDQUOT: f"{_NO_QUOTA}; free some space",
        errno.EROFS: f"{_READ_ONLY}; choose another place",
        errno.EACCES: "permission denied; choose another place",
        errno.EPERM: "permission denied; choose another place",
        errno.ENOTDIR: "a part of the path is a file; choose another place",
        errno.EEXIST: "a part of the path is a file; choose another place",
        errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    }
    try:
        yield
    except (UsageError, RunError):
        raise
    except Exception as error:
        code = error.errno if isinstance(error, OSError) else None
        # Libraries that write in C (HDF5, TensorFlow, ONNX) put the system's words into errors of their own.
        if code not in reasons:
            code = next((key for key in reasons if os.strerror(key).lower() in str(error).lower()), None)
        if code is None and not isinstance(error, OSError):
            raise
        reason = reasons.get(code) or str(error)
        raise RunError(f"cannot write {path}: {reason}") from error


@contextlib.contextmanager
def locked(folder: Path, taken: str) -> Iterator[None]:
    """Holds a folder by its file `.lock`; the system frees it when the process ends, however it ends.

    Args:
        folder: it is there.
        taken: what to say where another process holds it.

    Raises:
        UsageError: another process holds it.
        RunError: the disk is full or read-only.
    """
    import filelock

    lock = filelock.FileLock(folder / ".lock")
    with writing(folder):
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout as error:
            raise UsageError(taken) from error
    try:
        yield
    finally:
        lock.release()


def disk_failed(message: str) -> bool:
    """Whether a message of `writing`, perhaps of another process, says that the disk takes no more."""
    return any(reason in message for reason in (_NO_SPACE, _NO_QUOTA, _READ_ONLY))


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path beside `path`, renamed to `path` when the block ends without an error.

    The temporary path has the same suffix, and its folder exists. What is written there may be a file or a
    folder. When the block raises, the temporary file is removed, with the folders made for it, and `path`
    stays as it was.

    Example:
        >>> with atomic_path("model.keras") as temporary:
        ...     model.save(temporary)

    Raises:
        RunError: the disk is full or read-only.
    """
    path = Path(path)
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    # os.path, as pathlib raises an error about a folder that it may not look into.
    made = list(itertools.takewhile(lambda parent: not os.path.exists(parent), path.parents))
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            if temporary.is_dir():
                _replace_directory(temporary, path)
            else:
                with open(temporary, "rb+") as file:
                    os.fsync(file.fileno())
                os.replace(temporary, path)
    except BaseException:
        remove(temporary)
        with contextlib.suppress(OSError):  # one of them holds something by now
            for folder in made:
                folder.rmdir()
        raise


def atomic_write(path: str | Path, content: bytes | str) -> None:
    """Writes a whole file at once: readers see the old content or the new one, never a part.

    Raises:
        RunError: the disk is full or read-only; the old file is intact.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def write_json(path: str | Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically; NumPy values are converted, NaN becomes null."""
    atomic_write(path, json.dumps(plain(value), indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Reads a JSON file.

    Raises:
        UsageError: it is missing or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"damaged ({error})"
        raise UsageError(f"{path}: cannot read it: {reason}") from error


def is_run_directory(path: str | Path) -> bool:
    """Returns whether there is a run directory at a path: one that holds a config.yaml.

    Images are looked for around run directories, too, so that this stands below them.
    """
    return (Path(path) / "config.yaml").is_file()


def _replace_directory(temporary: Path, path: Path) -> None:
    """Puts a folder in the place of another; a folder cannot be renamed onto one that is not empty."""
    old = path.with_name(f"{TEMPORARY}{os.getpid()}-old-{path.name}")
    if path.exists():
        os.replace(path, old)
    os.replace(temporary, path)
    remove(old)


def remove(path: Path) -> None:
    """Removes a file, or a folder with all that is in it, as far as it can be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def plain(value: Any) -> Any:
    """Returns a value in plain JSON types."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # NumPy arrays and numbers, without importing NumPy
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
