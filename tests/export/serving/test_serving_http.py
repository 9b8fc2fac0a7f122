"""The server with real clients: tritonclient, requests and raw sockets; every malformed input; the limits."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import tritonclient.http as triton
from PIL import Image
from serving_helpers import CLASS_NAMES, Server, make_model, picture, picture_bytes, serving, wait_until
from tritonclient.utils import InferenceServerException

from gdas_tf.export.inference import Classifier
from gdas_tf.export.serving.http import BodyReader, HttpError, Reply, compress
from gdas_tf.export.serving.images import load_image
from gdas_tf.spaces.genotype import GENOTYPES

SHAPE = (8, 8, 3)

SLOW = 40
"""Convolutions of a network that is slower than its clients on a busy machine too: some 100 ms an image."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions of a small model, a foreign one, and one of uint8 pixels."""
    folder = tmp_path_factory.mktemp("secret-folder")
    told = {"genotype": GENOTYPES["GDAS_V1"].to_json(), "accuracy": 0.9712, "parameters": 1234}
    make_model(folder / "old.onnx", SHAPE, seed=1)
    make_model(folder / "new.onnx", SHAPE, seed=2, metadata=told)
    make_model(
        folder / "foreign.onnx",
        (6, 10, 1),
        layout="nchw",
        batch=1,
        softmax=False,
        input_name="x",
        output_name="scores",
    )
    make_model(folder / "pixels.onnx", SHAPE, dtype="uint8", seed=3)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    arguments = [f"net={folder / 'old.onnx'}", f"net={folder / 'new.onnx'}"]
    arguments += [str(folder / "foreign.onnx"), str(folder / "pixels.onnx")]
    with serving(*arguments, "--max-body", "1", "--max-images", "20", "--max-pixels", "0.1") as server:
        yield server


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A slow model with a short queue."""
    path = make_model(tmp_path_factory.mktemp("slow") / "slow.onnx", (64, 64, 3), width=64, depth=SLOW)
    with serving(path, "--queue-size", "8", "--max-batch-size", "4") as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.address, network_timeout=60) as client:
        yield client


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).random((3, *SHAPE), np.float32)


def expected(folder: Path, name: str, images: np.ndarray) -> np.ndarray:
    return Classifier.load(folder / f"{name}.onnx").run(images)


def tensor(
    images: np.ndarray, name: str = "image", kind: str = "FP32", binary: bool = True
) -> triton.InferInput:
    value = triton.InferInput(name, list(images.shape), kind)
    value.set_data_from_numpy(images, binary_data=binary)
    return value


class TestTritonClient:
    """tritonclient[http], unchanged."""

    def test_health_and_metadata(self, client: triton.InferenceServerClient) -> None:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("net")
        assert client.is_model_ready("net", "1")
        assert not client.is_model_ready("net", "3")
        assert not client.is_model_ready("nothing")
        assert client.get_server_metadata()["name"] == "gdas-tf"
        metadata = client.get_model_metadata("net")
        assert metadata["versions"] == ["1", "2"]
        assert metadata["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 8, 8, 3]}]
        assert metadata["outputs"] == [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 5]}]
        config = client.get_model_config("net", "1")
        assert config["max_batch_size"] == 20
        assert config["input"] == [{"name": "image", "data_type": "TYPE_FP32", "dims": [8, 8, 3]}]
        index = client.get_model_repository_index()
        assert {(item["name"], item["version"]) for item in index} >= {("net", "1"), ("net", "2")}

    @pytest.mark.parametrize("binary_in", [True, False])
    @pytest.mark.parametrize("binary_out", [True, False, None])
    def test_infer(
        self,
        client: triton.InferenceServerClient,
        folder: Path,
        images: np.ndarray,
        binary_in: bool,
        binary_out: bool | None,
    ) -> None:
        outputs = None
        if binary_out is not None:
            outputs = [triton.InferRequestedOutput("probabilities", binary_data=binary_out)]
        result = client.infer("net", [tensor(images, binary=binary_in)], outputs=outputs, request_id="seven")
        answer = result.get_response()
        assert (answer["model_name"], answer["model_version"], answer["id"]) == ("net", "2", "seven")
        found = result.as_numpy("probabilities")
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected(folder, "new", images), atol=1e-6)

    def test_versions(self, client: triton.InferenceServerClient, folder: Path, images: np.ndarray) -> None:
        old, new = (client.infer("net", [tensor(images)], model_version=version) for version in "12")
        np.testing.assert_allclose(old.as_numpy("probabilities"), expected(folder, "old", images), atol=1e-6)
        np.testing.assert_allclose(new.as_numpy("probabilities"), expected(folder, "new", images), atol=1e-6)

    @pytest.mark.parametrize("sent", [None, "gzip", "deflate"])
    @pytest.mark.parametrize("back", [None, "gzip", "deflate"])
    def test_compression(
        self,
        client: triton.InferenceServerClient,
        folder: Path,
        sent: str | None,
        back: str | None,
    ) -> None:
        images = np.zeros((20, *SHAPE), np.float32)
        result = client.infer(
            "net",
            [tensor(images)],
            outputs=[triton.InferRequestedOutput("probabilities", binary_data=False)],
            request_compression_algorithm=sent,
            response_compression_algorithm=back,
        )
        np.testing.assert_allclose(
            result.as_numpy("probabilities"), expected(folder, "new", images), atol=1e-6
        )

    def test_large_replies_are_compressed(self, server: Server, images: np.ndarray) -> None:
        request = {"instances": np.zeros((20, *SHAPE)).tolist()}
        for encoding in ("gzip", "deflate"):
            answer = requests.post(
                f"{server.url}/v1/models/net:predict", json=request, headers={"Accept-Encoding": encoding}
            )
            assert answer.headers["content-encoding"] == encoding
            assert len(answer.json()["predictions"]) == 20
        plain = requests.post(
            f"{server.url}/v1/models/net:predict", json=request, headers={"Accept-Encoding": "identity"}
        )
        assert "content-encoding" not in plain.headers

    @pytest.mark.parametrize("binary", [True, False])
    def test_classification(
        self, client: triton.InferenceServerClient, folder: Path, images: np.ndarray, binary: bool
    ) -> None:
        wanted = triton.InferRequestedOutput("probabilities", binary_data=binary, class_count=2)
        found = client.infer("net", [tensor(images)], outputs=[wanted]).as_numpy("probabilities")
        assert found.shape == (3, 2)
        for row, probabilities in zip(found, expected(folder, "new", images), strict=True):
            for text, index in zip(row, np.argsort(-probabilities)[:2], strict=True):
                value, number, label = (text.decode() if binary else text).split(":")
                assert (int(number), label) == (index, CLASS_NAMES[index])
                assert float(value) == pytest.approx(probabilities[index], abs=1e-5)

    def test_foreign_model(self, client: triton.InferenceServerClient, folder: Path) -> None:
        """NCHW, other names, logits, a batch size of one: as the file has them, in batches of any size."""
        images = np.random.default_rng(0).random((5, 1, 6, 10), np.float32)
        result = client.infer("foreign", [tensor(images, "x")])
        np.testing.assert_allclose(result.as_numpy("scores"), expected(folder, "foreign", images), atol=1e-5)

    @pytest.mark.parametrize("binary", [True, False])
    def test_pixels(self, client: triton.InferenceServerClient, folder: Path, binary: bool) -> None:
        images = np.random.default_rng(0).integers(0, 256, (2, *SHAPE), np.uint8)
        result = client.infer("pixels", [tensor(images, kind="UINT8", binary=binary)])
        np.testing.assert_allclose(
            result.as_numpy("probabilities"), expected(folder, "pixels", images), atol=1e-5
        )

    def test_asynchronous(self, server: Server, folder: Path, images: np.ndarray) -> None:
        with triton.InferenceServerClient(server.address, concurrency=4) as many:
            waiting = [many.async_infer("net", [tensor(images[index % 3][None])]) for index in range(12)]
            rows = [item.get_result().as_numpy("probabilities")[0] for item in waiting]
        wanted = expected(folder, "new", images)
        for index, row in enumerate(rows):
            np.testing.assert_allclose(row, wanted[index % 3], atol=1e-6)

    def test_statistics(self, client: triton.InferenceServerClient, images: np.ndarray) -> None:
        def count() -> int:
            return client.get_inference_statistics("net", "1")["model_stats"][0]["inference_count"]

        before = count()
        client.infer("net", [tensor(images)], model_version="1")
        assert count() == before + 3

    def test_errors_reach_the_client(self, client: triton.InferenceServerClient, images: np.ndarray) -> None:
        with pytest.raises(
            InferenceServerException, match="no model 'nothing'; served are net, foreign"
        ) as caught:
            client.infer("nothing", [tensor(images)])
        assert caught.value.status() == "404"
        with pytest.raises(InferenceServerException, match="expected datatype|expected 'FP32'"):
            client.infer("net", [tensor(images.astype(np.float64), kind="FP64")])


class TestTensorFlowServing:
    """The REST API of TensorFlow Serving."""

    def predict(self, server: Server, body: Any, path: str = "net") -> requests.Response:
        return requests.post(f"{server.url}/v1/models/{path}:predict", json=body)

    def test_forms(self, server: Server, folder: Path, images: np.ndarray) -> None:
        wanted = expected(folder, "new", images)
        values = images.tolist()
        for body, key in (
            ({"instances": values}, "predictions"),
            ({"instances": [{"image": value} for value in values]}, "predictions"),
            ({"instances": values, "signature_name": "serving_default"}, "predictions"),
            ({"inputs": values}, "outputs"),
            ({"inputs": {"image": values}}, "outputs"),
        ):
            answer = self.predict(server, body)
            assert answer.status_code == 200, answer.text
            assert list(answer.json()) == [key]
            np.testing.assert_allclose(answer.json()[key], wanted, atol=1e-6)

    def test_versions(self, server: Server, folder: Path, images: np.ndarray) -> None:
        answer = self.predict(server, {"instances": images.tolist()}, "net/versions/1")
        np.testing.assert_allclose(answer.json()["predictions"], expected(folder, "old", images), atol=1e-6)

    def test_status_and_metadata(self, server: Server) -> None:
        status = requests.get(f"{server.url}/v1/models/net").json()["model_version_status"]
        assert [(item["version"], item["state"]) for item in status] == [
            ("1", "AVAILABLE"),
            ("2", "AVAILABLE"),
        ]
        metadata = requests.get(f"{server.url}/v1/models/net/versions/1/metadata").json()
        assert metadata["model_spec"] == {"name": "net", "signature_name": "", "version": "1"}
        signature = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]
        assert signature["inputs"]["image"]["dtype"] == "DT_FLOAT"
        assert [axis["size"] for axis in signature["inputs"]["image"]["tensor_shape"]["dim"]] == [
            "-1",
            "8",
            "8",
            "3",
        ]

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            ({}, "neither of 'instances' and 'inputs'"),
            ({"instances": [], "inputs": []}, "both of"),
            ({"instances": []}, "at least one image"),
            ({"instances": 3}, "at least one image"),
            ({"instances": [{"b64": "aGVsbG8="}]}, "b64 values are not supported"),
            ({"instances": [{"image": {"b64": "aGVsbG8="}}]}, "b64 values are not supported"),
            ({"inputs": {"b64": "aGVsbG8="}}, "b64 values are not supported"),
            ({"instances": [{"picture": [0]}]}, "expected of each image its array"),
            ({"inputs": {"picture": [0]}}, "expected ['image']"),
            ({"instances": [[1, 2], [3]]}, "unequal length"),
            ({"instances": [["a"]]}, "something else than numbers"),
            ({"instances": [[None]]}, "something else than numbers"),
            ({"instances": [[[[1, 2, 3]]]]}, "found shape [1, 1, 1, 3]; expected [-1, 8, 8, 3]"),
            ({"instances": [0], "signature_name": "other"}, "no signature 'other'"),
        ],
    )
    def test_bad_bodies(self, server: Server, body: Any, message: str) -> None:
        answer = self.predict(server, body)
        assert answer.status_code == 400
        assert message in answer.json()["error"]


class TestClassify:
    """Pictures."""

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
    def test_picture(self, server: Server, folder: Path, kind: str) -> None:
        data = picture_bytes(picture((30, 20)), kind)
        answer = requests.post(f"{server.url}/classify", data=data, headers={"Content-Type": "image/x"})
        assert answer.status_code == 200
        found = answer.json()
        assert (found["model"], found["version"]) == ("net", "2")
        classifier = Classifier.load(folder / "new.onnx")
        wanted = classifier.classify(load_image(data, SHAPE)[None])[0]
        assert [item["index"] for item in found["classes"]] == np.argsort(-wanted).tolist()
        for item in found["classes"]:
            assert item["label"] == CLASS_NAMES[item["index"]]
            assert item["probability"] == pytest.approx(wanted[item["index"]], abs=1e-6)

    def test_form_model_and_count(self, server: Server, folder: Path) -> None:
        data = picture_bytes(picture((10, 6), "L"))
        answer = requests.post(
            f"{server.url}/classify",
            params={"model": "foreign", "top_k": 2},
            files={"any": ("é.png", data)},
            data={"field": "ignored"},
        )
        assert answer.status_code == 200, answer.text
        classifier = Classifier.load(folder / "foreign.onnx")
        wanted = classifier.classify(load_image(data, (6, 10, 1))[None])[0]
        assert wanted.sum() == pytest.approx(1, abs=1e-5)  # the file gives logits
        found = answer.json()["classes"]
        assert [item["index"] for item in found] == np.argsort(-wanted)[:2].tolist()
        assert found[0]["probability"] == pytest.approx(wanted.max(), abs=1e-5)

    def test_version(self, server: Server) -> None:
        answer = requests.post(
            f"{server.url}/classify?version=1&top_k=1", data=picture_bytes(picture())
        ).json()
        assert answer["version"] == "1"
        assert len(answer["classes"]) == 1

    @pytest.mark.parametrize(
        ("query", "body", "status", "message"),
        [
            ("", b"", 415, "0 bytes"),
            ("", b"hello", 415, "no JPEG, PNG, WEBP, BMP, GIF or TIFF picture"),
            ("", b"\x89PNG\r\n\x1a\n" + b"x" * 100, 415, "are no JPEG, PNG, WEBP"),
            ("", b"\xff\xd8\xff\xe0" + b"x" * 100, 415, "are no JPEG, PNG, WEBP"),
            ("", picture_bytes(picture(), "PPM"), 415, "are no JPEG, PNG, WEBP"),
            ("", picture_bytes(picture((99, 99)), "GIF")[:2000], 400, "GIF picture is damaged or cut off"),
            ("", picture_bytes(picture((99, 99)), "BMP")[:2000], 400, "BMP picture is damaged or cut off"),
            ("", picture_bytes(picture((99, 99)))[:5000], 400, "PNG picture is damaged or cut off"),
            ("", picture_bytes(picture((99, 99)), "JPEG")[:1000], 400, "JPEG picture is damaged or cut off"),
            (
                "",
                picture_bytes(Image.new("L", (1000, 1000))),
                413,
                "1000 x 1000 pixels; accepted are 100,000",
            ),
            ("", picture_bytes(Image.new("1", (20000, 20000))), 413, "pixels"),
            ("?model=nothing", picture_bytes(picture()), 404, "no model 'nothing'"),
            ("?version=9", picture_bytes(picture()), 404, "no version '9'; it has 1, 2"),
            ("?top_k=0", picture_bytes(picture()), 400, "top_k"),
            ("?top_k=many", picture_bytes(picture()), 400, "top_k"),
        ],
    )
    def test_bad_pictures(self, server: Server, query: str, body: bytes, status: int, message: str) -> None:
        answer = requests.post(f"{server.url}/classify{query}", data=body)
        assert (answer.status_code, message in answer.json()["error"]) == (status, True), answer.text

    def test_bad_forms(self, server: Server) -> None:
        url = f"{server.url}/classify"
        data = picture_bytes(picture())
        two = requests.post(url, files=[("a", ("a.png", data)), ("b", ("b.png", data))])
        assert (two.status_code, "2 files" in two.text) == (400, True)
        none = requests.post(url, files={"a": (None, "text")})
        assert (none.status_code, "0 files" in none.text) == (400, True)
        many = requests.post(url, files=[("a", (None, "x"))] * 20 + [("b", ("b.png", data))])
        assert (many.status_code, "21 parts; accepted are 20" in many.text) == (400, True)
        few = requests.post(url, files=[("a", (None, "x"))] * 19 + [("b", ("b.png", data))])
        assert few.status_code == 200
        for content_type, body in (
            ("multipart/form-data", data),
            ("multipart/mixed; boundary=x", data),
            ("multipart/form-data; boundary=x", data),
            ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n12'),
        ):
            answer = requests.post(url, data=body, headers={"Content-Type": content_type})
            assert answer.status_code == 400, (content_type, answer.text)


def header_of(length: Any) -> dict[str, str]:
    return {"Inference-Header-Content-Length": str(length)}


def request_of(**changes: Any) -> dict[str, Any]:
    """Returns a good JSON request but for what is changed in its input."""
    value = {"name": "image", "shape": [1, 8, 8, 3], "datatype": "FP32", "data": [0.5] * 192}
    return {"inputs": [{**value, **changes}]}


def binary_body(size: Any, data: bytes, **changes: Any) -> tuple[bytes, dict[str, str]]:
    """Returns the body and headers of a binary request."""
    request = request_of(parameters={"binary_data_size": size}, **changes)
    del request["inputs"][0]["data"]
    header = json.dumps(request).encode()
    return header + data, header_of(len(header))


PIXELS = np.full(192, 0.5, "<f4").tobytes()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 900, "not valid JSON"),
        (b"[" * 100_000, "more arrays than its numbers need"),
        (b'{"inputs": [' + b"[]," * 2000 + b"0]}", "more arrays than its numbers need"),
        (b'{"inputs": [' + b"0," * 10_000 + b"0]}", "has 10,001 numbers, more than 20 images have"),
        (b"[1]", "JSON array; expected an object"),
        (b"null", "JSON null; expected an object"),
        ({}, "'inputs': expected an array"),
        ({"inputs": {}}, "'inputs': expected an array"),
        ({"inputs": [1]}, "'inputs': expected an array"),
        ({"inputs": []}, "found inputs []; expected ['image']"),
        ({"inputs": request_of()["inputs"] * 2}, "expected ['image']"),
        (request_of(name="picture"), "expected ['image']"),
        (request_of(name=None), "expected ['image']"),
        (request_of(datatype="FP64"), "found datatype 'FP64'; expected 'FP32'"),
        (request_of(datatype=7), "found datatype 7"),
        (request_of(shape=[1, 8, 8]), "found shape [1, 8, 8]; expected [-1, 8, 8, 3]"),
        (request_of(shape=[1, 3, 8, 8]), "expected [-1, 8, 8, 3]"),
        (request_of(shape=[0, 8, 8, 3], data=[]), "found 0 images; accepted are 1 to 20"),
        (request_of(shape=[21, 8, 8, 3]), "found 21 images; accepted are 1 to 20"),
        (request_of(shape=[-1, 8, 8, 3]), "not an array of whole numbers"),
        (request_of(shape=[1.0, 8, 8, 3]), "not an array of whole numbers"),
        (request_of(shape=[True, 8, 8, 3]), "not an array of whole numbers"),
        (request_of(shape=[2**40, 8, 8, 3]), "not an array of whole numbers"),
        (request_of(shape="8"), "not an array of whole numbers"),
        (request_of(data=[0.5] * 191), "'data' has shape [191]"),
        (request_of(data=[[0.5] * 96] * 2), "'data' has shape [2, 96]"),
        (request_of(data=None), "expected an array of numbers"),
        (request_of(data="0" * 192), "expected an array of numbers"),
        (request_of(data=["0.5"] * 192), "something else than numbers"),
        (request_of(data=[True] * 192), "something else than numbers"),
        (request_of(data=[[1], [1, 2]]), "unequal length"),
        (request_of(data=[0.5] * 191 + [1e300]), "NaN or infinity"),
        (json.dumps(request_of(data=[float("nan")] * 192)).encode(), "not valid JSON"),
        (request_of(data=[255.0] * 192), "found values from 255 to 255; expected 0 to 1"),
        (request_of(data=[-1.5] * 192), "expected 0 to 1"),
        (request_of(data=[-0.21] + [0.5] * 191), "found values from -0.21 to 0.5; expected 0 to 1"),
        (request_of(data=[1.21] + [0.5] * 191), "found values from 0.5 to 1.21; expected 0 to 1"),
        (request_of(parameters=[]), "'parameters': expected an object"),
        (request_of(parameters={"shared_memory_region": "x"}), "shared memory is not supported"),
        (request_of(parameters={"binary_data_size": 768}), "0 bytes follow the JSON part"),
        ({**request_of(), "outputs": [{"name": "logits"}]}, "it has ['probabilities']"),
        ({**request_of(), "outputs": 5}, "'outputs': expected an array"),
        (
            {**request_of(), "outputs": [{"name": "probabilities", "parameters": {"binary_data": 1}}]},
            "binary_data",
        ),
        (
            {**request_of(), "outputs": [{"name": "probabilities", "parameters": {"classification": -1}}]},
            "'classification'",
        ),
        ({**request_of(), "parameters": {"timeout": "soon"}}, "microseconds"),
        ({**request_of(), "parameters": {"timeout": -5}}, "microseconds"),
        (binary_body(768, PIXELS[:-4]), "764 bytes follow the JSON part"),
        (binary_body(768, PIXELS + b"1234"), "772 bytes follow the JSON part"),
        (binary_body(764, PIXELS), "binary_data_size is 764"),
        (binary_body("768", PIXELS), "binary_data_size is '768'"),
        (binary_body(-1, PIXELS), "binary_data_size is -1"),
        (binary_body(None, PIXELS), "without binary_data_size"),
        (binary_body(768, np.full(192, np.nan, "<f4").tobytes()), "NaN or infinity"),
        (binary_body(768, np.full(192, -np.inf, "<f4").tobytes()), "NaN or infinity"),
        ((b"{}", header_of(3)), "Inference-Header-Content-Length"),
        ((b"{}", header_of(-1)), "Inference-Header-Content-Length"),
        ((b"{}", header_of("two")), "Inference-Header-Content-Length"),
        ((b"{}", header_of("1" * 5000)), "Inference-Header-Content-Length: found '11111111111111111111'"),
        ((b"{}", header_of("0" * 5000)), "Inference-Header-Content-Length"),
        ((b"{}" + PIXELS, header_of(5)), "not valid JSON"),
        ((b"nothing", {"Content-Encoding": "gzip"}), "not valid gzip data"),
        ((gzip.compress(b"{}")[:-5], {"Content-Encoding": "gzip"}), "cut off"),
        ((zlib.compress(b"{}") + b"more", {"Content-Encoding": "deflate"}), "followed by other bytes"),
    ],
)
def test_bad_inference_requests(server: Server, body: Any, message: str) -> None:
    headers: dict[str, str] = {}
    if isinstance(body, tuple):
        body, headers = body
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    answer = requests.post(f"{server.url}/v2/models/net/infer", data=data, headers=headers)
    assert answer.status_code == 400, answer.text
    assert message in answer.json()["error"]


def test_good_ones_like_the_bad(server: Server) -> None:
    """The requests that the table above changes are answered when nothing is changed."""
    url = f"{server.url}/v2/models/net/infer"
    assert requests.post(url, json=request_of()).status_code == 200
    body, headers = binary_body(768, PIXELS)
    assert requests.post(url, data=body, headers=headers).status_code == 200
    assert requests.post(url, json=request_of(data=[-0.19, 1.19] * 96)).status_code == 200
    nested = request_of(data=np.full((1, 8, 8, 3), 0.5).tolist())
    assert requests.post(url, json=nested).json() == requests.post(url, json=request_of()).json()
    raw = zlib.compressobj(wbits=-15)
    for data, encoding in (
        (zlib.compress(json.dumps(request_of()).encode()), "deflate"),
        (raw.compress(json.dumps(request_of()).encode()) + raw.flush(), "deflate"),
    ):
        assert requests.post(url, data=data, headers={"Content-Encoding": encoding}).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/nothing", 404, "no such path"),
        ("GET", "/../../etc/passwd", 404, "no such path"),
        ("GET", "/page.css/../../server.py", 404, "no such path"),
        ("GET", "/v2/models/net/versions/9", 404, "no version '9'; it has 1, 2"),
        ("POST", "/v2/models/net/versions/9/infer", 404, "no version '9'"),
        ("POST", "/v2/models/nothing/infer", 404, "no model 'nothing'"),
        ("POST", "/v1/models/nothing:predict", 404, "no model 'nothing'"),
        ("POST", "/v1/models/net/versions/9:predict", 404, "no version '9'"),
        ("POST", "/v1/models/net:regress", 404, "no such path"),
        ("GET", "/models/foreign/normal.svg", 404, "no genotype"),
        ("GET", "/v2/models/net/infer", 405, "accepted here is POST"),
        ("DELETE", "/v2/models/net", 405, "accepted here is GET"),
        ("PUT", "/classify", 405, "accepted here is POST"),
    ],
)
def test_bad_paths(server: Server, method: str, path: str, status: int, message: str) -> None:
    request = requests.Request(method, server.url).prepare()
    request.url = server.url + path  # as it is, not tidied up
    answer = requests.Session().send(request)
    assert answer.status_code == status
    assert message in answer.json()["error"]
    if status == 405:
        assert answer.headers["allow"] in message


def test_too_large(server: Server) -> None:
    url = f"{server.url}/v2/models/net/infer"
    # 20 images of 192 numbers of 32 bytes, and 64 KiB.
    announced = requests.post(url, data=b"x" * (188_416 + 1))
    assert (announced.status_code, "188,416 bytes at most" in announced.text) == (413, True)
    chunked = requests.post(url, data=iter([b"x" * 2**16] * 5))
    assert chunked.status_code == 413
    picture_file = requests.post(f"{server.url}/classify", data=b"x" * (2**20 + 1))
    assert (picture_file.status_code, "1,048,576 bytes at most" in picture_file.text) == (413, True)
    index = requests.post(f"{server.url}/v2/repository/index", data=b"x" * 70_000)
    assert (index.status_code, "65,536 bytes at most" in index.text) == (413, True)
    bomb = requests.post(url, data=gzip.compress(bytes(2**24)), headers={"Content-Encoding": "gzip"})
    assert (bomb.status_code, "decompresses to over" in bomb.text) == (413, True)
    other = requests.post(url, data=b"{}", headers={"Content-Encoding": "br"})
    assert (other.status_code, "accepted are gzip and deflate" in other.text) == (415, True)


def test_refused_requests_keep_the_connection(server: Server) -> None:
    """Also when their bodies come after the answer could have been given; large ones end it, and say so."""
    connection = http.client.HTTPConnection(server.host, server.port, timeout=60)
    for path, size, closed in (
        ("/nothing", 900, False),
        ("/nothing", 60_000, False),
        ("/nothing", 70_000, True),
    ):
        for _ in range(1 if closed else 5):
            connection.putrequest("POST", path)
            connection.putheader("Content-Length", str(size))
            connection.endheaders()
            time.sleep(0.02)
            with contextlib.suppress(ConnectionError):
                connection.send(b"x" * size)
            answer = connection.getresponse()
            assert (answer.status, answer.getheader("connection") == "close") == (404, closed)
            assert b"no such path" in answer.read()


def test_not_http(server: Server) -> None:
    for garbage in (
        b"\x16\x03\x01\x00\xa5\x01\x00",
        b"GET\r\n\r\n",
        b"\x00" * 100,
        b"POST / HTTP/9.9\r\n\r\n",
    ):
        with socket.create_connection((server.host, server.port)) as connection:
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(30)
            assert b" 200 " not in connection.recv(1000)
    assert requests.get(f"{server.url}/v2/health/live").status_code == 200


def test_page_models_and_drawings(server: Server, folder: Path) -> None:
    page = requests.get(server.url)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for path in ("page.css", "page.js", "icon.svg"):
        assert requests.get(f"{server.url}/{path}").status_code == 200
    assert requests.head(server.url).status_code == 200
    models = requests.get(f"{server.url}/models").json()["models"]
    new = next(model for model in models if (model["name"], model["version"]) == ("net", "2"))
    assert new["figures"] == {"accuracy": 0.9712, "parameters": 1234}
    for cell in new["cells"]:
        drawing = requests.get(f"{server.url}/models/net/versions/2/{cell}.svg")
        assert drawing.headers["content-type"] == "image/svg+xml"
        assert "<svg" in drawing.text
        assert str(folder) not in drawing.text


def test_metrics(server: Server, client: triton.InferenceServerClient, images: np.ndarray) -> None:
    def read() -> dict[str, float]:
        lines = requests.get(f"{server.url}/metrics").text.splitlines()
        return {
            name: float(value)
            for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")
        }

    before = read()
    client.infer("net", [tensor(images)])
    requests.post(f"{server.url}/v1/models/net:predict", data=b"{")
    after = read()

    def grown(name: str) -> float:
        return after[name] - before.get(name, 0)

    assert grown('gdas_tf_images_total{model="net",version="2"}') == 3
    assert grown('gdas_tf_requests_total{api="v2",code="200"}') == 1
    assert grown('gdas_tf_requests_total{api="v1",code="400"}') == 1
    assert grown('gdas_tf_batch_images_sum{model="net",version="2"}') == 3
    assert after['gdas_tf_queue_images{model="net",version="2"}'] == 0
    assert after["process_resident_memory_bytes"] > 1e7


def test_no_path_of_the_server_in_an_answer(server: Server, folder: Path) -> None:
    for path in (
        "/models",
        "/v2",
        "/v2/models/net",
        "/v2/models/net/config",
        "/v1/models/net",
        "/metrics",
        "/x",
    ):
        text = requests.get(server.url + path).text
        assert "secret-folder" not in text
        assert str(Path(__file__).parents[3]) not in text


def test_token(folder: Path, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("open sesame is no token\n")
    from gdas_tf.cli.main import main

    assert main(["serve", str(folder / "new.onnx"), "--token-file", str(token)]) == 2
    token.write_text("s3cret\n")
    with serving(folder / "new.onnx", "--token-file", token) as server:
        for path in ("/", "/page.js", "/page.css", "/icon.svg", "/v2/health/live", "/v2/health/ready"):
            assert requests.get(server.url + path).status_code == 200
        for path in ("/models", "/metrics", "/v2", "/v2/models/new", "/v1/models/new", "/nothing"):
            assert requests.get(server.url + path).status_code == 401
            for wrong in (
                "s3cret",
                "Bearer",
                "Bearer s3cre",
                "Bearer s3cret2",
                "Basic s3cret",
                "Bearer \xe9",
            ):
                answer = requests.get(server.url + path, headers={"Authorization": wrong.encode("latin-1")})
                assert answer.status_code == 401, wrong
                assert answer.headers["www-authenticate"] == "Bearer"
                assert "s3cret" not in answer.text.replace(wrong, "")
        good = {"Authorization": "Bearer s3cret"}
        assert requests.get(f"{server.url}/models", headers=good).status_code == 200
        assert requests.get(f"{server.url}/nothing", headers=good).status_code == 404
        with triton.InferenceServerClient(server.address) as client:
            assert client.get_model_metadata("new", headers=good)["name"] == "new"


class TestUnderPressure:
    """A slow model with a short queue."""

    @staticmethod
    def ask(server: Server, timeout: int | None = None) -> requests.Response:
        request = {
            "inputs": [
                {
                    "name": "image",
                    "shape": [1, 64, 64, 3],
                    "datatype": "FP32",
                    "parameters": {"binary_data_size": 64 * 64 * 12},
                }
            ]
        }
        if timeout is not None:
            request["parameters"] = {"timeout": timeout}
        header = json.dumps(request).encode()
        return requests.post(
            f"{server.url}/v2/models/slow/infer",
            data=header + bytes(64 * 64 * 12),
            headers=header_of(len(header)),
        )

    def together(self, server: Server, count: int) -> list[requests.Response]:
        answers: list[requests.Response] = []
        threads = [threading.Thread(target=lambda: answers.append(self.ask(server))) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return answers

    def test_full_queue(self, slow: Server) -> None:
        answers = self.together(slow, 40)
        busy = [answer for answer in answers if answer.status_code == 503]
        assert busy
        assert {answer.status_code for answer in answers} == {200, 503}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in busy)
        assert all("the queue is full" in answer.json()["error"] for answer in busy)
        assert self.ask(slow).status_code == 200

    def test_deadline(self, slow: Server) -> None:
        answer = self.ask(slow, timeout=1)
        assert answer.status_code == 504
        assert "no answer within 1e-06 seconds" in answer.json()["error"]
        assert self.ask(slow, timeout=30_000_000).status_code == 200

    def test_health_while_busy(self, slow: Server) -> None:
        done = threading.Event()

        def load() -> None:
            self.together(slow, 8)
            done.set()

        thread = threading.Thread(target=load)
        thread.start()
        while not done.is_set():
            assert requests.get(f"{slow.url}/v2/health/ready").status_code == 200
        thread.join()

    def test_shutdown_finishes_what_was_accepted(self, tmp_path: Path) -> None:
        path = make_model(tmp_path / "slow.onnx", (64, 64, 3), width=64, depth=SLOW)
        with serving(path, "--max-batch-size", "1", "--deadline", "60") as server:
            answers: list[requests.Response] = []
            threads = [threading.Thread(target=lambda: answers.append(self.ask(server))) for _ in range(20)]
            for thread in threads:
                thread.start()
            idle = 'gdas_tf_queue_images{model="slow",version="1"} 0.0'
            wait_until(lambda: idle not in requests.get(f"{server.url}/metrics").text)
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: requests.get(f"{server.url}/v2/health/ready").status_code == 503, 0.001)
            for thread in threads:
                thread.join()
            assert [answer.status_code for answer in answers] == [200] * 20
            server.process.wait(60)


def test_clients_on_kept_connections_lose_nothing(folder: Path) -> None:
    """Before the server goes away it says so in an answer, and only then closes the connection."""
    with serving(folder / "new.onnx") as server:
        codes: list[int] = []
        farewells = [0]

        def work() -> None:
            with requests.Session() as session:
                while True:
                    answer = session.post(f"{server.url}/v2/models/new/infer", json=request_of())
                    codes.append(answer.status_code)
                    if answer.headers.get("connection") == "close":
                        farewells[0] += 1
                        return

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(codes) >= 50, 0.001)
        server.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        server.process.wait(60)
    assert farewells == [4]
    assert set(codes) == {200}


def test_body_reader() -> None:
    """Slow bodies, and bodies that together are too large."""

    def receiver(*messages: dict[str, Any]) -> Callable[[], Any]:
        waiting = list(messages)

        async def receive() -> dict[str, Any]:
            if not waiting:
                await asyncio.sleep(3600)
            return waiting.pop(0)

        return receive

    async def test() -> None:
        reader = BodyReader(max_total_bytes=150, timeout=0.05, threads=threads)
        part = {"type": "http.request", "body": b"x" * 60, "more_body": True}
        with pytest.raises(HttpError) as caught:
            await reader.read({}, receiver(part), 100)
        assert caught.value.status == 408
        with pytest.raises(HttpError) as caught:
            await reader.read({}, receiver(part, part), 100)
        assert caught.value.status == 413
        whole = {**part, "more_body": False}
        bodies = [await reader.read({}, receiver(whole), 100) for _ in range(2)]
        with pytest.raises(HttpError) as caught:
            await reader.read({}, receiver(whole), 100)
        assert caught.value.status == 503
        for body in bodies:
            reader.release(body)
        packed = gzip.compress(b"y" * 90)
        body = await reader.read(
            {b"content-encoding": b"gzip"}, receiver({"type": "http.request", "body": packed}), 100
        )
        assert body == b"y" * 90
        reader.release(body)
        assert await reader.read({}, receiver(whole), 100) == whole["body"]

        # Told to hurry, it waits no longer for a body that is under way either.
        patient = BodyReader(max_total_bytes=150, timeout=3600, threads=threads)
        waiting = asyncio.create_task(patient.read({}, receiver(part), 100))
        await asyncio.sleep(0.01)
        patient.hurry(0.05)
        with pytest.raises(HttpError) as caught:
            await waiting
        assert caught.value.status == 408

    with ThreadPoolExecutor(1) as threads:
        asyncio.run(asyncio.wait_for(test(), 60))


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        (b"gzip, deflate, br", b"gzip"),
        (b"GZIP;q=0.5", b"gzip"),
        (b"gzip;q=0, deflate; q=0.8", b"deflate"),
        (b"gzip; q=0.000, br", None),
        (b"", None),
    ],
)
def test_compression_is_what_the_client_accepts(accepted: bytes, encoding: bytes | None) -> None:
    packed = compress(Reply(b"x" * 2000), accepted)
    assert dict(packed.headers).get(b"content-encoding") == encoding
    assert (len(packed.body) < 2000) == (encoding is not None)


def test_addresses(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from gdas_tf.cli.main import main
    from gdas_tf.export.serving.server import is_loopback

    assert all(map(is_loopback, ("127.0.0.1", "::1", "localhost", "127.8.8.8")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.2", "example.org")))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["serve", str(folder / "new.onnx"), "--port", port]) == 1
    assert f"port {port}: Address already in use; choose another --port" in capfd.readouterr().err
    assert main(["serve", str(folder / "new.onnx"), "--host", "no.such.host.invalid", "--port", "0"]) == 2


def test_without_tensorflow(folder: Path) -> None:
    code = (
        "import sys, gdas_tf.cli.serve, gdas_tf.cli.predict, gdas_tf.export.serving.server;"
        "from gdas_tf.export.inference import Classifier;"
        f"Classifier.load({str(folder / 'new.onnx')!r});"
        "print([name for name in ('tensorflow', 'keras', 'matplotlib') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
