"""`gdas-tf serve`: exported networks over HTTP."""

from __future__ import annotations

import argparse
import dataclasses
import os
from typing import TYPE_CHECKING, Any

from gdas_tf.cli import options
from gdas_tf.cli.classifier_options import add_input_options, input_options, positive
from gdas_tf.cli.console import print_result, say
from gdas_tf.errors import UsageError

if TYPE_CHECKING:
    from gdas_tf.export.serving.served_model import ServedModel

_TOKEN_VARIABLE = "GDAS_TF_TOKEN"

_DESCRIPTION = """\
Serves ONNX image classifiers over HTTP: the Open Inference Protocol v2 (KServe, Triton clients), TensorFlow
Serving's REST predict, pictures to POST /classify, and a page to drop pictures on. Requests that come
together are run together. SIGTERM or Ctrl-C stops it after what it accepted is answered."""

_EXAMPLES = """\
  gdas-tf serve runs/digits-quick
  gdas-tf serve digits=runs/digits-quick cifar=model.onnx --port 9000
  gdas-tf serve digits=old.onnx digits=new.onnx             two versions; the last is the default
  gdas-tf serve resnet50.onnx --layout nchw --class-names imagenet.txt \\
      --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225
  curl --data-binary @cat.png http://127.0.0.1:8000/classify
"""


def add_parser(subparsers: Any) -> None:
    """Adds the subcommand's options."""
    parser = options.add_command(subparsers, "serve", "MODEL ...", _DESCRIPTION, _EXAMPLES)
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="ONNX file, run directory, folder of versions (1/model.onnx, …) or of such folders; "
        "NAME=MODEL or NAME:VERSION=MODEL names it",
    )
    group = parser.add_argument_group("server")
    group.add_argument(
        "--host", default="127.0.0.1", help="address to listen on [127.0.0.1, this machine only]"
    )
    group.add_argument("--port", type=_port, default=8000, help="TCP port; 0 for any free one [8000]")
    group.add_argument(
        "--token-file",
        metavar="FILE",
        help="file with the token that clients must send, as 'Authorization: Bearer TOKEN' "
        f"[${_TOKEN_VARIABLE}]",
    )
    group.add_argument(
        "--allowed-hosts",
        type=_names,
        default=(),
        metavar="NAME,…",
        help="without a token: names that the server is called by, as of a proxy before it "
        "[those of this machine's loopback and of --host]",
    )
    group.add_argument("--access-log", action="store_true", help="log each request on stderr")
    _add_number(
        group,
        "--processes",
        0,
        "server processes, each with the models; 0: one a core, 8 at most, if a core is enough for a batch",
        0,
    )
    group = parser.add_argument_group("batching")
    _add_number(group, "--max-batch-size", 16, "images of a batch, at most")
    _add_number(
        group, "--max-delay", 2.0, "milliseconds that a busy server waits for a batch to fill, at most", 0
    )
    _add_number(
        group,
        "--queue-size",
        0,
        "images accepted and not answered per model; beyond it clients get 503; "
        "0: in each process 4 requests of --max-images",
        0,
    )
    _add_number(group, "--deadline", 10.0, "seconds until a request is answered, else the client gets 504")
    _add_number(
        group, "--threads", 0, "threads of onnxruntime per model; 0: one or all cores, by its size", 0
    )
    group = parser.add_argument_group("limits")
    _add_number(group, "--max-images", 128, "images of a request")
    _add_number(
        group,
        "--max-body",
        32.0,
        "MiB of a request's body, also after decompression; less if the model needs less",
    )
    _add_number(group, "--max-pixels", 50.0, "millions of pixels of a picture")
    add_input_options(parser)
    options.add_common(parser)


def main(args: argparse.Namespace) -> int:
    """Serves."""
    try:
        from gdas_tf.export.serving import server, workers
    except ModuleNotFoundError as error:
        raise UsageError(f"serve: needs the package {error.name}; install gdas-tf[serve]") from error
    from gdas_tf.export.serving.application import Limits
    from gdas_tf.export.serving.metrics import Metrics
    from gdas_tf.export.serving.repository import find_models

    if args.processes > server.MAX_PROCESSES:
        raise UsageError(f"--processes {args.processes}: accepted are 0 to {server.MAX_PROCESSES}")
    token = _token(args.token_file)
    settings = server.ServerSettings(
        host=args.host,
        port=args.port,
        token=token,
        allowed_hosts=args.allowed_hosts,
        threads=args.threads,
        processes=args.processes,
        max_batch_size=args.max_batch_size,
        max_delay=args.max_delay / 1000,
        queue_size=args.queue_size,
        max_images=min(args.max_images, args.queue_size or args.max_images),
        deadline=args.deadline,
        limits=Limits(max_body=int(args.max_body * 2**20), max_pixels=int(args.max_pixels * 1e6)),
        access_log=args.access_log,
    )
    files = find_models(args.models)
    metrics = Metrics()
    # Other processes will do the work, but what is wrong with a model is said once.
    models = server.load_models(files, settings, metrics, input_options(args))
    held = server.reserve(args.host, args.port)
    url = server.url(held)
    if token is None and not server.is_loopback(args.host):
        say(f"warning: {args.host} is reached from other machines, and no token is set; see --token-file")
    count = settings.processes or server.default_processes(models)
    result = {
        "url": url,
        "processes": count,
        "models": [{"name": model.name, "version": model.version} for model in models],
    }
    text = _announcement(url, count, models)
    threads = settings.threads
    if count > 1 and not threads:
        threads = max(1, max(model.classifier.threads for model in models) // count)
    del models
    settings = dataclasses.replace(settings, processes=count, threads=threads)
    with held:
        complete = workers.serve(
            files, input_options(args), settings, held, lambda: print_result(args.json, result, text)
        )
    if not complete:
        say("stopped; what was under way is lost")
        return 1
    say("stopped; everything accepted is answered")
    return 0


def _announcement(url: str, processes: int, models: list[ServedModel]) -> str:
    how = f"{processes} processes; " if processes > 1 else ""
    lines = [f"serving at {url}/  ({how}Ctrl-C stops)"]
    for model in models:
        classifier = model.classifier
        shape = " x ".join(map(str, classifier.image_shape))
        lines.append(
            f"  {model.name}, version {model.version}: images {shape}, {len(classifier.class_names)} classes"
        )
    return "\n".join(lines)


def _token(path: str | None) -> str | None:
    """Returns the token in a file, or else in the environment.

    Raises:
        UsageError: it is empty or cannot be read.
    """
    if path is None:
        where, token = f"${_TOKEN_VARIABLE}", os.environ.get(_TOKEN_VARIABLE)
        if token is None:
            return None
    else:
        from gdas_tf.user_files import read_text

        where = f"--token-file {path}"
        token = read_text(path, where)
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(
            f"{where}: the token is empty or has spaces or other than printable ASCII characters"
        )
    return token


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"found {text!r}; expected 0 to 65535")
    return int(text)


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names or any("/" in name or " " in name for name in names):
        raise argparse.ArgumentTypeError(f"found {text!r}; expected names without http:// and port")
    return names


def _add_number(group: Any, flag: str, default: float, help: str, minimum: float = 1) -> None:
    kind = type(default)
    group.add_argument(
        flag,
        type=positive(kind, minimum if kind is int or minimum == 0 else 0.001),
        default=default,
        metavar="N" if kind is int else "X",
        help=f"{help} [{default:g}]",
    )
