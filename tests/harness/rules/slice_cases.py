"""Cases of the rules that move slices."""

from __future__ import annotations

from rules.case import M, body, case, inputs

SLICES = (
    case(
        "slice_broadcast",
        inputs("T[3,1]")
        + body(
            "%1 = broadcast_to %0 shape=(2, 3, 4) : T[2,3,4]",
            "%2 = slice %1 starts=(0, 1, 0) limits=(2, 3, 4) steps=(1, 1, 2) : T[2,2,2]",
            "return %2",
        ),
        inputs("T[3,1]")
        + body(
            "%1 = reshape %0 shape=(1, 3, 1) : T[1,3,1]",
            "%2 = slice %1 starts=(0, 1, 0) limits=(1, 3, 1) steps=(1, 1, 1) : T[1,2,1]",
            "%3 = broadcast_to %2 shape=(2, 2, 2) : T[2,2,2]",
            "return %3",
        ),
        M
        + body(
            "%1 = exp %0 : T[3,4]",
            "%2 = slice %1 starts=(0, 1) limits=(3, 4) steps=(1, 1) : T[3,3]",
            "return %2",
        ),
    ),
    case(
        "slice_slice",
        inputs("T[20]")
        + body(
            "%1 = slice %0 starts=(2,) limits=(19,) steps=(3,) : T[6]",
            "%2 = slice %1 starts=(1,) limits=(6,) steps=(2,) : T[3]",
            "return %2",
        ),
        inputs("T[20]") + body("%1 = slice %0 starts=(5,) limits=(18,) steps=(6,) : T[3]", "return %1"),
        inputs("T[20]")
        + body(
            "%1 = flip %0 axes=(0,) : T[20]",
            "%2 = slice %1 starts=(1,) limits=(6,) steps=(2,) : T[3]",
            "return %2",
        ),
    ),
    case(
        "slice_concatenate",
        inputs("T[2,3]", "T[2,4]")
        + body(
            "%2 = concatenate %0 %1 axis=1 : T[2,7]",
            "%3 = slice %2 starts=(1, 4) limits=(2, 7) steps=(1, 2) : T[1,2]",
            "return %3",
        ),
        inputs("T[2,3]", "T[2,4]")
        + body("%2 = slice %1 starts=(1, 1) limits=(2, 4) steps=(1, 2) : T[1,2]", "return %2"),
        inputs("T[2,3]", "T[2,4]")
        + body(
            "%2 = concatenate %0 %1 axis=1 : T[2,7]",
            "%3 = slice %2 starts=(0, 2) limits=(2, 4) steps=(1, 1) : T[2,2]",
            "return %3",
        ),
    ),
    case(
        "slice_elementwise",
        inputs("T[2,1]", "T[2,1]", "T[2,2]")
        + body(
            "%3 = concatenate %0 %1 axis=1 : T[2,2]",
            "%4 = mul %3 %2 : T[2,2]",
            "%5 = slice %4 starts=(0, 1) limits=(2, 2) steps=(1, 1) : T[2,1]",
            "return %4 %5",
        ),
        inputs("T[2,1]", "T[2,1]", "T[2,2]")
        + body(
            "%3 = concatenate %0 %1 axis=1 : T[2,2]",
            "%4 = mul %3 %2 : T[2,2]",
            "%5 = slice %3 starts=(0, 1) limits=(2, 2) steps=(1, 1) : T[2,1]",
            "%6 = slice %2 starts=(0, 1) limits=(2, 2) steps=(1, 1) : T[2,1]",
            "%7 = mul %5 %6 : T[2,1]",
            "return %4 %7",
        ),
        # An exponential is not computed twice.
        inputs("T[2,1]", "T[2,1]")
        + body(
            "%2 = concatenate %0 %1 axis=1 : T[2,2]",
            "%3 = exp %2 : T[2,2]",
            "%4 = slice %3 starts=(0, 1) limits=(2, 2) steps=(1, 1) : T[2,1]",
            "return %4",
        ),
        # Pieces of several elements.
        inputs("T[2,2]", "T[1,2]")
        + body(
            "%2 = concatenate %0 %1 axis=0 : T[3,2]",
            "%3 = add %2 %2 : T[3,2]",
            "%4 = slice %3 starts=(1, 0) limits=(2, 2) steps=(1, 1) : T[1,2]",
            "return %4",
        ),
        # Along another axis.
        inputs("T[2,1]", "T[2,1]", "T[2,2]")
        + body(
            "%3 = concatenate %0 %1 axis=1 : T[2,2]",
            "%4 = mul %3 %2 : T[2,2]",
            "%5 = slice %4 starts=(1, 0) limits=(2, 2) steps=(1, 1) : T[1,2]",
            "return %5",
        ),
    ),
    case(
        "slice_transpose",
        inputs("T[2,1]", "T[2,1]")
        + body(
            "%2 = concatenate %0 %1 axis=1 : T[2,2]",
            "%3 = transpose %2 perm=(1, 0) : T[2,2]",
            "%4 = slice %3 starts=(1, 0) limits=(2, 2) steps=(1, 1) : T[1,2]",
            "return %4",
        ),
        inputs("T[2,1]", "T[2,1]")
        + body(
            "%2 = concatenate %0 %1 axis=1 : T[2,2]",
            "%3 = slice %2 starts=(0, 1) limits=(2, 2) steps=(1, 1) : T[2,1]",
            "%4 = reshape %3 shape=(1, 2) : T[1,2]",
            "return %4",
        ),
        inputs("T[2,2]")
        + body(
            "%1 = transpose %0 perm=(1, 0) : T[2,2]",
            "%2 = slice %1 starts=(1, 0) limits=(2, 2) steps=(1, 1) : T[1,2]",
            "return %2",
        ),
    ),
    case(
        "slice_embed",
        inputs("T[3]")
        + body(
            "%1 = embed %0 shape=(9,) starts=(1,) steps=(2,) : T[9]",
            "%2 = slice %1 starts=(1,) limits=(6,) steps=(2,) : T[3]",
            "%3 = slice %1 starts=(6,) limits=(9,) steps=(1,) : T[3]",
            "return %2 %3",
        ),
        inputs("T[3]")
        + body("%1 = const value=0.0 : T[]", "%2 = broadcast_to %1 shape=(3,) : T[3]", "return %0 %2"),
        inputs("T[3]")
        + body(
            "%1 = embed %0 shape=(9,) starts=(1,) steps=(2,) : T[9]",
            "%2 = slice %1 starts=(1,) limits=(4,) steps=(1,) : T[3]",
            "return %2",
        ),
        inputs("T[3]")
        + body(
            "%1 = embed %0 shape=(9,) starts=(1,) steps=(1,) : T[9]",
            "%2 = slice %1 starts=(2,) limits=(5,) steps=(1,) : T[3]",
            "return %2",
        ),
    ),
    case(
        "slice_embed",
        inputs("T[5]")
        + body(
            "%1 = embed %0 shape=(9,) starts=(2,) steps=(1,) : T[9]",
            "%2 = slice %1 starts=(3,) limits=(6,) steps=(2,) : T[2]",
            "return %2",
        ),
        inputs("T[5]") + body("%1 = slice %0 starts=(1,) limits=(4,) steps=(2,) : T[2]", "return %1"),
    ),
)
