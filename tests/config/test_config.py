"""The configuration: presets, files, overriding, bad values."""

from __future__ import annotations

import json

import pytest
import yaml
from pydantic import ValidationError

from gdas_tf.config.config import Config, differences, options
from gdas_tf.config.names import names
from gdas_tf.config.presets import PRESETS
from gdas_tf.errors import UsageError


def test_defaults_are_the_constants_of_the_paper():
    config = Config()
    assert config == Config.preset("paper")
    search, retrain = config.search, config.retrain
    assert (search.epochs, search.batch_size, search.channels, search.cells, search.nodes) == (
        250,
        64,
        16,
        2,
        4,
    )
    assert (search.temperature_start, search.temperature_end) == (10.0, 0.1)
    assert (search.weight_learning_rate, search.weight_learning_rate_end) == (0.025, 1e-3)
    assert (search.architecture_learning_rate, search.architecture_beta_1, search.architecture_beta_2) == (
        3e-4,
        0.5,
        0.999,
    )
    assert (search.weight_decay, search.architecture_weight_decay, search.clip_norm) == (3e-4, 1e-3, 5.0)
    assert (retrain.epochs, retrain.batch_size, retrain.channels, retrain.cells) == (600, 96, 36, 6)
    assert (retrain.auxiliary_weight, retrain.drop_path, retrain.cutout) == (0.4, 0.2, 16)
    assert (config.data.padding, config.data.flip) == (4, True)


def test_quick_preset_is_for_digits_and_never_mirrors_them():
    config = Config.preset("quick")
    assert config.data.name == "digits"
    assert not config.data.flip
    assert config.data.padding == 1


def test_recipe_of_the_seed_study():
    config = Config.preset("seed")
    assert (config.search.batch_size, config.search.weight_decay) == (196, 5e-4)
    search = config.search
    assert (search.nesterov, search.sample_per, search.pool_norm) == (True, "kind", False)
    assert (search.weight_schedule, search.unsampled, search.clip_norm) == ("epoch", "decayed", 5.0)
    assert (config.derive.rule, config.derive.ranks) == ("pairs", (1, 2))
    retrain = config.retrain
    assert (retrain.epochs, retrain.batch_size, retrain.weight_decay) == (300, 96, 5e-4)
    assert (retrain.clip_norm, retrain.drop_path, retrain.auxiliary_weight) == (0, 0, 0.4)
    assert (retrain.nesterov, retrain.schedule, retrain.head_norm) == (True, "epoch", True)


def test_recipe_of_autodl_projects():
    config = Config.preset("autodl")
    assert (config.search.batch_size, config.search.weight_decay, config.search.epochs) == (256, 5e-4, 250)
    assert (config.search.weight_schedule, config.search.unsampled) == ("epoch", "decayed")
    assert config.search.macro == config.retrain.macro == "autodl"
    assert config.derive.rule == "pairs"
    assert (config.retrain.epochs, config.retrain.batch_size, config.retrain.head_norm) == (300, 256, True)
    assert (config.retrain.weight_decay, config.retrain.clip_norm, config.retrain.drop_path) == (5e-4, 0, 0)
    assert (config.retrain.channels, config.retrain.cells) == (33, 6)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_file_round_trip(preset, suffix, tmp_path):
    config = Config.preset(preset)
    ranks = (1, 2) if config.search.strategy == "robust" else (3, 4)  # it finds a genotype itself
    config = config.override(
        {"derive.ranks": ranks, "data.image_size": 48, "seed": 7, "search.weight_decay": 1e-7}
    )
    path = tmp_path / f"config{suffix}"
    path.write_text(config.to_yaml(comments=True) if suffix == ".yaml" else json.dumps(config.to_dict()))
    assert Config.from_file(path) == config
    assert yaml.safe_load(config.to_yaml()) == config.to_dict()


@pytest.mark.parametrize("name", ["none", "Über photos: #1", "null", "true", "- a", "12", "a\\b\"c'"])
def test_names_survive_yaml(name, tmp_path):
    path = tmp_path / "config.yaml"
    config = Config().override({"data.name": name})
    path.write_text(config.to_yaml(comments=True), encoding="utf-8")
    assert Config.from_file(path).data.name == name


def test_partial_file_lies_over_its_base(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("search: {epochs: 3, weight_decay: 1e-5}\n")
    config = Config.from_file(path, Config.preset("quick"))
    assert config.search.epochs == 3
    assert config.search.weight_decay == 1e-5  # YAML 1.1 reads 1e-5 as text
    assert config.data.name == "digits"


def test_override_converts_text_and_leaves_the_original():
    config = Config()
    changed = config.override(
        {
            "search.epochs": "5",
            "derive.ranks": "2,3",
            "data.flip": "false",
            "data.image_size": "none",
            "seed": 3,
        }
    )
    assert (changed.search.epochs, changed.derive.ranks, changed.data.flip) == (5, (2, 3), False)
    assert changed.data.image_size is None
    assert (config.search.epochs, config.seed) == (250, 0)
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "found", "accepted"),
    [
        ({"search.epochs": 0}, "0", "at least 1"),
        ({"search.epochs": 2.5}, "2.5", "a whole number"),
        ({"search.epochs": "many"}, "'many'", "a whole number"),
        ({"search.epochs": True}, "True", "a whole number"),
        ({"search.temperature_end": 0}, "0", "above 0"),
        ({"search.weight_decay": float("nan")}, "nan", "a number"),
        ({"search.sampler": "uniform"}, "'uniform'", "gumbel, direct"),
        ({"search.operations": "gdas-5"}, "gdas-5", "gdas-4"),
        ({"search.operations": "none,conv_9x9"}, "conv_9x9", "sep_conv_3x3"),
        ({"retrain.drop_path": 1}, "1", "below 1"),
        ({"data.test_fraction": 1}, "1", "below 1"),
        ({"data.image_size": 4}, "4", "at least 8"),
        ({"data.image_size": "48x4"}, "48x4", "at least 8"),
        ({"data.image_size": [2000, 48]}, "2000x48", "at most 1024"),
        ({"data.image_size": "48x64x3"}, "48x64x3", "as 32 or 48x64 (height x width)"),
        ({"data.image_size": True}, "True", "as 32 or 48x64 (height x width)"),
        ({"data.image_size": 2.5}, "2.5", "as 32 or 48x64 (height x width)"),
        ({"data.image_channels": 2}, "2", "1, 3"),
        ({"data.flip": "perhaps"}, "'perhaps'", "true or false"),
        ({"data.name": ""}, "''", "text"),
        ({"derive.ranks": "1,1"}, "1,1", "once"),
        ({"derive.ranks": ()}, "nothing", "at least one"),
        ({"derive.ranks": "5,6"}, "5,6", "1 to 5"),
        ({"export.formats": "onnx,coreml"}, "'coreml'", "onnx, onnx_float16, onnx_int8"),
        ({"seed": -1}, "-1", "at least 0"),
    ],
)
def test_bad_value_is_named(values, found, accepted):
    with pytest.raises(UsageError) as error:
        Config().override(values)
    message = str(error.value)
    assert message.startswith(next(iter(values)))
    assert found in message
    assert accepted in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("value", "size"), [("48x64", (48, 64)), ([48, 64], (48, 64)), ("48x48", 48), ("32", 32), (32, 32)]
)
def test_image_size_is_a_side_or_height_and_width(value, size, tmp_path):
    config = Config().override({"data.image_size": value})
    assert config.data.image_size == size
    file = tmp_path / "config.yaml"
    file.write_text(config.to_yaml(comments=True))
    assert Config.from_file(file) == config == Config.from_dict(json.loads(json.dumps(config.to_dict())))


@pytest.mark.parametrize("value", ["all", ["all"]])
def test_all_stands_for_every_format(value):
    assert Config().override({"export.formats": value}).export.formats == names("format")


def test_unknown_names_are_refused_with_a_hint():
    with pytest.raises(UsageError, match=r"unknown .*'search.epoch'.*did you mean search.epochs"):
        Config().override({"search.epoch": 1})
    with pytest.raises(UsageError, match="'tiny'; accepted are quick, small, robust, paper, seed, autodl"):
        Config.preset("tiny")
    with pytest.raises(UsageError, match="unknown configuration field 'searching'"):
        Config.from_dict({"searching": {"epochs": 1}})
    with pytest.raises(UsageError, match="search: found 5; a section holds fields"):
        Config.from_dict({"search": 5})


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.yaml", b"search: [", "not YAML"),
        ("a.json", b"{", "Expecting"),
        ("a.yaml", b"- 1\n", "must hold sections"),
        ("a.yaml", b"\xff\xfe\x00", "it is not text"),
        ("a.yaml", b"search: {epochs: -1}", "search.epochs: found -1"),
    ],
)
def test_bad_file_is_one_line(name, content, reason, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UsageError) as error:
        Config.from_file(path)
    assert str(error.value).startswith(f"configuration file {path}: ")
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_file(tmp_path):
    with pytest.raises(UsageError, match="cannot read it: No such file"):
        Config.from_file(tmp_path / "absent.yaml")


def test_empty_file_changes_nothing(tmp_path):
    path = tmp_path / "empty.yaml"
    path.write_text("# nothing\n")
    assert Config.from_file(path) == Config()


@pytest.mark.parametrize("field", ["search.macro", "retrain.macro"])
def test_the_old_name_of_a_macro_architecture_is_still_read(field):
    assert Config().override({field: "official"}).get(field) == "autodl"
    with pytest.raises(UsageError, match="found 'darts'; accepted: paper, autodl"):
        Config().override({field: "darts"})


def test_ranks_that_no_node_can_answer_are_refused_by_either_rule():
    pairs = {"derive.rule": "pairs", "search.operations": "gdas-4"}
    assert Config().override({**pairs, "derive.ranks": (1, 6)}).derive.ranks == (1, 6)
    message = "derive.ranks: found 7; accepted are 1 to 6, as node 0 has 6 pairs, 3 operations on each of"
    with pytest.raises(UsageError, match=message):
        Config().override({**pairs, "derive.ranks": 7})
    assert Config().override({**pairs, "derive.keep_none": True, "derive.ranks": 7}).derive.ranks == (7,)
    with pytest.raises(
        UsageError, match="derive.ranks: found 6; accepted are 1 to 5, as the last of 4 nodes has 5"
    ):
        Config().override({"derive.ranks": 6})


def test_space_of_the_configuration():
    space = (
        Config().override({"search.operations": "gdas-4", "search.nodes": 2, "derive.ranks": "1,2,3"}).space
    )
    assert (len(space.operations), space.nodes, space.inputs_per_node) == (4, 2, 3)
    many = Config().override({"derive.rule": "pairs", "search.nodes": 1, "derive.ranks": "1,2,3,4"})
    assert many.space.inputs_per_node == 2


def test_differences_name_the_fields():
    one, two = Config().to_dict(), Config().override({"search.epochs": 3, "seed": 1}).to_dict()
    assert differences(one, two) == [("seed", 0, 1), ("search.epochs", 250, 3)]
    assert differences(one, one) == []


def test_every_field_has_help_and_its_own_flag():
    flags = [option.flag for option in options()]
    assert len(flags) == len(set(flags)) > 50
    assert all(option.help for option in options())
    assert {"--search-epochs", "--retrain-channels", "--data", "--data-dir", "--seed"} <= set(flags)


SIZES = ("search.cells", "search.channels", "retrain.cells", "retrain.channels")


def _sizes(config: Config) -> tuple:
    return tuple(config.get(path) for path in SIZES)


def test_a_space_has_sizes_of_its_own():
    paper = Config.preset("paper")
    assert _sizes(paper) == (2, 16, 6, 36)
    other = paper.override({"search.space": "nasbench201"})
    assert _sizes(other) == (5, 16, 5, 16)
    assert _sizes(other.override({"search.epochs": 3})) == (5, 16, 5, 16)
    assert _sizes(other.override({"search.space": "darts"})) == (2, 16, 6, 36)
    assert Config(search={"space": "nasbench201"}) == other
    assert Config.from_dict(other.to_dict()) == other


def test_what_the_user_or_a_preset_says_stands_before_what_the_space_says():
    chosen = Config.preset("paper").override({"search.space": "nasbench201", "search.cells": 2})
    assert _sizes(chosen) == (2, 16, 5, 16)
    assert _sizes(Config.from_dict({"search": {"space": "nasbench201", "channels": 8}})) == (5, 8, 5, 16)
    assert _sizes(Config.preset("quick").override({"search.space": "nasbench201"})) == (1, 16, 1, 12)


def test_a_space_of_a_file_is_kept_in_the_configuration(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("operations: [conv_1x1, skip_connect]\nnodes: 3\nkeep: 3\nmacro: {channels: 7}\n")
    config = Config.preset("paper").override({"search.space": str(path)})
    assert (config.search.space, config.derive.ranks) == ("custom", (1, 2, 3))
    assert config.search.definition["nodes"] == 3
    assert _sizes(config) == (2, 7, 6, 7)
    assert (config.space.name, config.space.nodes, config.space.inputs_per_node) == ("custom", 3, 3)
    path.unlink()
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert Config.from_file(tmp_path / "config.yaml") == config
    assert Config.from_dict(config.to_dict()) == config
    back = config.override({"search.space": "darts"})
    assert back == Config.preset("paper")
    path.write_text("operations: [conv_1x1]\nnodes: 0\n")
    with pytest.raises(UsageError, match=f"^search space {path}: nodes is 0; accepted"):
        Config(search={"space": str(path)})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"search.space": "custom"}, "search.space: custom is a space that a YAML file describes; name that"),
        ({"search.space": "nasbench202"}, "or a YAML file that describes one; did you mean nasbench201"),
        ({"search.definition": {"nodes": 1}}, "search.definition: it describes the space custom, and"),
        (
            {"search.space": "custom", "search.definition": {"nodes": 1}},
            "search.definition: operations is missi",
        ),
        ({"search.space": "custom", "search.definition": "[1]"}, "search.definition: found"),
        ({"search.definition": "a: ["}, "search.definition: not YAML"),
    ],
)
def test_bad_spaces(values, message):
    with pytest.raises(UsageError, match=message) as error:
        Config.preset("paper").override(values)
    assert "\n" not in str(error.value)
