"""What a study is: arms, each a configuration or random cells, and how often each is run.

A study is a YAML file or one of `gdas_tf.studies.built_in`:

    name: augmentation
    about: does the search need CutOut?
    config: {data.name: cifar10, search.epochs: 6}
    seeds: 4
    random: 8
    arms:
      plain: {}
      cutout: {search.cutout: 8}
      random: {cells: random}
      again: {cells: random, same_as: random}
    questions: [[cutout, plain], [plain, random]]
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, model_validator

from gdas_tf.config.config import Config
from gdas_tf.config.fields import RULES, Text, Whole
from gdas_tf.config.names import hint
from gdas_tf.errors import UsageError
from gdas_tf.user_files import read_mapping

FEWEST = 2
"""Runs of each arm without which there is no spread, and so nothing to compare."""

Count = Annotated[Whole, Field(ge=FEWEST, le=1000)]


class Arm(BaseModel):
    """What is run several times: a configuration, whose cells are searched or drawn at random.

    Args:
        cells: where they come from.
        same_as: an arm of random cells, the cells of which this one trains again, with other seeds.
        changes: of the configuration.
    """

    model_config = RULES

    cells: Literal["searched", "random"] = "searched"
    same_as: str | None = None
    changes: dict[str, Any] = Field(default_factory=dict)


class Study(BaseModel):
    """A study.

    Args:
        name: of the study.
        about: what it asks, in a line.
        preset: of the configuration, where the command line names none; None for its default.
        config: what all arms have in common, by dotted name or in sections.
        seed: every random choice of the study comes from it.
        seeds: runs of each arm whose cells are searched.
        random: runs of each arm whose cells are random.
        equal_compute: whether the epochs of every search are set so that all take as long as that of the
            first arm, by a short timing before the study starts.
        arms: by name, in the order of the report.
        questions: pairs of arms that are compared; the report begins with the answer to the first. By
            default every searched arm is compared with every random one.

    Raises:
        UsageError: a key is unknown, or a value is not accepted.
    """

    model_config = RULES

    name: Text
    about: str = ""
    preset: str | None = None
    config: dict[str, Any] = Field(default_factory=dict)
    seed: Annotated[Whole, Field(ge=0, le=2**31 - 1)] = 0
    seeds: Count = 5
    random: Count = 10
    equal_compute: bool = False
    arms: dict[str, Arm] = Field(min_length=1)
    questions: tuple[tuple[str, str], ...] = ()

    def __init__(self, **values: Any) -> None:
        if isinstance(values.get("arms"), Mapping):
            values["arms"] = {str(name): _arm(name, value) for name, value in values["arms"].items()}
        if isinstance(values.get("config"), Mapping):
            values["config"] = flat(values["config"])
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise UsageError(_message(error)) from error

    @model_validator(mode="after")
    def _check(self) -> Study:
        folders: dict[str, str] = {}
        for name in self.arms:
            other = folders.setdefault(slug(name), name)
            if not slug(name):
                raise UsageError(f"arms: the name {name!r} has no letter or digit; give it one")
            if other != name:
                raise UsageError(f"arms: {other!r} and {name!r} would have folders of one name; rename one")
            self._check_repeated(name)
        for pair in self.questions:
            for name in pair:
                if name not in self.arms:
                    near = hint(name, self.arms, f"accepted are {', '.join(self.arms)}")
                    raise UsageError(f"questions: there is no arm {name!r}; {near}")
            if pair[0] == pair[1]:
                raise UsageError(f"questions: {pair[0]!r} is compared with itself; name two arms")
        return self

    def _check_repeated(self, name: str) -> None:
        base = self.arms[name].same_as
        if base is None:
            return
        fresh = self.drawn()
        if base not in fresh or self.arms[name].cells != "random":
            raise UsageError(
                f"arm {name}: found same_as {base!r}; it goes with cells: random, and accepted are arms of "
                f"random cells of their own ({', '.join(fresh) or 'there are none'})"
            )

    @classmethod
    def from_file(cls, path: str | Path) -> Study:
        """Reads a YAML or JSON file.

        Raises:
            UsageError: it cannot be read, or is no study; the message names the key.
        """
        path, what = Path(path), f"study file {path}"
        if not path.is_file():
            raise UsageError(f"{what}: there is no such file")
        values = read_mapping(path, what, "it must hold name, arms and so on")
        try:
            return cls(**{"name": path.stem, **values})
        except UsageError as error:
            raise UsageError(f"{what}: {error}") from error

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The pairs of arms that are compared, that of the first sentence first."""
        if self.questions:
            return self.questions
        return tuple((name, other) for name in self.searched() for other in self.drawn())

    def searched(self) -> list[str]:
        """The arms whose cells are searched."""
        return [name for name, arm in self.arms.items() if arm.cells == "searched"]

    def drawn(self) -> list[str]:
        """The arms of random cells of their own."""
        return [name for name, arm in self.arms.items() if arm.cells == "random" and arm.same_as is None]

    def repeated(self) -> dict[str, list[str]]:
        """The arms that train the random cells of another one again, by that one's name."""
        repeats = {
            name: [one for one, arm in self.arms.items() if arm.same_as == name] for name in self.drawn()
        }
        return {name: others for name, others in repeats.items() if others}

    def runs(self, arm: str) -> int:
        """How often an arm is run."""
        return self.random if self.arms[arm].cells == "random" else self.seeds

    def base(self) -> Config:
        """The configuration that all arms have in common.

        Raises:
            UsageError: a field is unknown, or a value is not accepted.
        """
        try:
            return Config.preset(self.preset or "quick").override(self.config)
        except UsageError as error:
            raise UsageError(f"config: {error}") from error

    def arm_config(self, arm: str) -> Config:
        """The configuration of an arm; its seed is that of the study.

        Raises:
            UsageError: a field is unknown, or a value is not accepted; the message names the arm.
        """
        base = self.base()
        try:
            config = base.override({"seed": self.seed, **self.arms[arm].changes})
        except UsageError as error:
            raise UsageError(f"arm {arm}: {error}") from error
        if (other := self.arms[arm].same_as) is not None:
            theirs = self.arm_config(other)
            if (config.space, config.search.reduction) != (theirs.space, theirs.search.reduction):
                raise UsageError(
                    f"arm {arm}: its cells are those of {other}, so its search space must be, too"
                )
        return config


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes:
        name: of its run directory.
        arm: the arm that it belongs to.
        number: which of the arm's runs it is, from 1 on.
        config: its configuration, with its own seed.
        drawn_by: the seed that its genotype is drawn by; None where that is searched.
        search_of: the cell whose search it takes, where two arms search alike; None if it searches itself.
    """

    name: str
    arm: str
    number: int
    config: Config
    drawn_by: int | None = None
    search_of: str | None = None

    @property
    def random(self) -> bool:
        return self.drawn_by is not None


def cells(study: Study) -> list[Cell]:
    """Returns all runs of a study, the arms in turns.

    Arms take turns so that what changes with time (a machine that grows warm or busy) meets all alike.

    Arms whose searches are configured alike search once: the first of them does, and run k of the others
    takes the search of its run k. All of them have the seeds of the first. A seed comes from the seed of the
    study, the name of that arm and the number of the run, so that more arms or more runs leave those that
    there were as they were.
    """
    configs = {arm: study.arm_config(arm) for arm in study.arms}
    first: dict[str, str] = {}
    owners = {}
    for arm, config in configs.items():
        key = f"random {arm}" if study.arms[arm].cells == "random" else search_key(config)
        owners[arm] = first.setdefault(key, arm)
    found = []
    for number in range(1, max(map(study.runs, study.arms)) + 1):
        for arm, config in configs.items():
            if number > study.runs(arm):
                continue
            owner = owners[arm]
            drawn_by = None
            if study.arms[arm].cells == "random":
                drawn_by = seed(study.seed, study.arms[arm].same_as or arm, number)
            found.append(
                Cell(
                    f"{slug(arm)}-{number}",
                    arm,
                    number,
                    config.override({"seed": seed(study.seed, owner, number)}),
                    drawn_by,
                    None if owner == arm else f"{slug(owner)}-{number}",
                )
            )
    return found


def search_key(config: Config) -> str:
    """Returns what is the same for two configurations whose searches are the same."""
    values = config.to_dict()
    parts = {name: value for name, value in values.items() if name not in ("derive", "retrain", "export")}
    del parts["benchmark"]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def shares_search(study: Study, first: str, second: str) -> bool:
    """Returns whether two arms derive their genotypes of one search, so that their runs are pairs."""
    if not {first, second} <= set(study.searched()):
        return False
    return search_key(study.arm_config(first)) == search_key(study.arm_config(second))


def seed(of_study: int, arm: str, number: int) -> int:
    """Returns the seed of a run: a whole number below 2^31."""
    import numpy as np

    sequence = np.random.SeedSequence([of_study, zlib.crc32(arm.encode()), number])
    return int(sequence.generate_state(1)[0]) % 2**31


def slug(name: str) -> str:
    """Returns a name as that of a folder: small letters, digits, dots and hyphens."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns changes of a configuration by dotted name, of what may stand in sections."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= {f"{key}.{name}": item for name, item in value.items()}
        else:
            found[str(key)] = value
    return found


def _arm(name: Any, value: Any) -> Any:
    """An arm as it stands in a file: changes of the configuration, beside them perhaps `cells`."""
    if value is None:
        return {}
    if isinstance(value, Arm):
        return value
    if not isinstance(value, Mapping):
        raise UsageError(
            f"arm {name}: found {value!r}; accepted are changes of the configuration, as "
            "{search.sampler: direct}, and {cells: random}"
        )
    own = {key: value[key] for key in ("cells", "same_as") if key in value}
    changes = flat({key: item for key, item in value.items() if key not in (*own, "changes")})
    return {**own, "changes": changes | flat(value.get("changes", {}))}


def _message(error: ValidationError) -> str:
    # A key that is misspelt is told of before the one that is missing for it.
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    path = ".".join(map(str, first["loc"]))
    kind, found = first["type"], first["input"]
    if kind == "value_error":
        return str(first["ctx"]["error"])
    if kind == "extra_forbidden":
        near = hint(path, Study.model_fields, f"accepted are {', '.join(Study.model_fields)}")
        return f"unknown key {path!r}; {near}"
    if path.startswith("questions"):
        return f"questions: found {str(found)[:60]}; accepted are pairs of arms, as [[search, random]]"
    if kind == "missing":
        return f"{path} is missing; give it"
    if kind == "literal_error":
        return f"{path}: found {found!r}; accepted: {first['ctx']['expected']}"
    if kind == "greater_than_equal":
        reason = ", as one run has no spread" if first["ctx"]["ge"] == FEWEST else ""
        return f"{path}: found {found}; it must be at least {first['ctx']['ge']}{reason}"
    if path == "arms":
        return (
            f"arms: found {str(found)[:60]}; accepted are names with changes of the configuration, as "
            "{search: {}, random: {cells: random}}"
        )
    return f"{path}: found {str(found)[:60]!r}; {first['msg']}"
