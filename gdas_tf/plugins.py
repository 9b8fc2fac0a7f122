"""Python files of a user's, which register operations, spaces, strategies and networks of their own.

Each is executed once in a process, however often a configuration names it.

Example:
    >>> load(["my_operations.py"])
"""

from __future__ import annotations

import sys
import traceback
import types
from collections.abc import Iterable
from pathlib import Path

from gdas_tf.errors import UsageError
from gdas_tf.user_files import user_path

_LOADED: dict[Path, types.ModuleType] = {}


def load(paths: Iterable[str | Path]) -> tuple[str, ...]:
    """Executes the files that have not been executed yet, in the given order.

    Args:
        paths: Python files; relative ones lie in the current folder.

    Returns:
        The absolute paths.

    Raises:
        UsageError: a file is missing, is not Python, or raises; the message names the file and the line.
    """
    return tuple(str(_load(user_path(path, "plugin"))) for path in paths)


def _load(path: Path) -> Path:
    path = path.absolute()
    try:
        key = path.resolve()
        if key in _LOADED:
            return path
        source = key.read_bytes()
    except (OSError, ValueError) as error:  # the latter of a name that no file can have
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"plugin {path}: cannot read it: {reason}; name a Python file") from error
    # Classes of the file find their module by its name, as dataclasses and pickle do.
    module = types.ModuleType(f"gdas_tf_plugin_{len(_LOADED)}_{path.stem}")
    module.__file__ = str(key)
    sys.modules[module.__name__] = module
    try:
        exec(compile(source, str(key), "exec", dont_inherit=True), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        what = str(error) if isinstance(error, UsageError) else f"{type(error).__name__}: {error}"
        raise UsageError(f"plugin {path}{_line(key, error)}: {' '.join(what.split())}") from error
    _LOADED[key] = module
    return path


def _line(path: Path, error: BaseException) -> str:
    """Returns ", line 7" of the file in which an error arose, or nothing where no line is to blame."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        number = error.lineno
    else:
        frames = traceback.extract_tb(error.__traceback__)
        number = next((frame.lineno for frame in reversed(frames) if frame.filename == str(path)), None)
    return "" if number is None else f", line {number}"
