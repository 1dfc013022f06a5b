"""Indexing, products and reductions."""

from __future__ import annotations

from numpy_harness import lines

INDEXING = lines(
    """
    v[0]
    v[-1]
    v[np.int64(2)]
    v[np.array(1)]
    m[1]
    m[1, 2]
    m[-1, -2]
    m[1][2]
    m[:]
    m[...]
    m[()]
    s[()]
    s[...]
    s[None]
    m[:, 0]
    m[1:]
    m[:-1]
    m[::2]
    m[::-1]
    m[::-2, ::-1]
    m[5:1]
    m[1:1]
    m[2:0:-1]
    m[-100:100]
    v[3:0:-2]
    v[-1::-1]
    v[1:-1]
    m[None]
    m[:, None]
    m[None, :, None]
    m[..., None]
    m[..., 0]
    m[0, ...]
    t[..., 1, :]
    t[1, ..., 0]
    t[:, 1]
    t[:, None, 1, ::2]
    m[np.newaxis, 1]
    z[:, 0]
    z[0:0]
    v[[0, 2]]
    v[[0, -1, 1]]
    v[np.array([[0, 1], [2, 3]])]
    v[[]]
    v[j]
    m[j % 3]
    m[:, j]
    m[j % 3, j]
    m[[0, 1], [1, 2]]
    m[[[0], [2]], [1, 3]]
    m[[0, 1]]
    m[:, [0, 3]]
    m[[0, 1], 2]
    m[2, [0, 1]]
    t[0, :, [0, 1]]
    t[:, 0, [0, 1]]
    t[:, [0, 1], [1, 2]]
    t[[0, 1], :, [1, 2]]
    t[[0, 1], :, 2]
    t[0, [0, 1], 1:3]
    t[..., [0, 1]]
    t[[0, 1], ..., 0]
    t[None, [0, 1], 1]
    t[:, None, [0, 1]]
    t[None, :, [0, 1], None, 1:]
    t[[0, 1], None, [1, 2]]
    t[1:, [[0, 1], [2, 2]], ::-1]
    t[::-1, [0, 2]]
    t[0, :, j]
    t[j % 2, :, j]
    t[:, j % 3, j]
    t[:, j % 3, None, j]
    t[1, j % 3]
    t[:, [True, False, True]]
    m[[True, False, True]]
    m[[True, False, True], 1]
    m[[True, False, True], [0, 1]]
    m[:, [True, False, True, False]]
    t[[[True, False, True], [False, True, True]]]
    t[1, [[True, False, True, False], [True, True, False, False], [False, False, True, True]]]
    v[[False, False, False, False]]
    v[True]
    v[False]
    v[None, True]
    m[True, [0, 2]]
    m[..., False]
    t[np.True_, :, 0, ..., [0, 1, 2]]
    m[np.int32(1), np.uint8(2)]
    m[np.array([0, 1], np.uint8)]
    m[slice(None), slice(0, 2)]
    m[(0, 1)]
    m[:, ::-1][::-1]
    i[j % 3]
    b[:, j]
    f[1:, 1]
    m[-1, j]
    m[j % 3 - 3]
    """
)

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
    np.linalg.matrix_power(q, -2)
    np.linalg.solve(q, w)
    np.linalg.solve(q, m)
    np.linalg.solve(q, t)
    np.linalg.solve(f[:, :3], fv[:3])
    np.linalg.inv(q)
    np.linalg.inv(t @ t.mT)
    np.linalg.det(q)
    np.linalg.det(t @ t.mT)
    np.linalg.det(t[:, :2, :2].astype(np.float32))
    np.linalg.slogdet(q)
    np.linalg.slogdet(t @ t.mT)
    np.linalg.cholesky(q @ q.T)
    np.linalg.cholesky(t @ t.mT, upper=True)
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

REDUCTIONS = lines(
    """
    np.sum(m)
    np.sum(m, 0)
    np.sum(m, axis=-1, keepdims=True)
    np.sum(t, axis=(0, 2))
    np.sum(t, axis=(2, 0), keepdims=True)
    np.sum(t, axis=())
    np.sum(m, dtype=np.float32)
    np.sum(f)
    np.sum(f, dtype=np.float64)
    np.sum(i8)
    np.sum(i8, dtype=np.int8)
    np.sum(u8)
    np.sum(b)
    np.sum(b, axis=1)
    np.sum(m, initial=2.5)
    np.sum(i, initial=3)
    np.sum(m, where=b)
    np.sum(m, axis=0, where=b, initial=1.0)
    np.sum(m, where=True)
    np.sum(z)
    np.sum(z, axis=0)
    m.sum()
    m.sum(1)
    m.sum(axis=1, keepdims=True)
    s.sum()
    np.prod(m)
    np.prod(m, axis=1)
    np.prod(i8)
    np.prod(u8, axis=0)
    np.prod(b)
    np.prod(m, initial=2.0, where=c)
    np.prod(z, axis=0)
    m.prod(axis=(0, 1))
    np.mean(m)
    np.mean(m, axis=0)
    np.mean(m, axis=(0, 1), keepdims=True)
    np.mean(f)
    np.mean(f, dtype=np.float64)
    np.mean(i)
    np.mean(i8, axis=1)
    np.mean(b)
    np.mean(m, where=b)
    np.mean(m, axis=0, where=b)
    m.mean(-1)
    np.var(m)
    np.var(m, axis=1)
    np.var(m, axis=0, ddof=1)
    np.var(m, axis=0, correction=1)
    np.var(m, axis=0, mean=np.mean(m, axis=0, keepdims=True))
    np.var(f, axis=1)
    np.var(i, ddof=2)
    np.var(b)
    np.var(m, where=b, ddof=1)
    np.var(m[:1], axis=0, ddof=1)
    np.std(m)
    np.std(m, axis=1, keepdims=True)
    np.std(f, ddof=1)
    m.var(0)
    m.std(0, ddof=1)
    np.max(m)
    np.max(m, axis=0)
    np.max(m, axis=(0, 1), keepdims=True)
    np.max(f)
    np.max(i)
    np.max(b)
    np.max(u8, axis=1)
    np.max(m, initial=10.0)
    np.max(m, initial=-1, where=b)
    np.max(z, initial=-3.0)
    np.max(z, axis=0, initial=-3.0)
    np.max(nan, axis=0)
    np.amax(m, 1)
    np.min(m)
    np.min(m, axis=1)
    np.min(nan, axis=1)
    np.min(m, axis=1, initial=0.0, where=c)
    np.amin(m)
    m.max()
    m.min(axis=0)
    np.ptp(m)
    np.ptp(m, axis=1)
    np.ptp(i, axis=0, keepdims=True)
    np.argmax(m)
    np.argmax(m, axis=0)
    np.argmax(m, axis=1, keepdims=True)
    np.argmax(nan, axis=1)
    np.argmax(m, keepdims=True)
    np.argmin(m)
    np.argmin(m, axis=-1)
    np.argmin(b, axis=0)
    m.argmax(1)
    m.argmin()
    np.any(m)
    np.any(b, axis=0)
    np.any(i, axis=1, keepdims=True)
    np.any(b, where=c)
    np.all(b)
    np.all(m, axis=1)
    np.all(nan)
    np.all(b, axis=0, where=c)
    np.all(z, axis=0)
    b.any()
    b.all(axis=1)
    np.count_nonzero(b)
    np.count_nonzero(m > 0, axis=0)
    np.count_nonzero(i, axis=1, keepdims=True)
    np.cumsum(m)
    np.cumsum(m, axis=0)
    np.cumsum(m, axis=-1)
    np.cumsum(i8, axis=1)
    np.cumsum(b)
    np.cumsum(m, axis=1, dtype=np.float32)
    np.cumsum(s)
    m.cumsum()
    m.cumsum(axis=0)
    np.cumprod(m, axis=1)
    np.cumprod(i)
    m.cumprod(0)
    np.cumulative_sum(v)
    np.cumulative_sum(m, axis=1, include_initial=True)
    np.cumulative_prod(m, axis=0, include_initial=True)
    np.cumulative_sum(i, axis=0)
    np.average(m)
    np.average(m, axis=1)
    np.average(m, axis=1, weights=v)
    np.average(m, weights=p)
    np.average(m, axis=0, weights=p, keepdims=True)
    np.average(i, axis=0)
    np.average(i, axis=1, weights=[1, 2, 3, 4])
    np.average(m, axis=0, weights=w, returned=True)
    np.average(f, axis=0, weights=fv[:3])
    np.average(t, axis=(0, 2), weights=t[:, 0])
    np.nansum(nan, axis=1)
    np.nansum(i)
    np.nanprod(nan[:2], axis=0)
    np.nanmean(nan[:2], axis=1)
    np.nanmean(nan, axis=0)
    np.nanmean(i)
    np.nanvar(nan[:2], axis=1)
    np.nanvar(nan[:2], axis=0, ddof=1)
    np.nanstd(nan[:2])
    np.nanmax(nan, axis=0)
    np.nanmin(nan, axis=1, keepdims=True)
    np.nanmax(m)
    np.nanargmax(nan, axis=1)
    np.nanargmin(nan[:2], axis=1)
    np.nancumsum(nan[:2], axis=1)
    np.nancumprod(nan[:2])
    np.cov(m)
    np.cov(m, rowvar=False)
    np.cov(v)
    np.cov(v, v * v)
    np.cov(m, bias=True)
    np.cov(f)
    np.corrcoef(m)
    np.corrcoef(v, np.sin(v))
    np.add.reduce(m)
    np.add.reduce(m, axis=1, keepdims=True)
    np.add.reduce(m, axis=None)
    np.add.reduce(i8, initial=5)
    np.multiply.reduce(m, axis=(0, 1))
    np.maximum.reduce(m)
    np.minimum.reduce(m, axis=-1)
    np.logical_and.reduce(b)
    np.logical_or.reduce(m, axis=1)
    np.logical_xor.reduce(b, axis=1)
    np.logaddexp.reduce(m, axis=1)
    np.logaddexp.reduce(t, axis=2, keepdims=True)
    np.fmax.reduce(nan, axis=1)
    np.hypot.reduce(m)
    np.bitwise_or.reduce(i, axis=1)
    np.add.accumulate(m)
    np.multiply.accumulate(m, axis=1)
    np.maximum.accumulate(m, axis=1)
    np.minimum.accumulate(np.sin(np.arange(37.0) * s))
    np.logical_or.accumulate(b, axis=1)
    np.subtract.outer(v, w)
    np.multiply.outer(m, v)
    np.logaddexp.outer(v, w)
    np.maximum.outer(i, v)
    sp.logsumexp(m)
    sp.logsumexp(m, axis=1)
    sp.logsumexp(m, axis=(0, 1), keepdims=True)
    sp.logsumexp(f, 0)
    sp.logsumexp(i)
    sp.logsumexp(m, b=p)
    sp.logsumexp(m, 1, n, False, True)
    sp.logsumexp(m, axis=0, b=n, return_sign=True, keepdims=True)
    sp.logsumexp(m, axis=1, b=b)
    sp.logsumexp(nan[2:] - np.inf, axis=1, b=v)
    sp.softmax(m)
    sp.softmax(m, axis=1)
    sp.softmax(f, axis=0)
    sp.log_softmax(m, axis=-1)
    sp.log_softmax(m)
    sp.log_softmax(i, axis=1)
    """
)
