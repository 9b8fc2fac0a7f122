"""The operations of a search space, one family a file.

Importing any module of this folder registers all operations of the package, in the order of these imports
(`gdas_tf.operations.base.OPERATIONS`).
"""
# ruff: noqa: F401, I001

from gdas_tf.operations import skip
from gdas_tf.operations import convolutions
from gdas_tf.operations import pooling
from gdas_tf.operations import nasbench201
from gdas_tf.operations import asymmetric
