"""Many requests at once: together faster than one by one, and none wrong, lost or leaked among 10,000."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import pytest
from serving_helpers import Server, make_model, picture, picture_bytes, serving

from gdas_tf.export.inference import Classifier
from gdas_tf.export.serving.images import load_image

pytestmark = pytest.mark.slow

SHAPE = (8, 8, 3)
REQUESTS = 10_000
CLIENTS = 8


class Case(NamedTuple):
    """A request, the status it must get, and what checks the body of the answer."""

    path: str
    body: bytes
    headers: dict[str, str]
    status: int
    check: Callable[[bytes], bool]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("load") / "net.onnx", SHAPE)


@pytest.fixture
def server(model: Path) -> Iterator[Server]:
    with serving(model, "--max-body", "0.25", "--max-pixels", "0.05") as server:
        yield server


def infer_body(images: np.ndarray) -> tuple[bytes, dict[str, str]]:
    data = images.tobytes()
    tensor = {
        "name": "image",
        "shape": list(images.shape),
        "datatype": "FP32",
        "parameters": {"binary_data_size": len(data)},
    }
    header = json.dumps({"inputs": [tensor]}).encode()
    return header + data, {"Inference-Header-Content-Length": str(len(header))}


def cases(model: Path) -> list[Case]:
    """Good requests of each API, whose every answer is known, and bad ones of each kind."""
    classifier = Classifier.load(model)
    random = np.random.default_rng(0)
    found: list[Case] = []

    def close(wanted: np.ndarray, read: Callable[[dict], object]) -> Callable[[bytes], bool]:
        return lambda body: np.allclose(read(json.loads(body)), wanted, atol=1e-5)

    for number in range(12):
        images = random.random((number % 3 + 1, *SHAPE), np.float32)
        wanted = classifier.run(images)
        body, headers = infer_body(images)
        found.append(
            Case(
                "/v2/models/net/infer",
                body,
                headers,
                200,
                close(wanted.ravel(), lambda value: value["outputs"][0]["data"]),
            )
        )
        found.append(
            Case(
                "/v1/models/net:predict",
                json.dumps({"instances": images.tolist()}).encode(),
                {},
                200,
                close(wanted, lambda value: value["predictions"]),
            )
        )
        data = picture_bytes(picture((20, 12), seed=number), "PNG" if number % 2 else "JPEG")
        best = classifier.classify(load_image(data, SHAPE)[None])[0]
        found.append(
            Case(
                "/classify",
                data,
                {},
                200,
                close(np.sort(best)[::-1], lambda value: [item["probability"] for item in value["classes"]]),
            )
        )

    def explained(body: bytes) -> bool:
        return len(json.loads(body)["error"]) > 10

    nan, nan_headers = infer_body(np.full((1, *SHAPE), np.nan, np.float32))
    good, good_headers = infer_body(np.zeros((1, *SHAPE), np.float32))
    png = picture_bytes(picture((60, 60)))
    for path, body, headers, status in (
        ("/v2/models/net/infer", nan, nan_headers, 400),
        ("/v2/models/net/infer", good[:-3], good_headers, 400),
        ("/v2/models/net/infer", good, {}, 400),
        ("/v2/models/net/infer", b"{" * 5000, {}, 400),
        ("/v2/models/net/infer", good, {**good_headers, "Content-Encoding": "gzip"}, 400),
        ("/v2/models/net/infer", bytes(900_000), {}, 413),
        ("/v2/models/other/infer", good, good_headers, 404),
        ("/v1/models/net:predict", b'{"instances": [[1]]}', {}, 400),
        ("/v1/models/net/versions/2:predict", b"{}", {}, 404),
        ("/classify", png[:2000], {}, 400),
        ("/classify", b"\x89PNG\r\n\x1a\n" + bytes(500), {}, 415),
        ("/classify", picture_bytes(picture((300, 300), "L")), {}, 413),
        ("/classify", png, {"Content-Type": "multipart/form-data; boundary=x"}, 400),
        ("/nothing", b"", {}, 404),
    ):
        found.append(Case(path, body, headers, status, explained))
    return found


def send(connection: http.client.HTTPConnection, case: Case) -> tuple[int, bytes]:
    connection.request("POST", case.path, case.body, case.headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_mixed_requests(model: Path, server: Server) -> None:
    """10,000 good and bad requests: no wrong answer, no crash, and memory stays where it is."""
    known = cases(model)
    wrong: list[str] = []
    supervisor = psutil.Process(server.process.pid)
    processes = [supervisor, *supervisor.children()]

    def work(client: int, count: int) -> None:
        random = np.random.default_rng(client)
        connection = http.client.HTTPConnection(server.host, server.port, timeout=60)
        for number in random.integers(0, len(known), count):
            case = known[number]
            try:
                status, body = send(connection, case)
            except (BrokenPipeError, ConnectionResetError):
                # The server closes at once on a body that is too large; the rest of it is not read.
                connection.close()
                if case.status == 413:
                    continue
                raise
            if status != case.status or not case.check(body):
                wrong.append(f"{case.path}: {status} in place of {case.status}: {body[:200]!r}")
        connection.close()

    def run(count: int) -> int:
        threads = [
            threading.Thread(target=work, args=(client, count // CLIENTS)) for client in range(CLIENTS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(process.memory_info().rss for process in processes)

    warm = run(REQUESTS // 5)
    after = run(REQUESTS - REQUESTS // 5)
    assert not wrong, wrong[:5]
    assert server.process.poll() is None
    assert after - warm < 32 * 2**20, f"{warm / 2**20:.0f} MiB grew to {after / 2**20:.0f} MiB"
    assert supervisor.children() == processes[1:]
    assert all(process.num_fds() < 100 for process in processes)


def test_together_in_batches(model: Path, server: Server) -> None:
    """Sixteen clients at once are answered rightly, in fewer runs of the network than requests."""
    images = np.random.default_rng(0).random((16, *SHAPE), np.float32)
    wanted = Classifier.load(model).run(images)
    wrong: list[int] = []

    def work(number: int, count: int) -> None:
        connection = http.client.HTTPConnection(server.host, server.port, timeout=60)
        body, headers = infer_body(images[number][None])
        for _ in range(count):
            status, answer = send(connection, Case("/v2/models/net/infer", body, headers, 200, bool))
            outputs = json.loads(answer)["outputs"][0]["data"] if status == 200 else np.inf
            if not np.allclose(outputs, wanted[number], atol=1e-5):
                wrong.append(status)
        connection.close()

    def batches() -> int:
        connection = http.client.HTTPConnection(server.host, server.port, timeout=60)
        connection.request("GET", "/v2/models/net/stats")
        return json.loads(connection.getresponse().read())["model_stats"][0]["execution_count"]

    start, before = time.perf_counter(), batches()
    work(0, 200)
    alone, single = time.perf_counter() - start, batches() - before
    start, before = time.perf_counter(), batches()
    threads = [threading.Thread(target=work, args=(number, 60)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    together, many = time.perf_counter() - start, batches() - before
    assert not wrong
    assert single == 200  # one by one: each on its own
    assert many < 960 * 0.8
    rates = f"one by one {200 / alone:.0f} requests/s, sixteen at once {960 / together:.0f}"
    print(f"{rates}, {960 / many:.1f} a batch")
