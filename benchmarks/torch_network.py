"""A derived GDAS network and its training step in PyTorch, as a PyTorch user would write them: the peer.

The layers, the recipe (drop-path, auxiliary head, clipping, SGD with Nesterov momentum) and the parameter
counts are those of `gdas_tf.networks.derived` and `gdas_tf.training.retraining`;
the code follows DARTS' public one.

It is driven through standard input and output, one JSON line each way, so that a benchmark can take turns
between it and another process: {"do": "step", "count": 3} answers with the seconds of each step.

Usage (in an environment with torch):  python torch_network.py '{"genotype": {…}, "batch": 96, …}'
"""

from __future__ import annotations

import contextlib
import json
import math
import resource
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F


class FactorizedReduce(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.even = nn.Conv2d(inputs, outputs // 2, 1, 2, bias=False)
        self.odd = nn.Conv2d(inputs, outputs - outputs // 2, 1, 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(x)
        return self.bn(torch.cat([self.even(x), self.odd(F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:])], 1))


def relu_conv_bn(inputs: int, outputs: int, size: int = 1, stride: int = 1) -> nn.Module:
    conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    return nn.Sequential(nn.ReLU(), conv, nn.BatchNorm2d(outputs))


def separable(c: int, size: int, stride: int, dilation: int) -> list[nn.Module]:
    depthwise = nn.Conv2d(c, c, size, stride, dilation * (size // 2), dilation, groups=c, bias=False)
    return [nn.ReLU(), depthwise, nn.Conv2d(c, c, 1, bias=False), nn.BatchNorm2d(c)]


def operation(name: str, c: int, stride: int) -> nn.Module:
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else FactorizedReduce(c, c)
    if name.startswith("sep_conv"):
        size = int(name[-1])
        return nn.Sequential(*separable(c, size, stride, 1), *separable(c, size, 1, 1))
    if name.startswith("dil_conv"):
        return nn.Sequential(*separable(c, int(name[-1]), stride, 2))
    if name.startswith("conv"):
        return relu_conv_bn(c, c, int(name[-1]), stride)
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride, 1, count_include_pad=False)
    return nn.MaxPool2d(3, stride, 1)


def drop_path(x: torch.Tensor, rate: float) -> torch.Tensor:
    mask = torch.empty(x.shape[0], 1, 1, 1).bernoulli_(1 - rate)
    return x.div(1 - rate).mul_(mask)


class Cell(nn.Module):
    def __init__(self, nodes: list, before: int, last: int, c: int, reduction: bool, reduced: bool) -> None:
        super().__init__()
        self.nodes = nodes
        self.input0 = FactorizedReduce(before, c) if reduced else relu_conv_bn(before, c)
        self.input1 = relu_conv_bn(last, c)
        self.edges = nn.ModuleList(
            nn.ModuleList(operation(name, c, 2 if reduction and i < 2 else 1) for name, i in node)
            for node in nodes
        )

    def forward(self, before: torch.Tensor, last: torch.Tensor, rate: float) -> torch.Tensor:
        states = [self.input0(before), self.input1(last)]
        for node, edges in zip(self.nodes, self.edges, strict=True):
            terms = []
            for (_, i), edge in zip(node, edges, strict=True):
                term = edge(states[i])
                if self.training and rate and not isinstance(edge, nn.Identity):
                    term = drop_path(term, rate)
                terms.append(term)
            states.append(sum(terms[1:], terms[0]))
        return torch.cat(states[2:], 1)


class Network(nn.Module):
    def __init__(self, genotype: dict, c: int, n: int, classes: int, auxiliary: bool) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 3 * c, 3, padding=1, bias=False), nn.BatchNorm2d(3 * c))
        plan = (
            [(c, False)] * n
            + ([(2 * c, True)] + [(2 * c, False)] * n)
            + ([(4 * c, True)] + [(4 * c, False)] * n)
        )
        before, last, reduced, cells = 3 * c, 3 * c, False, []
        for width, reduction in plan:
            nodes = genotype["reduction" if reduction else "normal"]
            cells.append(Cell(nodes, before, last, width, reduction, reduced))
            before, last, reduced = last, len(nodes) * width, reduction
        self.cells = nn.ModuleList(cells)
        self.auxiliary_at = 2 * n + 1 if auxiliary else -1
        if auxiliary:
            self.auxiliary = nn.Sequential(
                nn.ReLU(), nn.AvgPool2d(5, 3, 0, count_include_pad=False),
                nn.Conv2d(last, 128, 1, bias=False), nn.BatchNorm2d(128), nn.ReLU(),
                nn.Conv2d(128, 768, 2, bias=False), nn.BatchNorm2d(768), nn.ReLU(),
                nn.Flatten(), nn.Linear(768, classes),
            )  # fmt: skip
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, classes))

    def forward(self, x: torch.Tensor, rate: float = 0.0) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        before = last = self.stem(x)
        for number, cell in enumerate(self.cells):
            before, last = last, cell(before, last, rate)
            if self.training and number == self.auxiliary_at:
                auxiliary = self.auxiliary(last)
        logits = self.head(last)
        return (logits, auxiliary) if self.training and self.auxiliary_at >= 0 else logits


def export(network: Network, image: torch.Tensor, path: str, dynamo: bool) -> dict[str, str]:
    """Writes an ONNX file of any batch size, with the older exporter or the newer one."""
    names = {"input_names": ["image"], "output_names": ["logits"]}
    network.eval()
    try:
        if dynamo:
            # With a batch of one the exporter would take the batch size for a constant.
            shapes = {"x": {0: torch.export.Dim("n")}, "rate": None}
            images = image.repeat(2, 1, 1, 1)
            with contextlib.redirect_stdout(sys.stderr):
                torch.onnx.export(
                    network,
                    (images, 0.0),
                    path,
                    dynamo=True,
                    dynamic_shapes=shapes,
                    external_data=False,
                    **names,
                )
        else:
            torch.onnx.export(
                network, (image,), path, dynamo=False, dynamic_axes={"image": {0: "n"}}, **names
            )
    except ImportError as error:
        return {"error": str(error)}
    finally:
        network.train()
    return {"path": path}


def main() -> None:
    options = json.loads(sys.argv[1])
    torch.set_num_threads(options["threads"])
    torch.manual_seed(0)
    size, batch, classes = options["size"], options["batch"], 10
    auxiliary = options["auxiliary_weight"] > 0
    network = Network(options["genotype"], options["channels"], options["cells"], classes, auxiliary).train()
    images, labels = torch.rand(batch, 3, size, size), torch.randint(0, classes, (batch,))
    if options["channels_last"]:
        network = network.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    weights = list(network.parameters())
    optimizer = torch.optim.SGD(weights, 0.025, momentum=0.9, weight_decay=3e-4, nesterov=True)

    def step() -> None:
        optimizer.zero_grad()
        if auxiliary:
            logits, extra = network(images, options["drop_path"])
            loss = F.cross_entropy(logits, labels)
            loss = loss + options["auxiliary_weight"] * F.cross_entropy(extra, labels)
        else:
            loss = F.cross_entropy(network(images, options["drop_path"]), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 5.0)
        optimizer.step()

    def infer() -> None:
        with torch.inference_mode():
            network(images)

    begun = time.perf_counter()
    step()
    answer = {"ready_s": time.perf_counter() - begun, "framework": "torch " + torch.__version__}
    answer["parameters"] = sum(math.prod(weight.shape) for weight in weights)
    print(json.dumps(answer), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "onnx":
            print(json.dumps(export(network, images[:1], request["path"], request["dynamo"])), flush=True)
            continue
        seconds = []
        for _ in range(request.get("count", 0)):
            network.train(request["do"] == "step")
            begun = time.perf_counter()
            step() if request["do"] == "step" else infer()
            seconds.append(time.perf_counter() - begun)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": seconds, "peak_mib": round(peak)}), flush=True)


if __name__ == "__main__":
    main()
