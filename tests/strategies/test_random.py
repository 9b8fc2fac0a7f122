"""Random search: one genotype as it is drawn, or the best of several by the weights of a supernet."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from candidate_searches import SEARCH, TINY, assert_same_outcome, noise, searched

from gdas_tf.cli.main import main
from gdas_tf.config.config import Config
from gdas_tf.errors import UsageError
from gdas_tf.pipeline import genotype_of_logits
from gdas_tf.runs.journal import Journal
from gdas_tf.spaces.base import SPACES
from gdas_tf.spaces.genotype import Genotype
from gdas_tf.strategies import candidates
from gdas_tf.strategies.base import STRATEGIES, Task
from gdas_tf.strategies.random import Random

RANDOM = ["--search-strategy", "random"]


def _drawn(count: int, seed: int = 0, space: str = "darts", fixed: bool = False) -> Random:
    strategy = Random(candidates=count)
    kinds = ["normal"] if fixed or not SPACES.get(space).reduction else ["normal", "reduction"]
    strategy.build(Task(SPACES.get(space), dict.fromkeys(kinds, 1), seed))
    return strategy


@pytest.mark.parametrize("space", ["darts", "nasbench201"])
def test_candidates_differ_and_depend_on_the_seed_alone(space: str) -> None:
    first, again, other = (_drawn(5, seed, space).drawn for seed in (0, 0, 1))
    assert first == again != other
    assert len(set(first)) == 5
    for genotype in first:
        genotype.check_fits(SPACES.get(space))
    assert _drawn(1, 0, space).best == first[0]
    assert _drawn(2, fixed=True).best.reduction is None


def test_one_candidate_trains_nothing() -> None:
    assert not Random(1).trains_supernet and Random(2).trains_supernet
    config = Config().override({"search.strategy": "random"})
    kind = STRATEGIES.get("random")
    assert kind.rounds(config) == 1
    assert kind.rounds(config.override({"random.candidates": 3})) == config.search.epochs


@pytest.mark.slow
def test_one_candidate_from_the_command_line(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    noise("noise.npz")
    assert main(["run", "run", *RANDOM, *TINY, "--seed", "3", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)["stages"]["search"]
    assert result["epochs"] == 1 and result["accuracy"] is None
    found = Genotype.load("run/genotype.json")
    assert not Path("run/search/checkpoint.npz").exists()
    assert "onnx" in json.loads(Path("run/export/verification.json").read_text())["formats"]
    assert not Path("run/pictures/search.png").exists()  # there is nothing to draw of a search without steps
    # Finished is finished, and the seed decides.
    assert main(["search", "run", "--resume"]) == 0
    assert main(["search", "other", *RANDOM, *SEARCH, "--seed", "4"]) == 0
    assert main(["derive", "other"]) == 0
    assert Genotype.load("other/genotype.json") != found


@pytest.mark.slow
@pytest.mark.parametrize("space", ["darts", "nasbench201"])
def test_the_best_of_several(space: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    noise("noise.npz")
    several = [*RANDOM, "--random-candidates", "4", "--random-batches", "2", "--search-space", space]
    several += ["--search-operations", "none,skip_connect,conv_1x1"] if space == "darts" else []
    assert main(["run", "run", *several, *TINY]) == 0
    lines = [json.loads(line) for line in Path("run/search/candidates.jsonl").read_text().splitlines()]
    assert len(lines) == 4
    best = min(lines, key=lambda line: line["loss"])
    assert Genotype.load("run/genotype.json").to_text() == best["genotype"]
    metrics = [json.loads(line) for line in Path("run/search/metrics.jsonl").read_text().splitlines()]
    assert [line.get("best_loss") for line in metrics] == [None, best["loss"]]
    with np.load("run/search/logits.npz") as arrays:
        assert arrays["best_normal"].shape == (3, SPACES.get(space).edge_count)
    assert "onnx" in json.loads(Path("run/export/verification.json").read_text())["formats"]
    assert Path("run/pictures/search.png").stat().st_size > 1000


def test_a_killed_search_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    several: dict = {"search.strategy": "random", "random.candidates": 3, "search.nodes": 2}
    several["search.operations"] = "none,skip_connect,conv_1x1"
    whole = searched(tmp_path / "whole", several)
    assert_same_outcome(whole, searched(tmp_path / "killed", several, killed_after=1))
    # Killed while the candidates were written down.
    lines = whole.file("search/candidates.jsonl").read_text().splitlines()
    journal = Journal(tmp_path / "candidates.jsonl")
    journal.path.write_text(lines[0] + "\n{")
    strategy = _drawn(3)
    strategy.journal = journal
    for _ in range(2):
        journal.begin(resume=True)
        losses = iter([json.loads(line)["loss"] for line in lines])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(candidates, "score", lambda *_: list(losses))  # noqa: B023
            strategy.choose(
                None, [Genotype.from_text(json.loads(line)["genotype"]) for line in lines], None, 1, 1
            )
    assert journal.path.read_text().splitlines() == lines


def test_ranks_are_refused(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    noise("noise.npz")
    assert main(["run", "run", *RANDOM, *SEARCH, "--derive-ranks", "2,3"]) == 2
    assert "--derive-ranks: found 2,3; the strategy random finds a genotype itself" in capsys.readouterr().err
    assert main(["search", "run", *RANDOM, *SEARCH]) == 0
    assert main(["derive", "run", "--derive-rule", "pairs"]) == 2
    assert "--derive-rule: found pairs; the strategy random" in capsys.readouterr().err
    # What a preset says of ranks does not matter, and the number of ranks is that of the inputs of a node.
    config = Config.preset("seed").override({"search.strategy": "random", "derive.ranks": (1, 2, 3)})
    assert config.derive.rule == "edges" and config.space.inputs_per_node == 3


def test_arrays_of_another_strategy(tmp_path: Path) -> None:
    config = Config().override({"search.strategy": "random"})
    np.savez(tmp_path / "logits.npz", normal=np.zeros((2, 14, 8)))
    with pytest.raises(UsageError, match=r"best_normal is needed; set search\.strategy as searched"):
        genotype_of_logits(tmp_path / "logits.npz", config)
    np.savez(tmp_path / "best.npz", best_normal=np.zeros((2, 14), np.int32))
    with pytest.raises(UsageError, match="no array `normal`"):
        genotype_of_logits(tmp_path / "best.npz", Config())
    np.savez(tmp_path / "small.npz", best_normal=np.zeros((2, 5), np.int32))
    with pytest.raises(UsageError, match="14 edges and 8 operations"):
        genotype_of_logits(tmp_path / "small.npz", config)
