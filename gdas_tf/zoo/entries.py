"""`ZOO`: what is published of the genotypes and networks that come with the package.

The cells stand in `gdas_tf.spaces.published`, the networks in `gdas_tf.networks`. Importing this module does
not import TensorFlow.

Example:
    >>> ZOO.get("DARTS_V2").weights
    3349342
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from gdas_tf.registry import Registry
from gdas_tf.spaces.genotype import GENOTYPES, Genotype


@dataclasses.dataclass(frozen=True)
class Entry:
    """A published genotype or network.

    Args:
        name: to be given by `--genotype` or `--network`.
        kind: "genotype", or "network" for one that somebody thought out.
        paper: which paper it is of.
        weights: the exact number of trainable weights for 32x32x3 images and 10 classes, without an auxiliary
            head; of a genotype the network of C = 36 and N = 6, by `retrain.macro = paper`.
        error: published test error on CIFAR-10 in percent, or None; with CutOut unless `notes` deny it.
        spread: published standard deviation of the error, or None.
        published_weights: number of weights that is published beside the error, in millions, or None. It
            may be of a network of other channels, cells or head than `weights`.
        figures: where error and published number of weights were read.
        origin: where the cells or the layers were read.
        from_memory: whether the figures are quoted from memory, and have not been compared with the paper.
        notes: what else there is to know.
    """

    name: str
    kind: Literal["genotype", "network"]
    paper: str
    weights: int
    error: float | None
    spread: float | None
    published_weights: float | None
    figures: str
    origin: str
    from_memory: bool = False
    notes: str = ""

    @property
    def genotype(self) -> Genotype | None:
        """The cells; None for a network that is not built of cells."""
        return GENOTYPES[self.name] if self.kind == "genotype" else None

    def to_json(self) -> dict[str, Any]:
        """Returns what `json.dumps` takes: all values, and of a genotype the short notation."""
        values = dataclasses.asdict(self)
        return values | ({"genotype": self.genotype.to_text()} if self.genotype is not None else {})


ZOO: Registry[Entry] = Registry("entry of the zoo")
"""The entries by name."""

_GDAS_PAPER = "GDAS paper (arXiv 1910.04465), tables 1 and 5"
_AUTODL = "D-X-Y/AutoDL-Projects, commit f0da071, lib/nas/genotypes.py (MIT)"
_DARTS = "quark0/darts, cnn/genotypes.py (Apache-2.0)"
_HANSER = "sbl1996/hanser, hanser/models/nas/genotypes.py (no licence file)"
_FAIR_NOTE = "a node has one or two edges"
_WITH_HEAD = "the published number of weights has the 476,426 of the auxiliary head"
_MEMORY = "the paper, from memory"
_RESNET, _DENSENET = "He et al., CVPR 2016", "Huang et al., CVPR 2017"

# Name, paper, weights, error, its spread, published weights, figures, origin, notes.
_GENOTYPES: tuple[tuple[Any, ...], ...] = (
    ("DARTS_V1", "DARTS, ICLR 2019", 3_169_414, 3.0, 0.14, 3.3, _GDAS_PAPER, _DARTS,
     "first order; the spread is from a comment in hanser"),
    ("DARTS_V2", "DARTS, ICLR 2019", 3_349_342, 2.76, 0.09, 3.3, "comment in hanser",
     "yuhuixu1993/PC-DARTS, genotypes.py", "second order; the GDAS paper gives 2.82 and 3.4"),
    ("GDAS_V1", "GDAS, CVPR 2019", 3_368_782, 2.93, None, 3.4, _GDAS_PAPER, _AUTODL,
     "both cells searched; 3.3 in table 5; 3.87 without CutOut"),
    ("GDAS_F1", "GDAS, CVPR 2019", 2_543_014, 2.82, None, 2.5, _GDAS_PAPER, _AUTODL,
     "GDAS (FRC); 2,543,014 weights in the authors' log; 3.75 without CutOut"),
    ("GDAS_GF", "GDAS, CVPR 2019", 2_999_638, 2.87, None, 3.0, _GDAS_PAPER, _AUTODL,
     "normal cell of GDAS_V1, fixed reduction cell"),
    ("GDAS_FG", "GDAS, CVPR 2019", 2_912_158, 2.84, None, 2.9, _GDAS_PAPER, _AUTODL,
     "normal cell of GDAS_F1, reduction cell of GDAS_V1"),
    ("NASNet-A", "NASNet, CVPR 2018", 3_830_950, 2.65, None, 3.3, _GDAS_PAPER, _DARTS,
     "five nodes; 3.41 without CutOut; published with a stack, channels and head of its own"),
    ("AmoebaNet-A", "AmoebaNet, AAAI 2019", 3_145_078, 3.12, None, 3.1, _GDAS_PAPER, _DARTS,
     "five nodes; the DARTS paper gives 3.34 +- 0.06 and 3.2"),
    ("ENAS", "ENAS, ICML 2018", 4_020_166, 2.89, None, 4.6, _GDAS_PAPER, _AUTODL,
     "five nodes; 3.54 without CutOut; published with a stack, channels and head of its own"),
    ("PNASNet", "PNAS, ECCV 2018", 4_481_110, 3.63, None, 3.2, _GDAS_PAPER, _AUTODL,
     "five nodes, one input twice; without CutOut; published with a stack, channels and head of its own"),
    ("SETN", "SETN, ICCV 2019", 4_619_206, 2.69, None, None, "comment in hanser",
     "D-X-Y/AutoDL-Projects, xautodl/nas_infer_model/DXYs/genotypes.py (MIT)", "has conv_3x1_1x3"),
    ("P-DARTS", "P-DARTS, ICCV 2019", 3_433_798, 2.5, None, 3.4, _MEMORY,
     "chenxin061/pdarts, genotypes.py", ""),
    ("SNAS", "SNAS, ICLR 2019", 2_661_382, 2.85, 0.02, 2.8, _MEMORY, _HANSER, "moderate constraint"),
    ("DrNAS", "DrNAS, ICLR 2021", 4_099_294, 2.46, 0.03, 4.1, _MEMORY,
     "xiangning-chen/DrNAS, DARTS-space/genotypes.py", "searched on CIFAR-10"),
    *(
        (f"FairDARTS_{letter}", "FairDARTS, ECCV 2020", weights, error, None, published, "comment in hanser",
         _HANSER, f"{_FAIR_NOTE}; {_WITH_HEAD}" if letter != "c" else _FAIR_NOTE)
        for letter, weights, error, published in (
            ("a", 2_360_782, 2.54, 2.83),
            ("b", 3_407_878, 2.51, 3.88),
            ("c", 2_598_814, 2.5, 2.59),
            ("d", 3_365_542, 2.49, 3.84),
            ("e", 2_643_742, 2.53, 3.12),
            ("f", 3_151_054, 2.65, 3.62),
            ("g", 2_899_054, 2.54, 3.375),
        )
    ),
)  # fmt: skip
_NETWORKS: tuple[tuple[Any, ...], ...] = (
    ("resnet20", _RESNET, 269_722, 8.75, None, 0.27, _MEMORY, _RESNET, "without CutOut"),
    ("resnet56", _RESNET, 853_018, 6.97, None, 0.85, _MEMORY, _RESNET, "without CutOut"),
    ("resnet110", _RESNET, 1_727_962, 4.61, None, 1.7, "GDAS paper (arXiv 1910.04465), table 1", _RESNET,
     "ResNet of 1.7 M; He et al. give 6.43 without CutOut (from memory)"),
    ("densenet_bc_100_12", _DENSENET, 769_162, 4.51, None, 0.8, _MEMORY, _DENSENET, "without CutOut"),
    ("densenet_bc_190_40", _DENSENET, 25_624_430, 3.46, None, 25.6,
     "GDAS paper (arXiv 1910.04465), table 1", _DENSENET, "without CutOut"),
)  # fmt: skip

for _kind, _rows in (("genotype", _GENOTYPES), ("network", _NETWORKS)):
    for _name, *_values, _figures, _origin, _notes in _rows:
        ZOO.register(_name, Entry(_name, _kind, *_values, _figures, _origin, _figures == _MEMORY, _notes))
