"""One case per rewrite rule: IR before, IR after, and near misses on which the rule must not fire.

Job: data for tests/test_passes.py.  ``T`` in a text stands for each of the case's dtypes in turn.
"""

from __future__ import annotations

from dataclasses import dataclass

FLOATS = ("f64", "f32")
INTS = ("i64", "u8")


@dataclass(frozen=True)
class Case:
    rule: str
    before: str
    after: str
    misses: tuple[str, ...]
    dtypes: tuple[str, ...] = FLOATS


def case(rule: str, before: str, after: str, *misses: str, dtypes: tuple[str, ...] = FLOATS) -> Case:
    return Case(rule, before, after, misses, dtypes)


def inputs(*types: str) -> str:
    """Input lines: ``%0``, ``%1`` ..."""
    return "".join(f"  %{i} = input name='{name}' : {type}\n" for i, (name, type) in enumerate(zip("xyz", types)))


def body(*lines: str) -> str:
    return "".join(f"  {line}\n" for line in lines)


X, XY, XYZ = inputs("T[6]"), inputs("T[6]", "T[6]"), inputs("T[6]", "T[6]", "T[6]")
CXY = inputs("bool[6]", "T[6]", "T[6]")
M = inputs("T[3,4]")


def spread(number: int, value: str, shape: str = "6", tail: str = "T") -> tuple[str, str]:
    """A scalar constant ``%number`` and its broadcast ``%number + 1``."""
    return (
        f"%{number} = const value={value} : {tail}[]",
        f"%{number + 1} = broadcast_to %{number} shape=({shape},) : {tail}[{shape}]",
    )


ARITHMETIC = (
    case(
        "mul_neg_neg",
        XY + body("%2 = neg %0 : T[6]", "%3 = neg %1 : T[6]", "%4 = mul %2 %3 : T[6]", "%5 = div %2 %3 : T[6]", "return %4 %5"),
        XY + body("%2 = mul %0 %1 : T[6]", "%3 = div %0 %1 : T[6]", "return %2 %3"),
        XY + body("%2 = neg %0 : T[6]", "%3 = mul %2 %1 : T[6]", "return %3"),
        XY + body("%2 = neg %0 : T[6]", "%3 = neg %1 : T[6]", "%4 = add %2 %3 : T[6]", "return %4"),
    ),
    case(
        "neg_outward",
        XY + body("%2 = neg %0 : T[6]", "%3 = mul %2 %1 : T[6]", "%4 = div %1 %2 : T[6]", "return %3 %4"),
        XY + body("%2 = mul %0 %1 : T[6]", "%3 = neg %2 : T[6]", "%4 = div %1 %0 : T[6]", "%5 = neg %4 : T[6]", "return %3 %5"),
        XY + body("%2 = neg %0 : T[6]", "%3 = maximum %2 %1 : T[6]", "return %3"),
        XY + body("%2 = neg %0 : T[6]", "%3 = pow %2 %1 : T[6]", "return %3"),
    ),
    case(
        "neg_into_constant",
        X + body(*spread(1, "2.5"), "%3 = mul %0 %2 : T[6]", "%4 = neg %3 : T[6]", "%5 = div %2 %0 : T[6]", "%6 = neg %5 : T[6]", "return %4 %6"),
        X + body(*spread(1, "-2.5"), "%3 = mul %0 %2 : T[6]", "%4 = div %2 %0 : T[6]", "return %3 %4"),
        X + body(*spread(1, "2.5"), "%3 = mul %0 %2 : T[6]", "%4 = neg %3 : T[6]", "return %3 %4"),
        XY + body("%2 = mul %0 %1 : T[6]", "%3 = neg %2 : T[6]", "return %3"),
        X + body(*spread(1, "2.5"), "%3 = sub %0 %2 : T[6]", "%4 = neg %3 : T[6]", "return %4"),
    ),
    case(
        "mul_minus_one",
        X + body(*spread(1, "-1.0"), "%3 = mul %0 %2 : T[6]", "return %3"),
        X + body("%1 = neg %0 : T[6]", "return %1"),
        X + body(*spread(1, "-1.5"), "%3 = mul %0 %2 : T[6]", "return %3"),
    ),
    case(
        "add_neg",
        XY + body("%2 = neg %1 : T[6]", "%3 = add %0 %2 : T[6]", "%4 = add %2 %0 : T[6]", "return %3 %4"),
        XY + body("%2 = sub %0 %1 : T[6]", "return %2 %2"),
        XY + body("%2 = neg %1 : T[6]", "%3 = sub %2 %0 : T[6]", "return %3"),
    ),
    case(
        "sub_neg",
        XY + body("%2 = neg %1 : T[6]", "%3 = sub %0 %2 : T[6]", "return %3"),
        XY + body("%2 = add %0 %1 : T[6]", "return %2"),
        XY + body("%2 = neg %1 : T[6]", "%3 = sub %2 %0 : T[6]", "return %3"),
        XY + body("%2 = sub %0 %1 : T[6]", "%3 = neg %2 : T[6]", "return %3"),
    ),
    case(
        "div_power_of_two",
        X + body(*spread(1, "-8.0"), "%3 = div %0 %2 : T[6]", "return %3"),
        X + body(*spread(1, "-0.125"), "%3 = mul %0 %2 : T[6]", "return %3"),
        X + body(*spread(1, "6.0"), "%3 = div %0 %2 : T[6]", "return %3"),
        X + body(*spread(1, "0.0"), "%3 = div %0 %2 : T[6]", "return %3"),
        X + body(*spread(1, "inf"), "%3 = div %0 %2 : T[6]", "return %3"),
    ),
    case(
        "div_power_of_two",
        X + body(*spread(1, "2.2250738585072014e-308"), "%3 = div %0 %2 : T[6]", "return %3"),
        X + body(*spread(1, "4.49423283715579e+307"), "%3 = mul %0 %2 : T[6]", "return %3"),
        X + body(*spread(1, "8.98846567431158e+307"), "%3 = div %0 %2 : T[6]", "return %3"),
        X + body(*spread(1, "5e-324"), "%3 = div %0 %2 : T[6]", "return %3"),
        dtypes=("f64",),
    ),
    case(
        "mul_reciprocal",
        XY + body(*spread(2, "1.0"), "%4 = div %3 %1 : T[6]", "%5 = mul %0 %4 : T[6]", "return %5"),
        XY + body("%2 = div %0 %1 : T[6]", "return %2"),
        XY + body(*spread(2, "1.0"), "%4 = div %3 %1 : T[6]", "%5 = mul %0 %4 : T[6]", "return %5 %4"),
        XY + body(*spread(2, "2.0"), "%4 = div %3 %1 : T[6]", "%5 = mul %0 %4 : T[6]", "return %5"),
    ),
    case(
        "pow_0",
        X + body(*spread(1, "0.0"), "%3 = pow %0 %2 : T[6]", "return %3"),
        X + body(*spread(1, "1.0"), "return %2"),
        X + body(*spread(1, "0.0"), "%3 = pow %2 %0 : T[6]", "return %3"),
    ),
    case(
        "pow_1",
        X + body(*spread(1, "1.0"), "%3 = pow %0 %2 : T[6]", "return %3"),
        X + body("return %0"),
        X + body(*spread(1, "0.5"), "%3 = pow %0 %2 : T[6]", "return %3"),
    ),
    case(
        "pow_2",
        X + body(*spread(1, "2.0"), "%3 = pow %0 %2 : T[6]", "return %3"),
        X + body("%1 = mul %0 %0 : T[6]", "return %1"),
        X + body(*spread(1, "2.0"), "%3 = pow %2 %0 : T[6]", "return %3"),
        X + body(*spread(1, "-2.0"), "%3 = pow %0 %2 : T[6]", "return %3"),
    ),
    case(
        "pow_3",
        X + body(*spread(1, "3.0"), "%3 = pow %0 %2 : T[6]", "return %3"),
        X + body("%1 = mul %0 %0 : T[6]", "%2 = mul %1 %0 : T[6]", "return %2"),
        X + body(*spread(1, "4.0"), "%3 = pow %0 %2 : T[6]", "return %3"),
    ),
    case(
        "pow_minus_1",
        X + body(*spread(1, "-1.0"), "%3 = pow %0 %2 : T[6]", "return %3"),
        X + body(*spread(1, "1.0"), "%3 = div %2 %0 : T[6]", "return %3"),
        X + body(*spread(1, "-0.5"), "%3 = pow %0 %2 : T[6]", "return %3"),
    ),
    case(
        "extremum_same",
        X + body("%1 = maximum %0 %0 : T[6]", "%2 = fmin %0 %0 : T[6]", "return %1 %2"),
        X + body("return %0 %0"),
        XY + body("%2 = maximum %0 %1 : T[6]", "return %2"),
    ),
    case(
        "abs_sign",
        X + body("%1 = neg %0 : T[6]", "%2 = abs %1 : T[6]", "%3 = abs %2 : T[6]", "return %3"),
        X + body("%1 = abs %0 : T[6]", "return %1"),
        X + body("%1 = neg %0 : T[6]", "%2 = exp %1 : T[6]", "return %2"),
        X + body("%1 = exp %0 : T[6]", "%2 = abs %1 : T[6]", "return %2"),
    ),
    case(
        "add_negative_zero",
        X + body(*spread(1, "-0.0"), "%3 = add %2 %0 : T[6]", "return %3"),
        X + body("return %0"),
        X + body(*spread(1, "0.0"), "%3 = add %0 %2 : T[6]", "return %3"),
    ),
    case(
        "add_negative_zero",
        X + body(*spread(1, "0"), "%3 = add %2 %0 : T[6]", "return %3"),
        X + body("return %0"),
        X + body(*spread(1, "1"), "%3 = add %0 %2 : T[6]", "return %3"),
        dtypes=INTS,
    ),
    case(
        "mul_zero_integer",
        X + body(*spread(1, "0"), "%3 = mul %0 %2 : T[6]", "return %3"),
        X + body(*spread(1, "0"), "return %2"),
        X + body(*spread(1, "2"), "%3 = mul %0 %2 : T[6]", "return %3"),
        inputs("f64[6]") + body(*spread(1, "0.0", tail="f64"), "%3 = mul %0 %2 : f64[6]", "return %3"),
        dtypes=INTS,
    ),
    case(
        "sub_self_integer",
        X + body("%1 = sub %0 %0 : T[6]", "%2 = xor %0 %0 : T[6]", "return %1 %2"),
        X + body(*spread(1, "0"), "return %2 %2"),
        XY + body("%2 = sub %0 %1 : T[6]", "return %2"),
        inputs("f64[6]") + body("%1 = sub %0 %0 : f64[6]", "return %1"),
        dtypes=INTS,
    ),
)

LOGIC = (
    case(
        "select_not",
        CXY + body("%3 = not %0 : bool[6]", "%4 = select %3 %1 %2 : T[6]", "return %4"),
        CXY + body("%3 = select %0 %2 %1 : T[6]", "return %3"),
        inputs("bool[6]", "bool[6]", "T[6]")
        + body("%3 = or %0 %1 : bool[6]", "%4 = select %3 %2 %2 : T[6]", "%5 = not %0 : bool[6]", "return %4 %5"),
    ),
    case(
        "select_select",
        inputs("bool[6]", "T[6]", "T[6]")
        + body("%3 = select %0 %1 %2 : T[6]", "%4 = select %0 %3 %2 : T[6]", "%5 = select %0 %2 %3 : T[6]", "return %4 %5"),
        CXY + body("%3 = select %0 %1 %2 : T[6]", "return %3 %2"),
        inputs("bool[6]", "bool[6]", "T[6]")
        + body(*spread(3, "1.5"), "%5 = select %0 %2 %4 : T[6]", "%6 = select %1 %5 %4 : T[6]", "return %6"),
    ),
    case(
        "select_bool",
        inputs("bool[6]")
        + body(
            *spread(1, "True", tail="bool"),
            *spread(3, "False", tail="bool"),
            "%5 = select %0 %2 %4 : bool[6]",
            "%6 = select %0 %4 %2 : bool[6]",
            "return %5 %6",
        ),
        inputs("bool[6]") + body("%1 = not %0 : bool[6]", "return %0 %1"),
        inputs("bool[6]", "bool[6]") + body(*spread(2, "True", tail="bool"), "%4 = select %0 %3 %1 : bool[6]", "return %4"),
        dtypes=("bool",),
    ),
    case(
        "not_comparison",
        XY + body("%2 = lt %0 %1 : bool[6]", "%3 = not %2 : bool[6]", "%4 = ne %0 %1 : bool[6]", "%5 = not %4 : bool[6]", "return %3 %5"),
        XY + body("%2 = ge %0 %1 : bool[6]", "%3 = eq %0 %1 : bool[6]", "return %2 %3"),
        inputs("f64[6]", "f64[6]") + body("%2 = lt %0 %1 : bool[6]", "%3 = not %2 : bool[6]", "return %3"),
        dtypes=("i64", "u8", "bool"),
    ),
    case(
        "not_comparison",
        XY + body("%2 = eq %0 %1 : bool[6]", "%3 = not %2 : bool[6]", "return %3"),
        XY + body("%2 = ne %0 %1 : bool[6]", "return %2"),
        XY + body("%2 = ge %0 %1 : bool[6]", "%3 = not %2 : bool[6]", "return %3"),
    ),
    case(
        "logic_constant",
        inputs("bool[6]")
        + body(
            *spread(1, "True", tail="bool"),
            "%3 = and %0 %2 : bool[6]",
            "%4 = or %2 %0 : bool[6]",
            "%5 = xor %0 %2 : bool[6]",
            "return %3 %4 %5",
        ),
        inputs("bool[6]") + body(*spread(1, "True", tail="bool"), "%3 = not %0 : bool[6]", "return %0 %2 %3"),
        inputs("bool[6]", "bool[6]") + body("%2 = and %0 %1 : bool[6]", "return %2"),
        inputs("i64[6]") + body(*spread(1, "1", tail="i64"), "%3 = and %0 %2 : i64[6]", "return %3"),
        dtypes=("bool",),
    ),
    case(
        "logic_constant",
        inputs("bool[6]")
        + body(
            *spread(1, "False", tail="bool"),
            "%3 = and %0 %2 : bool[6]",
            "%4 = or %2 %0 : bool[6]",
            "%5 = xor %0 %2 : bool[6]",
            "return %3 %4 %5",
        ),
        inputs("bool[6]") + body(*spread(1, "False", tail="bool"), "return %2 %0 %0"),
        dtypes=("bool",),
    ),
    case(
        "compare_self",
        X + body("%1 = le %0 %0 : bool[6]", "%2 = ne %0 %0 : bool[6]", "return %1 %2"),
        X + body(*spread(1, "True", tail="bool"), *spread(3, "False", tail="bool"), "return %2 %4"),
        inputs("f64[6]") + body("%1 = ne %0 %0 : bool[6]", "return %1"),
        XY + body("%2 = eq %0 %1 : bool[6]", "return %2"),
        dtypes=("i64", "u8", "bool"),
    ),
    case(
        "convert_convert",
        inputs("f32[6]")
        + body("%1 = convert %0 dtype=f64 : f64[6]", "%2 = convert %1 dtype=f32 : f32[6]", "%3 = convert %1 dtype=bool : bool[6]", "return %2 %3"),
        inputs("f32[6]") + body("%1 = convert %0 dtype=bool : bool[6]", "return %0 %1"),
        inputs("f64[6]") + body("%1 = convert %0 dtype=f32 : f32[6]", "%2 = convert %1 dtype=f64 : f64[6]", "return %2"),
        inputs("i64[6]") + body("%1 = convert %0 dtype=f64 : f64[6]", "%2 = convert %1 dtype=i64 : i64[6]", "return %2"),
        inputs("i32[6]") + body("%1 = convert %0 dtype=f64 : f64[6]", "%2 = convert %1 dtype=i8 : i8[6]", "return %2"),
        inputs("i64[6]") + body("%1 = convert %0 dtype=u8 : u8[6]", "%2 = convert %1 dtype=i64 : i64[6]", "return %2"),
        dtypes=("f32",),
    ),
    case(
        "convert_convert",
        inputs("i32[6]", "bool[6]")
        + body(
            "%2 = convert %0 dtype=i64 : i64[6]",
            "%3 = convert %2 dtype=u8 : u8[6]",
            "%4 = convert %1 dtype=i64 : i64[6]",
            "%5 = convert %4 dtype=f64 : f64[6]",
            "return %3 %5",
        ),
        inputs("i32[6]", "bool[6]") + body("%2 = convert %0 dtype=u8 : u8[6]", "%3 = convert %1 dtype=f64 : f64[6]", "return %2 %3"),
        dtypes=("i32",),
    ),
    case(
        "convert_predicate",
        inputs("bool[6]")
        + body("%1 = convert %0 dtype=T : T[6]", *spread(2, "0"), "%4 = ne %1 %3 : bool[6]", "%5 = eq %1 %3 : bool[6]", "return %4 %5"),
        inputs("bool[6]") + body("%1 = not %0 : bool[6]", "return %0 %1"),
        inputs("bool[6]") + body("%1 = convert %0 dtype=T : T[6]", *spread(2, "1"), "%4 = ne %1 %3 : bool[6]", "return %4"),
        inputs("i8[6]") + body("%1 = convert %0 dtype=T : T[6]", *spread(2, "0"), "%4 = ne %1 %3 : bool[6]", "return %4"),
        dtypes=("i64", "f64", "f32"),
    ),
)

REDUCTIONS = (
    case(
        "reduce_reduce",
        inputs("T[2,3,4]") + body("%1 = sum %0 axes=(1,) : T[2,4]", "%2 = sum %1 axes=(1,) : T[2]", "return %2"),
        inputs("T[2,3,4]") + body("%1 = sum %0 axes=(1, 2) : T[2]", "return %1"),
        inputs("T[2,3,4]") + body("%1 = sum %0 axes=(1,) : T[2,4]", "%2 = sum %1 axes=(1,) : T[2]", "return %2 %1"),
        inputs("T[2,3,4]") + body("%1 = max %0 axes=(1,) : T[2,4]", "%2 = sum %1 axes=(1,) : T[2]", "return %2"),
        dtypes=("f64", "f32", "i64"),
    ),
    case(
        "reduce_reduce",
        inputs("bool[2,3,4]") + body("%1 = any %0 axes=(0,) : bool[3,4]", "%2 = any %1 axes=(1,) : bool[3]", "return %2"),
        inputs("bool[2,3,4]") + body("%1 = any %0 axes=(0, 2) : bool[3]", "return %1"),
        inputs("bool[2,3,4]") + body("%1 = any %0 axes=(0,) : bool[3,4]", "%2 = all %1 axes=(1,) : bool[3]", "return %2"),
        dtypes=("bool",),
    ),
    case(
        "reduce_thin_reshape",
        M + body("%1 = reshape %0 shape=(3, 1, 4) : T[3,1,4]", "%2 = sum %1 axes=(0, 1) : T[4]", "%3 = max %1 axes=(2,) : T[3,1]", "return %2 %3"),
        M + body("%1 = sum %0 axes=(0,) : T[4]", "%2 = max %0 axes=(1,) : T[3]", "%3 = reshape %2 shape=(3, 1) : T[3,1]", "return %1 %3"),
        M + body("%1 = reshape %0 shape=(2, 6) : T[2,6]", "%2 = sum %1 axes=(0,) : T[6]", "return %2"),
    ),
    case(
        "reduce_transpose",
        inputs("T[2,3,4]") + body("%1 = transpose %0 perm=(2, 1, 0) : T[4,3,2]", "%2 = sum %1 axes=(1,) : T[4,2]", "return %2"),
        inputs("T[2,3,4]") + body("%1 = sum %0 axes=(1,) : T[2,4]", "%2 = transpose %1 perm=(1, 0) : T[4,2]", "return %2"),
        inputs("T[2,3,4]") + body("%1 = transpose %0 perm=(2, 1, 0) : T[4,3,2]", "%2 = cumsum %1 axis=1 reverse=False : T[4,3,2]", "return %2"),
    ),
    case(
        "reduce_flip",
        M + body("%1 = flip %0 axes=(0,) : T[3,4]", "%2 = sum %1 axes=(0, 1) : T[]", "return %2"),
        M + body("%1 = sum %0 axes=(0, 1) : T[]", "return %1"),
        M + body("%1 = flip %0 axes=(0,) : T[3,4]", "%2 = sum %1 axes=(1,) : T[3]", "return %2"),
    ),
    case(
        "sum_broadcast",
        inputs("T[3,1]") + body("%1 = broadcast_to %0 shape=(2, 3, 5) : T[2,3,5]", "%2 = sum %1 axes=(0, 1) : T[5]", "return %2"),
        inputs("T[3,1]")
        + body(
            "%1 = sum %0 axes=(0,) : T[1]",
            "%2 = broadcast_to %1 shape=(5,) : T[5]",
            "%3 = const value=2 : T[]",
            "%4 = broadcast_to %3 shape=(5,) : T[5]",
            "%5 = mul %2 %4 : T[5]",
            "return %5",
        ),
        inputs("T[3,1]") + body("%1 = broadcast_to %0 shape=(3, 5) : T[3,5]", "%2 = sum %1 axes=(0,) : T[5]", "return %2"),
        inputs("T[3,1]") + body("%1 = broadcast_to %0 shape=(3, 5) : T[3,5]", "%2 = prod %1 axes=(1,) : T[3]", "return %2"),
        dtypes=("f64", "f32", "i64", "i8"),
    ),
    case(
        "sum_broadcast",
        inputs("i8[]") + body("%1 = broadcast_to %0 shape=(300,) : i8[300]", "%2 = sum %1 axes=(0,) : i8[]", "return %2"),
        inputs("i8[]") + body("%1 = const value=44 : i8[]", "%2 = mul %0 %1 : i8[]", "return %2"),
        dtypes=("i8",),
    ),
    case(
        "reduce_broadcast",
        inputs("T[3,1]") + body("%1 = broadcast_to %0 shape=(2, 3, 5) : T[2,3,5]", "%2 = max %1 axes=(0, 2) : T[3]", "return %2"),
        inputs("T[3,1]") + body("%1 = reshape %0 shape=(3,) : T[3]", "return %1"),
        inputs("T[3,1]") + body("%1 = broadcast_to %0 shape=(3, 5) : T[3,5]", "%2 = max %1 axes=(0,) : T[5]", "return %2"),
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
        inputs("T[4,3]", "T[4,5]") + body("%2 = contract %0 %1 contract=((0,), (0,)) batch=((), ()) : T[3,5]", "return %2"),
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
        inputs("T[3,4]", "T[4,5]") + body("%2 = contract %1 %0 contract=((0,), (1,)) batch=((), ()) : T[5,3]", "return %2"),
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
        inputs("T[3,1]") + body("%1 = broadcast_to %0 shape=(3, 4) : T[3,4]", "%2 = copy %1 slot=0 : T[3,4]", "return %2"),
    ),
    case(
        "broadcast_leading",
        inputs("T[3]") + body("%1 = reshape %0 shape=(1, 3) : T[1,3]", "%2 = broadcast_to %1 shape=(2, 3) : T[2,3]", "return %2"),
        inputs("T[3]") + body("%1 = broadcast_to %0 shape=(2, 3) : T[2,3]", "return %1"),
        inputs("T[3]") + body("%1 = reshape %0 shape=(3, 1) : T[3,1]", "%2 = broadcast_to %1 shape=(3, 2) : T[3,2]", "return %2"),
        inputs("T[1,3]") + body("%1 = broadcast_to %0 shape=(2, 3) : T[2,3]", "return %1"),
    ),
    case(
        "reshape_broadcast",
        inputs("T[3,1]")
        + body("%1 = broadcast_to %0 shape=(3, 4) : T[3,4]", "%2 = reshape %1 shape=(3, 1, 4) : T[3,1,4]", "return %2"),
        inputs("T[3,1]")
        + body("%1 = reshape %0 shape=(3, 1, 1) : T[3,1,1]", "%2 = broadcast_to %1 shape=(3, 1, 4) : T[3,1,4]", "return %2"),
        inputs("T[3,1]") + body("%1 = broadcast_to %0 shape=(3, 4) : T[3,4]", "%2 = reshape %1 shape=(12,) : T[12]", "return %2"),
    ),
    case(
        "reshape_broadcast",
        inputs("T[1]") + body("%1 = broadcast_to %0 shape=(6,) : T[6]", "%2 = reshape %1 shape=(2, 3) : T[2,3]", "return %2"),
        inputs("T[1]") + body("%1 = reshape %0 shape=() : T[]", "%2 = broadcast_to %1 shape=(2, 3) : T[2,3]", "return %2"),
        inputs("T[2]") + body("%1 = broadcast_to %0 shape=(3, 2) : T[3,2]", "%2 = reshape %1 shape=(2, 3) : T[2,3]", "return %2"),
    ),
    case(
        "transpose_broadcast",
        inputs("T[2,3]")
        + body("%1 = broadcast_to %0 shape=(4, 2, 3) : T[4,2,3]", "%2 = transpose %1 perm=(2, 1, 0) : T[3,2,4]", "return %2"),
        inputs("T[2,3]")
        + body(
            "%1 = reshape %0 shape=(1, 2, 3) : T[1,2,3]",
            "%2 = transpose %1 perm=(2, 1, 0) : T[3,2,1]",
            "%3 = broadcast_to %2 shape=(3, 2, 4) : T[3,2,4]",
            "return %3",
        ),
        inputs("T[2,3]") + body("%1 = exp %0 : T[2,3]", "%2 = transpose %1 perm=(1, 0) : T[3,2]", "return %2"),
    ),
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
        M + body("%1 = exp %0 : T[3,4]", "%2 = slice %1 starts=(0, 1) limits=(3, 4) steps=(1, 1) : T[3,3]", "return %2"),
    ),
    case(
        "flip_broadcast",
        inputs("T[3,1]")
        + body("%1 = broadcast_to %0 shape=(2, 3, 4) : T[2,3,4]", "%2 = flip %1 axes=(0, 1, 2) : T[2,3,4]", "return %2"),
        inputs("T[3,1]") + body("%1 = flip %0 axes=(0,) : T[3,1]", "%2 = broadcast_to %1 shape=(2, 3, 4) : T[2,3,4]", "return %2"),
        M + body("%1 = exp %0 : T[3,4]", "%2 = flip %1 axes=(0,) : T[3,4]", "return %2"),
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
        + body("%1 = flip %0 axes=(0,) : T[20]", "%2 = slice %1 starts=(1,) limits=(6,) steps=(2,) : T[3]", "return %2"),
    ),
    case(
        "slice_concatenate",
        inputs("T[2,3]", "T[2,4]")
        + body(
            "%2 = concatenate %0 %1 axis=1 : T[2,7]",
            "%3 = slice %2 starts=(1, 4) limits=(2, 7) steps=(1, 2) : T[1,2]",
            "return %3",
        ),
        inputs("T[2,3]", "T[2,4]") + body("%2 = slice %1 starts=(1, 1) limits=(2, 4) steps=(1, 2) : T[1,2]", "return %2"),
        inputs("T[2,3]", "T[2,4]")
        + body(
            "%2 = concatenate %0 %1 axis=1 : T[2,7]",
            "%3 = slice %2 starts=(0, 2) limits=(2, 4) steps=(1, 1) : T[2,2]",
            "return %3",
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
        inputs("T[3]") + body("%1 = const value=0.0 : T[]", "%2 = broadcast_to %1 shape=(3,) : T[3]", "return %0 %2"),
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
        inputs("T[3]") + body("%1 = const value=0.0 : T[]", "%2 = broadcast_to %1 shape=(5,) : T[5]", "return %0 %2"),
        inputs("T[3]") + body(*spread(1, "-0.0", "3"), "%3 = embed %2 shape=(5,) starts=(1,) steps=(1,) : T[5]", "return %3"),
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
        inputs("T[1]") + body(*spread(1, "1.5", "9"), *spread(3, "1.5", "1991"), "%5 = concatenate %2 %4 axis=0 : T[2000]", "return %5"),
        inputs("T[1]") + body(*spread(1, "1.5", "2000"), "return %2"),
        inputs("T[1]") + body(*spread(1, "0.0", "2"), *spread(3, "-0.0", "2000"), "%5 = concatenate %2 %4 axis=0 : T[2002]", "return %5"),
        inputs("T[1]") + body(*spread(1, "1.5", "2"), "%3 = concatenate %0 %2 axis=0 : T[3]", "return %3"),
    ),
    case(
        "concatenate_flat",
        XY + body("%2 = concatenate %0 %1 axis=0 : T[12]", "%3 = concatenate %0 %2 axis=0 : T[18]", "return %3"),
        XY + body("%2 = concatenate %0 %0 %1 axis=0 : T[18]", "return %2"),
        XY + body("%2 = concatenate %0 %1 axis=0 : T[12]", "%3 = concatenate %0 %2 axis=0 : T[18]", "return %3 %2"),
        inputs("T[2,2]", "T[2,2]")
        + body("%2 = concatenate %0 %1 axis=0 : T[4,2]", "%3 = concatenate %2 %2 axis=1 : T[4,4]", "return %3"),
    ),
    case(
        "concatenate_slices",
        inputs("T[7]", "T[2]")
        + body(
            "%2 = slice %0 starts=(0,) limits=(3,) steps=(1,) : T[3]",
            "%3 = slice %0 starts=(3,) limits=(7,) steps=(1,) : T[4]",
            "%4 = concatenate %2 %3 %1 axis=0 : T[9]",
            "return %4",
        ),
        inputs("T[7]", "T[2]") + body("%2 = concatenate %0 %1 axis=0 : T[9]", "return %2"),
        inputs("T[7]", "T[2]")
        + body(
            "%2 = slice %0 starts=(3,) limits=(7,) steps=(1,) : T[4]",
            "%3 = slice %0 starts=(0,) limits=(3,) steps=(1,) : T[3]",
            "%4 = concatenate %2 %3 %1 axis=0 : T[9]",
            "return %4",
        ),
        inputs("T[7]", "T[7]")
        + body(
            "%2 = slice %0 starts=(0,) limits=(3,) steps=(1,) : T[3]",
            "%3 = slice %1 starts=(3,) limits=(7,) steps=(1,) : T[4]",
            "%4 = concatenate %2 %3 axis=0 : T[7]",
            "return %4",
        ),
        inputs("T[2,4]")
        + body(
            "%1 = slice %0 starts=(0, 0) limits=(1, 2) steps=(1, 1) : T[1,2]",
            "%2 = slice %0 starts=(1, 2) limits=(2, 4) steps=(1, 1) : T[1,2]",
            "%3 = concatenate %1 %2 axis=1 : T[1,4]",
            "return %3",
        ),
    ),
)

CASES = (*ARITHMETIC, *LOGIC, *REDUCTIONS, *CONTRACTION, *SHAPES)
