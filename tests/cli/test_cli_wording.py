"""The library names things, the command line names flags and commands."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gdas_tf.cli.main import main
from gdas_tf.cli.wording import describe, in_flags
from gdas_tf.config.config import options
from gdas_tf.errors import MissingStageError, RunError, UsageError
from gdas_tf.notes import note, progress, without_progress

ROOT = Path(__file__).resolve().parents[2]

ELSEWHERE = {
    "gdas_tf/config",  # the options and their flags
    "export/serving/origins.py",  # an answer over HTTP, to the one who started the server
}


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("data a: 1 of 4; raise data.test_fraction", "data a: 1 of 4; raise --data-test-fraction"),
        ("data.name: found 3", "--data: found 3"),
        ("its search has begun already; resume it, or choose another run directory", None),
        ("run directory r: it exists already; choose another run directory", None),
        ("remove it, and resuming the retraining writes it anew", None),
        ("on the images that were not trained on by accept_changed_data", None),
        ("it takes images of any size; give InputOptions.image_size", None),
        ("cannot listen on port 80; choose another ServerSettings.port", None),
    ],
)
def test_flags_stand_for_fields(message, words):
    found = in_flags(message)
    if words is None:
        assert re.search(r"--[a-z]", found) and "Options" not in found and "Settings" not in found
    else:
        assert found == words
    for kind in (UsageError, RunError):
        assert describe(kind(message)) == found


@pytest.mark.parametrize(
    "message",
    [
        "bring the data back, or begin another run directory",
        "data.json and metadata.images stay",
        "configuration file a.yaml: data.padding: found x",  # there it has its own name
        "run directory r is damaged: configuration file r/config.yaml: data.padding: found x",
        "arm a: unknown configuration field 'search.epoch'; did you mean search.epochs?",  # of a study file
        "arm a: race.keep: found 1.0; it must be below 1.0",
        "config: unknown configuration field 'retrain.epoch'; did you mean retrain.epochs?",
    ],
)
def test_other_words_stay(message):
    assert in_flags(message) == message


def test_a_missing_stage_is_a_command_to_type():
    error = MissingStageError("runs/a", "no genotype", "derive")
    assert str(error) == "run directory runs/a: it has no genotype; its stage derive comes first"
    assert describe(error) == "run directory runs/a: it has no genotype; run gdas-tf derive runs/a first"


def test_notes_and_progress_are_lines_on_stderr(monkeypatch, capsys):
    from gdas_tf.cli import draw

    def say(_):
        progress("[1/7] search")
        with without_progress():
            progress("search 1/3: steps that are only timed")
        note("folder data.name: see data.padding")
        return 0

    monkeypatch.setattr(draw, "main", say)
    assert main(["draw", "GDAS_V1"]) == 0
    assert main(["draw", "GDAS_V1"]) == 0
    lines = ["[1/7] search", "folder --data: see --data-padding"]
    assert capsys.readouterr().err.splitlines() == 2 * lines
    progress("nobody listens now")
    assert not capsys.readouterr().err


def test_a_library_that_sets_up_logging_repeats_no_line():
    code = (
        "import logging, sys\n"
        "from gdas_tf.cli import draw\n"
        "from gdas_tf.cli.main import main\n"
        "from gdas_tf.notes import progress\n"
        "def say(_):\n"
        "    logging.basicConfig(level='INFO')\n"  # as tf2onnx does
        "    progress('one')\n"
        "    return 0\n"
        "draw.main = say\n"
        "sys.exit(main(['draw', 'GDAS_V1']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "one\n")


def _texts(path: Path):
    """All texts in a file but docstrings, which programmers read."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
            yield node.value


@pytest.mark.parametrize("folder", ["gdas_tf", "export"])
def test_no_message_of_the_library_names_a_flag_or_a_command(folder):
    for path in (ROOT / folder).rglob("*.py"):
        name = path.relative_to(ROOT).as_posix()
        if not name.startswith(tuple(ELSEWHERE)):
            for text in _texts(path):
                found = re.search(r"--[a-z]|gdas-tf (run|search|derive|retrain|evaluate|export|draw)\b", text)
                assert not found, f"{name}: {text}"


def test_fields_and_flags_in_the_documents_exist():
    sections = "data|search|derive|retrain|export|benchmark"
    fields = {option.path for option in options()}
    flags = {option.flag.replace("--", "--no-", 1) for option in options() if option.is_bool}
    flags |= {option.flag for option in options()} | {"--data-binary"}  # curl's
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = path.read_text(encoding="utf-8")
        named = set(re.findall(rf"(?<![-\w/])--(?:no-)?(?:{sections})(?:-[a-z0-9-]*[a-z0-9])?", text))
        assert named <= flags, f"{path.name}: {named - flags}"
        named = set(re.findall(rf"`((?:{sections})\.[a-z0-9_]+)`", text)) - {"data.json", "data.npz"}
        assert named <= fields, f"{path.name}: {named - fields}"
