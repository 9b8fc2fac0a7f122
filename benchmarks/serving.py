"""Measures `gdas-tf serve` on this machine's loopback: throughput, latency, and what onnxruntime does alone.

    python benchmarks/serving.py runs/digits-quick/export/model.onnx
    python benchmarks/serving.py digits.onnx cifar.onnx --rounds 5 --json serving.json

What is measured, in turns, `--rounds` times, each for `--seconds`:

- onnxruntime, batch 1 / batch B: `session.run` in this process, the server idle; as many threads as there
  are cores. The p50 of batch 1 is the *bare p50*.
- onnxruntime, batch B on each core: as many batches at a time as there are cores, each with one thread.
- one by one: one connection, the next request when the answer is there.
- concurrency 16: sixteen connections, each as above.
- half load: requests at random times (Poisson), half as many a second as concurrency 16 got answered; latency
  from the time a request was due, so that a server that falls behind doesn't hide it.
- half load, evenly: as many requests, at equal distances.
- p99 of an ideal queue: what half load would have at least if each request took the processor time that it
  took here, the server's and the client's, never more nor less, on whichever core is free first.

Every request is one image, float32, in the binary form of the Open Inference Protocol. The client is a
process of its own that does nothing but send and receive raw bytes, yet it takes part of the same
cores as the server: `client CPU` and `server CPU` say how much each took per request.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import json
import multiprocessing
import os
import select
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from figures import spread, three

CONCURRENCY = 16
MAX_SECONDS = 30.0
MAX_REQUESTS = 200_000
PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class Load:
    """What a client saw.

    Args:
        per_second: answers a second.
        p50, p95, p99: latency in ms.
        client_us, server_us: CPU time per request of the client and the server, in us.
        batch: mean number of images in a batch.
    """

    per_second: float
    p50: float
    p95: float
    p99: float
    client_us: float = 0.0
    server_us: float = 0.0
    batch: float = 1.0


def summary(latencies: np.ndarray, seconds: float, **more: float) -> Load:
    """Returns the figures of latencies in seconds."""
    return Load(len(latencies) / seconds, *(np.percentile(latencies, PERCENTILES) * 1e3), **more)


class Connection:
    """A connection on which one request at a time is under way."""

    def __init__(self, address: tuple[str, int], request: bytes) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request = request
        self.due = 0.0
        self._parts = b""

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, due: float) -> None:
        self.due = due
        self.socket.sendall(self.request)

    def receive(self) -> bool:
        """Takes what has come; returns whether the answer is complete."""
        self._parts += self.socket.recv(65536)
        head, found, body = self._parts.partition(b"\r\n\r\n")
        if not found:
            return False
        start = head.index(b"content-length: ") + 16
        if len(body) < int(head[start : head.find(b"\r\n", start) % (len(head) + 1)]):
            return False
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"the server answered {self._parts[:200]!r}")
        self._parts = b""
        return True


def client(
    address: tuple[str, int],
    request: bytes,
    connections: int,
    seconds: float,
    rate: float | None,
    evenly: bool,
    pipe: Any,
) -> None:
    """Sends requests and puts (latencies, seconds, CPU seconds) into a pipe.

    Args:
        address: of the server.
        request: bytes of a request.
        connections: how many.
        seconds: how long.
        rate: requests a second; None: on each connection the next when the answer is there.
        evenly: at equal distances in time; else at random (Poisson).
        pipe: where the outcome goes.
    """
    opened = [Connection(address, request) for _ in range(connections)]
    idle = list(opened)
    random = np.random.default_rng(0)
    latencies: list[float] = []
    cpu, start = time.process_time(), time.perf_counter()
    due = start
    waiting: deque[float] = deque()
    while True:
        now = time.perf_counter()
        over = now >= start + seconds or len(latencies) >= MAX_REQUESTS
        if over and len(idle) == connections:
            break
        if rate is None:
            while idle and not over:
                idle.pop().send(time.perf_counter())
            delay = 1.0
        else:
            while due <= now and not over:
                waiting.append(due)
                due += 1 / rate if evenly else random.exponential(1 / rate)
            while idle and waiting and not over:
                idle.pop().send(waiting.popleft())
            delay = 1.0 if over else max(0.0, due - time.perf_counter())
        # select, not epoll: its time-out is exact to some microseconds, that of epoll to a millisecond.
        for connection in select.select(opened, (), (), delay)[0]:
            if connection.receive():
                latencies.append(time.perf_counter() - connection.due)
                idle.append(connection)
    pipe.send((np.array(latencies), time.perf_counter() - start, time.process_time() - cpu))


class Server:
    """A running `gdas-tf serve` with one model."""

    def __init__(self, process: subprocess.Popen, url: str) -> None:
        self.process = process
        host, port = url.removeprefix("http://").split(":")
        self.address = (host, int(port))

    def load(
        self,
        request: bytes,
        connections: int,
        seconds: float,
        rate: float | None = None,
        evenly: bool = False,
    ) -> Load:
        """Returns what a client of its own sees; see `client`."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=client,
            args=(self.address, request, connections, seconds, rate, evenly, theirs),
            daemon=True,
        )
        before, cpu = self._statistics(), self._cpu()
        process.start()
        if not ours.poll(seconds + 60):
            process.kill()
            raise RuntimeError("the client did not end")
        latencies, taken, client_cpu = ours.recv()
        process.join()
        after = self._statistics()
        count = len(latencies)
        return summary(
            latencies,
            taken,
            client_us=client_cpu / count * 1e6,
            server_us=(self._cpu() - cpu) / count * 1e6,
            batch=(after[0] - before[0]) / (after[1] - before[1]),
        )

    def _cpu(self) -> float:
        supervisor = psutil.Process(self.process.pid)
        times = [process.cpu_times() for process in (supervisor, *supervisor.children())]
        return sum(time.user + time.system for time in times)

    def _statistics(self) -> tuple[int, int]:
        import urllib.request

        url = "http://{}:{}/v2/models/stats".format(*self.address)
        with urllib.request.urlopen(url) as answer:
            counts = json.load(answer)["model_stats"][0]
        return counts["inference_count"], counts["execution_count"]


@contextlib.contextmanager
def serving(model: Path, options: list[str]) -> Iterator[Server]:
    """Runs `gdas-tf serve` on a free port of the loopback."""
    command = [
        sys.executable,
        "-P",
        "-m",
        "gdas_tf.cli",
        "serve",
        f"measured={model}",
        "--port",
        "0",
        "--json",
    ]
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"the server did not start with {model}")
        yield Server(process, json.loads(line)["url"])
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def infer_request(name: str, image: np.ndarray) -> bytes:
    """Returns the bytes of a request with one image."""
    data = image.tobytes()
    tensor = {
        "name": name,
        "shape": [1, *image.shape],
        "datatype": "FP32",
        "parameters": {"binary_data_size": len(data)},
    }
    header = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    body = header + data
    head = (
        "POST /v2/models/measured/infer HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/octet-stream\r\nContent-Length: {len(body)}\r\n"
        f"Inference-Header-Content-Length: {len(header)}\r\n\r\n"
    )
    return head.encode() + body


def bare(session: Any, images: np.ndarray, seconds: float) -> Load:
    """Returns what onnxruntime does alone with a batch; `per_second` counts images."""
    name = session.get_inputs()[0].name
    times = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or (time.perf_counter() < end and len(times) < MAX_REQUESTS):
        start = time.perf_counter()
        session.run(None, {name: images})
        times.append(time.perf_counter() - start)
    load = summary(np.array(times), sum(times))
    return Load(**{**asdict(load), "per_second": load.per_second * len(images), "batch": len(images)})


def bare_on_each_core(session: Any, images: np.ndarray, seconds: float) -> Load:
    """Returns what onnxruntime does alone with a batch on each core; the session has one thread."""
    count = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(count) as threads:
        loads = list(threads.map(lambda _: bare(session, images, seconds), range(count)))
    mean = {key: statistics.mean(getattr(load, key) for load in loads) for key in asdict(loads[0])}
    return Load(**{**mean, "per_second": sum(load.per_second for load in loads)})


def ideal_p99(seconds: float, rate: float, servers: int) -> float:
    """Returns the 99th percentile of the latency in ms of requests at random times in one queue (M/D/c).

    Args:
        seconds: that a request takes.
        rate: requests a second.
        servers: requests at a time.
    """
    arrivals = np.cumsum(np.random.default_rng(0).exponential(1 / rate, MAX_REQUESTS))
    free = [0.0] * servers
    latencies = []
    for arrival in arrivals:
        end = max(arrival, free[0]) + seconds
        heapq.heapreplace(free, end)
        latencies.append(end - arrival)
    return float(np.percentile(latencies, 99)) * 1e3


def measure(model: Path, rounds: int, seconds: float, options: list[str]) -> dict[str, Any]:
    """Returns what the rounds gave for a model, and the ratios."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = len(os.sched_getaffinity(0))
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(model), settings, providers=["CPUExecutionProvider"])
    settings.intra_op_num_threads = 1
    single = onnxruntime.InferenceSession(str(model), settings, providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0]
    images = np.random.default_rng(0).random((CONCURRENCY, *source.shape[1:]), np.float32)
    request = infer_request(source.name, images[0])
    found: dict[str, list[Load]] = {}
    with serving(model, options) as server:
        server.load(request, CONCURRENCY, min(seconds, 1.0))  # warm-up
        bare(session, images, 0.5)
        for _ in range(rounds):
            many = server.load(request, CONCURRENCY, seconds)
            batch = max(1, round(many.batch))
            half = many.per_second / 2
            for name, load in (
                ("onnxruntime, batch 1", bare(session, images[:1], seconds)),
                ("one by one", server.load(request, 1, seconds)),
                (f"concurrency {CONCURRENCY}", many),
                (f"onnxruntime, batch {CONCURRENCY}", bare(session, images, seconds)),
                (
                    f"onnxruntime, batch {CONCURRENCY} on each core",
                    bare_on_each_core(single, images, seconds),
                ),
                ("onnxruntime, the server's batch", bare(session, images[:batch], seconds)),
                ("half load", server.load(request, CONCURRENCY, seconds, half)),
                ("half load, evenly", server.load(request, CONCURRENCY, seconds, half, evenly=True)),
            ):
                found.setdefault(name, []).append(load)
    rows = {
        name: {key: spread([getattr(load, key) for load in loads]) for key in asdict(loads[0])}
        for name, loads in found.items()
    }

    def ratio(above: str, below: str, key: str, key_below: str | None = None) -> dict[str, float]:
        """Returns the spread of the rounds' ratios."""
        return spread(
            [
                getattr(first, key) / getattr(second, key_below or key)
                for first, second in zip(found[above], found[below], strict=True)
            ]
        )

    many = f"concurrency {CONCURRENCY}"
    ratios = {
        "throughput at concurrency 16 / one by one": ratio(many, "one by one", "per_second"),
        "throughput at concurrency 16 / onnxruntime, batch 16": ratio(
            many, f"onnxruntime, batch {CONCURRENCY}", "per_second"
        ),
        "throughput at concurrency 16 / onnxruntime, batch 16 on each core": ratio(
            many, f"onnxruntime, batch {CONCURRENCY} on each core", "per_second"
        ),
        "throughput at concurrency 16 / onnxruntime, the server's batch": ratio(
            many, "onnxruntime, the server's batch", "per_second"
        ),
        "p99 at half load / bare p50": ratio("half load", "onnxruntime, batch 1", "p99", "p50"),
        "p99 at half load, evenly / bare p50": ratio(
            "half load, evenly", "onnxruntime, batch 1", "p99", "p50"
        ),
        "p99 at half load / p50 one by one": ratio("half load", "one by one", "p99", "p50"),
    }
    ideal = [
        ideal_p99((load.server_us + load.client_us) / 1e6, load.per_second, len(os.sched_getaffinity(0)))
        for load in found["half load"]
    ]
    bares = [load.p50 for load in found["onnxruntime, batch 1"]]
    ratios["p99 of an ideal queue at half load / bare p50"] = spread(
        [best / p50 for best, p50 in zip(ideal, bares, strict=True)]
    )
    ratios["p99 at half load / that of an ideal queue"] = spread(
        [load.p99 / best for load, best in zip(found["half load"], ideal, strict=True)]
    )
    return {"model": model.name, "rounds": rounds, "seconds": seconds, "rows": rows, "ratios": ratios}


def report(result: dict[str, Any]) -> str:
    """Returns a measurement as tables."""

    lines = [
        f"{result['model']}: {result['rounds']} rounds of {result['seconds']:g} s, min / median / max",
        f"{'':<34}{'images/s':>24}{'p50 ms':>24}{'p95 ms':>9}{'p99 ms':>9}{'batch':>7}{'server us':>11}"
        f"{'client us':>11}",
    ]
    for name, row in result["rows"].items():
        medians = {key: values["median"] for key, values in row.items()}
        cpu = f"{medians['server_us']:>11.0f}{medians['client_us']:>11.0f}" if medians["server_us"] else ""
        lines.append(
            f"{name:<34}{three(row['per_second'], 0):>24}{three(row['p50'], 2):>24}{medians['p95']:>9.2f}"
            f"{medians['p99']:>9.2f}{medians['batch']:>7.1f}{cpu}"
        )
    lines.append("")
    lines += [f"{name:<66}{three(values, 2):>22}" for name, values in result["ratios"].items()]
    return "\n".join(lines)


def main() -> None:
    """Measures each model that is named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL.onnx")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, at most 20 [3]")
    parser.add_argument("--seconds", type=float, default=3.0, help="of a measurement, at most 30 [3]")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", default=Path("serving.json"), help="file to write [serving.json]"
    )
    parser.add_argument("--serve-options", default="", help="options for gdas-tf serve, in one word")
    args = parser.parse_args()
    results = []
    for model in args.models:
        seconds = min(args.seconds, MAX_SECONDS)
        results.append(measure(model, min(args.rounds, 20), seconds, args.serve_options.split()))
        print(report(results[-1]), flush=True)
    args.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
