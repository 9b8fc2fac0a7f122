"""What a user wrote: the names of files, and files of text, YAML, JSON and arrays.

Editors on Windows put a byte order mark before the text, or write UTF-16; and a key that stands twice in YAML
or JSON is a mistake, of which the usual readers keep the last. Imports nothing that is slow.
"""

from __future__ import annotations

import codecs
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdas_tf.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

# UTF-32's mark of little-endian text begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def user_path(name: str | Path, what: str) -> Path:
    """Returns a path with `~` or `~user` at its begin replaced.

    Args:
        name: the path as the user gave it.
        what: the thing, as an error names it: `data`.

    Raises:
        UsageError: there is no such user, or none whose home folder is known.
    """
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        user = Path(name).parts[0]
        raise UsageError(
            f"{what} {name}: the home folder {user} is not known here; write the whole path"
        ) from error


def read_text(path: str | Path, what: str) -> str:
    """Reads a text file: UTF-8, or any Unicode with a byte order mark, which is left out.

    Args:
        path: the file.
        what: the thing, as an error names it: `configuration file a.yaml`.

    Returns:
        The text, with lines that end in `\\n`.

    Raises:
        UsageError: the file cannot be read, or is not text.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"{what}: cannot read it: {error.strerror}") from error
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UsageError(f"{what}: it is not text; accepted is UTF-8, or UTF-16 with its mark") from error
    if "\0" in text:  # UTF-16 without a mark reads as UTF-8 with a zero after each letter
        raise UsageError(f"{what}: it is not text, or UTF-16 without its mark; save it as UTF-8")
    return io.StringIO(text, newline=None).read()


def parse_json(text: str) -> Any:
    """Returns the value of JSON text.

    Raises:
        ValueError: it is not JSON, or an object has a key twice; one line names the place or the key.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise ValueError(f"the key {key!r} stands twice; give it once")
            found[key] = value
        return found

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from error
    except RecursionError as error:
        raise ValueError("not JSON that can be read: it is nested too deeply") from error


def parse_yaml(text: str) -> Any:
    """Returns the value of YAML text; None if it is empty.

    Raises:
        ValueError: it is not YAML, or a mapping has a key twice; one line names the line.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """Refuses a key that stands twice, of which YAML's own keeps the last."""

        def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
            node = super().compose_mapping_node(anchor)
            lines: dict[str, int] = {}
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    continue
                if key.value in lines:
                    raise ValueError(
                        f"line {key.start_mark.line + 1}: the key {key.value!r} stands twice, first in line "
                        f"{lines[key.value]}; give it once"
                    )
                lines[key.value] = key.start_mark.line + 1
            return node

    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise ValueError("not YAML that can be read: it is nested too deeply") from error


def read_mapping(path: str | Path, what: str, holds: str) -> dict[str, Any]:
    """Reads a YAML file, or a JSON file by its suffix, that holds values by name.

    Args:
        path: the file.
        what: the thing, as an error names it: `configuration file a.yaml`.
        holds: what stands in such a file, as an error says it: `it must hold sections`.

    Returns:
        The values, whose names are text; none of an empty file.

    Raises:
        UsageError: the file cannot be read, is not YAML or JSON, or holds something else.
    """
    text = read_text(path, what)
    try:
        values = parse_json(text) if Path(path).suffix.lower() == ".json" else parse_yaml(text)
    except ValueError as error:  # a date that is none is one as well
        raise UsageError(f"{what}: {' '.join(str(error).split())}") from error
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise UsageError(f"{what}: found {values!r:.40}; {holds}")
    return {str(name): value for name, value in values.items()}


def read_npz(path: str | Path, what: str, advice: str) -> dict[str, np.ndarray]:
    """Reads the arrays of an .npz file.

    A pickle by that name, or pickled objects in it, are refused: to load them is to run code of the file's.
    NumPy's own message would advise a switch that does so.

    Args:
        path: the file, which exists.
        what: the thing, as an error names it: `data a.npz`.
        advice: how such a file is made, as an error says it.

    Raises:
        UsageError: the file is damaged or of another kind, or an array holds objects.
    """
    import numpy as np

    where = f"{what}: cannot read it as an .npz file: "
    try:
        with open(path, "rb") as file:
            begin = file.read(8)
        if begin.startswith(b"\x93NUMPY"):
            raise UsageError(f"{where}it is a single array, an .npy file by another name; {advice}")
        if not begin.startswith((b"PK\x03\x04", b"PK\x05\x06")):  # NumPy would take it for a pickle
            raise UsageError(f"{where}it is no archive of arrays; {advice}")
        arrays = {}
        with np.load(path, allow_pickle=False) as file:
            for name in file.files:
                try:
                    value = file[name]
                except ValueError as error:
                    if "allow_pickle" in str(error):
                        reason = f"{name} holds Python objects, not numbers"
                        raise UsageError(f"{where}{reason}; {advice}") from error
                    raise
                if isinstance(value, np.ndarray):  # else another file in the archive
                    arrays[name] = value
        return arrays
    except UsageError:
        raise
    except MemoryError as error:
        raise UsageError(f"{what}: its arrays need more memory than there is") from error
    except Exception as error:  # of the zip archive, its compression, or NumPy, each of many kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"{where}{reason}; {advice}") from error
