"""What subcommands print: progress on stderr, results on stdout."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any


def say(text: str) -> None:
    """Prints a line of progress on stderr."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress_on_stderr() -> Iterator[None]:
    """Sends to stderr what libraries print on stdout, as Keras its progress bars."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def import_tensorflow() -> None:
    """Imports TensorFlow, and sets it up, without what its libraries say of themselves on stderr.

    Those lines come before any setting of TensorFlow's is read; `--debug`, which leaves TF_CPP_MIN_LOG_LEVEL
    alone, shows them.
    """
    first = "tensorflow" not in sys.modules
    debugging = os.environ.get("TF_CPP_MIN_LOG_LEVEL", "0") < "2"
    with contextlib.nullcontext() if debugging else _stderr_nowhere():
        from gdas_tf.runtime import set_up
    set_up()
    if first:
        # A million objects that stay: the garbage collector need not look through them while graphs are made.
        # Not later again: what is garbage by then would stay, too.
        gc.freeze()


@contextlib.contextmanager
def _stderr_nowhere() -> Iterator[None]:
    """Drops what is written to stderr, by C++ as well."""
    sys.stderr.flush()
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


def print_result(as_json: bool, result: dict[str, Any], text: str) -> None:
    """Prints the one result of a subcommand on stdout: JSON for scripts, or text for people."""
    if as_json:
        text = json.dumps(result, ensure_ascii=False)
        try:
            text.encode(sys.stdout.encoding or "utf-8")
        except UnicodeEncodeError:  # what stdout puts in place of a character would not be JSON
            text = json.dumps(result)
    print(text, flush=True)


def table(rows: Sequence[tuple[str, str] | None]) -> str:
    """Returns rows of (name, value) in two columns; None is an empty line."""
    width = max(len(row[0]) for row in rows if row)
    return "\n".join(f"  {row[0]:<{width}}  {row[1]}" if row else "" for row in rows)


def duration(seconds: float) -> str:
    """Returns a duration as a person would say it: `8 s`, `3 min 20 s`, `2 h 5 min`."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"
