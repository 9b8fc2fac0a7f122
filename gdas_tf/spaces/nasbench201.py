"""The space of NAS-Bench-201 (Dong & Yang, ICLR 2020): 15,625 cells, each of which others have trained.

A cell of one input and three nodes; every node takes all that comes before it, each by one of five
operations, so that six edges with five operations each make 5^6 cells. `none` is an operation like the
others. The cell's output is its last node. A network has three blocks of five cells, of 16, 32 and 64
channels, and a residual block of stride 2 between them; batch norm and ReLU come before the global pooling.
"""

from __future__ import annotations

from gdas_tf.spaces.base import SPACES, SearchSpace

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
"""In the order of the authors' code."""

NASBENCH201 = SPACES.register(
    "nasbench201",
    SearchSpace(
        OPERATIONS,
        nodes=3,
        name="nasbench201",
        inputs=1,
        keep="all",
        output="last",
        reduction=False,
        between="residual",
        stem=1,
        preprocess=False,
        head_norm=True,
        with_none=True,
        cells=5,
        channels=16,
    ),
)
