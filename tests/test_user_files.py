"""Text that a user wrote: marks of editors, keys that stand twice, home folders."""

from __future__ import annotations

import argparse
import codecs
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gdas_tf.cli.main import main
from gdas_tf.config.config import Config
from gdas_tf.errors import UsageError
from gdas_tf.spaces.genotype import GENOTYPES, Genotype
from gdas_tf.user_files import parse_json, parse_yaml, read_npz, read_text, user_path

ENCODINGS = {
    "UTF-8": lambda text: text.encode(),
    "UTF-8 with a mark": lambda text: text.encode("utf-8-sig"),
    "UTF-16, little-endian": lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
    "UTF-16, big-endian": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    "UTF-32": lambda text: text.encode("utf-32"),
}


@pytest.fixture(params=ENCODINGS.values(), ids=ENCODINGS)
def write(request: pytest.FixtureRequest, tmp_path: Path):
    """Writes a text as an editor would, and returns the file."""

    def save(name: str, text: str) -> Path:
        (tmp_path / name).write_bytes(request.param(text))
        return tmp_path / name

    return save


def test_text(write) -> None:
    assert read_text(write("a.txt", "Grün\r\nRot\rBlau\n"), "a") == "Grün\nRot\nBlau\n"


def test_configuration(write) -> None:
    yaml = write("a.yaml", "search:\r\n  epochs: 7\r\n")
    assert Config.from_file(yaml).search.epochs == 7
    for name in ("a.json", "A.JSON"):
        assert Config.from_file(write(name, '{"search": {"epochs": 8}}')).search.epochs == 8


def test_genotype(write) -> None:
    genotype = GENOTYPES["GDAS_V1"]
    assert Genotype.load(write("a.txt", genotype.to_text())) == genotype
    import json

    assert Genotype.load(write("a.json", json.dumps(genotype.to_json()))) == genotype


def test_class_names(write) -> None:
    from gdas_tf.cli.classifier_options import add_input_options, input_options

    for text in ("Grün\r\nRot\r\n", '["Grün", "Rot"]'):
        parser = argparse.ArgumentParser()
        add_input_options(parser)
        args = parser.parse_args(["--class-names", str(write("names.txt", text))])
        assert input_options(args).class_names == ("Grün", "Rot")


def test_token(write) -> None:
    from gdas_tf.cli.serve import _token

    assert _token(str(write("token", "s3cret\r\n"))) == "s3cret"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"caf\xe9", "it is not text; accepted is UTF-8"),
        (b"\xff\xfea", "it is not text; accepted is UTF-8"),
        ("epochs".encode("utf-16-le"), "UTF-16 without its mark; save it as UTF-8"),
        (None, "cannot read it: No such file"),
    ],
)
def test_files_that_are_no_text(tmp_path: Path, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / "a").write_bytes(content)
    with pytest.raises(UsageError, match=f"^labels a: .*{words}"):
        read_text(tmp_path / "a", "labels a")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (
            "a.yaml",
            "seed: 1\nsearch:\n  epochs: 3\n  cells: 1\n  epochs: 4\n",
            "line 5: the key 'epochs' .* line 3",
        ),
        ("a.yaml", "search: {epochs: 3}\nsearch: {cells: 1}\n", "line 2: the key 'search' stands twice"),
        ("a.json", '{"search": {"epochs": 3, "epochs": 4}}', "the key 'epochs' stands twice"),
        ("a.yaml", "[" * 100_000, "nested too deeply"),
        ("a.json", "[" * 100_000, "nested too deeply"),
    ],
)
def test_keys_that_stand_twice(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=f"configuration file .*{name}: .*{words}") as caught:
        Config.from_file(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_genotype_with_a_key_twice() -> None:
    with pytest.raises(UsageError, match="genotype: the key 'normal' stands twice"):
        Genotype.from_json('{"normal": [], "reduction": [], "normal": []}')


def test_keys_that_only_look_the_same() -> None:
    assert parse_json('[{"a": 1}, {"a": {"a": 2}}]') == [{"a": 1}, {"a": {"a": 2}}]
    merged = "p: {b: &b {<<: &a {x: 1, y: 2}, x: 3}}\nc: {<<: *b, x: 4}\nd: {<<: [*a, *b], z: 5}\n"
    assert parse_yaml(merged)["c"] == {"x": 4, "y": 2}
    assert parse_yaml(merged)["d"] == {"x": 1, "y": 2, "z": 5}
    assert parse_yaml("") is None


def test_home_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert user_path("~/a", "data") == Path("/somewhere/a")
    with pytest.raises(
        UsageError, match="^data ~nobody-of-that-name/a: the home folder ~nobody-of-that-name is"
    ):
        user_path("~nobody-of-that-name/a", "data")


def test_importing_is_light() -> None:
    code = "import sys, gdas_tf.user_files; print('yaml' in sys.modules, 'numpy' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "False"]


def test_arrays_of_other_programs(tmp_path: Path) -> None:
    """No message advises to load objects: that runs what code the file holds."""
    np.savez(tmp_path / "a.npz", x=np.arange(3), y=np.ones((2, 2)))
    arrays = read_npz(tmp_path / "a.npz", "logits a.npz", "make one")
    assert {name: value.shape for name, value in arrays.items()} == {"x": (3,), "y": (2, 2)}
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps({"x": 1}))
    np.savez(tmp_path / "objects.npz", x=np.array([{}]))
    np.save(tmp_path / "x.npy", np.arange(3))
    (tmp_path / "x.npy").rename(tmp_path / "single.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:-40])
    for name, reason in (
        ("pickle.npz", "it is no archive of arrays; make one"),
        ("objects.npz", "x holds Python objects, not numbers; make one"),
        ("single.npz", "it is a single array, an .npy file by another name; make one"),
        ("cut.npz", "File is not a zip file; make one"),
    ):
        with pytest.raises(UsageError) as caught:
            read_npz(tmp_path / name, f"logits {name}", "make one")
        assert str(caught.value) == f"logits {name}: cannot read it as an .npz file: {reason}"


def test_logits_that_are_a_pickle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.npz").write_bytes(pickle.dumps({"normal": 1}))
    assert main(["derive", "--logits", str(tmp_path / "a.npz")]) == 2
    line = capsys.readouterr().err
    assert "it is no archive of arrays; a search writes such files" in line
    assert "allow_pickle" not in line
