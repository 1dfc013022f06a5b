"""Cases for the rules on whole arrays: reductions, contractions, views."""

from __future__ import annotations

from rules.case import XY, M, body, case, inputs, spread

REDUCTIONS = (
    case(
        "reduce_reduce",
        inputs("T[2,3,4]")
        + body("%1 = sum %0 axes=(1,) : T[2,4]", "%2 = sum %1 axes=(1,) : T[2]", "return %2"),
        inputs("T[2,3,4]") + body("%1 = sum %0 axes=(1, 2) : T[2]", "return %1"),
        inputs("T[2,3,4]")
        + body("%1 = sum %0 axes=(1,) : T[2,4]", "%2 = sum %1 axes=(1,) : T[2]", "return %2 %1"),
        inputs("T[2,3,4]")
        + body("%1 = max %0 axes=(1,) : T[2,4]", "%2 = sum %1 axes=(1,) : T[2]", "return %2"),
        dtypes=("f64", "f32", "i64"),
    ),
    case(
        "reduce_reduce",
        inputs("bool[2,3,4]")
        + body("%1 = any %0 axes=(0,) : bool[3,4]", "%2 = any %1 axes=(1,) : bool[3]", "return %2"),
        inputs("bool[2,3,4]") + body("%1 = any %0 axes=(0, 2) : bool[3]", "return %1"),
        inputs("bool[2,3,4]")
        + body("%1 = any %0 axes=(0,) : bool[3,4]", "%2 = all %1 axes=(1,) : bool[3]", "return %2"),
        dtypes=("bool",),
    ),
    case(
        "reduce_thin_reshape",
        M
        + body(
            "%1 = reshape %0 shape=(3, 1, 4) : T[3,1,4]",
            "%2 = sum %1 axes=(0, 1) : T[4]",
            "%3 = max %1 axes=(2,) : T[3,1]",
            "return %2 %3",
        ),
        M
        + body(
            "%1 = sum %0 axes=(0,) : T[4]",
            "%2 = max %0 axes=(1,) : T[3]",
            "%3 = reshape %2 shape=(3, 1) : T[3,1]",
            "return %1 %3",
        ),
        M + body("%1 = reshape %0 shape=(2, 6) : T[2,6]", "%2 = sum %1 axes=(0,) : T[6]", "return %2"),
    ),
    case(
        "reduce_transpose",
        inputs("T[2,3,4]")
        + body("%1 = transpose %0 perm=(2, 1, 0) : T[4,3,2]", "%2 = sum %1 axes=(1,) : T[4,2]", "return %2"),
        inputs("T[2,3,4]")
        + body("%1 = sum %0 axes=(1,) : T[2,4]", "%2 = transpose %1 perm=(1, 0) : T[4,2]", "return %2"),
        inputs("T[2,3,4]")
        + body(
            "%1 = transpose %0 perm=(2, 1, 0) : T[4,3,2]",
            "%2 = cumsum %1 axis=1 reverse=False : T[4,3,2]",
            "return %2",
        ),
    ),
    case(
        "reduce_flip",
        M + body("%1 = flip %0 axes=(0,) : T[3,4]", "%2 = sum %1 axes=(0, 1) : T[]", "return %2"),
        M + body("%1 = sum %0 axes=(0, 1) : T[]", "return %1"),
        M + body("%1 = flip %0 axes=(0,) : T[3,4]", "%2 = sum %1 axes=(1,) : T[3]", "return %2"),
    ),
    case(
        "sum_broadcast",
        inputs("T[3,1]")
        + body(
            "%1 = broadcast_to %0 shape=(2, 3, 5) : T[2,3,5]", "%2 = sum %1 axes=(0, 1) : T[5]", "return %2"
        ),
        inputs("T[3,1]")
        + body(
            "%1 = sum %0 axes=(0,) : T[1]",
            "%2 = broadcast_to %1 shape=(5,) : T[5]",
            "%3 = const value=2 : T[]",
            "%4 = broadcast_to %3 shape=(5,) : T[5]",
            "%5 = mul %2 %4 : T[5]",
            "return %5",
        ),
        inputs("T[3,1]")
        + body("%1 = broadcast_to %0 shape=(3, 5) : T[3,5]", "%2 = sum %1 axes=(0,) : T[5]", "return %2"),
        inputs("T[3,1]")
        + body("%1 = broadcast_to %0 shape=(3, 5) : T[3,5]", "%2 = prod %1 axes=(1,) : T[3]", "return %2"),
        dtypes=("f64", "f32", "i64", "i8"),
    ),
    case(
        "sum_broadcast",
        inputs("i8[]")
        + body("%1 = broadcast_to %0 shape=(300,) : i8[300]", "%2 = sum %1 axes=(0,) : i8[]", "return %2"),
        inputs("i8[]") + body("%1 = const value=44 : i8[]", "%2 = mul %0 %1 : i8[]", "return %2"),
        dtypes=("i8",),
    ),
    case(
        "reduce_broadcast",
        inputs("T[3,1]")
        + body(
            "%1 = broadcast_to %0 shape=(2, 3, 5) : T[2,3,5]", "%2 = max %1 axes=(0, 2) : T[3]", "return %2"
        ),
        inputs("T[3,1]") + body("%1 = reshape %0 shape=(3,) : T[3]", "return %1"),
        inputs("T[3,1]")
        + body("%1 = broadcast_to %0 shape=(3, 5) : T[3,5]", "%2 = max %1 axes=(0,) : T[5]", "return %2"),
    ),
)

CONTRACTION = (
    case(
        "contract_transpose",
        inputs("T[4,3]", "T[4,5]")
        + body(
            "%2 = transpose %0 perm=(1, 0) : T[3,4]",
            "%3 = contract %2 %1 contract=((1,), (0,)) batch=((), ()) : T[3,5]",
            "return %3",
        ),
        inputs("T[4,3]", "T[4,5]")
        + body("%2 = contract %0 %1 contract=((0,), (0,)) batch=((), ()) : T[3,5]", "return %2"),
        inputs("T[4,3,2]", "T[4,5]")
        + body(
            "%2 = transpose %0 perm=(2, 1, 0) : T[2,3,4]",
            "%3 = contract %2 %1 contract=((2,), (0,)) batch=((), ()) : T[2,3,5]",
            "return %3",
        ),
    ),
    case(
        "contract_transpose",
        inputs("T[4,2,3]", "T[5,4,2]")
        + body(
            "%2 = transpose %0 perm=(1, 2, 0) : T[2,3,4]",
            "%3 = transpose %1 perm=(2, 1, 0) : T[2,4,5]",
            "%4 = contract %2 %3 contract=((2,), (1,)) batch=((0,), (0,)) : T[2,3,5]",
            "return %4",
        ),
        inputs("T[4,2,3]", "T[5,4,2]")
        + body("%2 = contract %0 %1 contract=((0,), (1,)) batch=((1,), (2,)) : T[2,3,5]", "return %2"),
    ),
    case(
        "transpose_contract",
        inputs("T[3,4]", "T[4,5]")
        + body(
            "%2 = contract %0 %1 contract=((1,), (0,)) batch=((), ()) : T[3,5]",
            "%3 = transpose %2 perm=(1, 0) : T[5,3]",
            "return %3",
        ),
        inputs("T[3,4]", "T[4,5]")
        + body("%2 = contract %1 %0 contract=((0,), (1,)) batch=((), ()) : T[5,3]", "return %2"),
        inputs("T[3,4]", "T[4,5]")
        + body(
            "%2 = contract %0 %1 contract=((1,), (0,)) batch=((), ()) : T[3,5]",
            "%3 = transpose %2 perm=(1, 0) : T[5,3]",
            "return %3 %2",
        ),
        inputs("T[3,2,4]", "T[4,5]")
        + body(
            "%2 = contract %0 %1 contract=((2,), (0,)) batch=((), ()) : T[3,2,5]",
            "%3 = transpose %2 perm=(1, 0, 2) : T[2,3,5]",
            "return %3",
        ),
    ),
    case(
        "transpose_contract",
        inputs("T[2,3,4,5]", "T[2,3,5,6]")
        + body(
            "%2 = contract %0 %1 contract=((3,), (2,)) batch=((0, 1), (0, 1)) : T[2,3,4,6]",
            "%3 = transpose %2 perm=(1, 0, 3, 2) : T[3,2,6,4]",
            "return %3",
        ),
        inputs("T[2,3,4,5]", "T[2,3,5,6]")
        + body("%2 = contract %1 %0 contract=((2,), (3,)) batch=((1, 0), (1, 0)) : T[3,2,6,4]", "return %2"),
        inputs("T[2,3,4,5]", "T[2,3,5,6]")
        + body(
            "%2 = contract %0 %1 contract=((3,), (2,)) batch=((0, 1), (0, 1)) : T[2,3,4,6]",
            "%3 = transpose %2 perm=(2, 0, 1, 3) : T[4,2,3,6]",
            "return %3",
        ),
    ),
)

SHAPES = (
    case(
        "hoist_broadcast",
        inputs("T[3,1]", "T[]")
        + body(
            "%2 = broadcast_to %0 shape=(3, 4) : T[3,4]",
            "%3 = broadcast_to %1 shape=(3, 4) : T[3,4]",
            "%4 = mul %2 %3 : T[3,4]",
            "return %4",
        ),
        inputs("T[3,1]", "T[]")
        + body(
            "%2 = broadcast_to %1 shape=(3, 1) : T[3,1]",
            "%3 = mul %0 %2 : T[3,1]",
            "%4 = broadcast_to %3 shape=(3, 4) : T[3,4]",
            "return %4",
        ),
        inputs("T[3,1]", "T[4]")
        + body(
            "%2 = broadcast_to %0 shape=(3, 4) : T[3,4]",
            "%3 = broadcast_to %1 shape=(3, 4) : T[3,4]",
            "%4 = mul %2 %3 : T[3,4]",
            "return %4",
        ),
        inputs("T[3,1]", "T[3,4]")
        + body("%2 = broadcast_to %0 shape=(3, 4) : T[3,4]", "%3 = mul %2 %1 : T[3,4]", "return %3"),
        inputs("T[3,1]")
        + body("%1 = broadcast_to %0 shape=(3, 4) : T[3,4]", "%2 = copy %1 slot=0 : T[3,4]", "return %2"),
    ),
    case(
        "broadcast_leading",
        inputs("T[3]")
        + body(
            "%1 = reshape %0 shape=(1, 3) : T[1,3]", "%2 = broadcast_to %1 shape=(2, 3) : T[2,3]", "return %2"
        ),
        inputs("T[3]") + body("%1 = broadcast_to %0 shape=(2, 3) : T[2,3]", "return %1"),
        inputs("T[3]")
        + body(
            "%1 = reshape %0 shape=(3, 1) : T[3,1]", "%2 = broadcast_to %1 shape=(3, 2) : T[3,2]", "return %2"
        ),
        inputs("T[1,3]") + body("%1 = broadcast_to %0 shape=(2, 3) : T[2,3]", "return %1"),
    ),
    case(
        "reshape_broadcast",
        inputs("T[3,1]")
        + body(
            "%1 = broadcast_to %0 shape=(3, 4) : T[3,4]",
            "%2 = reshape %1 shape=(3, 1, 4) : T[3,1,4]",
            "return %2",
        ),
        inputs("T[3,1]")
        + body(
            "%1 = reshape %0 shape=(3, 1, 1) : T[3,1,1]",
            "%2 = broadcast_to %1 shape=(3, 1, 4) : T[3,1,4]",
            "return %2",
        ),
        inputs("T[3,1]")
        + body(
            "%1 = broadcast_to %0 shape=(3, 4) : T[3,4]", "%2 = reshape %1 shape=(12,) : T[12]", "return %2"
        ),
    ),
    case(
        "reshape_broadcast",
        inputs("T[1]")
        + body(
            "%1 = broadcast_to %0 shape=(6,) : T[6]", "%2 = reshape %1 shape=(2, 3) : T[2,3]", "return %2"
        ),
        inputs("T[1]")
        + body("%1 = reshape %0 shape=() : T[]", "%2 = broadcast_to %1 shape=(2, 3) : T[2,3]", "return %2"),
        inputs("T[2]")
        + body(
            "%1 = broadcast_to %0 shape=(3, 2) : T[3,2]", "%2 = reshape %1 shape=(2, 3) : T[2,3]", "return %2"
        ),
    ),
    case(
        "transpose_broadcast",
        inputs("T[2,3]")
        + body(
            "%1 = broadcast_to %0 shape=(4, 2, 3) : T[4,2,3]",
            "%2 = transpose %1 perm=(2, 1, 0) : T[3,2,4]",
            "return %2",
        ),
        inputs("T[2,3]")
        + body(
            "%1 = reshape %0 shape=(1, 2, 3) : T[1,2,3]",
            "%2 = transpose %1 perm=(2, 1, 0) : T[3,2,1]",
            "%3 = broadcast_to %2 shape=(3, 2, 4) : T[3,2,4]",
            "return %3",
        ),
        inputs("T[2,3]")
        + body("%1 = exp %0 : T[2,3]", "%2 = transpose %1 perm=(1, 0) : T[3,2]", "return %2"),
    ),
    case(
        "flip_broadcast",
        inputs("T[3,1]")
        + body(
            "%1 = broadcast_to %0 shape=(2, 3, 4) : T[2,3,4]",
            "%2 = flip %1 axes=(0, 1, 2) : T[2,3,4]",
            "return %2",
        ),
        inputs("T[3,1]")
        + body(
            "%1 = flip %0 axes=(0,) : T[3,1]", "%2 = broadcast_to %1 shape=(2, 3, 4) : T[2,3,4]", "return %2"
        ),
        M + body("%1 = exp %0 : T[3,4]", "%2 = flip %1 axes=(0,) : T[3,4]", "return %2"),
    ),
    case(
        "embed_embed",
        inputs("T[3]")
        + body(
            "%1 = embed %0 shape=(6,) starts=(1,) steps=(2,) : T[6]",
            "%2 = embed %1 shape=(20,) starts=(2,) steps=(3,) : T[20]",
            "return %2",
        ),
        inputs("T[3]") + body("%1 = embed %0 shape=(20,) starts=(5,) steps=(6,) : T[20]", "return %1"),
        inputs("T[3]")
        + body(
            "%1 = embed %0 shape=(6,) starts=(1,) steps=(2,) : T[6]",
            "%2 = exp %1 : T[6]",
            "%3 = embed %2 shape=(20,) starts=(2,) steps=(3,) : T[20]",
            "return %3",
        ),
    ),
    case(
        "embed_whole",
        inputs("T[3]")
        + body(
            "%1 = embed %0 shape=(3,) starts=(0,) steps=(1,) : T[3]",
            *spread(2, "0.0", "3"),
            "%4 = embed %3 shape=(5,) starts=(1,) steps=(1,) : T[5]",
            "return %1 %4",
        ),
        inputs("T[3]")
        + body("%1 = const value=0.0 : T[]", "%2 = broadcast_to %1 shape=(5,) : T[5]", "return %0 %2"),
        inputs("T[3]")
        + body(
            *spread(1, "-0.0", "3"), "%3 = embed %2 shape=(5,) starts=(1,) steps=(1,) : T[5]", "return %3"
        ),
        inputs("T[3]") + body("%1 = embed %0 shape=(4,) starts=(0,) steps=(1,) : T[4]", "return %1"),
    ),
    case(
        "flip_flip",
        inputs("T[3,1,4]")
        + body("%1 = flip %0 axes=(0, 1) : T[3,1,4]", "%2 = flip %1 axes=(0, 2) : T[3,1,4]", "return %2"),
        inputs("T[3,1,4]") + body("%1 = flip %0 axes=(2,) : T[3,1,4]", "return %1"),
        inputs("T[3,1,4]") + body("%1 = flip %0 axes=(0, 2) : T[3,1,4]", "return %1"),
    ),
    case(
        "concatenate_splat",
        inputs("T[1]")
        + body(
            *spread(1, "1.5", "9"),
            *spread(3, "1.5", "1991"),
            "%5 = concatenate %2 %4 axis=0 : T[2000]",
            "return %5",
        ),
        inputs("T[1]") + body(*spread(1, "1.5", "2000"), "return %2"),
        inputs("T[1]")
        + body(
            *spread(1, "0.0", "2"),
            *spread(3, "-0.0", "2000"),
            "%5 = concatenate %2 %4 axis=0 : T[2002]",
            "return %5",
        ),
        inputs("T[1]") + body(*spread(1, "1.5", "2"), "%3 = concatenate %0 %2 axis=0 : T[3]", "return %3"),
    ),
    case(
        "concatenate_flat",
        XY
        + body("%2 = concatenate %0 %1 axis=0 : T[12]", "%3 = concatenate %0 %2 axis=0 : T[18]", "return %3"),
        XY + body("%2 = concatenate %0 %0 %1 axis=0 : T[18]", "return %2"),
        XY
        + body(
            "%2 = concatenate %0 %1 axis=0 : T[12]", "%3 = concatenate %0 %2 axis=0 : T[18]", "return %3 %2"
        ),
        inputs("T[2,2]", "T[2,2]")
        + body(
            "%2 = concatenate %0 %1 axis=0 : T[4,2]", "%3 = concatenate %2 %2 axis=1 : T[4,4]", "return %3"
        ),
    ),
    case(
        "concatenate_cut",
        inputs("T[4]", "T[3]")
        + body(
            "%2 = concatenate %0 %1 axis=0 : T[7]",
            "%3 = slice %2 starts=(2,) limits=(6,) steps=(1,) : T[4]",
            "%4 = concatenate %3 %1 axis=0 : T[7]",
            "return %4",
        ),
        inputs("T[4]", "T[3]")
        + body(
            "%2 = slice %0 starts=(2,) limits=(4,) steps=(1,) : T[2]",
            "%3 = slice %1 starts=(0,) limits=(2,) steps=(1,) : T[2]",
            "%4 = concatenate %2 %3 %1 axis=0 : T[7]",
            "return %4",
        ),
        inputs("T[4]", "T[3]")
        + body(
            "%2 = concatenate %0 %1 axis=0 : T[7]",
            "%3 = slice %2 starts=(0,) limits=(7,) steps=(2,) : T[4]",
            "%4 = concatenate %3 %1 axis=0 : T[7]",
            "return %4",
        ),
        inputs("T[2,2]", "T[2,2]")
        + body(
            "%2 = concatenate %0 %1 axis=0 : T[4,2]",
            "%3 = slice %2 starts=(1, 0) limits=(3, 2) steps=(1, 1) : T[2,2]",
            "%4 = concatenate %3 %1 axis=1 : T[2,4]",
            "return %4",
        ),
    ),
)

INDEXING = (
    case(
        "gather_ramp",
        inputs("T[7]", "T[2,7]")
        + body(
            "%2 = const value=[-2, 3, 1] : i64[3]",
            "%3 = gather %0 %2 axes=(0,) : T[3]",
            "%4 = const value=[[1, 2], [3, 4]] : i64[2,2]",
            "%5 = gather %1 %4 axes=(1,) : T[2,2,2]",
            "%6 = const value=-1 : i64[]",
            "%7 = gather %1 %6 axes=(0,) : T[7]",
            "return %3 %5 %7",
        ),
        inputs("T[7]", "T[2,7]")
        + body(
            "%2 = slice %0 starts=(1,) limits=(6,) steps=(2,) : T[3]",
            "%3 = flip %2 axes=(0,) : T[3]",
            "%4 = slice %1 starts=(0, 1) limits=(2, 5) steps=(1, 1) : T[2,4]",
            "%5 = transpose %4 perm=(1, 0) : T[4,2]",
            "%6 = reshape %5 shape=(2, 2, 2) : T[2,2,2]",
            "%7 = slice %1 starts=(1, 0) limits=(2, 7) steps=(1, 1) : T[1,7]",
            "%8 = reshape %7 shape=(7,) : T[7]",
            "return %3 %6 %8",
        ),
        inputs("T[7]")
        + body("%1 = const value=[0, 1, 3] : i64[3]", "%2 = gather %0 %1 axes=(0,) : T[3]", "return %2"),
        inputs("T[7]")
        + body("%1 = const value=[2, 2] : i64[2]", "%2 = gather %0 %1 axes=(0,) : T[2]", "return %2"),
        inputs("T[2,2]")
        + body("%1 = const value=[0, 1] : i64[2]", "%2 = gather %0 %1 %1 axes=(0, 1) : T[2]", "return %2"),
        dtypes=("f64", "f32", "i64", "bool"),
    ),
    case(
        "scatter_ramp",
        inputs("T[3]", "T[2,2]")
        + body(
            "%2 = const value=[5, 3, 1] : i64[3]",
            "%3 = scatter_add %0 %2 shape=(7,) axes=(0,) : T[7]",
            "%4 = const value=[1, 2] : i64[2]",
            "%5 = scatter_add %1 %4 shape=(2, 4) axes=(1,) : T[2,4]",
            "return %3 %5",
        ),
        inputs("T[3]", "T[2,2]")
        + body(
            "%2 = flip %0 axes=(0,) : T[3]",
            "%3 = embed %2 shape=(7,) starts=(1,) steps=(2,) : T[7]",
            "%4 = transpose %1 perm=(1, 0) : T[2,2]",
            "%5 = embed %4 shape=(2, 4) starts=(0, 1) steps=(1, 1) : T[2,4]",
            "return %3 %5",
        ),
        inputs("T[2]")
        + body(
            "%1 = const value=[2, 2] : i64[2]",
            "%2 = scatter_add %0 %1 shape=(7,) axes=(0,) : T[7]",
            "return %2",
        ),
        inputs("T[2]")
        + body(
            "%1 = const value=[2, 7] : i64[2]",
            "%2 = scatter_add %0 %1 shape=(7,) axes=(0,) : T[7]",
            "return %2",
        ),
        dtypes=("f64", "f32", "i64"),
    ),
)
