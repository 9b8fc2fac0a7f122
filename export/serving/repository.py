"""Names and versions of the models to serve."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gdas_tf.errors import MissingStageError, UsageError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_SPECIFICATION = re.compile(r"(?:(?P<name>[^=/\\:]+)(?::(?P<version>\d{1,18}))?=)?(?P<path>.+)", re.DOTALL)


@dataclass(frozen=True)
class ModelFile:
    """An ONNX file, and the name and version it is served under.

    Args:
        run_directory: the run directory it was found in, if it was.
    """

    name: str
    version: int
    path: Path
    run_directory: Path | None = None


def find_models(arguments: Sequence[str]) -> list[ModelFile]:
    """Finds the ONNX files that arguments of `gdas-tf serve` stand for.

    An argument is an ONNX file, a run directory, a folder with versions (1/model.onnx, 2/model.onnx, …), or
    a Triton model repository (a folder of such folders). `NAME=` before it names the model, `NAME:VERSION=`
    also gives the version. Files of one name without a version are numbered in their order.

    Raises:
        UsageError: there is no model, or two of the same name and version.

    Example:
        >>> [(model.name, model.version) for model in find_models(["a.onnx", "b=old.onnx", "b=new.onnx"])]
        [('a', 1), ('b', 1), ('b', 2)]
    """
    found: dict[tuple[str, int], ModelFile] = {}
    for argument in arguments:
        for name, version, path, run_directory in _expand(argument):
            if not _NAME.fullmatch(name):
                raise UsageError(
                    f"model name {name!r}: accepted are up to 64 letters, digits, '_', '.' and '-'; "
                    f"name it, as by model={argument}"
                )
            taken = [key[1] for key in found if key[0] == name]
            model = ModelFile(name, version or max(taken, default=0) + 1, path, run_directory)
            if (name, model.version) in found:
                other = found[name, model.version].path
                raise UsageError(
                    f"model {name}, version {model.version}: found twice, {other} and {path}; "
                    "give NAME:VERSION=PATH"
                )
            found[name, model.version] = model
    return list(found.values())


def _expand(argument: str) -> Iterable[tuple[str, int | None, Path, Path | None]]:
    """Yields name, version (None: not given), file and run directory of the models of an argument."""
    from gdas_tf.files import is_run_directory

    match = _SPECIFICATION.fullmatch(argument)
    if match is None:
        raise UsageError("model '': it is empty; give an ONNX file or a run directory")
    given, version, path = match["name"], match["version"] and int(match["version"]), Path(match["path"])
    if given and os.path.exists(argument):  # the "=" is one of its own name
        given, version, path = None, None, Path(argument)
    if version == 0:
        raise UsageError(f"model {argument}: version 0; versions begin with 1")
    if path.is_dir() and is_run_directory(path):
        yield given or path.resolve().name, version, model_path(path), path
    elif path.is_dir():
        folders = [path, *sorted(item for item in path.iterdir() if item.is_dir())]
        models = {folder: versions for folder in folders if (versions := _versions(folder))}
        if not models:
            raise UsageError(
                f"model {path}: it is no run directory, and holds neither 1/model.onnx nor NAME/1/model.onnx"
            )
        if (given or version) and (path not in models or version):
            raise UsageError(f"model {argument}: the folder gives the versions, and names if it has several")
        for folder, versions in models.items():
            for number, file in versions:
                yield given or folder.resolve().name, number, file, None
    else:
        yield given or path.stem, version, model_path(path), None


def _versions(folder: Path) -> list[tuple[int, Path]]:
    files = ((int(item.name), item / "model.onnx") for item in folder.iterdir() if item.name.isdecimal())
    return sorted((number, file) for number, file in files if number > 0 and file.is_file())


def model_path(path: str | Path) -> Path:
    """Returns the ONNX file that a path stands for: itself, or of a run directory the first that it has.

    That is `model.onnx`; where a run was exported to other formats alone, `model_float16.onnx`, then
    `model_int8.onnx`.

    Raises:
        UsageError: there is none.
    """
    from gdas_tf.files import is_run_directory
    from gdas_tf.runs.run import Run

    path = Path(path)
    if is_run_directory(path):
        files = Run.open(path).onnx_files()
        if not files:
            raise MissingStageError(path, "no ONNX file", "export")
        return files[0]
    if path.is_dir():
        raise UsageError(f"model {path}: it is a folder but no run directory")
    if not path.exists():
        raise UsageError(f"model {path}: there is no such file")
    if path.suffix != ".onnx":
        raise UsageError(
            f"model {path}: accepted are .onnx files and run directories; the export of a run writes both"
        )
    return path
