"""Learning rates that change while a network is trained."""

from __future__ import annotations

from typing import Any, Literal

from gdas_tf.keras_backend import keras

Schedule = Literal["step", "epoch"]


def cosine_schedule(
    start: float, end: float, epochs: int, steps_per_epoch: int, every: Schedule = "step"
) -> keras.optimizers.schedules.LearningRateSchedule:
    """A learning rate that falls as a cosine (Loshchilov & Hutter, SGDR, ICLR 2017).

    Args:
        start: In the first step.
        end: After the last.
        epochs, steps_per_epoch: Length of the training.
        every: "step": it falls in each step; "epoch": it stays through an epoch, as by
            `torch.optim.lr_scheduler.CosineAnnealingLR` called once an epoch (DARTS, the authors' code of
            2019).
    """
    kind, options = {
        "step": (keras.optimizers.schedules.CosineDecay, {}),
        "epoch": (CosineDecayByEpoch, {"steps_per_epoch": steps_per_epoch}),
    }[every]
    return kind(start, decay_steps=epochs * steps_per_epoch, alpha=end / start, **options)


def exponential_schedule(
    start: float, factor: float, steps_per_epoch: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """A learning rate that is multiplied by `factor` after each epoch, as in the recipes for ImageNet.

    Args:
        start: In the first epoch.
        factor: Above 0, at most 1; 0.97 in the papers of DARTS and GDAS.
        steps_per_epoch: Steps of an epoch.
    """
    return keras.optimizers.schedules.ExponentialDecay(start, steps_per_epoch, factor, staircase=True)


@keras.saving.register_keras_serializable("gdas_tf")
class CosineDecayByEpoch(keras.optimizers.schedules.CosineDecay):
    """Keras' CosineDecay that only changes at the begin of an epoch.

    Args:
        initial_learning_rate, decay_steps, alpha: As of CosineDecay.
        steps_per_epoch: Steps of an epoch.
    """

    def __init__(
        self, initial_learning_rate: float, decay_steps: int, alpha: float = 0.0, steps_per_epoch: int = 1
    ) -> None:
        super().__init__(initial_learning_rate, decay_steps, alpha=alpha)
        self.steps_per_epoch = steps_per_epoch

    def __call__(self, step: Any) -> Any:
        done = keras.ops.floor_divide(keras.ops.cast(step, "int64"), self.steps_per_epoch)
        return super().__call__(done * self.steps_per_epoch)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        names = ("initial_learning_rate", "decay_steps", "alpha")
        return {**{name: config[name] for name in names}, "steps_per_epoch": self.steps_per_epoch}
