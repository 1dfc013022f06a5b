"""Small matrices by their elements: LU with partial or complete pivoting, Cholesky, substitution, cofactors.

A stack of n by n matrices is n * n nodes that have the shape of the stack: element (i, j) of all matrices
together. Each step of an elimination is one operation on such nodes, so a batch of matrices runs in SIMD
lanes, its elements in registers. There is no loop and no branch: rows change places by `select`, in each
matrix for itself.

Input: nodes of matrices, of up to `LIMIT` rows. Output: elements, or nodes that are put together from them.
Invariants: the pivots are those of LAPACK (the first of the largest magnitude); equal matrices share their
factors, because a builder makes equal nodes once; a pivot that is zero divides nothing while a matrix is
factored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from graphjit.ir.builder import Builder
from graphjit.ir.node import Node
from graphjit.ir.types import BOOL

LIMIT = 8
"""Rows of the largest matrix: the number of operations grows with the cube, and each is code of its own."""

Line = list[Node]
"""A row, a column or a diagonal."""
Matrix = list[Line]
"""Rows of elements."""
Swap = list[Node]
"""The conditions under which line k changes places with line k + 1, k + 2, ...; at most one of them holds."""


# ---------------------------------------------------------------------------------- elements and whole arrays


def elements(b: Builder, x: Node) -> Matrix:
    """The elements of the last two axes, each with the shape of the others."""
    *batch, rows, columns = x.shape
    return [[_element(b, x, tuple(batch), i, j) for j in range(columns)] for i in range(rows)]


def _element(b: Builder, x: Node, batch: tuple[int, ...], i: int, j: int) -> Node:
    starts, limits = (*(0 for _ in batch), i, j), (*batch, i + 1, j + 1)
    return b.reshape(b.slice(x, starts=starts, limits=limits, steps=(1,) * len(starts)), shape=batch)


def assembled(b: Builder, matrix: Sequence[Sequence[Node]]) -> Node:
    """The array with these elements on its last two axes; the inverse of `elements`."""
    batch = matrix[0][0].shape
    depth = len(batch)
    rows = [
        b.concatenate(*(b.reshape(x, shape=(*batch, 1, 1)) for x in row), axis=depth + 1) for row in matrix
    ]
    return b.concatenate(*rows, axis=depth)


APART = 128
"""Multiply-adds of a substitution up to which all of its columns are taken apart: each is code of its own.
The gradient of Cholesky at 6 rows compiles in 134 instead of 211 ms that way, and is as fast."""


class Columns(NamedTuple):
    """Right-hand sides as columns of elements.

    A few columns are taken apart too. Of many, an element is a row with all of them, and the elements of the
    matrix are repeated along it.
    """

    columns: Matrix
    """Each a list of n nodes."""
    fit: Callable[[Node], Node]
    """An element of the matrix in the shape of those nodes."""
    join: Callable[[Matrix], Node]
    """The array that new columns make."""


def columns_of(b: Builder, x: Node) -> Columns:
    """The columns of a right-hand side (..., n, k)."""
    *batch, rows, count = x.shape
    if count <= 2 or rows * rows * count <= APART:
        parts = elements(b, x)
        columns = [[parts[i][j] for i in range(rows)] for j in range(count)]
        return Columns(columns, lambda node: node, lambda made: assembled(b, transposed(made)))
    wide = (*batch, count)

    def row(i: int) -> Node:
        starts, limits = (*(0 for _ in batch), i, 0), (*batch, i + 1, count)
        return b.reshape(b.slice(x, starts=starts, limits=limits, steps=(1,) * len(starts)), shape=wide)

    def fit(node: Node) -> Node:
        return b.broadcast_to(b.reshape(node, shape=(*batch, 1)), shape=wide)

    def join(made: Matrix) -> Node:
        rows = [b.reshape(node, shape=(*batch, 1, count)) for node in made[0]]
        return b.concatenate(*rows, axis=len(batch))

    return Columns([[row(i) for i in range(rows)]], fit, join)


def transposed(matrix: Sequence[Sequence[Node]]) -> Matrix:
    """Columns for rows."""
    return [list(line) for line in zip(*matrix, strict=True)]


# ----------------------------------------------------------------------------------------------------- pivots


def pivoted(b: Builder, sizes: Sequence[Node]) -> Swap:
    """Which line changes places with the first: the first one of the largest of ``sizes``."""
    best, larger = sizes[0], []
    for size in sizes[1:]:
        larger.append(b.gt(size, best))
        best = b.select(larger[-1], size, best)
    swap: Swap = []
    later: Node | None = None  # whether a line further down is larger still
    for condition in reversed(larger):
        swap.append(condition if later is None else b.emit("and", condition, b.emit("not", later)))
        later = condition if later is None else b.emit("or", condition, later)
    return swap[::-1]


def swapped(b: Builder, line: Sequence[Node], k: int, swap: Swap, fit: Callable[[Node], Node]) -> Line:
    """``line`` with element k and the one that ``swap`` names in each other's places."""
    moved = list(line)
    for i, condition in enumerate(swap, k + 1):
        condition = fit(condition)
        moved[k] = b.select(condition, line[i], moved[k])
        moved[i] = b.select(condition, line[k], line[i])
    return moved


def _itself(node: Node) -> Node:
    return node


def any_of(b: Builder, conditions: Sequence[Node]) -> Node:
    """Whether one of the conditions holds; there is at least one."""
    found = conditions[0]
    for condition in conditions[1:]:
        found = b.emit("or", found, condition)
    return found


def all_of(b: Builder, conditions: Sequence[Node]) -> Node:
    """Whether all of the conditions hold; there is at least one."""
    found = conditions[0]
    for condition in conditions[1:]:
        found = b.emit("and", found, condition)
    return found


# --------------------------------------------------------------------------------------------------------- LU


class Factors(NamedTuple):
    """``l u``, the matrix with its rows (and its columns, if the pivoting was complete) swapped."""

    lu: Matrix
    """u on and above the diagonal, below it l, whose own diagonal is 1."""
    rows: list[Swap]
    """How rows were swapped, step by step."""
    columns: list[Swap]
    """How columns were; empty swaps for partial pivoting."""

    @property
    def pivots(self) -> Line:
        """The diagonal of u."""
        return [row[k] for k, row in enumerate(self.lu)]


def lu(b: Builder, matrix: Matrix, complete: bool = False) -> Factors:
    """LU factors with partial pivoting, row by row (Golub and Van Loan, section 3.4), or complete pivoting.

    As in LAPACK a column without a pivot is left as it is: l is zero there, and so is the element of u.
    """
    rows, n = [list(row) for row in matrix], len(matrix)
    row_swaps: list[Swap] = []
    column_swaps: list[Swap] = []
    for k in range(n):
        row_swaps.append(pivoted(b, [_largest(b, row[k : None if complete else k + 1]) for row in rows[k:]]))
        rows = transposed([swapped(b, column, k, row_swaps[-1], _itself) for column in transposed(rows)])
        column_swaps.append(pivoted(b, [b.abs(x) for x in rows[k][k:]]) if complete else [])
        rows = [swapped(b, row, k, column_swaps[-1], _itself) for row in rows]
        _eliminate(b, rows, k)
    return Factors(rows, row_swaps, column_swaps)


def _largest(b: Builder, line: Sequence[Node]) -> Node:
    """The largest magnitude."""
    best = b.abs(line[0])
    for x in line[1:]:
        best = b.maximum(best, b.abs(x))
    return best


def _eliminate(b: Builder, rows: Matrix, k: int) -> None:
    """Subtract row k from the rows below it, whose column k becomes zero; factors take its place."""
    if k == len(rows) - 1:
        return  # the last pivot divides nothing
    divisor = or_one(b, rows[k][k])
    for row in rows[k + 1 :]:
        row[k] = b.div(row[k], divisor)
        for j in range(k + 1, len(rows)):
            row[j] = b.sub(row[j], b.mul(row[k], rows[k][j]))


def or_one(b: Builder, pivot: Node) -> Node:
    """A pivot to divide by: 1 for 0."""
    return b.select(b.eq(pivot, 0.0), b.full(1.0, pivot.type), pivot)


def regular(b: Builder, factors: Factors) -> Node:
    """Whether no pivot is zero. One that is not a number is none that is zero, as in LAPACK."""
    return all_of(b, [b.ne(pivot, 0.0) for pivot in factors.pivots])


def odd(b: Builder, factors: Factors) -> Node:
    """Whether rows and columns were swapped an odd number of times."""
    found = b.full(False, factors.lu[0][0].type.with_dtype(BOOL))
    for swap in (*factors.rows, *factors.columns):
        if swap:
            found = b.emit("xor", found, any_of(b, swap))
    return found


# ----------------------------------------------------------------------------------------------- substitution


def forward(b: Builder, rows: Matrix, column: Sequence[Node], divisors: Sequence[Node] | None) -> Line:
    """The solution of ``l x = column``, from ``rows`` of which the lower triangle is read; without
    ``divisors`` its diagonal is 1.
    """
    found: Line = []
    for i, x in enumerate(column):
        for j, known in enumerate(found):
            x = b.sub(x, b.mul(rows[i][j], known))
        found.append(x if divisors is None else b.div(x, divisors[i]))
    return found


def backward(
    b: Builder, rows: Matrix, column: Sequence[Node | None], divisors: Sequence[Node | None] | None
) -> Line:
    """The solution of ``u x = column``, from ``rows`` of which the upper triangle is read. None stands for a
    zero, of which the last is none, and for a divisor 1.
    """
    found: dict[int, Node] = {}
    for i in reversed(range(len(column))):
        x = column[i]
        for j, known in found.items():
            term = b.mul(rows[i][j], known)
            x = b.neg(term) if x is None else b.sub(x, term)
        divisor = None if divisors is None else divisors[i]
        assert x is not None
        found[i] = x if divisor is None else b.div(x, divisor)
    return [found[i] for i in range(len(column))]


def solved(b: Builder, factors: Factors, rhs: Columns, turned: bool, divisors: Sequence[Node]) -> Node:
    """The solutions of ``a x = column`` (with a transposed, if ``turned``) for each column, from the LU
    factors of a. ``divisors`` stand for the pivots.
    """
    rows = [[rhs.fit(x) for x in row] for row in factors.lu]
    divisors = [rhs.fit(x) for x in divisors]
    made = []
    for column in rhs.columns:
        x = list(column)
        if turned:
            x = backward(b, transposed(rows), forward(b, transposed(rows), x, divisors), None)
            for k in reversed(range(len(x))):
                x = swapped(b, x, k, factors.rows[k], rhs.fit)
        else:
            for k, swap in enumerate(factors.rows):
                x = swapped(b, x, k, swap, rhs.fit)
            x = backward(b, rows, forward(b, rows, x, None), divisors)
        made.append(x)
    return rhs.join(made)


def inverted(b: Builder, factors: Factors, divisors: Sequence[Node]) -> Matrix:
    """The elements of the inverse, from the LU factors of the matrix."""
    columns = [backward(b, factors.lu, column, divisors) for column in _inverse_of_l(b, factors.lu)]
    rows = transposed(columns)
    for k in reversed(range(len(rows))):
        rows = [swapped(b, row, k, factors.rows[k], _itself) for row in rows]
    return rows


def _inverse_of_l(b: Builder, rows: Matrix) -> list[list[Node | None]]:
    """The columns of the inverse of l; None for the zeros above the diagonal."""
    columns: list[list[Node | None]] = []
    one = b.full(1.0, rows[0][0].type)
    for j in range(len(rows)):
        below = rows[j + 1 :]
        rest = forward(b, [row[j + 1 :] for row in below], [b.neg(row[j]) for row in below], None)
        columns.append([*(None for _ in range(j)), one, *rest])
    return columns


# --------------------------------------------------------------------------------- determinants and cofactors


def product(b: Builder, factors: Sequence[Node]) -> Node:
    """Their product, the first with the last, and so on: pivots shrink from step to step, so that this
    overflows later than from left to right.
    """
    line = list(factors)
    while len(line) > 1:
        half = len(line) // 2
        pairs = [b.mul(x, y) for x, y in zip(line[:half], line[::-1][:half], strict=True)]
        line = pairs + line[half : len(line) - half]
    return line[0]


def determinant(b: Builder, matrix: Matrix) -> Node:
    """The determinant: by its formula up to three rows, else the product of the pivots."""
    every = list(range(len(matrix)))
    if len(matrix) <= 3:
        return _minor(b, matrix, every, every)
    factors = lu(b, matrix)
    found = product(b, factors.pivots)
    return b.select(odd(b, factors), b.neg(found), found)


FORMULA = 4
"""Rows up to which cofactors are written out: their number grows with the square, their length with n!."""


def cofactors(b: Builder, matrix: Matrix) -> Matrix:
    """The derivative of the determinant by each element, also where it is zero.

    Up to `FORMULA` rows by the formulas, which divide by nothing. Beyond that from LU factors with complete
    pivoting: if the rank is n - 1, the last pivot alone is zero, and nothing needs to be divided by it; if it
    is lower, so is the last but one, and all cofactors are zero (compare G. W. Stewart, On the adjugate
    matrix, 1998).
    """
    n = len(matrix)
    every = list(range(n))
    if n <= FORMULA:
        without = [[*every[:k], *every[k + 1 :]] for k in every]
        return [[_minor(b, matrix, without[i], without[j], (i + j) % 2) for j in every] for i in every]
    factors = lu(b, matrix, complete=True)
    *most, last = factors.pivots
    scale = product(b, most)
    scale = b.select(odd(b, factors), b.neg(scale), scale)
    whole = b.mul(scale, last)
    divisors = [*(or_one(b, pivot) for pivot in most), None]
    columns = []
    for column in _inverse_of_l(b, factors.lu):
        scaled = [None if x is None else b.mul(whole, x) for x in column[:-1]]
        columns.append(backward(b, factors.lu, [*scaled, b.mul(scale, column[-1])], divisors))
    for k in reversed(every):
        columns = [swapped(b, column, k, factors.columns[k], _itself) for column in columns]
    rows = transposed(columns)
    for k in reversed(every):
        rows = [swapped(b, row, k, factors.rows[k], _itself) for row in rows]
    return transposed(rows)


def _minor(
    b: Builder, matrix: Matrix, rows: Sequence[int], columns: Sequence[int], negative: int = 0
) -> Node:
    """The determinant of some rows and columns, or its negative, along the first of the rows."""
    if not rows:
        return b.full(1.0, matrix[0][0].type)
    if len(rows) == 1:
        only = matrix[rows[0]][columns[0]]
        return b.neg(only) if negative else only
    total: Node | None = None
    order = range(len(columns))
    for k in (1, 0, *order[2:]) if negative else order:  # what is positive first
        rest = [*columns[:k], *columns[k + 1 :]]
        term = b.mul(matrix[rows[0]][columns[k]], _minor(b, matrix, rows[1:], rest))
        total = term if total is None else b.sub(total, term) if (k + negative) % 2 else b.add(total, term)
    assert total is not None
    return total


# --------------------------------------------------------------------------------------------------- Cholesky


class Root(NamedTuple):
    """The Cholesky factor."""

    rows: Matrix
    """The factor, lower triangle alone: row i has i + 1 elements."""
    positive: Node
    """Whether what the roots on its diagonal were taken of was positive. What is not a number counts as
    positive, as in OpenBLAS."""


def cholesky(b: Builder, matrix: Matrix) -> Root:
    """The Cholesky factor, row by row, from the lower triangle of a symmetric matrix."""
    rows: Matrix = []
    squares: Line = []
    for i, given in enumerate(matrix):
        row: Line = []
        for j in range(i + 1):
            x = given[j]
            other = rows[j] if j < i else row
            for left, right in zip(row, other, strict=False):
                x = b.sub(x, b.mul(left, right))
            if j == i:
                squares.append(x)
            row.append(b.sqrt(x) if j == i else b.div(x, rows[j][j]))
        rows.append(row)
    return Root(rows, b.emit("not", any_of(b, [b.le(x, 0.0) for x in squares])))
