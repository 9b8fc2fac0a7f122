"""Published genotypes and networks by the command line: listed, drawn, trained, exported and verified."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

import numpy as np
import pytest

from gdas_tf import pipeline
from gdas_tf.cli.main import main
from gdas_tf.config.config import Config
from gdas_tf.export.inference import Classifier
from gdas_tf.networks.densenet import build_densenet
from gdas_tf.networks.derived import count_parameters
from gdas_tf.networks.registry import NETWORKS, Network, build
from gdas_tf.spaces.genotype import GENOTYPES, Genotype
from gdas_tf.zoo.entries import ZOO

TINY = ["--data", "noise.npz", "--retrain-epochs", "1", "--retrain-channels", "4", "--retrain-cells", "1"]


@pytest.fixture(autouse=True)
def _noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 255, (60, 8, 8, 1), np.uint8)
    np.savez("noise.npz", images=images, labels=np.arange(60) % 3)


@pytest.fixture
def small_densenet(monkeypatch: pytest.MonkeyPatch) -> str:
    """A network of the family of the zoo's, as a user would register one of another size."""
    network = Network(functools.partial(build_densenet, depth=10, growth=4), takes_genotype=False)
    monkeypatch.setitem(NETWORKS._items, "small_densenet", network)
    return "small_densenet"


def _verified(run: str) -> dict:
    formats = json.loads(Path(run, "export", "verification.json").read_text())["formats"]
    assert Path(run, "export", "model.onnx").exists()
    return formats["onnx"]


@pytest.mark.slow
def test_a_published_cell_goes_from_its_name_to_a_verified_file(capsys: pytest.CaptureFixture) -> None:
    name = "AmoebaNet-A"  # five nodes, some of which are concatenated, and conv_7x1_1x7
    tiny = [*TINY, "--retrain-auxiliary-weight", "0", "--retrain-drop-path", "0"]
    assert main(["retrain", "run", "--genotype", name, *tiny]) == 0
    assert Genotype.load("run/genotype.json") == GENOTYPES[name]
    assert main(["export", "run", "--export-formats", "onnx"]) == 0
    _verified("run")
    metadata = Classifier.load("run/export/model.onnx").genotype
    assert Genotype.from_json(metadata) == GENOTYPES[name]


@pytest.mark.slow
def test_a_genotype_that_is_given_is_not_searched(capsys: pytest.CaptureFixture) -> None:
    tiny = [*TINY, "--benchmark-seconds", "0.02", "--benchmark-rounds", "1"]
    text = "normal=sep3@0/skip@1+skip@2 reduction=max3@1 normal_concat=3"
    assert main(["run", "run", "--genotype", text, *tiny, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["stages"]["search"] is None and result["stages"]["derive"] is None
    assert result["genotype"] == Genotype.from_text(text).to_text()
    assert {"normal.png", "reduction.svg"} <= {path.name for path in Path("run/pictures").iterdir()}
    _verified("run")
    # It goes on without a search, too.
    assert main(["run", "run", "--resume", "--export-formats", "saved_model"]) == 0
    assert not Path("run/search").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet20", "small_densenet"])
def test_a_network_stage_by_stage(name: str, capsys: pytest.CaptureFixture, small_densenet: str) -> None:
    options = ["--retrain-validation", "0.2", "--retrain-keep", "best", "--tensorboard"]
    assert main(["retrain", "run", "--network", name, *TINY, *options]) == 0
    out, err = capsys.readouterr()
    assert re.search(r"kept +epoch 1\n", out) and "% of the training images" in out
    assert "retraining 1/1: loss " in err and ", val_loss " in err
    assert len(list(Path("run/retrain/tensorboard").iterdir())) == 1
    assert main(["retrain", "run", "--resume"]) == 0  # it knows its network
    assert main(["evaluate", "run"]) == 0
    assert main(["export", "run"]) == 0
    assert main(["draw", "run"]) == 0
    _verified("run")
    assert f'network: "{name}"' in Path("run/config.yaml").read_text()
    assert not Path("run/genotype.json").exists()
    capsys.readouterr()
    Path("picture.png").write_bytes(_picture())
    assert main(["predict", "run", "picture.png", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


def _picture() -> bytes:
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "png")
    return file.getvalue()


def test_run_of_a_network_searches_nothing(capsys: pytest.CaptureFixture, small_densenet: str) -> None:
    tiny = [*TINY, "--export-formats", "saved_model"]
    assert main(["run", "run", "--network", small_densenet, *tiny, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["genotype"] is None and result["stages"]["search"] is None
    assert result["stages"]["benchmark"] is None
    assert result["parameters"] == count_parameters(build(small_densenet, None, (8, 8, 1), 3))


def test_a_genotype_of_nas_bench_201_brings_its_space(capsys: pytest.CaptureFixture) -> None:
    text = "|skip_connect~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|none~2|"
    assert main(["run", "run", "--genotype", text, *TINY, "--export-formats", "saved_model", "--json"]) == 0
    assert text in json.loads(capsys.readouterr().out)["genotype"]
    assert json.loads(Path("run/genotype.json").read_text())["cell"] == text
    assert Config.from_file("run/config.yaml").search.space == "nasbench201"


def test_the_list(capsys: pytest.CaptureFixture) -> None:
    assert main(["zoo"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1 : 1 + len(ZOO)]] == list(ZOO)
    assert "2,543,014  2.82 %   GDAS, CVPR 2019" in next(line for line in lines if "GDAS_F1" in line)
    assert "2.46 %*" in next(line for line in lines if "DrNAS" in line)
    assert main(["zoo", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)["entries"]
    assert [entry["name"] for entry in entries] == list(ZOO)
    assert Genotype.from_text(entries[0]["genotype"]) == GENOTYPES["DARTS_V1"]


def test_one_entry(capsys: pytest.CaptureFixture) -> None:
    assert main(["zoo", "NASNet-A", "--output", "pictures"]) == 0
    shown = capsys.readouterr().out
    for part in (
        "3,830,950; published: 3.3 M",
        GENOTYPES["NASNet-A"].to_text(),
        "gdas-tf run --genotype NASNet-A",
    ):
        assert part in shown
    assert Path("pictures/reduction.png").exists()
    assert main(["zoo", "DARTS_V2", "--json"]) == 0
    entry = json.loads(capsys.readouterr().out)
    assert (entry["weights"], entry["spread"]) == (3_349_342, 0.09)
    assert main(["zoo", "resnet110"]) == 0
    assert "gdas-tf run --network resnet110" in capsys.readouterr().out
    assert main(["draw", "--genotype", "AmoebaNet-A", "--output", "drawn"]) == 0
    assert Path("drawn/normal.svg").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["zoo", "nasnet"], r"unknown entry of the zoo 'nasnet'; did you mean NASNet-A?"),
        (["zoo", "resnet20", "--output", "x"], "draws cells, and the network resnet20 is built of none"),
        (["zoo", "--output", "x"], "--output goes with the name of a genotype"),
        (["draw", "--genotype", "enas"], "cannot read 'enas'; did you mean ENAS?"),
        (["draw"], "draw: give a run directory or a genotype"),
        (["draw", "ENAS", "--genotype", "ENAS"], "draw: give a run directory or a genotype"),
        (
            ["retrain", "x", "--genotype", "resnet20"],
            "resnet20 is a network, .* name it by --retrain-network",
        ),
        (
            ["run", "x", "--network", "ENAS"],
            "argument --network: ENAS is a genotype; give it by --genotype ENAS",
        ),
        (["run", "x", "--network", "resnet101"], "argument --network: .*did you mean resnet110?"),
        (["retrain", "x"], "there is none; make it by gdas-tf search, or give --genotype or --network"),
        (["retrain"], "give a run directory, --genotype FILE|NAME|TEXT, or --network NAME"),
        (
            ["retrain", "x", "--network", "resnet20", "--genotype", "ENAS", *TINY],
            "the network resnet20 (--retrain-network) is built of no genotype; give none",
        ),
        (
            ["run", "x", "--network", "resnet20", "--genotype", "ENAS", *TINY],
            "resnet20 .* built of no genotype",
        ),
    ],
)
def test_wrong_use(arguments: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr().err
    parts = message.split(".*")
    assert all(part.strip() in said for part in parts), said
    assert said.splitlines()[-1].startswith("gdas-tf: error")
    assert not Path("x").exists()


def test_a_genotype_does_not_take_the_place_of_a_search(capsys: pytest.CaptureFixture) -> None:
    config = Config.preset("quick").override({"data.name": "noise.npz"})
    with pipeline.begin("run", config) as job:
        job.run.append_metrics("search", {"epoch": 1, "loss": 1.0})
    assert main(["run", "run", "--resume", "--genotype", "ENAS"]) == 2
    assert "its search has begun; --genotype begins a run without a search" in capsys.readouterr().err
    assert not Path("run/genotype.json").exists()
