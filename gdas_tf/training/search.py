"""The search: a keras.Model whose train_step alternates the update of the weights and that of the
architecture."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import tensorflow as tf

from gdas_tf.errors import UsageError
from gdas_tf.files import atomic_path
from gdas_tf.keras_backend import keras
from gdas_tf.optimizers.schedules import cosine_schedule
from gdas_tf.optimizers.torch_sgd import SGD, apply_masked, masking_optimizer
from gdas_tf.runs.data_record import record_data
from gdas_tf.runtime import graphs_as_written, spared_from_search
from gdas_tf.strategies.sampling import (
    Sampler,
    entropy,
    most_probable,
    sample,
    sample_each,
    temperature,
)
from gdas_tf.supernet.network import Supernet
from gdas_tf.training.callbacks import EpochRecord

if TYPE_CHECKING:
    from gdas_tf.config.sections import Config, SearchConfig
    from gdas_tf.data.dataset import DataSet
    from gdas_tf.runs.run import Run

Batch = tuple[tf.Tensor, tf.Tensor]
SamplePer = Literal["kind", "cell"]
Unsampled = Literal["frozen", "decayed"]


class SearchModel(keras.Model):
    """A supernet with its architecture, trained by `fit` (CVPR 2019, algorithm 1).

    One step takes a pair of batches `((x_T, y_T), (x_V, y_V))`, images float32 [B, H, W, C] in [0, 1] and
    labels int [B]. With a sample of the architecture the weights descend the loss of the first; then, with a
    new sample, the architecture descends the loss of the second. Only operations that were sampled are
    computed, and only their weights, momenta and statistics move.

    Args:
        supernet: The network.
        sampler: "gumbel" or "direct".
        architecture_weight_decay: Factor of the logits that is added to their gradient.
        seed: Of the samples and of the first logits. Sample number s depends on (seed, s) alone.
        sample_per: What runs one sample in a pass: "kind", all normal cells and all reduction cells (the
            paper, AutoDL-2020, the seed study); "cell", every cell its own (the authors' code of 2019).
        unsampled: The weights that were not sampled in a step: "frozen" leaves them and their momentum alone,
            as PyTorch 2 does, which has no gradient of them; "decayed" gives them a gradient of zero, so that
            momentum and weight decay move them in every step. PyTorch 1 did so, with which the seed study and
            the authors' results were made (there a weight first moved when it was first sampled).

    Attributes:
        normal_logits: float32 [E, K], the architecture of the normal cell.
        reduction_logits: that of the reduction cell, or None with the fixed one.
        temperature: The scalar tau; `fit` is given a callback that sets it (`search` does).

    Example:

    >>> model = SearchModel(Supernet(SearchSpace(), classes=10, channels=4, cells=1))
    >>> model.compile(SGD(0.025), keras.optimizers.Adam(3e-4, beta_1=0.5))
    >>> model.fit(batches, epochs=2)  # doctest: +SKIP
    """

    def __init__(
        self,
        supernet: Supernet,
        sampler: Sampler = "gumbel",
        architecture_weight_decay: float = 1e-3,
        seed: int = 0,
        sample_per: SamplePer = "kind",
        unsampled: Unsampled = "frozen",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, value, accepted in (
            ("sample_per", sample_per, ("kind", "cell")),
            ("unsampled", unsampled, ("frozen", "decayed")),
        ):
            if value not in accepted:
                raise UsageError(f"{name} is {value!r}; accepted are {' and '.join(map(repr, accepted))}")
        self.sample_per, self.unsampled = sample_per, unsampled
        self.supernet, self.sampler, self.seed = supernet, sampler, seed
        self.architecture_weight_decay = architecture_weight_decay
        space = supernet.space
        shape = (len(space.edges), len(space.operations))
        generator = np.random.default_rng([seed, 0x61])
        # The architecture is small and decides what the host dispatches: it lives there, also with a GPU.
        with tf.device("CPU:0"):
            self.normal_logits, self.reduction_logits = (
                self.add_weight(
                    name=f"{kind}_logits",
                    shape=shape,
                    initializer=_constant(1e-3 * generator.standard_normal(shape)),
                )
                if present
                else None
                for kind, present in (("normal", True), ("reduction", not supernet.fixed_reduction))
            )
            self.temperature = self.add_weight(
                name="temperature", shape=(), initializer="ones", trainable=False
            )
            self.step = self.add_weight(
                name="step", shape=(), dtype="int64", initializer="zeros", trainable=False
            )
        self._means = {
            name: keras.metrics.Mean(name=name)
            for name in ("loss", "accuracy", "architecture_loss", "architecture_accuracy")
        }

    @property
    def named_logits(self) -> dict[str, Any]:
        """The variables of the architecture: `normal`, and `reduction` unless the reduction cell is fixed."""
        both = {"normal": self.normal_logits, "reduction": self.reduction_logits}
        return {kind: variable for kind, variable in both.items() if variable is not None}

    @property
    def logits(self) -> list[Any]:
        """The variables of the architecture: one, or two where the reduction cell is searched."""
        return list(self.named_logits.values())

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return list(self._means.values())

    def compile(
        self,
        weight_optimizer: keras.optimizers.Optimizer,
        architecture_optimizer: keras.optimizers.Optimizer,
        **kwargs: Any,
    ) -> None:
        """Set the two optimizers; `steps_per_execution` and `run_eagerly` as in keras.Model.compile.

        Args:
            weight_optimizer: A `gdas_tf.optimizers.torch_sgd.SGD`, alone or in a LossScaleOptimizer: it
                leaves alone the weights that were not sampled. With `unsampled="decayed"` any optimizer.
            architecture_optimizer: Any optimizer.

        Raises:
            UsageError: The weight optimizer is another one.
        """
        if self.unsampled == "frozen":
            masking_optimizer(weight_optimizer)
        super().compile(optimizer=weight_optimizer, jit_compile=False, **kwargs)
        self.architecture_optimizer = architecture_optimizer

    def build(self, input_shape: tuple[int, ...]) -> None:
        """Make all weights, those of the optimizers included; input_shape: [B, H, W, C]."""
        if not self.supernet.built:
            self.supernet.build(input_shape)
            self.supernet.built = True
        self.optimizer.build(self.supernet.trainable_variables)
        with tf.device("CPU:0"):
            self.architecture_optimizer.build(self.logits)
        for metric in self.metrics:
            if not metric.variables:
                metric.build(())
        self.built = True

    def sample(self, number: int) -> tuple[Any, Any]:
        """Samples of the normal and the reduction cell; `number` tells the samples of one step apart.

        Returns:
            For each kind of cell a sample or, with `sample_per="cell"`, a list of one for each of its cells;
            None for a reduction cell that is fixed.
        """
        with tf.device("CPU:0"):
            step = spared_from_search(tf.convert_to_tensor(self.step.value))
            samples = []
            for kind, logits in enumerate(self.logits):
                seed = tf.stack([tf.constant(self.seed, tf.int64), step * 4 + 2 * number + kind])
                arguments = (logits.value, self.temperature.value, seed, self.sampler)
                if self.sample_per == "kind":
                    samples.append(sample(*arguments))
                else:
                    samples.append(sample_each(*arguments, count=self.supernet.searched_cells(kind == 1)))
        return samples[0], samples[1] if len(samples) > 1 else None

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Class logits [B, classes] by the most probable operations and the moving statistics."""
        chosen = [most_probable(logits.value) for logits in self.logits]
        return self.supernet(inputs, *chosen)

    def fit(self, *arguments: Any, **options: Any) -> keras.callbacks.History:
        with graphs_as_written():
            return super().fit(*arguments, **options)

    def train_step(self, data: tuple[Batch, Batch]) -> dict[str, tf.Tensor]:
        weight_batch, architecture_batch = data
        self.update_weights(*weight_batch)
        self.update_architecture(*architecture_batch)
        self.step.assign_add(1)
        return {name: mean.result() for name, mean in self._means.items()}

    def update_weights(self, images: tf.Tensor, labels: tf.Tensor) -> None:
        """One step of the weights W on a batch of D_T, with a sample of its own."""
        normal, reduction = self.sample(0)
        variables = self.supernet.trainable_variables
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([variable.value for variable in variables])
            outputs = self.supernet(images, normal, reduction, update="weights")
            loss = _cross_entropy(labels, outputs)
            scaled = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, [variable.value for variable in variables])
        if self.unsampled == "frozen":
            masks = self.supernet.weight_masks(normal, reduction)
            apply_masked(self.optimizer, gradients, variables, masks)
        else:
            self.optimizer.apply(gradients, variables)
        self._record(labels, outputs, loss, "loss", "accuracy")

    def update_architecture(self, images: tf.Tensor, labels: tf.Tensor) -> None:
        """One step of the architecture A on a batch of D_V, with a sample of its own."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([variable.value for variable in self.logits])
            outputs = self.supernet(images, *self.sample(1), update="architecture")
            loss = _cross_entropy(labels, outputs)
            scaled = self.architecture_optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, [variable.value for variable in self.logits])
        with tf.device("CPU:0"):
            scale = tf.cast(scaled / loss, tf.float32)
            decayed = [
                gradient + scale * self.architecture_weight_decay * variable
                for gradient, variable in zip(gradients, self.logits, strict=True)
            ]
            self.architecture_optimizer.apply(decayed, self.logits)
        self._record(labels, outputs, loss, "architecture_loss", "architecture_accuracy")

    def _record(
        self, labels: tf.Tensor, outputs: tf.Tensor, loss: tf.Tensor, loss_name: str, accuracy_name: str
    ) -> None:
        right = tf.equal(tf.argmax(outputs, -1, output_type=labels.dtype), labels)
        self._means[loss_name].update_state(loss)
        self._means[accuracy_name].update_state(tf.cast(right, tf.float32))


def _cross_entropy(labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=outputs))


def _constant(value: np.ndarray) -> Any:
    return lambda shape, dtype=None: tf.constant(value, dtype or tf.float32)


def search(
    config: Config,
    data: DataSet,
    run: Run,
    resume: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> dict[str, np.ndarray]:
    """Search for a cell on the training images of a data set.

    The training images are cut into two disjoint halves, D_T for the weights and D_V for the architecture.
    The learning rate of the weights falls as a cosine, step by step or epoch by epoch; the temperature
    linearly, epoch by epoch. After each epoch the metrics (`search/metrics.jsonl`), all logits so far
    (`search/logits.npz`) and a checkpoint are written. A search that was killed and resumed ends with the
    same weights and architecture, bit for bit, on one machine.

    Args:
        config: Configuration; `seed`, `data` (the augmentation) and `search` count here.
        data: The data set; its test images are not looked at.
        run: The run directory.
        resume: Go on from the last checkpoint, if there is one.
        callbacks: Keras callbacks for `fit`.

    Returns:
        The logits before the search and after each epoch: `normal` [epochs + 1, E, K], and `reduction` unless
        it is fixed. Their last ones go to `gdas_tf.strategies.derivation.derive`.

    Raises:
        UsageError: The run was begun on other data, a checkpoint doesn't fit, or the images can't be searched
            on.
        RunError: The search diverged, or the disk is full.
    """
    from gdas_tf.data.augmentation import Augmentation
    from gdas_tf.data.dataset import search_batches, search_halves, steps_per_epoch

    settings = config.search
    keras.utils.set_random_seed(config.seed)
    model = build_search_model(config, data)
    # An epoch is one pass over the smaller half (they differ by a few images): every step takes a batch of
    # each.
    halves = search_halves(data.train.labels, config.seed)
    steps = steps_per_epoch(min(map(len, halves)), settings.batch_size)
    batch_size = min(settings.batch_size, *map(len, halves))
    model.compile(
        _weight_optimizer(settings, steps),
        _architecture_optimizer(settings),
    )
    model.build((batch_size, *data.image_shape))

    logits = LogitsHistory(model, run)
    record = EpochRecord(
        run,
        "search",
        [*model.variables, *model.optimizer.variables, *model.architecture_optimizer.variables],
        values=lambda epoch: {
            "temperature": float(model.temperature),
            **{
                f"{kind}_entropy": float(entropy(values.value)) for kind, values in model.named_logits.items()
            },
        },
        advice=f"lower search.weight_learning_rate ({settings.weight_learning_rate:g})",
    )
    record_data(run, "search", data)
    done = record.start(resume)
    logits.start(done)
    if done < settings.epochs:
        augmentation = Augmentation(
            padding=config.data.padding, flip=config.data.flip, cutout=settings.cutout, mean=data.mean
        )
        model.fit(
            search_batches(
                data,
                settings.batch_size,
                config.seed,
                augmentation,
                done * steps,
                (settings.epochs - done) * steps,
            ),
            epochs=settings.epochs,
            initial_epoch=done,
            steps_per_epoch=steps,
            shuffle=False,  # the batches are shuffled already
            verbose=1 if sys.stdout.isatty() else 2,
            callbacks=[_TemperatureSchedule(settings), *callbacks, logits, record],
        )
    return logits.arrays()


def build_search_model(config: Config, data: DataSet) -> SearchModel:
    """The model that `search` trains, not compiled yet."""
    settings = config.search
    supernet = Supernet(
        config.space,
        data.classes,
        settings.channels,
        settings.cells,
        settings.macro,
        fixed_reduction=settings.reduction == "fixed",
        mean=tuple(data.mean),
        variance=tuple(deviation**2 for deviation in data.std),
        jit_compile=settings.jit_compile,
        pool_norm=settings.pool_norm,
        dtype=settings.precision,
        name="supernet",
    )
    return SearchModel(
        supernet,
        settings.sampler,
        settings.architecture_weight_decay,
        config.seed,
        settings.sample_per,
        settings.unsampled,
        name="search",
    )


def _weight_optimizer(settings: SearchConfig, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    schedule = cosine_schedule(
        settings.weight_learning_rate,
        settings.weight_learning_rate_end,
        settings.epochs,
        steps_per_epoch,
        settings.weight_schedule,
    )
    optimizer = SGD(schedule, settings.momentum, settings.weight_decay, settings.clip_norm, settings.nesterov)
    return _loss_scaled(optimizer, settings)


def _architecture_optimizer(settings: SearchConfig) -> keras.optimizers.Optimizer:
    optimizer = keras.optimizers.Adam(
        settings.architecture_learning_rate,
        beta_1=settings.architecture_beta_1,
        beta_2=settings.architecture_beta_2,
        epsilon=1e-8,
    )
    return _loss_scaled(optimizer, settings)


def _loss_scaled(optimizer: keras.optimizers.Optimizer, settings: SearchConfig) -> keras.optimizers.Optimizer:
    if settings.precision == "mixed_float16":
        return keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer


class LogitsHistory(keras.callbacks.Callback):
    """Keeps the logits before the search and after each epoch, in `search/logits.npz`."""

    def __init__(self, model: SearchModel, run: Run) -> None:
        super().__init__()
        self.search_model, self.path = model, run.file("search/logits.npz")
        self.history: dict[str, list[np.ndarray]] = {}

    def start(self, epochs_done: int) -> None:
        """Begin with the first logits, or with those of the epochs that a continued search has behind it."""
        if epochs_done == 0:
            self.path.unlink(missing_ok=True)
            self.history = {kind: [values.numpy()] for kind, values in self.search_model.named_logits.items()}
            return
        try:
            with np.load(self.path, allow_pickle=False) as file:
                stored = {kind: file[kind] for kind in self.search_model.named_logits}
        except Exception as error:  # zipfile, zlib and NumPy each have errors of their own
            raise UsageError(
                f"logits {self.path} are missing or damaged ({error}); "
                f"remove {self.path.parent} to search again"
            ) from error
        if any(len(values) < epochs_done + 1 for values in stored.values()):
            raise UsageError(
                f"logits {self.path} end before the checkpoint; remove {self.path.parent} to search again"
            )
        self.history = {kind: list(values[: epochs_done + 1]) for kind, values in stored.items()}

    def arrays(self) -> dict[str, np.ndarray]:
        return {kind: np.stack(values) for kind, values in self.history.items()}

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        for kind, values in self.search_model.named_logits.items():
            self.history[kind].append(values.numpy())
        with atomic_path(self.path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **self.arrays())


class _TemperatureSchedule(keras.callbacks.Callback):
    """Sets tau at the begin of each epoch."""

    def __init__(self, settings: SearchConfig) -> None:
        super().__init__()
        self.settings = settings

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        settings = self.settings
        tau = temperature(epoch, settings.epochs, settings.temperature_start, settings.temperature_end)
        self.model.temperature.assign(tau)
