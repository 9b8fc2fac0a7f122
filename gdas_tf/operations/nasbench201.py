"""`nor_conv_1x1` and `nor_conv_3x3`, the convolutions of NAS-Bench-201 (Dong & Yang, ICLR 2020).

They are ReLU, convolution, batch norm, the same as `conv_1x1` and `conv_3x3`, whose computation, gradient and
colours they have. The names are those of the tables of that benchmark.
"""

from __future__ import annotations

from gdas_tf.operations.base import OPERATIONS
from gdas_tf.operations.convolutions import DenseConvolution

for _operation in (
    DenseConvolution("nor_conv_1x1", "nor1", OPERATIONS.get("conv_1x1").color, 1),
    DenseConvolution("nor_conv_3x3", "nor3", OPERATIONS.get("conv_3x3").color, 3),
):
    OPERATIONS.register(_operation.name, _operation)
