"""The configuration of a run, and its fields as options.

A `Config` checks itself when it is made, so one that exists is one that can be run. Files and run directories
hold `Config.to_dict()`.

Example:
    >>> config = Config.preset("quick").override({"search.epochs": 5})
    >>> config.search.epochs
    5
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from gdas_tf import plugins
from gdas_tf.config.fields import RULES, Items, Metavar, Text, Whole, items
from gdas_tf.config.files import read_values, to_yaml
from gdas_tf.config.messages import message, unknown
from gdas_tf.config.names import check_strategy, derives, names, strategies_reading, strategy_sections
from gdas_tf.config.option import Option
from gdas_tf.config.own_values import with_own_values, without_own_values
from gdas_tf.config.presets import PRESETS
from gdas_tf.config.sections import (
    SECTIONS,
    STRATEGY_FIELDS,
    BenchmarkConfig,
    DataConfig,
    DeriveConfig,
    DistributionConfig,
    ExportConfig,
    RetrainConfig,
    SearchConfig,
)
from gdas_tf.errors import UsageError
from gdas_tf.spaces import custom
from gdas_tf.spaces.base import CUSTOM, SearchSpace


class Config(BaseModel):
    """All that a run depends on. The defaults are the constants of the paper (arXiv 1910.04465).

    A strategy with fields of its own (`gdas_tf.strategies`) adds a section of its name, while it is chosen.

    Args:
        seed: every random choice of a run comes from it.
        plugins: Python files that are executed before any name is looked up.
        tensorboard: whether search and retraining write event files; no outcome depends on it.
        data, search, derive, retrain, distribution, export, benchmark: the sections.

    Raises:
        UsageError: a field is unknown, or a value has the wrong type or lies outside its limits.
    """

    # What is beyond the fields is the section of the strategy, which `_take_section` sees to.
    model_config = ConfigDict(**{**RULES, "extra": "allow"})

    seed: Whole = Field(0, ge=0, le=2**31 - 1, description="seed of every random choice")
    plugins: Annotated[tuple[Text, ...], Items, Metavar("FILE,…")] = Field(
        (), description="Python files that register operations, spaces, strategies or networks of your own"
    )
    tensorboard: bool = Field(
        False, description="write event files of search and retraining for TensorBoard, too"
    )
    data: DataConfig = Field(default_factory=DataConfig)
    search: SearchConfig = Field(default_factory=SearchConfig)
    derive: DeriveConfig = Field(default_factory=DeriveConfig)
    retrain: RetrainConfig = Field(default_factory=RetrainConfig)
    distribution: DistributionConfig = Field(default_factory=DistributionConfig)
    export: ExportConfig = Field(default_factory=ExportConfig)
    benchmark: BenchmarkConfig = Field(default_factory=BenchmarkConfig)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**with_own_values(values))
        except ValidationError as error:
            raise UsageError(message(error, options())) from error

    @field_validator("plugins")
    @classmethod
    def _load_plugins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        # The fields after this one may hold names that the files register.
        try:
            return plugins.load(value)
        except UsageError as error:
            raise UsageError(str(error).removeprefix("plugin ")) from error

    @model_validator(mode="after")
    def _take_section(self) -> Config:
        """Checks what is no field: the section of the chosen strategy, and nothing else."""
        found = self.__pydantic_extra__
        sections = _strategy_sections()
        chosen = self.search.strategy
        for name, values in found.items():
            if name not in sections:
                raise UsageError(unknown(name, {option.path: option for option in options()}))
            if name != chosen:
                raise UsageError(
                    f"{name}: it is the section of the strategy {name}, and search.strategy is {chosen}; "
                    f"leave the section out, or set search.strategy to {name}"
                )
            if isinstance(values, Mapping):
                for field in values:
                    if field not in sections[name].model_fields:
                        known = {option.path: option for option in options(name)}
                        raise UsageError(unknown(f"{name}.{field}", known))
        if chosen in sections:
            section = sections[chosen]
            values = found.get(chosen, {})
            values = values.model_dump() if isinstance(values, BaseModel) else values
            try:
                found[chosen] = section.model_validate(values)
            except ValidationError as error:
                raise UsageError(message(error, options(chosen), chosen)) from error
        return self

    @model_validator(mode="after")
    def _check_definition(self) -> Config:
        search = self.search
        if search.space == CUSTOM and search.definition is None:
            raise UsageError(
                f"search.space: {CUSTOM} is a space that a YAML file describes; name that file, as mine.yaml"
            )
        if search.space != CUSTOM and search.definition is not None:
            raise UsageError(
                f"search.definition: it describes the space {CUSTOM}, and search.space is {search.space}; "
                f"leave it out, or set search.space to {CUSTOM}"
            )
        return self

    @model_validator(mode="after")
    def _check_ranks(self) -> Config:
        ranks, space = self.derive.ranks, self.space
        if space.keep == "all":  # no rank is looked at
            return self
        most, reason = space.highest_rank(self.derive.rule, self.derive.keep_none)
        if max(ranks) > most:
            shown = ",".join(map(str, ranks))
            raise UsageError(f"derive.ranks: found {shown}; accepted are 1 to {most}, as {reason}")
        return self

    @model_validator(mode="after")
    def _check_validation(self) -> Config:
        """Refuses what is decided by the validation loss of a retraining that has none."""
        for name, off in (("keep", "last"), ("patience", None)):
            found = getattr(self.retrain, name)
            if found != off and not self.retrain.validation:
                raise UsageError(
                    f"retrain.{name}: found {found}, which goes by the loss on a validation part, and there "
                    f"is none; set retrain.validation, as to 0.1, or leave retrain.{name} out"
                )
        return self

    @model_validator(mode="after")
    def _check_strategy(self) -> Config:
        """Refuses fields of the section `search` that the strategy does not read, and what it refuses."""
        chosen = self.search.strategy
        for name in STRATEGY_FIELDS:
            value, default = getattr(self.search, name), type(self.search).model_fields[name].default
            readers = strategies_reading(name)
            if value != default and chosen not in readers:
                others = f", or another search.strategy ({', '.join(readers)})" if readers else ""
                raise UsageError(
                    f"search.{name}: found {value}, which the strategy {chosen} does not read; accepted is "
                    f"{default}{others}"
                )
        if not derives(chosen):
            self._check_nothing_derived()
        check_strategy(self)
        return self

    def _check_nothing_derived(self) -> None:
        """Refuses what says how to rank, as nothing is ranked; of the ranks only the number counts."""
        for name, value in _not_derived(self.derive.ranks).items():
            found = getattr(self.derive, name)
            if found != value:
                shown, accepted = (",".join(map(str, v)) if name == "ranks" else v for v in (found, value))
                raise UsageError(
                    f"derive.{name}: found {shown}; the strategy {self.search.strategy} finds a genotype "
                    f"itself, and nothing is derived by ranks; accepted is {accepted}"
                )

    @property
    def space(self) -> SearchSpace:
        """The search space: operations and nodes of the search, as many inputs per node as ranks are kept.

        `search.operations` and `search.nodes` change a space. Where they have their defaults, a space other
        than that of the defaults keeps its own.
        """
        search, fields = self.search, type(self.search).model_fields
        own = search.space != fields["space"].default
        operations, nodes = (
            None if own and getattr(search, name) == fields[name].default else getattr(search, name)
            for name in ("operations", "nodes")
        )
        named: str | SearchSpace = search.space
        if named == CUSTOM:
            named = custom.make(search.definition or {}, "search.definition")
        space = SearchSpace.named(operations, nodes, space=named)
        if space.keep == "all":
            return space
        # By the rule `pairs` a node may keep more pairs than it has inputs.
        inputs = min(len(self.derive.ranks), space.most_inputs)
        return dataclasses.replace(space, inputs_per_node=inputs)

    @property
    def strategy(self) -> BaseModel:
        """The fields of the chosen strategy: its own section, or `search` for one that has none."""
        return self.__pydantic_extra__.get(self.search.strategy, self.search)

    @classmethod
    def preset(cls, name: str) -> Config:
        """Returns a preset, one of `PRESETS`.

        Raises:
            UsageError: there is no preset of that name.
        """
        if name not in PRESETS:
            raise UsageError(f"preset: found {name!r}; accepted are {', '.join(PRESETS)}")
        return cls().override(PRESETS[name])

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], base: Config | None = None) -> Config:
        """Returns `base` (by default the paper's constants) with the values of a nested mapping.

        Raises:
            UsageError: an unknown section or field, or a bad value.
        """
        flat: dict[str, Any] = {}
        for key, value in values.items():
            if isinstance(value, Mapping):
                flat |= {f"{key}.{name}": item for name, item in value.items()}
            else:
                flat[str(key)] = value
        return (base or cls()).override(flat)

    @classmethod
    def from_file(cls, path: str | Path, base: Config | None = None) -> Config:
        """Returns `base` (by default the paper's constants) with the values of a YAML or JSON file.

        Raises:
            UsageError: the file can't be read, isn't YAML or JSON, or holds an unknown or bad value.
        """
        values = read_values(path)
        try:
            return cls.from_dict(values, base)
        except UsageError as error:
            raise UsageError(f"configuration file {path}: {error}") from error

    def override(self, values: Mapping[str, Any]) -> Config:
        """Returns a copy with other values, by dotted name: `{"search.epochs": 5, "seed": 1}`.

        With another strategy, the section of the one before is left out, and so are values of the sections
        `search` and `derive` that the other one does not read, as a preset may have them. With another search
        space, what it says itself (`gdas_tf.config.own_values`) takes the place of what the one before said.

        Raises:
            UsageError: an unknown name or a bad value.
        """
        nested = self.model_dump()
        if values.get("search.strategy", self.search.strategy) != self.search.strategy:
            nested = {name: value for name, value in nested.items() if name in type(self).model_fields}
            if not derives(values["search.strategy"]):
                nested["derive"] |= _not_derived(self.derive.ranks)
            nested["search"] |= _unread(values["search.strategy"], values.get("plugins"))
        if values.get("search.space", self.search.space) != self.search.space:
            nested = without_own_values(nested, self.space, values)
            nested["search"]["definition"] = None
        for path, value in values.items():
            section, _, name = path.rpartition(".")
            holder = nested.setdefault(section, {}) if section else nested
            if not isinstance(holder, dict):
                raise UsageError(unknown(path, {option.path: option for option in options()}))
            holder[name] = value
        return type(self)(**nested)

    def get(self, path: str) -> Any:
        """Returns the value of a dotted name, as `search.epochs`."""
        value: Any = self
        for name in path.split("."):
            value = getattr(value, name)
        return value

    def to_dict(self) -> dict[str, Any]:
        """Returns nested dictionaries of plain JSON types (tuples as lists)."""
        return self.model_dump(mode="json")

    def to_yaml(self, comments: bool = False) -> str:
        """Returns the configuration as YAML, on request with each field's help as a comment."""
        own = [None, *self.to_dict()]
        chosen = [option for option in options() if option.section in own]
        return to_yaml([(option, self.get(option.path)) for option in chosen], comments)


def _unread(strategy: Any, files: Any) -> dict[str, Any]:
    """Returns the defaults of the fields of the section `search` that a strategy does not read.

    Args:
        strategy: its name.
        files: plugins that may register it; what is wrong with them is said where they are checked.
    """
    if strategy not in names("strategy") and files:
        with contextlib.suppress(UsageError):
            plugins.load(items(files))
    fields = SearchConfig.model_fields
    return {
        name: fields[name].default for name in STRATEGY_FIELDS if strategy not in strategies_reading(name)
    }


def _not_derived(ranks: Sequence[int]) -> dict[str, Any]:
    """Returns the section `derive` of a strategy that finds a genotype itself: the number of ranks is that of
    the inputs that a node takes."""
    fields = DeriveConfig.model_fields
    rest = {name: fields[name].default for name in ("rule", "keep_none")}
    return {**rest, "ranks": tuple(range(1, len(ranks) + 1))}


def _strategy_sections() -> dict[str, type[BaseModel]]:
    found = strategy_sections(taken={*dir(Config), *Config.model_fields})
    return {name: section for name, section in found.items() if section not in SECTIONS.values()}


def options(*sections: str | None) -> tuple[Option, ...]:
    """Returns the fields of the named sections (None: those outside a section).

    Args:
        sections: names of sections; by default all, those of the registered strategies last.
    """
    if sections and all(name is None or name in SECTIONS for name in sections):
        kinds: dict[str, type[BaseModel]] = SECTIONS
    else:
        kinds = {**SECTIONS, **_strategy_sections()}
    result = []
    for section in sections or (None, *kinds):
        fields = (kinds[section] if section else Config).model_fields
        result += [
            Option(section, name, field) for name, field in fields.items() if section or name not in kinds
        ]
    return tuple(result)


def differences(
    first: Mapping[str, Any], second: Mapping[str, Any], prefix: str = ""
) -> list[tuple[str, Any, Any]]:
    """Returns (dotted name, value in first, value in second) of all that two nested mappings differ in."""
    found = []
    for key in [*first, *(key for key in second if key not in first)]:
        one, two = first.get(key), second.get(key)
        if isinstance(one, Mapping) and isinstance(two, Mapping):
            found += differences(one, two, f"{prefix}{key}.")
        elif one != two:
            found.append((prefix + str(key), one, two))
    return found
