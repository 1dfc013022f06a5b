"""Products on tracers against NumPy: matmul and kin, tensordot, einsum, norms."""

from __future__ import annotations

import pytest
from numpy_harness import OPERANDS, check_expression, function_of, lines, record

PRODUCTS = lines(
    """
    m @ k
    m @ v
    w @ m
    v @ v
    t @ k
    t @ v
    v @ t.mT
    t @ u.mT
    u[0] @ t.mT
    m[None] @ t.mT
    t[:1] @ u.mT
    m @ np.ones((4, 2))
    np.ones((2, 3)) @ m
    i @ j
    b @ b.T
    f @ fv
    f @ v
    i8 @ i8.T
    np.matmul(m, k)
    np.matmul(t[:, None], u[None].mT)
    np.zeros((2, 0)) @ z
    np.vecdot(m, n)
    np.vecdot(t, v)
    np.matvec(t, v)
    np.vecmat(w, t)
    np.dot(m, k)
    np.dot(v, v)
    np.dot(t, v)
    np.dot(m, t.mT)
    np.dot(t, k)
    np.dot(s, m)
    np.dot(m, 2)
    m.dot(k)
    np.vdot(m, n)
    np.inner(m, n)
    np.inner(v, v)
    np.inner(t, v)
    np.inner(s, m)
    np.outer(v, w)
    np.outer(m, v)
    np.outer(s, v)
    np.linalg.outer(v, w)
    np.tensordot(m, k, 1)
    np.tensordot(m, n)
    np.tensordot(t, m, axes=([1, 2], [0, 1]))
    np.tensordot(t, u, axes=((2, 0), (2, 0)))
    np.tensordot(v, w, 0)
    np.tensordot(t, v, axes=(-1, 0))
    np.linalg.matmul(m, k)
    np.linalg.vecdot(m, n, axis=0)
    np.linalg.multi_dot([m, k, k.T])
    np.linalg.multi_dot([w, m, k])
    np.linalg.multi_dot([w, m, v])
    np.linalg.multi_dot([m.T, q, m, k])
    np.kron(v, w)
    np.kron(m, q)
    np.kron(m, v)
    np.kron(t, v)
    np.cross(w, [1.0, 2.0, 3.0])
    np.cross(q, w)
    np.cross(q, q.T, axis=0)
    np.cross(m[:, :3], q, axisc=0)
    np.linalg.cross(q, q.T)
    np.linalg.norm(v)
    np.linalg.norm(v, 1)
    np.linalg.norm(v, np.inf)
    np.linalg.norm(v, -np.inf)
    np.linalg.norm(v, 0)
    np.linalg.norm(v, 3)
    np.linalg.norm(v, 2.5)
    np.linalg.norm(m)
    np.linalg.norm(m, 'fro')
    np.linalg.norm(m, 1)
    np.linalg.norm(m, -1)
    np.linalg.norm(m, np.inf)
    np.linalg.norm(m, -np.inf, keepdims=True)
    np.linalg.norm(m, axis=0)
    np.linalg.norm(m, axis=1, keepdims=True)
    np.linalg.norm(m, 1, axis=1)
    np.linalg.norm(t, axis=(1, 2))
    np.linalg.norm(t, 1, axis=(2, 0))
    np.linalg.norm(t, np.inf, axis=(2, 0), keepdims=True)
    np.linalg.norm(t)
    np.linalg.norm(f)
    np.linalg.norm(i)
    np.linalg.vector_norm(m, axis=1, ord=1)
    np.linalg.matrix_norm(t)
    np.linalg.matrix_power(q, 5)
    np.linalg.matrix_power(q, 0)
    """
)
EINSUM = lines(
    """
    np.einsum('ij,jk->ik', m, k)
    np.einsum('ij,jk', m, k)
    np.einsum('ij->ji', m)
    np.einsum('ij', m)
    np.einsum('ji', m)
    np.einsum('ij->', m)
    np.einsum('ij->i', m)
    np.einsum('ii', q)
    np.einsum('ii->i', q)
    np.einsum('iij->ij', np.stack([q, q, q]))
    np.einsum('iii', np.stack([q, q, q]))
    np.einsum('i,i', v, v)
    np.einsum('i,i->i', v, v)
    np.einsum('i,j->ij', v, w)
    np.einsum('i,j->ji', v, w)
    np.einsum('i,j->', v, w)
    np.einsum('ij,ij->', m, n)
    np.einsum('ij,ij->j', m, n)
    np.einsum('ij,j->i', m, v)
    np.einsum('bij,bjk->bik', t, u.mT)
    np.einsum('bij,bkj->bik', t, u)
    np.einsum('bij,bij->b', t, u)
    np.einsum('bij,kj->ikb', t, m)
    np.einsum('...j,j->...', t, v)
    np.einsum('...ij,...jk->...ik', t, u.mT)
    np.einsum('...ij,...jk', m, u.mT)
    np.einsum('...,...', m, v)
    np.einsum('i...->...', m)
    np.einsum('...ii->...i', np.stack([q, q]))
    np.einsum('ij,jk,kl->il', q, m, k)
    np.einsum('i,ij,j->', w, m, v)
    np.einsum('i,ij,j', w, m, v, optimize=True)
    np.einsum('ij,kj,kl,l->i', m, n, m, v)
    np.einsum('ij,ij,ij->ij', m, n, m)
    np.einsum('ij,ij->ij', m, one[0])
    np.einsum(m, [0, 1], k, [1, 2], [0, 2])
    np.einsum(m, [0, 1], k, [1, 2])
    np.einsum(t, [0, Ellipsis], [Ellipsis, 0])
    np.einsum('ij,jk->ik', i, np.ones((4, 2), int))
    np.einsum('ij,jk->ik', f, k)
    np.einsum('ij,kj->ik', b, c)
    np.einsum('i,->i', v, s)
    np.einsum(',', s, 2.0)
    np.einsum('ab,cb,cd->ad', m, n, m, optimize='optimal')
    np.einsum(' i j , j k -> i k ', m, k)
    """
)


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
