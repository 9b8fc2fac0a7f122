"""The sections of the configuration: each field with its default, its limits and its help text.

The command line makes one option of each field (`gdas_tf.config.config.options`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from gdas_tf.config.fields import (
    Before,
    Colours,
    Formats,
    Formerly,
    Free,
    IfAny,
    Items,
    Metavar,
    Number,
    Pixels,
    Registered,
    Section,
    SpaceName,
    Text,
    Whole,
    Yaml,
)
from gdas_tf.errors import UsageError
from gdas_tf.spaces.base import RULES, SearchSpace
from gdas_tf.spaces.macro import MACROS, STEMS
from gdas_tf.spaces.macro import SYNONYMS as MACRO_SYNONYMS

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")

Precision = Literal[PRECISIONS]
Macro = Annotated[
    Literal[MACROS],
    Formerly(MACRO_SYNONYMS),
    Field(
        description="stacking of cells: N normal cells in every block, or N - 1 in the later two as "
        "AutoDL-Projects has",
    ),
]

Stem = Annotated[
    Literal[STEMS],
    Field(description="first layers; auto takes imagenet, which reduces images by 8, over 64 pixels"),
]

StopAfter = Annotated[Annotated[Whole, Field(ge=1)] | None, IfAny, Free()]
"""Where a stage ends before its time. It may be decided while the stage is under way."""

STOPS = ("search.stop_after", "search.stop_after_rounds", "search.stop_after_trials", "retrain.stop_after")
"""The fields of that kind, by dotted name."""


class DataConfig(Section):
    """Which images, and how they are augmented in search and retraining."""

    name: Annotated[Text, Metavar("NAME|FOLDER|FILE.npz")] = Field(
        "cifar10",
        description="digits, a TFDS data set by name, a folder with one subfolder of images per "
        "class, or an .npz file",
    )
    data_dir: Annotated[Text | None, IfAny, Metavar("FOLDER")] = Field(
        None, description="where TFDS data sets are prepared"
    )
    cache_dir: Annotated[Text | None, IfAny, Metavar("FOLDER")] = Field(
        None,
        description="where images are kept decoded that took long to decode, or are too many for memory; "
        "not set: the user's cache folder",
    )
    image_size: Annotated[Annotated[int | tuple[int, int], Pixels()] | None, IfAny, Metavar("N|HxW")] = Field(
        None, description="resize images to squares of N pixels, or to height x width, as 48x64"
    )
    image_channels: Annotated[Colours | None, IfAny] = Field(
        None, description="read images as grey, 1, or colour, 3"
    )
    test_fraction: Number = Field(
        0.2,
        gt=0,
        lt=1,
        description="part of the images held out as test images, if the data set has no test split",
    )
    train_images: Annotated[Annotated[Whole, Field(ge=2)] | None, IfAny] = Field(
        None,
        description="number of training images to take, at most, the same share of each class; to try "
        "things on a part of a large set",
    )
    balance: Literal["none", "weights", "sampler"] = Field(
        "none",
        description="uneven classes: left alone, or the loss weighs each image by the inverse frequency of "
        "its class, or batches draw every class equally often",
    )
    padding: Whole = Field(
        4, ge=0, le=64, description="padded crop: pixels of black padding on each side; 0 turns it off"
    )
    crop: Literal["padded", "resized"] = Field(
        "padded",
        description="random crop: of the padded image, or a part of the image, from 0.08 of its area to all "
        "of it, enlarged (for photographs)",
    )
    colour_jitter: Annotated[
        tuple[Annotated[Number, Field(ge=0, le=1)], ...], Items, Metavar("B,C,S[,H]")
    ] = Field(
        (),
        description="strengths of random changes of brightness, contrast and saturation, and perhaps of "
        "the hue, as 0.4,0.4,0.4,0.2; 0,0,0 turns them off",
    )
    flip: bool = Field(
        True, description="random horizontal flip (off for digits and text, where left is not right)"
    )

    @field_validator("colour_jitter")
    @classmethod
    def _check_colour_jitter(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if len(value) not in (0, 3, 4):
            raise UsageError(
                f"found {len(value)} number{'s'[: len(value) != 1]}; accepted are three, of brightness, "
                "contrast and saturation, or four, of the hue too"
            )
        if len(value) == 4 and value[3] > 0.5:
            raise UsageError(f"found {value[3]:g} for the hue; it must be at most 0.5, half of the circle")
        return value


class SearchConfig(Section):
    """The search for a cell."""

    strategy: Annotated[str, Registered("strategy")] = Field(
        "gdas", description="the method that searches; those other than gdas may have options of their own"
    )
    space: Annotated[str, SpaceName("space"), Metavar("NAME|FILE.yaml")] = Field(
        "darts",
        description="the cells that there are to choose from: a space by name, or a YAML file that "
        "describes one",
    )
    definition: Annotated[dict[str, Any] | None, Yaml, IfAny, Metavar("YAML")] = Field(
        None, description="what the YAML file of search.space says, which is kept here"
    )
    table: Annotated[Text | None, IfAny, Metavar("FILE.csv")] = Field(
        None, description="table of the accuracies of all cells of the space, to judge what is found by"
    )
    table_column: Annotated[Text | None, IfAny, Metavar("NAME")] = Field(
        None, description="column of that table to judge by; not set: its first column of accuracies"
    )
    epochs: Whole = Field(
        250, ge=1, description="passes over the half of the training images that trains weights"
    )
    stop_after: StopAfter = Field(
        None, description="end the supernet after this epoch of the whole schedule, as a budget may"
    )
    stop_after_rounds: StopAfter = Field(
        None, description="end the search after this round of trainings of candidates, as a budget may"
    )
    stop_after_trials: StopAfter = Field(
        None, description="leave out all trainings of candidates but so many, as a budget may"
    )
    batch_size: Whole = Field(64, ge=2, description="images per batch, of each half")
    channels: Whole = Field(16, ge=1, description="channels C of the first block of the supernet")
    cells: Whole = Field(2, ge=1, le=64, description="normal cells N per block of the supernet")
    nodes: Whole = Field(4, ge=1, le=16, description="computed nodes B of a cell")
    operations: Annotated[Text, Metavar("NAMES")] = Field(
        "gdas", description="operations to choose from: gdas, gdas-4, gdas-12, or a comma list of names"
    )
    macro: Macro = "paper"
    stem: Annotated[Stem, Before("cifar")] = "auto"
    reduction: Literal["searched", "fixed"] = Field(
        "searched", description="reduction cell: searched for, or the fixed one (FRC)"
    )
    sampler: Literal["gumbel", "direct"] = Field("gumbel", description="how an operation is sampled")
    sample_per: Literal["kind", "cell"] = Field(
        "kind",
        description="what runs one sample: all cells of a kind, or every cell its own as the "
        "authors' code of 2019",
    )
    temperature_start: Number = Field(10.0, gt=0, description="temperature in the first epoch")
    temperature_end: Number = Field(0.1, gt=0, description="temperature in the last epoch")
    weight_learning_rate: Number = Field(
        0.025, gt=0, description="learning rate of the weights at the start, then cosine"
    )
    weight_learning_rate_end: Number = Field(
        1e-3, ge=0, description="learning rate of the weights at the end"
    )
    weight_schedule: Literal["step", "epoch"] = Field(
        "step", description="when the learning rate of the weights falls"
    )
    momentum: Number = Field(0.9, ge=0, lt=1, description="momentum of the weights")
    nesterov: bool = Field(True, description="Nesterov's rule for the momentum of the weights")
    weight_decay: Number = Field(3e-4, ge=0, description="weight decay of the weights")
    clip_norm: Number = Field(
        5.0, ge=0, description="global norm that the weights' gradient is clipped to; 0 turns clipping off"
    )
    unsampled: Literal["frozen", "decayed"] = Field(
        "frozen",
        description="weights that were not sampled stay, or momentum and decay move them as PyTorch 1 did",
    )
    architecture_learning_rate: Number = Field(
        3e-4, gt=0, description="learning rate of the architecture (Adam)"
    )
    architecture_beta_1: Number = Field(0.5, ge=0, lt=1, description="Adam's beta 1 of the architecture")
    architecture_beta_2: Number = Field(0.999, ge=0, lt=1, description="Adam's beta 2 of the architecture")
    architecture_weight_decay: Number = Field(1e-3, ge=0, description="weight decay of the architecture")
    none: Literal["sampled", "excluded"] = Field(
        "sampled",
        description="the operation none: searched as any other, or without a part in the search",
    )
    warm_up: Whole = Field(0, ge=0, description="epochs before the first update of the architecture")
    pool_norm: bool = Field(
        False, description="batch norm after pooling, as in DARTS and the authors' code of 2019"
    )
    cutout: Whole = Field(
        0, ge=0, description="side of the square that CutOut blanks, in pixels; 0 turns it off"
    )
    precision: Precision = Field("float32", description="number format of the computation")
    jit_compile: bool = Field(
        False, description="compile each candidate operation with XLA (for GPUs; slow on CPUs)"
    )

    @property
    def last_epoch(self) -> int:
        """The epoch after which the supernet ends."""
        return _last(self.epochs, self.stop_after)

    @field_validator("operations")
    @classmethod
    def _check_operations(cls, value: str) -> str:
        try:
            SearchSpace.named(value)
        except UsageError as error:
            raise UsageError(str(error).removeprefix("search space: ")) from error
        return value


STRATEGY_FIELDS = (
    "sampler",
    "sample_per",
    "temperature_start",
    "temperature_end",
    "architecture_learning_rate",
    "architecture_beta_1",
    "architecture_beta_2",
    "architecture_weight_decay",
    "none",
    "warm_up",
)
"""Fields of `SearchConfig` that not every strategy reads: each says in `Strategy.reads` which are its."""


class DeriveConfig(Section):
    """The choice of a genotype from the logits."""

    rule: Literal[RULES] = Field(
        "edges",
        description="what is ranked at a node: edges, each by its best operation, or all (edge, "
        "operation) pairs",
    )
    ranks: Annotated[tuple[Annotated[Whole, Field(ge=1)], ...], Items, Metavar("R,R")] = Field(
        (1, 2), min_length=1, description="what a node keeps, by rank of probability: 1,2 or 2,3 or 3,4 …"
    )
    keep_none: bool = Field(False, description="let the operation none be chosen")

    @field_validator("ranks")
    @classmethod
    def _check_ranks(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) != len(value):
            raise UsageError(f"found {','.join(map(str, value))}; each rank may stand once")
        return value


class RetrainConfig(Section):
    """The training of the derived network from scratch."""

    network: Annotated[str, Registered("network")] = Field(
        "derived",
        description="what is trained: the network that is built of the genotype's cells, or another one",
    )
    epochs: Whole = Field(600, ge=1, description="passes over all training images")
    stop_after: StopAfter = Field(
        None, description="end after this epoch of the whole schedule, as a budget may"
    )
    batch_size: Whole = Field(96, ge=2, description="images per batch")
    channels: Whole = Field(36, ge=2, description="channels C of the first block of the network")
    cells: Whole = Field(6, ge=1, le=64, description="normal cells N per block of the network")
    macro: Macro = "paper"
    learning_rate: Number = Field(0.025, gt=0, description="learning rate in the first epoch")
    learning_rate_end: Number = Field(0.0, ge=0, description="learning rate at the end (cosine)")
    schedule: Literal["step", "epoch", "exponential"] = Field(
        "step",
        description="the learning rate falls as a cosine with each step or with each epoch, or by "
        "a factor after each epoch",
    )
    learning_rate_factor: Number = Field(
        0.97, gt=0, le=1, description="that factor, of the exponential schedule"
    )
    momentum: Number = Field(0.9, ge=0, lt=1, description="momentum")
    nesterov: bool = Field(True, description="Nesterov's momentum, in place of the plain one")
    weight_decay: Number = Field(3e-4, ge=0, description="weight decay")
    clip_norm: Number = Field(
        5.0, ge=0, description="global norm that the gradient is clipped to; 0 turns clipping off"
    )
    auxiliary_weight: Number = Field(0.4, ge=0, description="weight of the auxiliary head's loss; 0: no head")
    drop_path: Number = Field(0.2, ge=0, lt=1, description="probability of dropping a path in the last epoch")
    cutout: Whole = Field(
        16, ge=0, description="side of the square that CutOut blanks, in pixels; 0 turns it off"
    )
    stem: Stem = "auto"
    head_norm: Annotated[bool, Before(True)] = Field(
        False, description="batch norm and ReLU before the global pooling (the papers have none)"
    )
    initializer: Annotated[Literal["torch", "he"], Before("he")] = Field(
        "torch",
        description="weights before training: PyTorch's, uniform by fan-in, or He's, 2.45 times as large",
    )
    label_smoothing: Number = Field(
        0.0, ge=0, lt=1, description="part of a label that is spread evenly over all classes"
    )
    mixup: Number = Field(
        0.0, ge=0, description="alpha of mixup, which trains on weighted means of two images; 0 turns it off"
    )
    ema: Number = Field(
        0.0,
        ge=0,
        lt=1,
        description="decay of the exponential moving average of the weights, which is what is kept; 0: none",
    )
    validation: Number = Field(
        0.0,
        ge=0,
        lt=1,
        description="part of the training images held out to validate on after each epoch; 0: none",
    )
    keep: Literal["last", "best"] = Field(
        "last", description="epoch whose weights are kept: the last, or the one of the least validation loss"
    )
    patience: Annotated[Annotated[Whole, Field(ge=1)] | None, IfAny] = Field(
        None, description="epochs without a lower validation loss after which the training ends early"
    )
    precision: Precision = Field("float32", description="number format of the computation")
    jit_compile: bool = Field(False, description="compile the step with XLA (for GPUs; slow on CPUs)")

    @property
    def last_epoch(self) -> int:
        """The epoch after which the training ends."""
        return _last(self.epochs, self.stop_after)


class DistributionConfig(Section):
    """The devices and machines that search and retraining are divided over."""

    kind: Literal["none", "mirrored", "multi_worker"] = Field(
        "none",
        description="what a batch is divided over: nothing; the devices of this machine; or those of all "
        "machines that the environment variable TF_CONFIG names",
    )
    replicas: Annotated[Annotated[Whole, Field(ge=1, le=4096)] | None, IfAny] = Field(
        None,
        description="devices in all that share a batch; not set: all GPUs, and one of a machine without",
    )
    wait: Number = Field(
        300.0, gt=0, description="seconds to wait, at the start, until all workers are there"
    )


class ExportConfig(Section):
    """The files that leave the run, and how they are verified."""

    formats: Annotated[Formats, Metavar("FORMAT,…|all")] = Field(
        ("saved_model", "onnx"), description="files to write; all: every one of them"
    )
    tolerance: Number = Field(1e-4, gt=0, description="largest accepted difference of a probability to Keras")
    images: Whole = Field(1000, ge=1, description="held-out images to verify on, at most")
    calibration_images: Whole = Field(500, ge=1, description="training images to calibrate int8 on, at most")


class BenchmarkConfig(Section):
    """The measurement of an exported file with onnxruntime."""

    batch_sizes: Annotated[tuple[Annotated[Whole, Field(ge=1)], ...], Items, Metavar("N,…")] = Field(
        (1, 8, 64), min_length=1, description="batch sizes to measure"
    )
    threads: Annotated[tuple[Annotated[Whole, Field(ge=0)], ...], Items, Metavar("N,…")] = Field(
        (0,), min_length=1, description="threads to measure; 0 stands for as many as there are cores"
    )
    seconds: Number = Field(
        2.0, gt=0, description="seconds to measure each batch size and thread count, in all rounds"
    )
    warm_up: Whole = Field(5, ge=0, description="calls that are not counted, before each measurement")
    rounds: Whole = Field(
        5, ge=1, description="rounds in which files take turns; their spread gives the interval"
    )
    providers: Annotated[tuple[Text, ...], Items, Metavar("NAME,…")] = Field(
        ("auto",),
        min_length=1,
        description="onnxruntime's execution providers to measure; auto: all that it has here",
    )


SECTIONS: dict[str, type[Section]] = {
    "data": DataConfig,
    "search": SearchConfig,
    "derive": DeriveConfig,
    "retrain": RetrainConfig,
    "distribution": DistributionConfig,
    "export": ExportConfig,
    "benchmark": BenchmarkConfig,
}
"""The sections that every configuration has. A strategy may bring one more."""


def _last(epochs: int, stop_after: int | None) -> int:
    return min(epochs, stop_after or epochs)
