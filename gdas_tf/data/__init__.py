"""Labelled images, and the batches made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gdas_tf.data.dataset import DataSet, Split, load_dataset

__all__ = ["DataSet", "Split", "load_dataset"]


def __getattr__(name: str) -> Any:
    """Imports a name when a program first takes it from here; `predict` and `serve` take none of them."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from gdas_tf.data import dataset

    return getattr(dataset, name)
