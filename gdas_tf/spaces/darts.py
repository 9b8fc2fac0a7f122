"""The space of DARTS (Liu, Simonyan & Yang, ICLR 2019), as Dong & Yang search it (CVPR 2019, section 3.1).

A normal and a reduction cell of two inputs and four nodes each; every node keeps its best two inputs, and a
cell's output is the concatenation of its nodes. An edge has one of eight operations.
"""

from __future__ import annotations

from gdas_tf.spaces.base import SPACES, SearchSpace

DARTS = SPACES.register("darts", SearchSpace())
