"""Dynamic batching: what goes together, what is refused, and that every answer is its request's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest

from gdas_tf.export.serving.batching import Batcher, DeadlineError, InferenceError, QueueFullError


class Network:
    """Doubles its input; notes the batches; runs only while `gate` is open."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.fails = False

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        self.batches.append(len(batch))
        assert self.gate.wait(30)
        if self.fails:
            raise ValueError("no")
        return batch * 2


def row(value: float, images: int = 1) -> np.ndarray:
    return np.full((images, 3), value, np.float32)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("inline", [False, True])
def test_answers_are_those_of_their_requests(inline: bool) -> None:
    async def test() -> None:
        network = Network()
        batcher = Batcher(network, max_batch_size=8, inline=inline)
        sizes = np.random.default_rng(0).integers(1, 20, 60)
        sent = [row(number, size) for number, size in enumerate(sizes)]
        answers = await asyncio.gather(*(batcher.submit(batch, 30) for batch in sent[:20]))
        answers += [await batcher.submit(batch, 30) for batch in sent[20:40]]
        answers += await asyncio.gather(*(batcher.submit(batch, 30) for batch in sent[40:]))
        for batch, answer in zip(sent, answers, strict=True):
            np.testing.assert_array_equal(answer, batch * 2)
        assert max(network.batches) <= 8
        assert sum(network.batches) == sizes.sum()
        assert batcher.pending == 0
        await batcher.close()

    run(test)


def test_what_comes_while_it_runs_goes_together() -> None:
    async def test() -> None:
        network = Network()
        batcher = Batcher(network, max_batch_size=16)
        network.gate.clear()
        first = asyncio.create_task(batcher.submit(row(0), 30))
        await until(lambda: network.batches == [1])  # idle: at once and alone
        others = [asyncio.create_task(batcher.submit(row(number), 30)) for number in range(1, 20)]
        await until(lambda: batcher.pending == 20)
        assert network.batches == [1]
        network.gate.set()
        await asyncio.gather(first, *others)
        assert network.batches == [1, 16, 3]
        await batcher.close()

    run(test)


def test_busy_waits_for_half_and_idle_for_nothing() -> None:
    async def test() -> None:
        network = Network()
        batcher = Batcher(network, max_batch_size=16, max_delay=20.0)  # longer than the test may take
        for number in range(3):  # one by one: nothing to wait for
            await batcher.submit(row(number), 30)
        assert network.batches == [1, 1, 1]
        await asyncio.gather(*(batcher.submit(row(number), 30) for number in range(8)))
        assert network.batches[3:] == [8]
        # Eight were in flight: three are not worth a batch, a fourth completes it.
        early = [asyncio.create_task(batcher.submit(row(number), 30)) for number in range(3)]
        await asyncio.sleep(0.05)
        assert network.batches[4:] == []
        await batcher.submit(row(9), 30)
        await asyncio.gather(*early)
        assert network.batches[4:] == [4]
        await batcher.close()

    run(test)


def test_batches_run_at_a_time() -> None:
    async def test() -> None:
        network = Network()
        batcher = Batcher(network, max_batch_size=4, runs=2)
        network.gate.clear()
        asked = [asyncio.create_task(batcher.submit(row(number), 30)) for number in range(12)]
        await until(lambda: network.batches == [4, 4])
        await asyncio.sleep(0.05)
        assert network.batches == [4, 4]  # the third waits for one of two
        network.gate.set()
        answers = await asyncio.gather(*asked)
        assert network.batches == [4, 4, 4]
        assert [answer[0, 0] for answer in answers] == [2.0 * number for number in range(12)]
        assert batcher.pending == 0
        await batcher.close()

    run(test)


def test_the_wait_ends() -> None:
    async def test() -> None:
        network = Network()
        batcher = Batcher(network, max_batch_size=16, max_delay=0.02)
        await asyncio.gather(*(batcher.submit(row(number), 30) for number in range(8)))
        await batcher.submit(row(1), 30)
        assert network.batches == [8, 1]
        await batcher.close()

    run(test)


def test_full_queue() -> None:
    async def test() -> None:
        network = Network()
        batcher = Batcher(network, max_batch_size=2, queue_size=4)
        network.gate.clear()
        accepted = [asyncio.create_task(batcher.submit(row(number, 2), 30)) for number in range(2)]
        await until(lambda: batcher.pending == 4)
        with pytest.raises(QueueFullError) as caught:
            await batcher.submit(row(9), 30)
        assert caught.value.retry_after >= 1
        network.gate.set()
        await asyncio.gather(*accepted)
        np.testing.assert_array_equal(await batcher.submit(row(5), 30), row(10))
        await batcher.close()

    run(test)


def test_deadline() -> None:
    async def test() -> None:
        network = Network()
        batcher = Batcher(network, max_batch_size=4)
        network.gate.clear()
        running = asyncio.create_task(batcher.submit(row(0), 0.02))
        await until(lambda: network.batches == [1])
        waiting = asyncio.create_task(batcher.submit(row(1, 6), 0.02))
        patient = asyncio.create_task(batcher.submit(row(2), 30))
        for late in (running, waiting):
            with pytest.raises(DeadlineError):
                await late
        network.gate.set()
        np.testing.assert_array_equal(await patient, row(4))
        assert sum(network.batches) == 2  # nobody waits for the six any more: they are not computed
        assert batcher.pending == 0
        await batcher.close()

    run(test)


def test_a_failing_network_fails_its_batch_alone() -> None:
    async def test() -> None:
        network = Network()
        batcher = Batcher(network)
        network.fails = True
        with pytest.raises(InferenceError):
            await batcher.submit(row(1), 30)
        network.fails = False
        np.testing.assert_array_equal(await batcher.submit(row(2), 30), row(4))
        await batcher.close()

    run(test)


def test_close_finishes_what_was_accepted() -> None:
    async def test() -> None:
        network = Network()
        batcher = Batcher(network, max_batch_size=2)
        network.gate.clear()
        accepted = [asyncio.create_task(batcher.submit(row(number), 30)) for number in range(7)]
        await until(lambda: batcher.pending == 7)
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError):
            await batcher.submit(row(9), 30)
        network.gate.set()
        await closing
        for number, answer in enumerate(await asyncio.gather(*accepted)):
            np.testing.assert_array_equal(answer, row(2 * number))

    run(test)
