"""Pictures of a model's cells."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from pathlib import Path
from typing import Any

from gdas_tf.export.serving.http import HttpError

CELLS = ("normal", "reduction")

_drawing = threading.Lock()  # matplotlib is not made for threads


class Drawings:
    """The drawings of a genotype's cells, each made when it is first asked for.

    Args:
        genotype: the genotype as JSON, or None when the model has none.
    """

    def __init__(self, genotype: dict[str, Any] | None) -> None:
        self._genotype = genotype
        self._pictures: dict[str, bytes] = {}

    async def get(self, cell: str) -> bytes:
        """Returns the drawing of the normal or the reduction cell as SVG.

        Raises:
            HttpError: 404, the model has no genotype, or not one that can be read.
        """
        if self._genotype is None:
            raise HttpError(404, "the model's file has no genotype to draw")
        return await asyncio.to_thread(self._draw, cell)

    def _draw(self, cell: str) -> bytes:
        from gdas_tf.errors import UsageError
        from gdas_tf.spaces.genotype import Genotype

        with _drawing:
            if cell not in self._pictures:
                try:
                    genotype = Genotype.from_json(self._genotype)
                except UsageError as error:
                    raise HttpError(404, f"the genotype in the model's file is damaged: {error}") from error
                from gdas_tf.drawing.cells import draw_cell

                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder, f"{cell}.svg")
                    draw_cell(genotype, cell, path)
                    self._pictures[cell] = path.read_bytes()
            return self._pictures[cell]
