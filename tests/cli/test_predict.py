"""`gdas-tf predict`: labels on the terminal, CSV, JSON, folders, broken pictures."""

from __future__ import annotations

import csv
import io
import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serving_helpers import CLASS_NAMES, make_model, picture, picture_bytes

from gdas_tf.cli.main import main
from gdas_tf.export.inference import Classifier
from gdas_tf.export.serving.images import ImageError, ImageFormatError, ImageSizeError, load_image

SHAPE = (8, 8, 3)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "net.onnx", SHAPE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures of many kinds at several depths, and a text file."""
    folder = tmp_path / "pictures"
    (folder / "deeper").mkdir(parents=True)
    for number in range(20):
        picture((9, 12), seed=number).save(folder / f"{number:02}.png")
    picture((40, 30)).save(folder / "deeper" / "photo.JPG", "JPEG")
    picture((8, 8), "L").save(folder / "grey.bmp")
    picture((8, 8), "RGBA").save(folder / "through.webp", lossless=True)
    (folder / "notes.txt").write_text("no picture")
    return folder


def predictions(capsys: pytest.CaptureFixture[str]) -> list[dict]:
    return json.loads(capsys.readouterr().out)["predictions"]


def test_table(model: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [folder / "00.png", folder / "deeper" / "photo.JPG"]
    assert main(["predict", str(model), *map(str, files)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    classifier = Classifier.load(model)
    for line, file in zip(lines, files, strict=True):
        probabilities = classifier.classify(load_image(file.read_bytes(), SHAPE)[None])[0]
        words = line.split()
        assert words[0] == str(file)
        order = np.argsort(-probabilities)[:3]
        assert words[1::2] == [CLASS_NAMES[index] for index in order]
        assert words[2::2] == [f"{probabilities[index]:.1%}" for index in order]
    assert len({line.index("%") for line in lines}) == 1  # aligned


def test_folder_as_json(model: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(model), str(folder), "--json", "--top-k", "99"]) == 0
    found = predictions(capsys)
    assert [Path(item["file"]).name for item in found] == [
        *(f"{number:02}.png" for number in range(20)),
        "photo.JPG",
        "grey.bmp",
        "through.webp",
    ]
    classifier = Classifier.load(model)
    for item in found:  # in batches as one by one
        wanted = classifier.classify(load_image(Path(item["file"]).read_bytes(), SHAPE)[None])[0]
        got = {entry["index"]: entry["probability"] for entry in item["classes"]}
        np.testing.assert_allclose([got[index] for index in range(5)], wanted, atol=1e-6)


def test_csv(model: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "broken, and so.png").write_bytes(b"no")
    assert main(["predict", str(model), str(folder), "--csv", "--top-k", "2"]) == 1
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert list(rows[0]) == ["file", "label_1", "probability_1", "label_2", "probability_2", "error"]
    assert len(rows) == 24
    broken = next(row for row in rows if "broken, and so" in row["file"])
    assert (broken["label_1"], "no known picture" in broken["error"]) == ("", True)
    good = rows[0]
    assert good["label_1"] in CLASS_NAMES
    assert 1 >= float(good["probability_1"]) >= float(good["probability_2"]) >= 0
    assert good["error"] == ""


def test_broken_pictures(model: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are reported, and the others done."""
    data = (folder / "01.png").read_bytes()
    (folder / "01.png").write_bytes(data[: len(data) // 2])
    (folder / "02.png").write_bytes(b"")
    assert main(["predict", str(model), str(folder), "--json"]) == 1
    captured = capsys.readouterr()
    found = json.loads(captured.out)["predictions"]
    assert len(found) == 23
    errors = {Path(item["file"]).name: item["error"] for item in found if "error" in item}
    assert set(errors) == {"01.png", "02.png"}
    assert "damaged or cut off" in errors["01.png"]
    assert "0 bytes" in errors["02.png"]
    assert captured.err.count("gdas-tf: ") == 2


def test_folder_as_in_training(
    model: Path, folder: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The same pictures are found, each real folder once, and what is left alone is said."""
    (folder / "deeper" / "up").symlink_to("..")
    (folder / "@eaDir").mkdir()
    picture((9, 12)).save(folder / "@eaDir" / "00.png")
    picture((9, 12)).save(folder / "._00.png")
    assert main(["predict", str(model), str(folder), "--json"]) == 0
    assert len(predictions(capsys)) == 23
    assert [record.message for record in caplog.records] == [
        f"folder {folder}: left alone: 1 x .txt, deeper/up (link to {folder})"
    ]
    for file in folder.rglob("*.*"):
        file.rename(file.with_suffix(".heic"))
    assert main(["predict", str(model), str(folder)]) == 2
    assert "it has no pictures; left alone: " in capsys.readouterr().err


def test_photo_of_a_camera(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The user's own pictures may be as large as in training; a server takes fewer pixels of strangers."""
    Image.new("1", (9000, 6000), 1).save(tmp_path / "big.png")
    with pytest.raises(ImageSizeError, match="9000 x 6000 pixels; accepted are 50,000,000 at most"):
        load_image((tmp_path / "big.png").read_bytes(), SHAPE)
    assert main(["predict", str(model), str(tmp_path / "big.png"), "--json"]) == 0
    (item,) = predictions(capsys)
    classifier = Classifier.load(model)
    white = classifier.classify(np.ones((1, *SHAPE), np.float32))[0]
    assert item["classes"][0]["probability"] == pytest.approx(white.max(), abs=1e-6)


def test_picture_over_every_limit(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gdas_tf.data.images.MAX_PIXELS", 99)
    picture((10, 12)).save(tmp_path / "a.png")
    assert main(["predict", str(model), str(tmp_path / "a.png")]) == 1
    assert (
        "the picture has 10 x 12 pixels; accepted are 99 at most, so save it smaller"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone.onnx", "a.png"], "no such file"),
        (["net.onnx", "gone.png"], "no such file or folder"),
        (["net.onnx", "empty"], "it has no pictures"),
        (["net.onnx", "a.png", "--json", "--csv"], "exclude each other"),
        (["a.png", "a.png"], "accepted are .onnx files and run directories"),
        (["net.onnx", "a.png", "--class-names", "gone.txt"], "cannot read it"),
        (["net.onnx", "a.png", "--mean", "0.5", "--input-range", "0..1"], "leave it out"),
    ],
)
def test_wrong_use(
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(model.parent)
    picture().save("a.png")
    Path("empty").mkdir()
    assert main(["predict", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""


def test_needs_neither_tensorflow_nor_the_server(model: Path, folder: Path) -> None:
    """An installation without the extra `serve` can predict."""
    code = (
        "import sys\n"
        "for name in ('tensorflow', 'keras', 'orjson', 'granian', 'prometheus_client', 'python_multipart'):\n"
        "    sys.modules[name] = None\n"
        "from gdas_tf.cli.main import main\n"
        f"sys.exit(main(['predict', {str(model)!r}, {str(folder)!r}]))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (found.returncode, len(found.stdout.splitlines())) == (0, 23), found.stderr


def test_serving_says_what_it_needs(model: Path) -> None:
    code = (
        "import sys; sys.modules['granian'] = None\n"
        "from gdas_tf.cli.main import main\n"
        f"sys.exit(main(['serve', {str(model)!r}]))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (found.returncode, "install gdas-tf[serve]" in found.stderr) == (2, True), found.stderr


def test_foreign_model(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_model(tmp_path / "foreign.onnx", (6, 10, 3), layout="nchw", softmax=False, metadata={})
    names = tmp_path / "names.txt"
    names.write_text("a\nb\nc\nd\ne\n")
    picture_file = folder / "03.png"
    arguments = [
        "--class-names",
        str(names),
        "--mean",
        "0.5,0.4,0.3",
        "--std",
        "0.2",
        "--top-k",
        "5",
        "--json",
    ]
    assert main(["predict", str(path), str(picture_file), *arguments]) == 0
    (item,) = predictions(capsys)
    image = (load_image(picture_file.read_bytes(), (6, 10, 3)) - np.float32([0.5, 0.4, 0.3])) / np.float32(
        0.2
    )
    logits = Classifier.load(path).run(image.transpose(2, 0, 1)[None])[0]
    wanted = np.exp(logits) / np.exp(logits).sum()
    assert item["classes"][0]["label"] == "abcde"[logits.argmax()]
    assert item["classes"][0]["probability"] == pytest.approx(wanted.max(), abs=1e-5)


class TestImages:
    """Decoding, which predict and serve share."""

    def test_orientation(self) -> None:
        image = picture((8, 8))
        exif = Image.Exif()
        exif[0x0112] = 6  # turn by 90 degrees clockwise to view
        turned = load_image(picture_bytes(image, exif=exif), SHAPE)
        np.testing.assert_array_equal(turned, np.rot90(np.asarray(image), -1).astype(np.float32) / 255)

    def test_values(self) -> None:
        image = picture((8, 8))
        found = load_image(picture_bytes(image), SHAPE)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, np.asarray(image, np.float32) / 255)

    def test_grey(self) -> None:
        assert load_image(picture_bytes(picture((8, 8))), (4, 6, 1)).shape == (4, 6, 1)
        sixteen = Image.fromarray(np.full((8, 8), 65535, np.uint16))
        np.testing.assert_array_equal(load_image(picture_bytes(sixteen), (8, 8, 1)), 1)

    def test_bad(self) -> None:
        with pytest.raises(ImageFormatError, match="no JPEG picture"):
            load_image(picture_bytes(picture()), SHAPE, formats=("JPEG",))
        with pytest.raises(ImageSizeError, match="8 x 8 pixels; accepted are 63"):
            load_image(picture_bytes(picture()), SHAPE, max_pixels=63)
        with pytest.raises(ImageError, match="damaged or cut off"):
            load_image(picture_bytes(picture((50, 50)))[:900], SHAPE)
        whole = io.BytesIO()
        Image.fromarray(np.ones((8, 8), np.float32)).save(whole, "TIFF")
        with pytest.raises(
            ImageError, match="the TIFF picture has floating-point pixels; save it with 8 or 16"
        ):
            load_image(whole.getvalue(), SHAPE)

    def test_tiles_larger_than_the_picture(self) -> None:
        """Of which Pillow would decode one whole."""
        tags = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 322: 40_000, 323: 40_000, 324: 8, 325: 64}
        entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
        data = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
        with pytest.raises(ImageSizeError, match="40000 x 40000 pixels; accepted are 50,000,000"):
            load_image(data, SHAPE)
