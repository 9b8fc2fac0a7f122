"""What was timed of a stage (`gdas_tf.training.timing`), and what more of the same takes."""

from __future__ import annotations

from typing import NamedTuple


class Seconds(NamedTuple):
    """What a stage takes.

    Args:
        before: Seconds before its first step, and what that takes more than another: the graph is built.
        step: Of a step.
        ending: From the last step of an epoch to the first of the next, as to write the checkpoint.
        spent: What the timing took itself.
    """

    before: float
    step: float
    ending: float
    spent: float

    def epochs(self, count: int, steps: int) -> float:
        """Seconds of so many epochs of so many steps, without `before`."""
        return count * (steps * self.step + self.ending)


class TrialSeconds(NamedTuple):
    """What a short training of a candidate takes.

    Args:
        to_start: Seconds until the first worker is ready.
        before: Before the first step of a training.
        step: Of a step.
        judging: Of the loss on some images of D_V.
        judged: How many these are.
    """

    to_start: float
    before: float
    step: float
    judging: float
    judged: int

    def training(self, epochs: int, steps: int, batch_size: int, judged: int) -> float:
        """Seconds of a training of so many epochs of so many steps, judged on so many images of D_V."""
        # A step forward alone takes a third of one that trains.
        more = (judged - self.judged) / batch_size * self.step / 3
        return self.before + epochs * steps * self.step + max(self.judging + more, 0.0)
