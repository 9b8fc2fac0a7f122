"""Published cells by name, in short notation; `gdas_tf.spaces.genotype.GENOTYPES` has them as genotypes."""

from __future__ import annotations

_GDAS_NORMAL = "skip@0+skip@1/skip@0+sep5@2/sep3@3+skip@0/sep5@4+sep3@3"
_GDAS_REDUCTION = "sep5@0+sep3@1/sep5@2+sep5@1/dil5@2+sep3@1/sep5@0+sep5@1"
_FRC_NORMAL = "skip@0+skip@1/skip@0+sep3@2/skip@0+sep3@2/skip@0+sep3@2"

CELLS: dict[str, tuple[str, str]] = {
    "DARTS_V1": (
        "sep3@1+sep3@0/skip@0+sep3@1/skip@0+sep3@1/sep3@0+skip@2",
        "max3@0+max3@1/skip@2+max3@0/max3@0+skip@2/skip@2+avg3@0",
    ),
    "DARTS_V2": (
        "sep3@0+sep3@1/sep3@0+sep3@1/sep3@1+skip@0/skip@0+dil3@2",
        "max3@0+max3@1/skip@2+max3@1/max3@0+skip@2/skip@2+max3@1",
    ),
    "GDAS_V1": (_GDAS_NORMAL, _GDAS_REDUCTION),
    "GDAS_F1": (_FRC_NORMAL, "fixed"),
    "GDAS_GF": (_GDAS_NORMAL, "fixed"),
    "GDAS_FG": (_FRC_NORMAL, _GDAS_REDUCTION),
}
"""The normal and the reduction cell of DARTS (Liu, Simonyan & Yang, ICLR 2019, first and second order), and
of the four rows of table 5 of GDAS (Dong & Yang, CVPR 2019).

For GDAS_V1 both cells were searched, for GDAS_F1 the normal one with the fixed reduction cell (FRC): the
paper calls it "GDAS (FRC)". The other two are combinations: GDAS_GF is the normal cell of GDAS_V1 with
the fixed reduction cell, GDAS_FG the normal cell of GDAS_F1 with the reduction cell of GDAS_V1."""

RETIRED = {
    "GDAS_V1_FRC": "this name is no longer used, as it was mistaken for the paper's GDAS (FRC); that is "
    "GDAS_F1, and what GDAS_V1_FRC stood for, the normal cell of GDAS_V1 with the fixed reduction cell, is "
    "GDAS_GF"
}
"""Names that are no longer used, and what to say of them."""
