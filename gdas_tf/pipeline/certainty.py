"""How sure the search of a run is of its genotype, and what a user should be warned of."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from gdas_tf.config.config import Config
    from gdas_tf.spaces.genotype import Genotype


def how_certain(history: Path, config: Config, genotype: Genotype | None = None) -> dict[str, Any]:
    """Returns how sure a search is of what was derived of it.

    Args:
        history: the arrays of the strategy of all epochs, `search/logits.npz`.
        config: the configuration of the run.
        genotype: what was derived; by default derived here of the logits.

    Returns:
        `edges`: of each searched cell with logits a list of edges with `node`, `input`, `best`, `second`,
        `margin`, `noise`, `none_is_best`, `kept` and `coin_flip`, none for a strategy that has no logits, or
        a file without the epochs before the last; and `warnings`, lines of text.

    Raises:
        UsageError: the file is damaged.
    """
    from gdas_tf.pipeline.artefacts import genotype_of_logits
    from gdas_tf.strategies.alarm import certainties, degenerate, warnings
    from gdas_tf.user_files import read_npz

    arrays = read_npz(history, f"logits {history}", "a search writes such files")
    normal, space = arrays.get("normal"), config.space
    shape = (space.edge_count, len(space.operations))
    # Arrays of this name and another shape are a strategy's own affair.
    if normal is None or normal.dtype.kind != "f" or normal.ndim != 3 or normal.shape[1:] != shape:
        return {"edges": {}, "warnings": degenerate(genotype) if genotype else []}
    genotype = genotype or genotype_of_logits(history, config)
    found = certainties(arrays, space, genotype, config.derive.keep_none)
    edges = {
        kind: [{**dataclasses.asdict(edge), "coin_flip": edge.coin_flip} for edge in each]
        for kind, each in found.items()
    }
    return {"edges": edges, "warnings": warnings(found, genotype)}
