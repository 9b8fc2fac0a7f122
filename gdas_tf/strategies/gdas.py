"""GDAS: one operation sampled for each edge, learned from by the gradient of its gate.

Dong & Yang, "Searching for A Robust Neural Architecture in Four GPU Hours", CVPR 2019, algorithm 1.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from gdas_tf.config.fields import Section, Whole
from gdas_tf.errors import UsageError
from gdas_tf.numerics.lazy import tf
from gdas_tf.numerics.losses import cross_entropy, hits
from gdas_tf.strategies import sampling
from gdas_tf.strategies.base import STRATEGIES, Batch, Paths, Task, both
from gdas_tf.strategies.logits import LogitsStrategy, None_, accepted_as
from gdas_tf.strategies.topology import Topology

if TYPE_CHECKING:
    import numpy as np

    from gdas_tf.config.config import Config
    from gdas_tf.spaces.base import SearchSpace
    from gdas_tf.spaces.genotype import Genotype
    from gdas_tf.supernet.paths import Sampled
    from gdas_tf.training.search_model import SearchModel

SamplePer = Literal["kind", "cell"]
TopologyName = Literal["all", "derived"]


class GDASConfig(Section):
    """What GDAS may do beyond the paper."""

    gates: sampling.Gates = Field(
        "sampled",
        description="which gates of an edge get a gradient: that of the operation sampled, or all, as in "
        "AutoDL-Projects' code for NAS-Bench-201",
    )
    samples: Whole = Field(
        1, ge=1, le=64, description="samples of a step that the gradient of the architecture is the mean of"
    )
    topology: TopologyName = Field(
        "all",
        description="edges that run: all, or those of a node's sampled inputs, as many as are derived (ROME)",
    )


class GDAS(LogitsStrategy):
    """The logits of all operations on all edges, of which one operation an edge is sampled.

    With a sample the weights descend the loss on D_T; then, with a new sample, the logits descend the loss on
    D_V by Adam. Sample number s depends on the seed and on s alone.

    Args:
        sampler: "gumbel" or "direct".
        sample_per: What runs one sample in a pass: "kind", all normal cells and all reduction cells (the
            paper, AutoDL-2020, the seed study); "cell", every cell its own (the authors' code of 2019).
        temperature_start, temperature_end: tau in the first and in the last epoch; it falls linearly.
        learning_rate, beta_1, beta_2, weight_decay, none, warm_up: As of `LogitsStrategy`.
        gates: The gates of an edge that get a gradient in the step of the architecture: the "sampled" one, or
            "all" (AutoDL-Projects, issue 36).
        samples: Number of samples of one batch that the gradient of the architecture is the mean of.
        topology: "all" edges run; or "derived", of each node as many as are derived, sampled by logits of the
            edges (`gdas_tf.strategies.topology`), which the derivation then goes by.

    Attributes:
        logits: Of each kind of cell that is searched the variable, float32 [E, K].
        edge_logits: With the topology "derived" of each kind the variable of the edges, float32 [E].
        temperature: The variable tau, a scalar.

    Raises:
        UsageError: There is no such `sampler`, `sample_per`, `gates`, `topology` or `none`.
    """

    section = GDASConfig
    reads = ("sampler", "sample_per", "temperature_start", "temperature_end", *LogitsStrategy.reads)

    def __init__(
        self,
        sampler: sampling.Sampler = "gumbel",
        sample_per: SamplePer = "kind",
        temperature_start: float = 10.0,
        temperature_end: float = 0.1,
        learning_rate: float = 3e-4,
        beta_1: float = 0.5,
        beta_2: float = 0.999,
        weight_decay: float = 1e-3,
        none: None_ = "sampled",
        warm_up: int = 0,
        gates: sampling.Gates = "sampled",
        samples: int = 1,
        topology: TopologyName = "all",
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, weight_decay, none, warm_up)
        accepted_as("sampler", sampler, ("gumbel", "direct"))
        accepted_as("sample_per", sample_per, ("kind", "cell"))
        accepted_as("gates", gates, ("sampled", "all"))
        accepted_as("topology", topology, ("all", "derived"))
        self.sampler, self.sample_per = sampler, sample_per
        self.temperatures = temperature_start, temperature_end
        self.gates, self.samples, self.topology_name = gates, samples, topology

    @classmethod
    def from_config(cls, config: Config) -> GDAS:
        """GDAS by the fields of the sections `search` and `gdas`."""
        settings, own = config.search, config.strategy
        return cls(
            settings.sampler,
            settings.sample_per,
            settings.temperature_start,
            settings.temperature_end,
            **cls.shared_options(config),
            gates=own.gates,
            samples=own.samples,
            topology=own.topology,
        )

    @classmethod
    def check_config(cls, config: Config) -> None:
        super().check_config(config)
        if config.strategy.topology == "derived":
            _check_derivable(config.space, "gdas.topology")
            if config.derive.rule != "edges":
                raise UsageError(
                    f"derive.rule: found {config.derive.rule} with gdas.topology derived, which derives by "
                    "the logits of the edges; accepted is edges"
                )

    def build(self, task: Task) -> None:
        if self.topology_name == "derived":
            _check_derivable(task.space, "topology")
        super().build(task)
        self.variables = [*self.logits.values(), self.temperature, *self.edge_logits.values()]

    def build_more(self, generator: np.random.Generator) -> None:
        import numpy as np

        from gdas_tf.keras_backend import keras

        self.temperature = keras.Variable(np.float32(1.0), trainable=False, name="temperature")
        self.topology = Topology(self.task.space) if self.topology_name == "derived" else None
        self.edge_logits = {
            kind: keras.Variable(
                np.float32(1e-3 * generator.standard_normal(self.task.space.edge_count)),
                name=f"{kind}_edge_logits",
            )
            for kind in (self.task.cells if self.topology else ())
        }

    @property
    def architecture(self) -> list[Any]:
        return [*self.logits.values(), *self.edge_logits.values()]

    def sample(self, step: tf.Tensor, number: int) -> Paths:
        """A sample for each kind of cell; `number` tells the samples of one step apart: 0, of the weights, 1
        to `samples`, of the architecture."""
        with tf.device("CPU:0"):
            samples = []
            for position, kind in enumerate(self.logits):
                counted = self._counted(step, number, position)
                seed = tf.stack([tf.constant(self.task.seed, tf.int64), counted])
                arguments = (self.scores(kind), self.temperature.value, seed, self.sampler)
                gates = self.gates if number else "sampled"
                if self.sample_per == "kind":
                    samples.append(sampling.sample(*arguments, gates))
                else:
                    samples.append(sampling.sample_each(*arguments, self.task.cells[kind], gates))
                if self.topology:
                    samples[-1] = self._switched(samples[-1], kind, seed)
        return both(samples)

    def _counted(self, step: tf.Tensor, number: int, position: int) -> tf.Tensor:
        """A number that no other sample has: of the first two of a step from 0 on, of the others below 0."""
        if number < 2:
            return step * 4 + 2 * number + position
        return -1 - (2 * (step * (self.samples - 1) + number - 2) + position)

    def _switched(self, drawn: Sampled | list[Sampled], kind: str, seed: tf.Tensor) -> Any:
        """A sample, or one for each cell, with the edges off that are not sampled."""
        logits = self.edge_logits[kind].value
        several = isinstance(drawn, list)
        shape = (*([len(drawn)] if several else []), *logits.shape)
        # Seeds of operations are below 2 ** 31.
        noise = sampling.gumbel_noise(shape, seed + tf.constant([2**32, 0], tf.int64))
        gates = self.topology.sample(
            tf.broadcast_to(logits, shape), self.temperature.value, noise, self.sampler
        )
        if not several:
            return self.topology.switch(drawn, gates)
        return [self.topology.switch(*pair) for pair in zip(drawn, tf.unstack(gates), strict=True)]

    def paths(self, step: tf.Tensor) -> Paths:
        return self.sample(step, 0)

    def chosen(self) -> Paths:
        """The most probable operation on each edge, or on each edge that would be derived."""
        samples = []
        for kind in self.logits:
            samples.append(sampling.most_probable(self.scores(kind)))
            if self.topology:
                gates = self.topology.most_probable(self.edge_logits[kind].value)
                samples[-1] = self.topology.switch(samples[-1], gates)
        return both(samples)

    def slopes(
        self, search: SearchModel, step: tf.Tensor, training: Batch, validation: Batch
    ) -> tuple[Sequence[tf.Tensor], tf.Tensor, tf.Tensor]:
        images, labels = validation
        sources = [variable.value for variable in self.architecture]
        found: list[list[tf.Tensor]] = []
        losses, right = [], []
        for number in range(1, self.samples + 1):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(sources)
                outputs = search.supernet(images, *self.sample(step, number), update="architecture")
                loss = cross_entropy(labels, outputs, search.balance.of_batches)
                scaled = self.optimizer.scale_loss(loss)
            found.append(tape.gradient(scaled, sources))
            losses.append(loss)
            right.append(hits(labels, outputs))
            if number < self.samples:
                with tf.control_dependencies(found[-1]):  # one after the other, for the memory of one
                    images = tf.identity(images)
        gradients = [_mean(of_samples) for of_samples in zip(*found, strict=True)]
        return gradients, _mean(losses), _mean(right)

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        super().begin_epoch(epoch, epochs)
        self.temperature.assign(sampling.temperature(epoch, epochs, *self.temperatures))

    def values(self) -> Mapping[str, float | None]:
        edges = {
            f"{kind}_edges_entropy": float(self.topology.entropy(logits.value))
            for kind, logits in self.edge_logits.items()
        }
        return {"temperature": float(self.temperature.numpy()), **super().values(), **edges}

    def arrays(self) -> Mapping[str, np.ndarray]:
        """The logits: `normal` [E, K], and `reduction` unless that cell is fixed; with the topology "derived"
        also `normal_edges` [E], and `reduction_edges`."""
        edges = {f"{kind}_edges": logits.numpy() for kind, logits in self.edge_logits.items()}
        return {**super().arrays(), **edges}

    def genotype(self, arrays: Mapping[str, np.ndarray], config: Config) -> Genotype:
        """By the section `derive`; with the topology "derived" the edges rank by their own logits."""
        if self.topology_name == "all":
            return super().genotype(arrays, config)
        from gdas_tf.strategies.derivation import derive

        if missing := [name for name in arrays if f"{name}_edges" not in arrays and "_" not in name]:
            raise UsageError(
                f"logits: found no {missing[0]}_edges, the logits of the edges that gdas.topology derived "
                "writes; set gdas.topology to all for logits that were searched so"
            )
        return derive(
            arrays["normal"],
            arrays.get("reduction"),
            config.space,
            ranks=config.derive.ranks,
            keep_none=config.derive.keep_none,
            edges=(arrays["normal_edges"], arrays.get("reduction_edges")),
        )


def _check_derivable(space: SearchSpace, name: str) -> None:
    if space.keep == "all":
        raise UsageError(
            f"{name}: found derived, and the search space {space.name} keeps all edges, so that there are "
            "none to sample; accepted is all"
        )


def _mean(values: Any) -> tf.Tensor:
    """The mean of tensors of one shape, summed in their order; a single one as it is."""
    return values[0] if len(values) == 1 else functools.reduce(operator.add, values) / len(values)


STRATEGIES.register("gdas", GDAS)
