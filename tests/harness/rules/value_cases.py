"""Cases for the rules on values: arithmetic, selection, comparison, logic, conversion."""

from __future__ import annotations

from rules.case import CXY, INTS, XY, X, body, case, inputs, spread

QUOTIENTS = inputs("T[3,4]", "T[3,1]") + body(
    "%2 = broadcast_to %1 shape=(3, 4) : T[3,4]", "%3 = div %0 %2 : T[3,4]"
)

ARITHMETIC = (
    case(
        "mul_neg_neg",
        XY
        + body(
            "%2 = neg %0 : T[6]",
            "%3 = neg %1 : T[6]",
            "%4 = mul %2 %3 : T[6]",
            "%5 = div %2 %3 : T[6]",
            "return %4 %5",
        ),
        XY + body("%2 = mul %0 %1 : T[6]", "%3 = div %0 %1 : T[6]", "return %2 %3"),
        XY + body("%2 = neg %0 : T[6]", "%3 = mul %2 %1 : T[6]", "return %3"),
        XY + body("%2 = neg %0 : T[6]", "%3 = neg %1 : T[6]", "%4 = add %2 %3 : T[6]", "return %4"),
    ),
    case(
        "neg_outward",
        XY + body("%2 = neg %0 : T[6]", "%3 = mul %2 %1 : T[6]", "%4 = div %1 %2 : T[6]", "return %3 %4"),
        XY
        + body(
            "%2 = mul %0 %1 : T[6]",
            "%3 = neg %2 : T[6]",
            "%4 = div %1 %0 : T[6]",
            "%5 = neg %4 : T[6]",
            "return %3 %5",
        ),
        XY + body("%2 = neg %0 : T[6]", "%3 = maximum %2 %1 : T[6]", "return %3"),
        XY + body("%2 = neg %0 : T[6]", "%3 = pow %2 %1 : T[6]", "return %3"),
    ),
    case(
        "neg_into_constant",
        X
        + body(
            *spread(1, "2.5"),
            "%3 = mul %0 %2 : T[6]",
            "%4 = neg %3 : T[6]",
            "%5 = div %2 %0 : T[6]",
            "%6 = neg %5 : T[6]",
            "return %4 %6",
        ),
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
        "minus_twice",
        X + body("%1 = neg %0 : T[6]", "%2 = sub %1 %0 : T[6]", "return %2"),
        X + body(*spread(1, "-2.0"), "%3 = mul %0 %2 : T[6]", "return %3"),
        XY + body("%2 = neg %0 : T[6]", "%3 = sub %2 %1 : T[6]", "return %3"),
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
        "mul_second_quotient",
        XY
        + body(
            "%2 = sin %0 : T[6]",
            "%3 = div %2 %1 : T[6]",
            "%4 = div %0 %1 : T[6]",
            "%5 = div %4 %1 : T[6]",
            "%6 = mul %2 %5 : T[6]",
            "return %3 %6",
        ),
        XY
        + body(
            "%2 = sin %0 : T[6]",
            "%3 = div %2 %1 : T[6]",
            "%4 = div %0 %1 : T[6]",
            "%5 = mul %3 %4 : T[6]",
            "return %3 %5",
        ),
        XY
        + body(
            "%2 = sin %0 : T[6]",
            "%3 = div %0 %1 : T[6]",
            "%4 = div %3 %1 : T[6]",
            "%5 = mul %2 %4 : T[6]",
            "return %5",
        ),
        XY
        + body(
            "%2 = sin %0 : T[6]",
            "%3 = div %2 %1 : T[6]",
            "%4 = div %0 %1 : T[6]",
            "%5 = div %4 %1 : T[6]",
            "%6 = mul %2 %5 : T[6]",
            "return %3 %6 %5",
        ),
        XY
        + body(
            "%2 = sin %0 : T[6]",
            "%3 = div %2 %1 : T[6]",
            "%4 = div %0 %1 : T[6]",
            "%5 = div %4 %0 : T[6]",
            "%6 = mul %2 %5 : T[6]",
            "return %3 %6",
        ),
    ),
    case(
        "div_second_quotient",
        QUOTIENTS + body("%4 = div %3 %2 : T[3,4]", "return %4"),
        inputs("T[3,4]", "T[3,1]")
        + body(
            "%2 = broadcast_to %1 shape=(3, 4) : T[3,4]",
            "%3 = div %0 %2 : T[3,4]",
            "%4 = const value=1.0 : T[]",
            "%5 = broadcast_to %4 shape=(3, 1) : T[3,1]",
            "%6 = div %5 %1 : T[3,1]",
            "%7 = broadcast_to %6 shape=(3, 4) : T[3,4]",
            "%8 = mul %3 %7 : T[3,4]",
            "return %8",
        ),
        QUOTIENTS + body("%4 = div %3 %0 : T[3,4]", "return %4"),
        QUOTIENTS + body("%4 = mul %3 %2 : T[3,4]", "return %4"),
        XY + body("%2 = div %0 %1 : T[6]", "%3 = div %2 %1 : T[6]", "return %3"),
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
        inputs("u8[6]")
        + body("%1 = neg %0 : u8[6]", "%2 = abs %1 : u8[6]", "return %2"),  # unsigned numbers wrap
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
        + body(
            "%3 = or %0 %1 : bool[6]", "%4 = select %3 %2 %2 : T[6]", "%5 = not %0 : bool[6]", "return %4 %5"
        ),
    ),
    case(
        "select_select",
        inputs("bool[6]", "T[6]", "T[6]")
        + body(
            "%3 = select %0 %1 %2 : T[6]",
            "%4 = select %0 %3 %2 : T[6]",
            "%5 = select %0 %2 %3 : T[6]",
            "return %4 %5",
        ),
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
        inputs("bool[6]", "bool[6]")
        + body(*spread(2, "True", tail="bool"), "%4 = select %0 %3 %1 : bool[6]", "return %4"),
        dtypes=("bool",),
    ),
    case(
        "not_comparison",
        XY
        + body(
            "%2 = lt %0 %1 : bool[6]",
            "%3 = not %2 : bool[6]",
            "%4 = ne %0 %1 : bool[6]",
            "%5 = not %4 : bool[6]",
            "return %3 %5",
        ),
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
        + body(
            "%1 = convert %0 dtype=f64 : f64[6]",
            "%2 = convert %1 dtype=f32 : f32[6]",
            "%3 = convert %1 dtype=bool : bool[6]",
            "return %2 %3",
        ),
        inputs("f32[6]") + body("%1 = convert %0 dtype=bool : bool[6]", "return %0 %1"),
        inputs("f64[6]")
        + body("%1 = convert %0 dtype=f32 : f32[6]", "%2 = convert %1 dtype=f64 : f64[6]", "return %2"),
        inputs("i64[6]")
        + body("%1 = convert %0 dtype=f64 : f64[6]", "%2 = convert %1 dtype=i64 : i64[6]", "return %2"),
        inputs("i32[6]")
        + body("%1 = convert %0 dtype=f64 : f64[6]", "%2 = convert %1 dtype=i8 : i8[6]", "return %2"),
        inputs("i64[6]")
        + body("%1 = convert %0 dtype=u8 : u8[6]", "%2 = convert %1 dtype=i64 : i64[6]", "return %2"),
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
        inputs("i32[6]", "bool[6]")
        + body("%2 = convert %0 dtype=u8 : u8[6]", "%3 = convert %1 dtype=f64 : f64[6]", "return %2 %3"),
        dtypes=("i32",),
    ),
    case(
        "convert_predicate",
        inputs("bool[6]")
        + body(
            "%1 = convert %0 dtype=T : T[6]",
            *spread(2, "0"),
            "%4 = ne %1 %3 : bool[6]",
            "%5 = eq %1 %3 : bool[6]",
            "return %4 %5",
        ),
        inputs("bool[6]") + body("%1 = not %0 : bool[6]", "return %0 %1"),
        inputs("bool[6]")
        + body("%1 = convert %0 dtype=T : T[6]", *spread(2, "1"), "%4 = ne %1 %3 : bool[6]", "return %4"),
        inputs("i8[6]")
        + body("%1 = convert %0 dtype=T : T[6]", *spread(2, "0"), "%4 = ne %1 %3 : bool[6]", "return %4"),
        dtypes=("i64", "f64", "f32"),
    ),
)
