"""The ASGI application: routes, authorisation, limits, errors, metrics."""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from typing import Any, NamedTuple

from gdas_tf.export.serving import classification, open_inference, tensorflow_serving
from gdas_tf.export.serving.drawings import CELLS, Drawings
from gdas_tf.export.serving.http import (
    BodyReader,
    Call,
    ClientGoneError,
    HttpError,
    Reply,
    compress,
    json_reply,
)
from gdas_tf.export.serving.metrics import CONTENT_TYPE, Metrics
from gdas_tf.export.serving.origins import Origins
from gdas_tf.export.serving.served_model import ServedModel

_log = logging.getLogger("gdas_tf.serve")

Handler = Callable[[Call], Awaitable[Reply]]
Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_PAGE_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE_FILES = {
    "/": ("index.html", b"text/html; charset=utf-8"),
    "/page.css": ("page.css", b"text/css; charset=utf-8"),
    "/page.js": ("page.js", b"text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", b"image/svg+xml"),
}
_SVG_POLICY = b"default-src 'none'; style-src 'unsafe-inline'"

_SMALL_BODY = 2**16
"""Bytes of a body where none is needed."""

_LAST_BODY_SECONDS = 5.0
"""After the server is told to end: seconds until a body has come in."""

_NO_SNIFFING = (b"x-content-type-options", b"nosniff")
_CLOSE = (b"connection", b"close")


@dataclass(frozen=True)
class Limits:
    """What a client may ask of the server.

    Args:
        max_body: bytes of a request's body, also after decompression; less where the model needs less.
        max_total_body: bytes of all bodies at a time.
        max_pixels: pixels of a picture.
        body_timeout: seconds until a body has come in.
    """

    max_body: int = 32 * 2**20
    max_total_body: int = 256 * 2**20
    max_pixels: int = 50_000_000
    body_timeout: float = 30.0


class _Route(NamedTuple):
    """What answers a method on a path.

    Args:
        handler: makes the reply.
        api: its name in the metrics.
        max_body: bytes of a body.
        public: whether it needs no token.
    """

    handler: Handler
    api: str
    max_body: int
    public: bool = False


class Application:
    """The server's ASGI application.

    All models are loaded before it starts, so that every path is known: a route is one look-up.

    Args:
        models: the models; the first is the one that /classify and the page take by default.
        metrics: counts what the server does.
        limits: what a client may ask.
        token: bearer token that every request but health and the page's own files must carry.
        origins: checks where requests without a token come from; None accepts all.
        decoders: pictures that are decoded at a time.
        closed: called when everything accepted is answered.
    """

    def __init__(
        self,
        models: Sequence[ServedModel],
        metrics: Metrics,
        limits: Limits,
        *,
        token: str | None = None,
        origins: Origins | None = None,
        decoders: int = 1,
        closed: Callable[[], None] = lambda: None,
    ) -> None:
        self.draining = False
        self._metrics = metrics
        self._limits = limits
        self._authorization = None if token is None else f"Bearer {token}".encode()
        self._origins = origins if token is None else None
        self._closed = closed
        self._decoders = ThreadPoolExecutor(decoders, thread_name_prefix="decoder")
        # One: two threads that make Python objects have Python's lock in turn, and the event loop seldom.
        self._parser = ThreadPoolExecutor(1, thread_name_prefix="parser")
        self._bodies = BodyReader(limits.max_total_body, limits.body_timeout, self._parser)
        self._all = list(models)
        self._models: dict[str, dict[str, ServedModel]] = {}
        for model in models:
            self._models.setdefault(model.name, {})[model.version] = model
        self._routes: dict[tuple[str, str], _Route] = {}
        self._add_routes()
        self._methods: dict[str, list[str]] = {}
        for method, path in self._routes:
            self._methods.setdefault(path, []).append(method)

    def drain(self) -> None:
        """Says goodbye from now on: in answers, and to those that ask whether the server is ready."""
        self.draining = True
        self._bodies.hurry(_LAST_BODY_SECONDS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, or takes part in start-up and shutdown."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        started = time.perf_counter()
        headers = dict(scope["headers"])
        api, body, refusal = "other", b"", None
        try:
            try:
                route = self._find_route(scope, headers)
            except HttpError as error:
                # A small body is read all the same: else granian could not keep the connection.
                refusal = error
                route = _Route(_raising(error), api, _SMALL_BODY)
            api = route.api
            body = await self._bodies.read(headers, receive, route.max_body)
            reply = await route.handler(Call(headers, body, scope["query_string"], self._parser))
            if b"accept-encoding" in headers:
                reply = compress(reply, headers[b"accept-encoding"])
        except HttpError as error:
            if refusal is not None and error is not refusal:
                error = HttpError(refusal.status, refusal.message, *refusal.headers, _CLOSE)
            reply = error.reply()
        except ClientGoneError:
            return
        except Exception:
            _log.exception("answering %s failed", api)
            reply = HttpError(500, "internal error; the server's log has more").reply()
        finally:
            self._bodies.release(body)
        # Before the answer goes out: who has it may ask another process for the count.
        self._metrics.request_done(api, reply.status, time.perf_counter() - started)
        await self._send(reply, send)

    async def _send(self, reply: Reply, send: Send) -> None:
        headers = [
            (b"content-type", reply.content_type),
            (b"content-length", str(len(reply.body)).encode()),
            _NO_SNIFFING,
            *reply.headers,
        ]
        if self.draining and _CLOSE not in headers:
            headers.append(_CLOSE)
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for model in self._all:
            await model.batcher.close()
        self._decoders.shutdown()
        self._parser.shutdown()
        self._closed()
        await send({"type": "lifespan.shutdown.complete"})

    def _find_route(self, scope: Scope, headers: Mapping[bytes, bytes]) -> _Route:
        """Returns the route of a request that may take it.

        Raises:
            HttpError: 401, 403, 404 or 405.
        """
        method, path = scope["method"], scope["path"]
        route = self._routes.get(("GET" if method == "HEAD" else method, path))
        if self._origins is not None and not (route and route.api == "health"):
            self._origins.check(headers)
        if self._authorization is not None and not (route and route.public):
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, self._authorization):
                raise HttpError(
                    401, "expected the header 'Authorization: Bearer TOKEN'", (b"www-authenticate", b"Bearer")
                )
        if route is not None:
            return route
        if path in self._methods:
            allowed = ", ".join(self._methods[path])
            raise HttpError(
                405, f"method {method[:20]}: accepted here is {allowed}", (b"allow", allowed.encode())
            )
        raise HttpError(404, self._explain_path(path))

    def _explain_path(self, path: str) -> str:
        """Returns what is wrong with a path that doesn't exist."""
        match path.split("/"):
            case ["", "v1" | "v2", "models", name, *rest] | ["", "models", name, *rest] if name:
                name, _, _ = name.partition(":")
                if name not in self._models:
                    return f"no model {name[:80]!r}; served are {', '.join(self._models)}"
                if len(rest) > 1 and rest[0] == "versions":
                    version = rest[1].partition(":")[0]
                    if version not in self._models[name]:
                        return self._no_version(name, version)
        return "no such path; docs/deploy.md lists them"

    def _no_version(self, name: str, version: str) -> str:
        return f"model {name!r} has no version {version[:20]!r}; it has {', '.join(self._models[name])}"

    def _add_routes(self) -> None:
        add = self._add
        for path, (name, content_type) in _PAGE_FILES.items():
            content = resources.files("gdas_tf.export.serving").joinpath("page", name).read_bytes()
            headers = ((b"content-security-policy", _PAGE_POLICY), (b"referrer-policy", b"no-referrer"))
            add("GET", path, "page", _always(Reply(content, 200, content_type, headers)), public=True)
        add("GET", "/v2/health/live", "health", self._live, public=True)
        add("GET", "/v2/health/ready", "health", self._ready, public=True)
        add("GET", "/metrics", "metrics", self._exposition)
        add("GET", "/models", "models", self._list_models)
        add("POST", "/classify", "classify", self._classify, self._limits.max_body)
        add("GET", "/v2", "v2", _always(json_reply(open_inference.server_metadata())))
        add("GET", "/v2/models/stats", "v2", self._statistics(self._all))
        add("POST", "/v2/repository/index", "v2", _always(json_reply(self._index())))
        for name, versions in self._models.items():
            self._add_model(name, versions, latest(versions))

    def _add_model(self, name: str, versions: dict[str, ServedModel], newest: ServedModel) -> None:
        """Adds the routes of a model; without a version they lead to the newest."""
        models = [("", newest), *((f"/versions/{version}", model) for version, model in versions.items())]
        drawings = {version: Drawings(model.classifier.genotype) for version, model in versions.items()}
        for suffix, model in models:
            add = self._add
            v1, v2 = f"/v1/models/{name}{suffix}", f"/v2/models/{name}{suffix}"
            max_body = min(model.max_body, self._limits.max_body)
            add("POST", f"{v2}/infer", "v2", _bound(open_inference.infer, model), max_body)
            add("GET", v2, "v2", _always(json_reply(open_inference.model_metadata(model, list(versions)))))
            add("GET", f"{v2}/ready", "v2", self._ready)
            add("GET", f"{v2}/config", "v2", _always(json_reply(open_inference.model_configuration(model))))
            chosen = [model] if suffix else list(versions.values())
            add("GET", f"{v2}/stats", "v2", self._statistics(chosen))
            add("POST", f"{v1}:predict", "v1", _bound(tensorflow_serving.predict, model), max_body)
            add("GET", v1, "v1", _always(json_reply(tensorflow_serving.status(chosen))))
            add("GET", f"{v1}/metadata", "v1", _always(json_reply(tensorflow_serving.metadata(model))))
            for cell in CELLS:
                path = f"/models/{name}{suffix}/{cell}.svg"
                add("GET", path, "page", _drawing(drawings[model.version], cell))

    def _add(
        self,
        method: str,
        path: str,
        api: str,
        handler: Handler,
        max_body: int = _SMALL_BODY,
        public: bool = False,
    ) -> None:
        self._routes[method, path] = _Route(handler, api, max_body, public)

    async def _live(self, call: Call) -> Reply:
        return Reply(b"{}")

    async def _ready(self, call: Call) -> Reply:
        if self.draining:
            raise HttpError(503, "the server is shutting down")
        return Reply(b"{}")

    async def _exposition(self, call: Call) -> Reply:
        return Reply(self._metrics.exposition(), 200, CONTENT_TYPE)

    async def _classify(self, call: Call) -> Reply:
        return await classification.classify(
            self._chosen_model(call.query), call, self._decoders, self._limits.max_pixels
        )

    def _chosen_model(self, query: Mapping[str, str]) -> ServedModel:
        """Returns the model that the parameters `model` and `version` name; by default the first, the newest.

        Raises:
            HttpError: 404, there is none.
        """
        name = query.get("model", self._all[0].name)
        versions = self._models.get(name)
        if versions is None:
            raise HttpError(404, f"no model {name[:80]!r}; served are {', '.join(self._models)}")
        version = query.get("version")
        if version is None:
            return latest(versions)
        if version not in versions:
            raise HttpError(404, self._no_version(name, version))
        return versions[version]

    def _index(self) -> list[dict[str, str]]:
        return [
            {"name": model.name, "version": model.version, "state": "READY", "reason": ""}
            for model in self._all
        ]

    def _statistics(self, models: Sequence[ServedModel]) -> Handler:
        async def handler(call: Call) -> Reply:
            return json_reply({"model_stats": [open_inference.model_statistics(model) for model in models]})

        return handler

    async def _list_models(self, call: Call) -> Reply:
        return json_reply({"models": [describe(model) for model in self._all]})


def latest(versions: Mapping[str, ServedModel]) -> ServedModel:
    """Returns the model of the highest version."""
    return versions[max(versions, key=int)]


def describe(model: ServedModel) -> dict[str, Any]:
    """Returns what the page shows of a model."""
    classifier, counts = model.classifier, model.statistics
    return {
        "name": model.name,
        "version": model.version,
        "image_shape": list(classifier.image_shape),
        "class_names": list(classifier.class_names),
        "file_size": classifier.file_size,
        "threads": classifier.threads,
        "figures": model.figures,
        "cells": list(CELLS) if classifier.genotype else [],
        "images": counts.images,
        "mean_batch": counts.images / counts.batches if counts.batches else None,
        "mean_seconds": counts.seconds / counts.batches if counts.batches else None,
    }


def _always(reply: Reply) -> Handler:
    async def handler(call: Call) -> Reply:
        return reply

    return handler


def _raising(error: HttpError) -> Handler:
    async def handler(call: Call) -> Reply:
        raise error

    return handler


def _bound(function: Callable[[ServedModel, Call], Awaitable[Reply]], model: ServedModel) -> Handler:
    def handler(call: Call) -> Awaitable[Reply]:
        return function(model, call)

    return handler


def _drawing(drawings: Drawings, cell: str) -> Handler:
    async def handler(call: Call) -> Reply:
        return Reply(
            await drawings.get(cell), 200, b"image/svg+xml", ((b"content-security-policy", _SVG_POLICY),)
        )

    return handler
