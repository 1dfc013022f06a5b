"""Cases for the rules that compute less: rows and columns that are read, directions of a Jacobian."""

from __future__ import annotations

from rules.case import X, body, case, inputs, spread

ROWS = inputs("T[6,4]", "T[4,3]") + body("%2 = const value=[4, 1] : i64[2]")
NARROWING = (
    case(
        "gather_early",
        ROWS
        + body(
            "%3 = contract %0 %1 contract=((1,), (0,)) batch=((), ()) : T[6,3]",
            "%4 = gather %3 %2 axes=(0,) : T[2,3]",
            "return %4",
        ),
        ROWS
        + body(
            "%3 = gather %0 %2 axes=(0,) : T[2,4]",
            "%4 = contract %3 %1 contract=((1,), (0,)) batch=((), ()) : T[2,3]",
            "return %4",
        ),
        # somebody else reads all rows
        ROWS
        + body(
            "%3 = contract %0 %1 contract=((1,), (0,)) batch=((), ()) : T[6,3]",
            "%4 = gather %3 %2 axes=(0,) : T[2,3]",
            "return %4 %3",
        ),
        # no fewer rows than there are
        inputs("T[2,4]", "T[4,3]")
        + body("%2 = const value=[1, 0] : i64[2]")
        + body(
            "%3 = contract %0 %1 contract=((1,), (0,)) batch=((), ()) : T[2,3]",
            "%4 = gather %3 %2 axes=(0,) : T[2,3]",
            "return %4",
        ),
        # a running sum needs the rows before
        ROWS
        + body(
            "%3 = cumsum %0 axis=0 reverse=False : T[6,4]",
            "%4 = gather %3 %2 axes=(0,) : T[2,4]",
            "return %4",
        ),
    ),
    case(
        "gather_early",
        inputs("T[3,6]", "T[6]")
        + body("%2 = const value=[4, 1] : i64[2]")
        + body(
            "%3 = broadcast_to %1 shape=(3, 6) : T[3,6]",
            "%4 = mul %0 %3 : T[3,6]",
            "%5 = sum %4 axes=(0,) : T[6]",
            "%6 = gather %5 %2 axes=(0,) : T[2]",
            "return %6",
        ),
        inputs("T[3,6]", "T[6]")
        + body("%2 = const value=[4, 1] : i64[2]")
        + body(
            "%3 = gather %0 %2 axes=(1,) : T[2,3]",
            "%4 = transpose %3 perm=(1, 0) : T[3,2]",
            "%5 = gather %1 %2 axes=(0,) : T[2]",
            "%6 = broadcast_to %5 shape=(3, 2) : T[3,2]",
            "%7 = mul %4 %6 : T[3,2]",
            "%8 = sum %7 axes=(0,) : T[2]",
            "return %8",
        ),
        inputs("i64[6]", "i64[6]")
        + body("%2 = const value=[4, 1] : i64[2]")
        + body("%3 = floor_divide %0 %1 : i64[6]", "%4 = gather %3 %2 axes=(0,) : i64[2]", "return %4"),
        dtypes=("f64",),
    ),
    case(
        "slice_transposed_contract",
        inputs("T[2,6,4]", "T[2,4,3]")
        + body(
            "%2 = contract %0 %1 contract=((2,), (1,)) batch=((0,), (0,)) : T[2,6,3]",
            "%3 = transpose %2 perm=(1, 0, 2) : T[6,2,3]",
            "%4 = slice %3 starts=(2, 0, 0) limits=(6, 2, 3) steps=(2, 1, 1) : T[2,2,3]",
            "return %4",
        ),
        inputs("T[2,6,4]", "T[2,4,3]")
        + body(
            "%2 = contract %0 %1 contract=((2,), (1,)) batch=((0,), (0,)) : T[2,6,3]",
            "%3 = slice %2 starts=(0, 2, 0) limits=(2, 6, 3) steps=(1, 2, 1) : T[2,2,3]",
            "%4 = transpose %3 perm=(1, 0, 2) : T[2,2,3]",
            "return %4",
        ),
        # somebody else reads all of it
        inputs("T[2,6,4]", "T[2,4,3]")
        + body(
            "%2 = contract %0 %1 contract=((2,), (1,)) batch=((0,), (0,)) : T[2,6,3]",
            "%3 = transpose %2 perm=(1, 0, 2) : T[6,2,3]",
            "%4 = slice %3 starts=(2, 0, 0) limits=(6, 2, 3) steps=(2, 1, 1) : T[2,2,3]",
            "return %4 %3",
        ),
        # no contraction
        inputs("T[2,6,4]")
        + body(
            "%1 = transpose %0 perm=(1, 0, 2) : T[6,2,4]",
            "%2 = slice %1 starts=(2, 0, 0) limits=(6, 2, 4) steps=(2, 1, 1) : T[2,2,4]",
            "return %2",
        ),
    ),
    case(
        "slice_contract",
        ROWS
        + body(
            "%3 = contract %0 %1 contract=((1,), (0,)) batch=((), ()) : T[6,3]",
            "%4 = slice %3 starts=(2, 0) limits=(6, 2) steps=(2, 1) : T[2,2]",
            "return %4",
        ),
        ROWS
        + body(
            "%3 = slice %0 starts=(2, 0) limits=(6, 4) steps=(2, 1) : T[2,4]",
            "%4 = slice %1 starts=(0, 0) limits=(4, 2) steps=(1, 1) : T[4,2]",
            "%5 = contract %3 %4 contract=((1,), (0,)) batch=((), ()) : T[2,2]",
            "return %5",
        ),
        ROWS
        + body(
            "%3 = contract %0 %1 contract=((1,), (0,)) batch=((), ()) : T[6,3]",
            "%4 = slice %3 starts=(2, 0) limits=(6, 2) steps=(2, 1) : T[2,2]",
            "return %4 %3",
        ),
        ROWS
        + body(
            "%3 = mul %0 %0 : T[6,4]",
            "%4 = slice %3 starts=(0, 0) limits=(2, 4) steps=(1, 1) : T[2,4]",
            "return %4",
        ),
    ),
    case(
        "sum_one_hot",
        X
        + body(
            "%3 = diagonal shape=(6, 6) first=0 second=1 offset=0 : bool[6,6]",
            "%4 = broadcast_to %0 shape=(6, 6) : T[6,6]",
            *spread(5, "0.0", "6, 6"),
            "%7 = select %3 %4 %6 : T[6,6]",
            "%8 = sum %7 axes=(1,) : T[6]",
            "return %8",
        ),
        X + body("return %0"),
        # the value varies along both axes
        inputs("T[6,6]")
        + body(
            "%3 = diagonal shape=(6, 6) first=0 second=1 offset=0 : bool[6,6]",
            *spread(4, "0.0", "6, 6"),
            "%6 = select %3 %0 %5 : T[6,6]",
            "%7 = sum %6 axes=(1,) : T[6]",
            "return %7",
        ),
        # nothing says that there is one place in each row
        X
        + body(
            "%3 = diagonal shape=(6, 6) first=0 second=1 offset=1 : bool[6,6]",
            "%4 = broadcast_to %0 shape=(6, 6) : T[6,6]",
            *spread(5, "0.0", "6, 6"),
            "%7 = select %3 %4 %6 : T[6,6]",
            "%8 = sum %7 axes=(1,) : T[6]",
            "return %8",
        ),
    ),
    case(
        "contract_one_hot",
        inputs("T[3,6]", "T[6]")
        + body(
            "%4 = diagonal shape=(6, 6) first=0 second=1 offset=0 : bool[6,6]",
            "%5 = broadcast_to %1 shape=(6, 6) : T[6,6]",
            *spread(6, "0.0", "6, 6"),
            "%8 = select %4 %5 %7 : T[6,6]",
            "%9 = contract %0 %8 contract=((1,), (1,)) batch=((), ()) : T[3,6]",
            "return %9",
        ),
        inputs("T[3,6]", "T[6]")
        + body(
            "%2 = contract %0 %1 contract=((), ()) batch=((1,), (0,)) : T[6,3]",
            "%3 = transpose %2 perm=(1, 0) : T[3,6]",
            "return %3",
        ),
        # the direction is summed with itself
        inputs("T[3,6,6]", "T[6]")
        + body(
            "%4 = diagonal shape=(6, 6) first=0 second=1 offset=0 : bool[6,6]",
            "%5 = broadcast_to %1 shape=(6, 6) : T[6,6]",
            *spread(6, "0.0", "6, 6"),
            "%8 = select %4 %5 %7 : T[6,6]",
            "%9 = contract %0 %8 contract=((1, 2), (0, 1)) batch=((), ()) : T[3]",
            "return %9",
        ),
    ),
)
