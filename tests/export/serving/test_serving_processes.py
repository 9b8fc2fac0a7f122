"""The server's processes behind one port: connections, counts, limits on heads, and what ends how."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from serving_helpers import Server, make_model, serving, wait_until

from gdas_tf.export.inference import Classifier
from gdas_tf.export.serving.server import ServerSettings

SHAPE = (8, 8, 3)
PROCESSES = 3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("processes") / "net.onnx", SHAPE)


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Takes some 100 ms an image, and half as long with two threads."""
    return make_model(tmp_path_factory.mktemp("slow") / "slow.onnx", (64, 64, 3), width=64, depth=40)


@pytest.fixture
def server(model: Path) -> Iterator[Server]:
    with serving(model, "--processes", PROCESSES) as server:
        yield server


def request_of(images: np.ndarray) -> bytes:
    return json.dumps({"instances": images.tolist()}).encode()


class Client:
    """A kept connection."""

    def __init__(self, server: Server) -> None:
        self._connection = http.client.HTTPConnection(server.host, server.port, timeout=60)
        self._connection.connect()
        self.ask("GET", "/v2/health/live")  # accepted by one of the processes
        self.port = self._connection.sock.getsockname()[1]

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        self._connection.request(method, path, body)
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def predict(self, name: str, images: np.ndarray | bytes) -> np.ndarray:
        body = images if isinstance(images, bytes) else request_of(images)
        status, answer = self.ask("POST", f"/v1/models/{name}:predict", body)
        assert status == 200, answer
        return np.array(json.loads(answer)["predictions"])

    def images(self) -> int:
        status, answer = self.ask("GET", "/v2/models/net/stats")
        assert status == 200
        return json.loads(answer)["model_stats"][0]["inference_count"]

    def metrics(self) -> dict[str, float]:
        lines = self.ask("GET", "/metrics")[1].decode().splitlines()
        pairs = (line.rpartition(" ") for line in lines if line[0] != "#")
        return {name: float(value) for name, _, value in pairs}

    def close(self) -> None:
        self._connection.close()


def workers(server: Server) -> list[psutil.Process]:
    """Those that listen; there is also Python's own process that tidies up after them."""
    return [
        process
        for process in psutil.Process(server.process.pid).children()
        if any(item.status == psutil.CONN_LISTEN for item in process.net_connections("tcp"))
    ]


def client_of(server: Server, process: psutil.Process) -> Client:
    """Returns a kept connection to one of the processes."""
    for _ in range(1000):
        client = Client(server)
        if client.port in {item.raddr.port for item in process.net_connections("tcp") if item.raddr}:
            return client
        client.close()
    raise AssertionError("no connection came to the process")


def test_answers_and_counts_of_all_processes(server: Server, model: Path) -> None:
    images = np.random.default_rng(0).random((6, *SHAPE), np.float32)
    wanted = Classifier.load(model).run(images)
    wait_until(lambda: len(workers(server)) == PROCESSES)
    clients = [client_of(server, process) for process in workers(server)]
    for number, client in enumerate(clients * 2):
        found = client.predict("net", images[number][None])
        np.testing.assert_allclose(found[0], wanted[number], atol=1e-5)
        assert [other.images() for other in clients] == [number + 1] * PROCESSES
    assert clients[0].ask("POST", "/v1/models/net:predict", b"{")[0] == 400
    seen = [client.metrics() for client in clients]
    for metrics in seen:
        assert metrics['gdas_tf_images_total{model="net",version="1"}'] == 6
        assert metrics['gdas_tf_requests_total{api="v1",code="200"}'] == 6
        assert metrics['gdas_tf_requests_total{api="v1",code="400"}'] == 1
        assert metrics['gdas_tf_batch_images_bucket{le="1.0",model="net",version="1"}'] == 6
        assert metrics['gdas_tf_queue_images{model="net",version="1"}'] == 0
        assert (
            abs(metrics['gdas_tf_last_batch_timestamp_seconds{model="net",version="1"}'] - time.time()) < 60
        )
    memory = [process.memory_info().rss for process in workers(server)]
    assert seen[0]["process_resident_memory_bytes"] > 0.8 * sum(memory) > max(memory)
    assert seen[0]["process_start_time_seconds"] == pytest.approx(
        min(process.create_time() for process in workers(server)), abs=2
    )


def test_a_process_that_dies_is_replaced(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    image = np.zeros((1, *SHAPE), np.float32)
    with serving(model, "--processes", PROCESSES) as server:
        wait_until(lambda: len(workers(server)) == PROCESSES)
        before = workers(server)
        clients = [client_of(server, process) for process in before]
        for client in clients:
            client.predict("net", image)
        before[0].kill()
        # While it is dying it still takes connections with it: its sockets close one after the other.
        before[0].wait(60)
        lost = 0
        for client in clients:
            try:
                client.predict("net", image)
            except (ConnectionError, http.client.HTTPException):
                lost += 1
        assert lost == 1
        # New connections go to those that live, at once.
        for _ in range(4):
            client = Client(server)
            client.predict("net", image)
        wait_until(lambda: len(workers(server)) == PROCESSES)
        assert before[0] not in workers(server)
        assert client.images() == 9  # what the dead one did is not forgotten
        server.process.send_signal(signal.SIGTERM)
        errors = server.process.communicate(timeout=60)[1]
    assert "Unexpected exit from worker-" in errors
    assert "stopped; everything accepted is answered" in errors


def ask_together(server: Server, count: int) -> tuple[list[threading.Thread], Counter]:
    """Sends images to the slow model, each on a connection of its own; returns threads and outcomes."""
    outcomes: Counter = Counter()
    body = request_of(np.zeros((1, 64, 64, 3), np.float32))

    def work() -> None:
        try:
            Client(server).predict("slow", body)
            outcomes["answered"] += 1
        except (ConnectionError, http.client.HTTPException):
            outcomes["lost"] += 1

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    watcher = Client(server)
    queued = 'gdas_tf_queue_images{model="slow",version="1"}'
    wait_until(lambda: watcher.metrics()[queued] > 2)
    return threads, outcomes


def join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join()


def test_termination_of_the_whole_group_loses_nothing(slow: Path) -> None:
    """Some service managers signal each process of a service, not the first alone."""
    with serving(slow, "--processes", 2, "--max-batch-size", 1, "--deadline", 60) as server:
        threads, outcomes = ask_together(server, 20)
        for process in (*workers(server), server.process):
            os.kill(process.pid, signal.SIGTERM)
        join(threads)
        server.process.wait(60)
    assert outcomes == {"answered": 20}


@pytest.mark.slow
def test_a_second_signal_ends_at_once(slow: Path) -> None:
    with serving(slow, "--processes", 2, "--max-batch-size", 1, "--deadline", 60, ended=1) as server:
        threads, outcomes = ask_together(server, 40)
        server.process.send_signal(signal.SIGINT)
        time.sleep(0.1)
        server.process.send_signal(signal.SIGINT)
        errors = server.process.communicate(timeout=60)[1]
        join(threads)
    assert outcomes["lost"] > 0
    assert "stopped; what was under way is lost" in errors


@pytest.mark.slow
def test_without_the_main_process_the_others_finish_and_end(slow: Path) -> None:
    with serving(slow, "--processes", 2, "--max-batch-size", 1, "--deadline", 60, ended=-9) as server:
        alone = workers(server)
        folder = Path(alone[0].environ()["PROMETHEUS_MULTIPROC_DIR"])
        assert folder.is_dir()
        threads, outcomes = ask_together(server, 20)
        server.process.kill()
        join(threads)
        assert outcomes == {"answered": 20}
        assert psutil.wait_procs(alone, timeout=30)[1] == []
        assert not folder.exists()


def test_a_process_that_does_not_start(tmp_path: Path) -> None:
    missing = tmp_path / "missing.onnx"
    code = f"""
from pathlib import Path
from gdas_tf.errors import RunError
from gdas_tf.export.inference import InputOptions
from gdas_tf.export.serving.repository import ModelFile
from gdas_tf.export.serving.server import ServerSettings, reserve
from gdas_tf.export.serving.workers import serve

files = [ModelFile("net", 1, Path({str(missing)!r}))]
try:
    with reserve("127.0.0.1", 0) as held:
        serve(files, InputOptions(), ServerSettings(processes=2, threads=1), held, lambda: print("ready"))
except RunError as error:
    print(error)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert found.stdout == "a server process did not start; what it said stands above\n", found.stderr
    assert f"gdas-tf: failed: model {missing}: there is no such file" in found.stderr
    assert "Traceback" not in found.stderr


def test_the_exit_code_is_waited_for(model: Path) -> None:
    """The system tells it to one thread, here always to another one than that which asks for it later."""
    code = f"""
import os
import signal
import threading
import time
from pathlib import Path
from gdas_tf.export.inference import InputOptions
from gdas_tf.export.serving.repository import ModelFile
from gdas_tf.export.serving.server import ServerSettings, reserve
from gdas_tf.export.serving.workers import serve

waitpid, told = os.waitpid, threading.Event()


def waitpid_slowly(process, flags):
    if threading.current_thread() is threading.main_thread():
        if flags != os.WNOHANG:
            told.wait()
        return waitpid(process, flags)
    taken = waitpid(process, flags)
    told.set()
    time.sleep(0.5)
    return taken


if __name__ == "__main__":
    os.waitpid = waitpid_slowly
    files = [ModelFile("net", 1, Path({str(model)!r}))]
    with reserve("127.0.0.1", 0) as held:
        settings = ServerSettings(processes=1, threads=1)
        end = lambda: os.kill(os.getpid(), signal.SIGTERM)
        print(serve(files, InputOptions(), settings, held, end))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert found.stdout == "True\n", found.stderr


@pytest.mark.slow
def test_a_request_of_the_largest_size_fits_the_share_of_each_process(model: Path) -> None:
    with serving(model, "--processes", 4, "--queue-size", 10, "--max-images", 8) as server:
        images = np.random.default_rng(0).random((8, *SHAPE), np.float32)
        assert Client(server).predict("net", images).shape == (8, 5)


def test_the_default_queue_holds_several_requests_of_the_largest_size() -> None:
    for processes in (1, 2, 8):
        settings = ServerSettings(processes=processes)
        assert settings.queue_share >= 4 * settings.max_images
        assert settings.limits_share.max_total_body >= 4 * settings.limits.max_body
    assert ServerSettings(processes=2, queue_size=600).queue_share == 300
    assert ServerSettings(processes=8, queue_size=600).queue_share == 128


def test_access_log(model: Path) -> None:
    """Each process logs on stderr; stdout is for what --json prints. No path looks like another line."""
    with serving(model, "--processes", 2, "--access-log") as server:
        for _ in range(4):
            assert Client(server).ask("GET", "/v2/health/ready")[0] == 200
        assert Client(server).ask("GET", "/x%0Ay%1B%5B2J")[0] == 404
        server.process.send_signal(signal.SIGTERM)
        output, errors = server.process.communicate(timeout=60)
    assert output == ""
    assert errors.count('"GET /v2/health/ready HTTP/1.1" 200') == 4
    assert '"GET /x\\x0ay\\x1b[2J HTTP/1.1" 404' in errors


def test_too_many_processes(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from gdas_tf.cli.main import main

    assert main(["serve", str(model), "--processes", "257"]) == 2
    assert "--processes 257: accepted are 0 to 256" in capfd.readouterr().err


def test_two_servers_do_not_share_a_port(
    server: Server, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from gdas_tf.cli.main import main

    assert main(["serve", str(model), "--port", str(server.port)]) == 1
    assert f"port {server.port}: Address already in use; choose another --port" in capfd.readouterr().err


class TestHeads:
    """Heads of requests, before any token is looked at: limits of size and time."""

    @staticmethod
    def connect(server: Server) -> socket.socket:
        return socket.create_connection((server.host, server.port), timeout=60)

    @staticmethod
    def memory(server: Server) -> int:
        return sum(process.memory_info().rss for process in workers(server))

    def test_a_long_head(self, model: Path) -> None:
        """Was: 50 MiB of headers took 1.1 GiB of memory."""
        with serving(model, "--processes", 2, environment={"GDAS_TF_TOKEN": "s3cret"}) as server:
            wait_until(lambda: len(workers(server)) == 2)
            before = self.memory(server)
            for line in (b"x: " + b"a" * 1000 + b"\r\n", b"x: a\r\n", b"a" * 1000):
                with self.connect(server) as connection:
                    with contextlib.suppress(ConnectionError):
                        connection.sendall(b"GET /models HTTP/1.1\r\nHost: localhost\r\n")
                        for _ in range(50):
                            connection.sendall(line * (2**20 // len(line)))
                    with contextlib.suppress(ConnectionError):
                        answer = connection.recv(100)
                        assert not answer or answer.startswith(b"HTTP/1.1 431 ")
            assert self.memory(server) - before < 16 * 2**20
            assert Client(server).ask("GET", "/v2/health/live")[0] == 200

    @pytest.mark.slow
    def test_half_open_connections(self, server: Server) -> None:
        """Was: 1,000 of them made every answer 503. They end by themselves."""
        wait_until(lambda: len(workers(server)) == PROCESSES)
        opened = [self.connect(server) for _ in range(1000)]
        try:
            for number, connection in enumerate(opened):
                connection.sendall((b"", b"G", b"GET / HTTP/1.1\r\nHost: loc")[number % 3])
            for _ in range(20):
                assert Client(server).ask("GET", "/v2/health/ready")[0] == 200
            for connection in opened[::100]:
                with contextlib.suppress(ConnectionError):
                    assert connection.recv(100) == b""
        finally:
            for connection in opened:
                connection.close()
