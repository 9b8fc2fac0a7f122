"""Published cells by name, in short notation; `gdas_tf.spaces.genotype.GENOTYPES` has them as genotypes.

Papers, figures and sources of each stand in `gdas_tf.zoo.entries`.
"""

from __future__ import annotations


def _cells(normal: str, reduction: str, **concatenated: str) -> str:
    others = "".join(f" {key}={value}" for key, value in concatenated.items())
    return f"normal={normal} reduction={reduction}{others}"


_GDAS_NORMAL = "skip@0+skip@1/skip@0+sep5@2/sep3@3+skip@0/sep5@4+sep3@3"
_GDAS_REDUCTION = "sep5@0+sep3@1/sep5@2+sep5@1/dil5@2+sep3@1/sep5@0+sep5@1"
_FRC_NORMAL = "skip@0+skip@1/skip@0+sep3@2/skip@0+sep3@2/skip@0+sep3@2"
_PNAS = "sep5@0+max3@0/sep7@1+max3@1/sep5@1+sep3@1/sep3@4+max3@1/sep3@0+skip@1"

CELLS: dict[str, str] = {
    "DARTS_V1": _cells(
        "sep3@1+sep3@0/skip@0+sep3@1/skip@0+sep3@1/sep3@0+skip@2",
        "max3@0+max3@1/skip@2+max3@0/max3@0+skip@2/skip@2+avg3@0",
    ),
    "DARTS_V2": _cells(
        "sep3@0+sep3@1/sep3@0+sep3@1/sep3@1+skip@0/skip@0+dil3@2",
        "max3@0+max3@1/skip@2+max3@1/max3@0+skip@2/skip@2+max3@1",
    ),
    "GDAS_V1": _cells(_GDAS_NORMAL, _GDAS_REDUCTION),
    "GDAS_F1": _cells(_FRC_NORMAL, "fixed"),
    "GDAS_GF": _cells(_GDAS_NORMAL, "fixed"),
    "GDAS_FG": _cells(_FRC_NORMAL, _GDAS_REDUCTION),
    "NASNet-A": _cells(
        "sep5@1+sep3@0/sep5@0+sep3@0/avg3@1+skip@0/avg3@0+avg3@0/sep3@1+skip@1",
        "sep5@1+sep7@0/max3@1+sep7@0/avg3@1+sep5@0/skip@3+avg3@2/sep3@2+max3@1",
        reduction_concat="4,5,6",
    ),
    "AmoebaNet-A": _cells(
        "avg3@0+max3@1/sep3@0+sep5@2/sep3@0+avg3@3/sep3@1+skip@1/skip@0+avg3@1",
        "avg3@0+sep3@1/max3@0+sep7@2/sep7@0+avg3@1/max3@0+max3@1/conv71@0+sep3@5",
        normal_concat="4,5,6",
        reduction_concat="3,4,6",
    ),
    "ENAS": _cells(
        "sep3@1+skip@1/sep5@1+skip@0/avg3@0+sep3@1/sep3@0+avg3@1/sep5@1+avg3@0",
        "sep5@0+sep3@1/sep3@1+avg3@1/sep3@1+avg3@1/avg3@1+sep5@4/sep3@5+sep5@0",
    ),
    "PNASNet": _cells(_PNAS, _PNAS),
    "SETN": _cells(
        "skip@0+sep5@1/sep5@0+sep3@1/sep5@1+sep5@3/max3@1+conv31@4",
        "sep3@0+sep5@1/avg3@0+sep5@1/avg3@0+sep5@1/avg3@0+skip@1",
    ),
    "P-DARTS": _cells(
        "skip@0+dil3@1/skip@0+sep3@1/sep3@1+sep3@3/sep3@0+dil5@4",
        "avg3@0+sep5@1/sep3@0+dil5@2/max3@0+dil3@1/dil3@1+dil5@3",
    ),
    "SNAS": _cells(
        "sep3@0+sep3@1/skip@0+dil3@1/skip@1+skip@0/skip@0+sep3@1",
        "max3@0+max3@1/max3@1+skip@2/skip@2+max3@1/max3@0+dil5@2",
    ),
    "DrNAS": _cells(
        "sep3@0+sep5@1/sep3@1+sep3@2/skip@0+sep3@1/sep3@2+dil5@3",
        "max3@0+sep5@1/dil5@2+sep5@1/sep5@1+dil5@3/skip@4+sep5@1",
    ),
    "FairDARTS_a": _cells(
        "sep3@0+sep5@1/max3@0/sep3@0", "max3@0+avg3@1/avg3@0+dil5@1/avg3@0+sep5@1/skip@0+skip@1"
    ),
    "FairDARTS_b": _cells(
        "sep3@0+sep3@1/sep3@1/dil3@0+sep5@1/dil5@1", "skip@0+dil3@1/skip@0+dil3@1/max3@0+sep3@1/skip@2+max3@0"
    ),
    "FairDARTS_c": _cells(
        "max3@0+sep5@1/dil3@0+dil5@2/sep3@0", "dil3@1+dil5@0/dil3@0+sep3@1/sep5@0+sep5@3/sep5@0+skip@1"
    ),
    "FairDARTS_d": _cells(
        "sep3@0+sep5@1/dil3@1+max3@0/dil3@0+dil3@1/sep3@0+dil5@1",
        "max3@0+sep5@1/avg3@0+dil5@2/dil3@3+avg3@0/avg3@0+skip@3",
    ),
    "FairDARTS_e": _cells(
        "sep3@0+sep3@1/dil3@1+dil3@2/dil3@0+dil5@1", "max3@1+max3@0/max3@1+max3@0/sep5@1+max3@0/avg3@0+dil5@1"
    ),
    "FairDARTS_f": _cells(
        "max3@0+sep3@1/dil3@1/sep5@1/sep3@0+sep3@1", "max3@0+max3@1/max3@0+dil3@1/dil3@2+max3@0/max3@0+sep3@1"
    ),
    "FairDARTS_g": _cells(
        "sep3@0+sep3@1/sep5@1/dil3@0+sep3@1", "avg3@1+skip@0/skip@2+max3@1/sep5@3+max3@0/dil3@1+dil3@4"
    ),
}
"""The words of a genotype in short notation, but for its name.

For GDAS_V1 (Dong & Yang, CVPR 2019, table 5) both cells were searched, for GDAS_F1 the normal one with the
fixed reduction cell (FRC): the paper calls it "GDAS (FRC)". The other two of GDAS are combinations: GDAS_GF
is the normal cell of GDAS_V1 with the fixed reduction cell, GDAS_FG the normal cell of GDAS_F1 with the
reduction cell of GDAS_V1. Those of FairDARTS have as many nodes as have an edge."""

RETIRED = {
    "GDAS_V1_FRC": "this name is no longer used, as it was mistaken for the paper's GDAS (FRC); that is "
    "GDAS_F1, and what GDAS_V1_FRC stood for, the normal cell of GDAS_V1 with the fixed reduction cell, is "
    "GDAS_GF"
}
"""Names that are no longer used, and what to say of them."""
