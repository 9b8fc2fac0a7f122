"""What a client may not do to the others: long JSON, large pictures, full queues; and who may ask at all."""

from __future__ import annotations

import asyncio
import struct
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import requests
from PIL import Image
from serving_helpers import Server, make_model, picture, picture_bytes, serving, wait_until

from gdas_tf.export.inference import Classifier
from gdas_tf.export.serving.http import SMALL_JSON, Call, HttpError
from gdas_tf.export.serving.images import ImageSizeError, load_image
from gdas_tf.export.serving.metrics import Metrics, ModelMetrics
from gdas_tf.export.serving.origins import Origins
from gdas_tf.export.serving.served_model import ServedModel, array_from_json

SHAPE = (8, 8, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("limits")


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    return make_model(folder / "net.onnx", SHAPE)


@pytest.fixture
def threads() -> Iterator[Executor]:
    with ThreadPoolExecutor(1, thread_name_prefix="one") as threads:
        yield threads


def served(path: Path, **changes: Any) -> ServedModel:
    settings = {"max_batch_size": 4, "max_delay": 0.002, "queue_size": 2, "inline": True, "runs": 1}
    settings |= {"max_images": 2, "deadline": 60.0, "metrics": ModelMetrics(Metrics(), "net", "1")}
    return ServedModel("net", 1, Classifier.load(path, threads=1), **{**settings, **changes})


def call(threads: Executor) -> Call:
    return Call({}, b"", b"", threads)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


async def refused(work: Coroutine[Any, Any, Any]) -> int:
    with pytest.raises(HttpError) as caught:
        await work
    return caught.value.status


class TestJson:
    def test_long_ones_are_parsed_in_a_thread_and_under_the_deadline(
        self, model: Path, threads: Executor
    ) -> None:
        async def test() -> None:
            net = served(model)

            def where() -> str:
                return threading.current_thread().name

            assert await net.parse(call(threads), SMALL_JSON, where) == "MainThread"
            assert await net.parse(call(threads), SMALL_JSON + 1, where) == "one_0"
            hasty, gate = served(model, deadline=0.05), threading.Event()
            try:
                asked = [hasty.parse(call(threads), SMALL_JSON + 1, gate.wait) for _ in range(3)]
                assert [await refused(work) for work in asked] == [504] * 3
            finally:
                gate.set()

        run(test)

    def test_others_are_answered_meanwhile(self, folder: Path) -> None:
        """Was: parsed by the event loop, and four of 32 MiB delayed /v2/health/live by 22 s."""
        big = make_model(folder / "big.onnx", (224, 224, 3), width=4)
        body = b'{"instances": [' + b"0," * 8_000_000 + b"0]}"
        answers: list[int] = []
        with serving(big, "--processes", 1, "--deadline", 120) as server:
            url = f"{server.url}/v1/models/big:predict"
            asking = [
                threading.Thread(target=lambda: answers.append(requests.post(url, data=body).status_code))
                for _ in range(4)
            ]
            for thread in asking:
                thread.start()
            healthy = 0
            while any(thread.is_alive() for thread in asking):
                assert requests.get(f"{server.url}/v2/health/live").status_code == 200
                healthy += 1
        assert answers == [400] * 4  # one axis, not four
        assert healthy > 20

    def test_arrays_are_made_part_by_part(self) -> None:
        flat = [*range(100_000), 0.5]
        for value in (flat, [[number] * 3 for number in range(70_000)], [[[1.5]]], [], [[]]):
            found = array_from_json(value, np.dtype(np.float64), "x")
            np.testing.assert_array_equal(found, np.asarray(value, np.float64))
        for value in ([[0, 0]] * 70_000 + [[0]], [0] * 70_000 + [[0]], [0] * 70_000 + ["0"]):
            with pytest.raises(HttpError, match="unequal length|something else than numbers"):
                array_from_json(value, np.dtype(np.float32), "x")

    @pytest.mark.parametrize("shape", [(8, 8, 3), (8, 8, 1), (2, 2, 1), (2, 30, 1)])
    def test_the_largest_request_fits(self, folder: Path, threads: Executor, shape: Any) -> None:
        """Nested, as long as JSON of float32 gets, in each of the two forms that name the input or don't."""
        net = served(make_model(folder / "any{}x{}x{}.onnx".format(*shape), shape), max_images=128)
        image = np.full(shape, -1.1754943508222875e-38, np.float32).astype(np.float64).tolist()
        for instances in ([image] * 128, [{"image": image}] * 128):
            body = str({"instances": instances}).replace("'", '"').encode()
            assert len(body) <= net.max_body
            net.check_json(body)
        with pytest.raises(HttpError, match="more arrays than its numbers need"):
            net.check_json(b'{"instances": [' + b"[" * 10**6)


class TestPictures:
    def test_those_that_wait_have_a_place_in_the_queue(self, model: Path, threads: Executor) -> None:
        async def test() -> None:
            net, gate = served(model), threading.Event()

            def prepare() -> np.ndarray:
                assert gate.wait(60)
                return np.full((1, *SHAPE), 0.5, np.float32)

            first = [
                asyncio.create_task(net.infer_picture(call(threads), threads, prepare)) for _ in range(2)
            ]
            await asyncio.sleep(0)
            assert net.batcher.pending == 2
            assert await refused(net.infer_picture(call(threads), threads, prepare)) == 503
            assert await refused(net.infer(np.zeros((1, *SHAPE), np.float32), call(threads))) == 503
            gate.set()
            assert [outputs.shape for outputs in await asyncio.gather(*first)] == [(1, 5)] * 2
            assert net.batcher.pending == 0

        run(test)

    def test_deadline(self, model: Path, threads: Executor) -> None:
        async def test() -> None:
            net, gate = served(model, deadline=0.05), threading.Event()
            begun: list[int] = []

            def prepare() -> np.ndarray:
                begun.append(1)
                assert gate.wait(60)
                return np.zeros((1, *SHAPE), np.float32)

            try:
                asked = [net.infer_picture(call(threads), threads, prepare) for _ in range(2)]
                assert await asyncio.gather(*map(refused, asked)) == [504, 504]
                await asyncio.sleep(0)
                assert (
                    net.batcher.pending == 1
                )  # the thread that has begun can't be stopped: it has its place
            finally:
                gate.set()
            while net.batcher.pending:
                await asyncio.sleep(0.001)
            assert len(begun) == 1  # nobody waits for the other one any more
            await net.batcher.close()

        run(test)

    def test_a_bad_one_gives_its_place_back(self, model: Path, threads: Executor) -> None:
        async def test() -> None:
            net = served(model)

            def prepare() -> np.ndarray:
                raise HttpError(415, "no picture")

            for _ in range(5):
                assert await refused(net.infer_picture(call(threads), threads, prepare)) == 415
                await asyncio.sleep(0.01)
            assert net.batcher.pending == 0

        run(test)

    def test_many_large_ones(self, model: Path) -> None:
        """Was: 60 of 49 million pixels took 29 s, all of them accepted, and 1.3 GiB were kept."""
        large = picture_bytes(Image.new("RGB", (4000, 4000), "red"))
        with serving(model, "--processes", 1, "--queue-size", 4, "--deadline", 120) as server:
            (process,) = (
                child
                for child in psutil.Process(server.process.pid).children()
                if child.net_connections("tcp")
            )
            url = f"{server.url}/classify"
            requests.post(url, data=picture_bytes(picture()))
            before = process.memory_info().rss
            found: Counter[int] = Counter()

            def ask() -> None:
                found[requests.post(url, data=large).status_code] += 1

            asking = [threading.Thread(target=ask) for _ in range(30)]
            for thread in asking:
                thread.start()
            for thread in asking:
                thread.join()
            assert set(found) == {200, 503}
            wait_until(lambda: process.memory_info().rss - before < 40 * 2**20)

    def test_tiles_larger_than_the_picture(self) -> None:
        """The decoder makes room for a whole tile."""
        tags = {256: 16, 257: 16, 258: 8, 259: 1, 262: 1, 277: 1, 322: 30_000, 323: 30_000, 324: 8, 325: 256}
        entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
        small = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(300)
        with pytest.raises(ImageSizeError, match="30000 x 30000 pixels; accepted are 50,000,000 at most"):
            load_image(small, SHAPE, formats=("TIFF",))


@pytest.mark.parametrize(
    ("bound", "host", "origin", "accepted"),
    [
        ("127.0.0.1", "127.0.0.1:8000", None, True),
        ("127.0.0.1", "localhost:8000", None, True),
        ("127.0.0.1", "LOCALHOST.:8000", None, True),
        ("127.0.0.1", "app.localhost", None, True),
        ("127.0.0.1", "[::1]:8000", None, True),
        ("127.0.0.1", "127.9.9.9", None, True),
        ("127.0.0.1", None, None, True),  # no browser
        ("127.0.0.1", "evil.example:8000", None, False),
        ("127.0.0.1", "localhost.evil.example", None, False),
        ("127.0.0.1", "evil.example#localhost", None, False),
        ("127.0.0.1", "192.168.1.5:8000", None, False),
        ("127.0.0.1", "", None, False),
        ("127.0.0.1", "named.example", None, True),  # --allowed-hosts
        ("gpu.lan", "gpu.lan:8000", None, True),
        ("192.168.1.5", "192.168.1.5:8000", None, True),
        ("0.0.0.0", "192.168.1.5:8000", None, True),
        ("::", "[fd00::5]:8000", None, True),
        ("0.0.0.0", "evil.example", None, False),
        ("127.0.0.1", "localhost:8000", "http://localhost:8000", True),
        ("127.0.0.1", "localhost:8000", "http://localhost:3000", False),
        ("127.0.0.1", "localhost:8000", "http://evil.example", False),
        ("127.0.0.1", "localhost:8000", "http://evil.example:8000", False),
        ("127.0.0.1", "localhost:8000", "null", False),
        ("127.0.0.1", "localhost:8000", "", False),
        ("127.0.0.1", "localhost:8000", "https://named.example", True),
        ("127.0.0.1", "named.example", "https://named.example", True),
        ("0.0.0.0", "192.168.1.5:8000", "http://192.168.1.6:8000", False),
        ("0.0.0.0", "192.168.1.5:8000", "http://192.168.1.5:8000", True),
    ],
)
def test_origins(bound: str, host: str | None, origin: str | None, accepted: bool) -> None:
    headers = {b"host": host, b"origin": origin}
    sent = {name: value.encode() for name, value in headers.items() if value is not None}
    checked = Origins(bound, ("named.example",))
    if accepted:
        checked.check(sent)
    else:
        with pytest.raises(HttpError, match="none of this server's names.*--allowed-hosts") as caught:
            checked.check(sent)
        assert caught.value.status == 403


def test_who_may_ask(model: Path, tmp_path: Path) -> None:
    def status(server: Server, path: str = "/v2/models/net", **headers: str) -> int:
        return requests.get(server.url + path, headers=headers).status_code

    with serving(model, "--processes", 1) as server:
        assert status(server) == 200
        for path in ("/", "/models", "/metrics", "/v2/models/net", "/nothing"):
            assert status(server, path, Host="evil.example") == 403
        assert status(server, "/v2/health/ready", Host="evil.example") == 200  # for probes
        data = picture_bytes(picture())
        answer = requests.post(f"{server.url}/classify", data=data, headers={"Origin": "http://evil.example"})
        assert (answer.status_code, "--allowed-hosts evil.example" in answer.json()["error"]) == (403, True)
        answer = requests.post(f"{server.url}/classify", data=data, headers={"Origin": server.url})
        assert answer.status_code == 200
    with serving(model, "--processes", 1, "--allowed-hosts", "app.example, other.example") as server:
        assert status(server, Host="app.example") == status(server, Host="other.example:80") == 200
        assert status(server, Host="evil.example") == 403
    with serving(model, "--processes", 1, environment={"GDAS_TF_TOKEN": "s3cret"}) as server:
        token = {"Authorization": "Bearer s3cret"}
        assert status(server, Host="app.example", Origin="https://app.example", **token) == 200
        assert status(server, Host="app.example") == 401
