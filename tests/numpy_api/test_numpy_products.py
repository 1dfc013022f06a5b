"""Products on tracers against NumPy: matmul and kin, tensordot, einsum, norms."""

from __future__ import annotations

import pytest
from expressions.values import EINSUM, PRODUCTS
from numpy_harness import OPERANDS, check_expression, function_of, lines, record


@pytest.mark.parametrize("expression", PRODUCTS + EINSUM)
def test_product(expression: str) -> None:
    check_expression(expression)


ERRORS = lines(
    """
    m @ n
    m @ s
    np.dot(m, n)
    np.tensordot(m, n, 1)
    np.einsum('ij,jk', m, n)
    np.einsum('ij->k', m)
    np.einsum('ijk->', m)
    np.cross(v, v)
    np.linalg.norm(t, 'fro')
    np.linalg.matrix_power(m, 2)
    np.linalg.multi_dot([m])
    """
)


@pytest.mark.parametrize("expression", ERRORS)
def test_errors_are_numpys(expression: str) -> None:
    function, names = function_of(expression)
    arrays = [OPERANDS[name] for name in names]
    with pytest.raises(Exception) as wanted:
        function(*arrays)
    with pytest.raises(wanted.type):
        record(function, arrays)


@pytest.mark.parametrize(
    ("expression", "contractions"),
    [
        ("np.einsum('i,i->i', v, v)", 0),
        ("np.einsum('i,j->ij', v, w)", 0),
        ("np.einsum('ij,ij->j', m, n)", 1),
        ("np.einsum('ij,jk,kl->il', q, m, k)", 2),
    ],
)
def test_elementwise_pairs_are_multiplications(expression: str, contractions: int) -> None:
    function, names = function_of(expression)
    graph, _, _ = record(function, [OPERANDS[name] for name in names])
    assert [node.op.name for node in graph.nodes()].count("contract") == contractions
