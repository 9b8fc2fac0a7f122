"""Plugins: a user's files that register themselves, and the section that a user's strategy brings."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import pytest
import yaml

from gdas_tf import plugins
from gdas_tf.cli.main import main
from gdas_tf.config import names
from gdas_tf.config.config import Config, options
from gdas_tf.errors import UsageError
from gdas_tf.registry import Registry
from gdas_tf.runs.run import Run

STRATEGY = """
from typing import Literal
from pydantic import Field
from gdas_tf.config.fields import Section, Whole
from registry_of_this_test import STRATEGIES

class LotteryConfig(Section):
    tickets: Whole = Field(10, ge=1, description="genotypes to draw")
    measure: Literal["loss", "accuracy"] = Field("loss", description="what the best is best by")

class Lottery:
    section = LotteryConfig

STRATEGIES.register("lottery", Lottery)
"""


@pytest.fixture
def registry(monkeypatch) -> Registry:
    """Strategies of one test: the one that has no section of its own, and what the test's plugin adds."""
    module = types.ModuleType("registry_of_this_test")
    module.STRATEGIES = Registry("strategy")
    module.STRATEGIES.register("gdas", object())
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(names._REGISTRIES, "strategy", (module.__name__, "STRATEGIES", ()))
    return module.STRATEGIES


@pytest.fixture
def lottery(registry, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "lottery.py"
    path.write_text(STRATEGY)
    return path


def test_a_plugin_is_executed_once(tmp_path):
    path = tmp_path / "counted.py"
    path.write_text(
        "from pathlib import Path\nwith open(Path(__file__).parent / 'log', 'a') as f: f.write('x')\n"
    )
    for _ in range(2):
        assert plugins.load([path]) == (str(path),)
        assert Config().override({"plugins": [str(path)]}).plugins == (str(path),)
    assert (tmp_path / "log").read_text() == "x"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read it: No such file or directory"),
        ("x = 1\ny = = 2\n", "line 2: SyntaxError: invalid syntax"),
        ("def f():\n    return missing\n\nf()\n", "line 2: NameError: name 'missing' is not defined"),
        ("import no_such_module\n", "line 1: ModuleNotFoundError: No module named 'no_such_module'"),
        ("raise SystemExit(0)\n", "line 1: SystemExit: 0"),
        (
            "from gdas_tf.registry import Registry\nshapes = Registry('shape')\nshapes.get('circle')\n",
            "line 3: unknown shape 'circle'; accepted are none yet",
        ),
    ],
)
def test_a_bad_plugin_is_one_line(content, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.py"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError) as error:
        Config().override({"plugins": "bad.py"})
    assert str(error.value).startswith(f"plugins: {path}")
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert main(["run", "--plugins", "bad.py"]) == 2
    assert said in capsys.readouterr().err
    (tmp_path / "mine.yaml").write_text("plugins: [bad.py]")
    assert main(["run", "--config", "mine.yaml"]) == 2
    assert said in capsys.readouterr().err


def test_a_strategy_of_a_plugin_brings_its_section(lottery):
    config = Config().override(
        {"lottery.tickets": "3", "plugins": "lottery.py", "search.strategy": "lottery"}
    )
    assert config.lottery.tickets == config.get("lottery.tickets") == 3
    assert config.strategy == config.lottery
    assert config.to_dict()["lottery"] == {"tickets": 3, "measure": "loss"}
    assert config.plugins == (str(lottery),)
    assert Config.from_dict(config.to_dict()) == config
    assert yaml.safe_load(config.to_yaml(comments=True)) == config.to_dict()
    assert {"--lottery-tickets", "--lottery-measure"} <= {option.flag for option in options()}
    back = config.override({"search.strategy": "gdas"})
    assert "lottery" not in back.to_dict()
    assert back.strategy == back.search


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"search.strategy": "lotery"},
            "search.strategy: found 'lotery'; accepted: gdas, lottery; did you mean",
        ),
        (
            {"lottery.tickets": 3},
            "lottery: it is the section of the strategy lottery, and search.strategy is gdas",
        ),
        (
            {"search.strategy": "lottery", "lottery.tickets": 0},
            "lottery.tickets: found 0; it must be at least 1",
        ),
        (
            {"search.strategy": "lottery", "lottery.measure": "los"},
            "lottery.measure: found 'los'; accepted: loss, accuracy; did you mean loss?",
        ),
        (
            {"search.strategy": "lottery", "lottery.ticket": 1},
            "'lottery.ticket'; did you mean lottery.tickets?",
        ),
        (
            {"search.strategy": "lottery", "lottery": 1},
            "lottery: found 1; a section holds fields, as lottery: {t",
        ),
    ],
)
def test_bad_values_of_a_strategy_are_named(values, said, lottery):
    with pytest.raises(UsageError) as error:
        Config().override({"plugins": "lottery.py", **values})
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_section_without_its_strategy_is_unknown(registry):
    with pytest.raises(UsageError, match=r"unknown configuration field 'lottery'"):
        Config().override({"lottery.tickets": 3})


@pytest.mark.parametrize("name", ["data", "seed", "override", "a b"])
def test_a_section_cannot_take_a_name_of_the_configuration(name, registry):
    registry.register(name, types.SimpleNamespace(section=Config.model_fields["data"].annotation.__base__))
    with pytest.raises(UsageError, match=f"strategy '{name}': .*register the strategy under another"):
        Config()


def test_the_command_line_takes_the_options_of_a_plugin(lottery, capsys):
    own = ["search", "--plugins=lottery.py", "--search-strategy", "lottery"]
    assert main([*own, "--lottery-tickets", "4", "--print-config", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["lottery"]["tickets"], printed["plugins"]) == (4, [str(lottery)])
    assert main(["search", "--plugins", "lottery.py", "--help"]) == 0
    assert "--lottery-measure loss|accuracy" in capsys.readouterr().out
    Path("mine.yaml").write_text(yaml.safe_dump(printed))
    again = ["search", "--config", "mine.yaml", "--lottery-measure", "accuracy", "--print-config", "--json"]
    assert main(again) == 0
    assert json.loads(capsys.readouterr().out)["lottery"] == {"tickets": 4, "measure": "accuracy"}
    assert main([*own, "--lottery-tickets", "0", "--print-config"]) == 2
    assert "argument --lottery-tickets: found 0; it must be at least 1" in capsys.readouterr().err


def test_a_run_directory_finds_its_plugin_and_depends_on_the_section(lottery, capsys, monkeypatch, tmp_path):
    config = Config().override({"plugins": "lottery.py", "search.strategy": "lottery"})
    run = Run.create(tmp_path / "run", config)
    run.save_checkpoint("search", {}, 1)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert Run.open(run.path).config == config
    assert main(["search", "../run", "--lottery-tickets", "5", "--print-config", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["lottery"]["tickets"] == 5
    with pytest.raises(UsageError, match="lottery.tickets = 10 there, 5 now"):
        run.set_config(config.override({"lottery.tickets": 5}))


def test_a_run_directory_from_before_there_were_strategies(tmp_path):
    run = Run.create(tmp_path / "run", Config.preset("quick"))
    run.save_checkpoint("search", {}, 1)
    values = yaml.safe_load(run.file("config.yaml").read_text())
    del (
        values["plugins"],
        values["search"]["strategy"],
        values["search"]["space"],
        values["retrain"]["network"],
    )
    run.file("config.yaml").write_text(yaml.safe_dump(values))
    assert Run.open(run.path).config == Config.preset("quick")
    assert Run.open(run.path).load_checkpoint("search")[1] == 1


def test_configurations_can_be_compared_and_be_keys():
    assert len({Config(), Config.preset("paper"), Config.preset("quick")}) == 2
