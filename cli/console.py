"""What subcommands print: progress on stderr, results on stdout."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from gdas_tf.cli.wording import in_flags
from gdas_tf.notes import LOGGER


def say(text: str) -> None:
    """Prints a line of progress on stderr."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress_on_stderr() -> Iterator[None]:
    """Sends to stderr what libraries print on stdout."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


class _Lines(logging.Handler):
    """Prints what the library says as plain lines on stderr, in the words of the command line."""

    def emit(self, record: logging.LogRecord) -> None:
        say(in_flags(self.format(record)))


@contextlib.contextmanager
def library_on_stderr() -> Iterator[None]:
    """Prints the library's notes and progress (`gdas_tf.notes`) on stderr, once each.

    Some libraries give the root logger a handler when they are imported. It would print each line a second
    time, so that lines go to the root logger only if it had a handler before, the calling program's.
    """
    logger, lines = logging.getLogger(LOGGER), _Lines()
    level, propagate = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = logging.getLogger().hasHandlers()
    logger.addHandler(lines)
    try:
        yield
    finally:
        logger.removeHandler(lines)
        logger.setLevel(level)
        logger.propagate = propagate


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


def warn(warnings: Sequence[str]) -> None:
    """Prints warnings on what a search found, a line for each, on stderr."""
    for line in warnings:
        say(f"warning: {in_flags(line)}")


def columns(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Returns rows of equally many texts in columns.

    Args:
        rows: the first is the heading.
        right: numbers of the columns whose texts end at their right side, as numbers do.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            text.rjust(width) if number in right else text.ljust(width)
            for number, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(f"  {line}".rstrip() for line in lines)
