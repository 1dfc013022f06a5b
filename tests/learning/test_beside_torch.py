"""Values and gradients of every layer, activation and loss beside PyTorch's, in both dtypes.

Runs where PyTorch is installed. What differs on purpose stands in the docstrings of `graphjit.nn`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphjit
from graphjit import nn
from graphjit.trace.pytree import flatten, tree_map

torch = pytest.importorskip("torch")
F = torch.nn.functional

RTOL = {"f": 1e-6, "d": 1e-10}
Case = tuple[Callable[..., Any], Callable[..., Any], tuple[Any, ...]]
CASES: dict[str, Case] = {}
RNG = np.random.default_rng(23)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape)


def probabilities(*shape: int) -> np.ndarray:
    p = RNG.random(shape)
    return p / p.sum(axis=-1, keepdims=True)


def add(name: str, ours: Callable[..., Any], theirs: Callable[..., Any], *args: Any) -> None:
    assert name not in CASES
    CASES[name] = ours, theirs, args


def tensor(values: np.ndarray, like: Any) -> Any:
    """In the dtype of another tensor."""
    return torch.tensor(values, dtype=like.dtype)


X = np.concatenate([normal(40) * 3, [0.0, 1.0, -1.0, 6.0, 90.0, -90.0]])  # kinks and far ends too
add("relu", nn.relu, F.relu, X)
add("relu6", nn.relu6, F.relu6, X)
add("leaky_relu", lambda x: nn.leaky_relu(x, 0.2), lambda x: F.leaky_relu(x, 0.2), X)
add("elu", lambda x: nn.elu(x, 0.7), lambda x: F.elu(x, 0.7), X)
add("selu", nn.selu, F.selu, X)
add("celu", lambda x: nn.celu(x, 2.0), lambda x: F.celu(x, 2.0), X)
add("gelu", nn.gelu, lambda x: F.gelu(x, approximate="tanh"), X)
add("gelu exact", lambda x: nn.gelu(x, approximate=False), F.gelu, X)
add("silu", nn.silu, F.silu, X)
add("softplus", nn.softplus, F.softplus, X)
add("sigmoid", nn.sigmoid, torch.sigmoid, X)
add("log_sigmoid", nn.log_sigmoid, F.logsigmoid, X)
add("tanh", nn.tanh, torch.tanh, X)
add("hard_tanh", nn.hard_tanh, F.hardtanh, X)
for axis in (-1, 1):
    add(
        f"softmax {axis}",
        lambda x, a=axis: nn.softmax(x, a),
        lambda x, a=axis: F.softmax(x, a),
        normal(3, 4, 5),
    )
    add(
        f"log_softmax {axis}",
        lambda x, a=axis: nn.log_softmax(x, a),
        lambda x, a=axis: F.log_softmax(x, a),
        normal(3, 4, 5),
    )

Y, T = normal(4, 3), normal(4, 3)
WEIGHTS = RNG.random(5)
SIGNS = np.where(RNG.random(20) < 0.5, 1, -1)
for how in ("mean", "sum", "none"):
    for name, theirs in (("mse", F.mse_loss), ("mae", F.l1_loss)):
        ours = getattr(nn, name)
        add(
            f"{name} {how}",
            lambda x, y, f=ours, r=how: f(x, y, reduction=r),
            lambda x, y, f=theirs, r=how: f(x, y, reduction=r),
            Y,
            T,
        )
    add(
        f"huber {how}",
        lambda x, y, r=how: nn.huber(x, y, delta=0.6, reduction=r),
        lambda x, y, r=how: F.huber_loss(x, y, delta=0.6, reduction=r),
        Y,
        T,
    )
    add(
        f"hinge {how}",
        lambda x, r=how: nn.hinge(x, SIGNS, reduction=r),
        lambda x, r=how: F.hinge_embedding_loss(x * tensor(SIGNS, x), -torch.ones_like(x), reduction=r),
        normal(20) * 2,
    )
    for log in (False, True):
        p, q = probabilities(4, 5), np.log(probabilities(4, 5))
        add(
            f"kl_divergence {how} {log}",
            lambda q, p, r=how, log=log: nn.kl_divergence(q, p, log_targets=log, reduction=r),
            lambda q, p, r=how, log=log: (
                F.kl_div(q, p, log_target=log, reduction="none").sum(-1)
                if r == "none"
                else F.kl_div(q, p, log_target=log, reduction="batchmean" if r == "mean" else r)
            ),
            q,
            np.log(p) if log else p,
        )
    for weighted in (False, True):
        add(
            f"binary_cross_entropy_with_logits {how} {weighted}",
            lambda x, t, r=how, on=weighted: nn.binary_cross_entropy_with_logits(
                x,
                t,
                weight=WEIGHTS[:3].astype(x.dtype) if on else None,
                pos_weight=WEIGHTS[2:].astype(x.dtype) if on else None,
                reduction=r,
            ),
            lambda x, t, r=how, on=weighted: F.binary_cross_entropy_with_logits(
                x,
                t,
                weight=tensor(WEIGHTS[:3], x) if on else None,
                pos_weight=tensor(WEIGHTS[2:], x) if on else None,
                reduction=r,
            ),
            normal(4, 3) * 5,
            RNG.random((4, 3)),
        )

LABELS = RNG.integers(0, 5, (3, 4))
IGNORED = np.where(LABELS == 2, -100, LABELS)
for how in ("mean", "sum", "none"):
    for smoothing in (0.0, 0.15):
        for weighted in (False, True):
            for kind in ("labels", "ignored", "probabilities"):
                labels = {"labels": LABELS, "ignored": IGNORED, "probabilities": probabilities(3, 4, 5)}[kind]
                options: dict[str, Any] = {"label_smoothing": smoothing, "reduction": how}

                def ours(x: Any, t: Any, on: Any = weighted, kind: Any = kind, o: Any = options) -> Any:
                    ignored = -100 if kind == "ignored" else None
                    return nn.cross_entropy(
                        x,
                        t,
                        weight=WEIGHTS.astype(x.dtype) if on else None,
                        ignore_index=ignored,
                        axis=1,
                        **o,
                    )

                def theirs(x: Any, t: Any, on: Any = weighted, o: Any = options) -> Any:
                    return F.cross_entropy(x, t, weight=tensor(WEIGHTS, x) if on else None, **o)

                targets = np.moveaxis(labels, -1, 1) if kind == "probabilities" else labels
                name = f"cross_entropy {how} {smoothing} {weighted} {kind}"
                add(name, ours, theirs, normal(3, 5, 4) * 3, targets)

add("linear", nn.linear, lambda x, w, b: F.linear(x, w.T, b), normal(2, 3, 4), normal(4, 5), normal(5))
add("embedding", nn.embedding, F.embedding, np.array([[1, 4, 1], [0, 1, 5]]), normal(6, 3))

IMAGES = normal(3, 4, 5, 6)
add(
    "layer_norm",
    lambda x, w, b: nn.layer_norm(x, w, b, axis=(-2, -1)),
    lambda x, w, b: F.layer_norm(x, (5, 6), w, b),
    IMAGES,
    normal(5, 6),
    normal(5, 6),
)
add(
    "layer_norm without",
    lambda x: nn.layer_norm(x, eps=0.1),
    lambda x: F.layer_norm(x, (6,), eps=0.1),
    IMAGES,
)
add("rms_norm", lambda x, w: nn.rms_norm(x, w), lambda x, w: F.rms_norm(x, (6,), w, 1e-5), IMAGES, normal(6))
for groups in (1, 2, 4):
    add(
        f"group_norm {groups}",
        lambda x, w, b, g=groups: nn.group_norm(x, g, w, b, axis=1),
        lambda x, w, b, g=groups: F.group_norm(x, g, w, b),
        IMAGES,
        normal(4),
        normal(4),
    )


def torch_batch_norm(x: Any, w: Any, b: Any, training: bool) -> Any:
    mean, var = (torch.linspace(0.5, 1.5, 4, dtype=x.dtype) for _ in range(2))
    return F.batch_norm(x, mean, var, w, b, training, 0.2), mean, var


def our_batch_norm(x: Any, w: Any, b: Any, training: bool) -> Any:
    start = np.linspace(0.5, 1.5, 4, dtype=x.dtype)
    out, mean, var = nn.batch_norm(x, start, start, w, b, training=training, momentum=0.2, axis=1)
    return out, graphjit.stop_gradient(mean), graphjit.stop_gradient(var)


for training in (False, True):
    add(
        f"batch_norm {training}",
        lambda x, w, b, t=training: our_batch_norm(x, w, b, t),
        lambda x, w, b, t=training: torch_batch_norm(x, w, b, t),
        IMAGES,
        normal(4),
        normal(4),
    )

Q, K, V = normal(2, 3, 4, 6), normal(2, 3, 5, 6), normal(2, 3, 5, 2)
BOOLS = RNG.random((4, 5)) < 0.5
BOOLS[:, 0], BOOLS[2] = True, False
attend, torch_attend = nn.scaled_dot_product_attention, F.scaled_dot_product_attention
add("attention", attend, torch_attend, Q, K, V)
add(
    "attention causal",
    lambda q, k, v: attend(q, k, v, is_causal=True, scale=0.3),
    lambda q, k, v: torch_attend(q, k, v, is_causal=True, scale=0.3),
    Q,
    K,
    V,
)
add(
    "attention bools",  # a row of them is empty
    lambda q, k, v: attend(q, k, v, mask=BOOLS),
    lambda q, k, v: torch_attend(q, k, v, torch.tensor(BOOLS)),
    Q,
    K,
    V,
)
add(
    "attention numbers",
    lambda q, k, v, m: attend(q, k, v, mask=m),
    lambda q, k, v, m: torch_attend(q, k, v, m),
    Q,
    K,
    V,
    normal(3, 4, 5),
)


B_KEY = normal(6)
"""No argument: a shift of all keys changes no weight, so its gradient would be rounding errors alone."""


def torch_heads(x: Any, y: Any, wq: Any, wk: Any, wv: Any, wo: Any, bq: Any, bv: Any, bo: Any) -> Any:
    out, _ = F.multi_head_attention_forward(
        x.transpose(0, 1),
        y.transpose(0, 1),
        y.transpose(0, 1),
        6,
        3,
        None,
        torch.cat([bq, tensor(B_KEY, x), bv]),
        None,
        None,
        False,
        0.0,
        wo.T,
        bo,
        use_separate_proj_weight=True,
        q_proj_weight=wq.T,
        k_proj_weight=wk.T,
        v_proj_weight=wv.T,
    )
    return out.transpose(0, 1)


add(
    "multi_head_attention",
    lambda x, y, *w: nn.multi_head_attention(x, y, y, *w[:5], B_KEY.astype(x.dtype), *w[5:], num_heads=3),
    torch_heads,
    normal(2, 4, 6),
    normal(2, 5, 7),
    *(normal(*shape) / 3 for shape in ((6, 6), (7, 6), (7, 6), (6, 6), (6,), (6,), (6,))),
)


def torch_sequence(kind: str, x: Any, state: Any, w: Any, lengths: Any = None, reverse: bool = False) -> Any:
    """PyTorch's own layers, packed where there are lengths, each of a batch turned around for reverse."""
    run = {"rnn": torch.rnn_tanh, "relu": torch.rnn_relu, "lstm": torch.lstm, "gru": torch.gru}[kind]
    given = tuple(part[None] for part in state) if kind == "lstm" else state[None]
    counts = [x.shape[0]] * x.shape[1] if lengths is None else list(lengths)
    if reverse:
        turned = [torch.flip(x[:n, j], (0,)) for j, n in enumerate(counts)]
        x = torch.nn.utils.rnn.pad_sequence([*turned, torch.zeros_like(x[:, 0])])[:, :-1]
    if lengths is None:
        out, *last = run(x, given, w, True, 1, 0.0, True, False, False)
    else:
        order = np.argsort(-np.asarray(counts), kind="stable")
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor(counts), enforce_sorted=False)
        pick = lambda part: part[:, order.copy()]
        given = tuple(map(pick, given)) if kind == "lstm" else pick(given)
        out, *last = run(packed.data, packed.batch_sizes, given, w, True, 1, 0.0, True, False)
        out, _ = torch.nn.utils.rnn.pad_packed_sequence(
            torch.nn.utils.rnn.PackedSequence(
                out, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices
            ),
            total_length=x.shape[0],
        )
        last = [part[:, np.argsort(order)] for part in last]
    if reverse:
        rows = [torch.flip(out[:n, j], (0,)) for j, n in enumerate(counts)]
        out = torch.nn.utils.rnn.pad_sequence([*rows, torch.zeros_like(out[:, 0])])[:, :-1]
    return (out, *(part[0] for part in last))


def our_sequence(kind: str, x: Any, state: Any, w: Any, **options: Any) -> Any:
    more = {"nonlinearity": "relu"} if kind == "relu" else {}
    outputs, last = getattr(nn, "rnn" if kind == "relu" else kind)(x, state, *w, **options, **more)
    return (outputs, *last) if kind == "lstm" else (outputs, last)


for kind, gates in (("rnn", 1), ("relu", 1), ("lstm", 4), ("gru", 3)):
    w = [normal(gates * 3, 2) / 2, normal(gates * 3, 3) / 2, normal(gates * 3), normal(gates * 3)]
    state: Any = (normal(4, 3), normal(4, 3)) if kind == "lstm" else normal(4, 3)
    for lengths in (None, np.array([2, 6, 1, 4])):
        for reverse in (False, True):
            add(
                f"{kind} {lengths} {reverse}",
                lambda x, s, w, k=kind, n=lengths, r=reverse: our_sequence(k, x, s, w, lengths=n, reverse=r),
                lambda x, s, w, k=kind, n=lengths, r=reverse: torch_sequence(k, x, s, w, n, r),
                normal(6, 4, 2),
                state,
                w,
            )
    cell = {
        "rnn": torch.rnn_tanh_cell,
        "relu": torch.rnn_relu_cell,
        "lstm": torch.lstm_cell,
        "gru": torch.gru_cell,
    }[kind]
    add(
        f"{kind}_cell",
        lambda x, s, w, k=kind: (
            nn.rnn_cell(x, s, *w, nonlinearity="relu") if k == "relu" else getattr(nn, f"{k}_cell")(x, s, *w)
        ),
        lambda x, s, w, f=cell: f(x, s, *w),
        normal(4, 2),
        state,
        w,
    )

CONVOLUTIONS: list[tuple[Any, Any, dict[str, Any]]] = [  # NCHW
    ((2, 3, 7, 8), (4, 3, 3, 3), {}),
    ((2, 3, 7, 8), (4, 3, 3, 2), {"stride": (2, 3), "padding": (1, 0)}),
    ((2, 3, 8, 7), (5, 3, 2, 3), {"dilation": (3, 2), "padding": 2}),
    ((1, 3, 7, 8), (4, 3, 4, 3), {"padding": "same", "dilation": (1, 2)}),
    ((1, 1, 7, 8), (4, 1, 5, 5), {"padding": "valid"}),
    ((2, 6, 7, 5), (9, 2, 3, 3), {"groups": 3, "stride": 2}),
    ((2, 4, 7, 5), (8, 1, 3, 3), {"groups": 4, "padding": 1}),
    ((2, 5, 7, 5), (3, 5, 1, 1), {}),
]
for number, (x_shape, w_shape, options) in enumerate(CONVOLUTIONS):
    add(
        f"conv2d {number} NCHW",
        lambda x, w, b, o=options: nn.conv2d(x, w, b, layout="NCHW", **o),
        lambda x, w, b, o=options: F.conv2d(x, w, b, **o),
        normal(*x_shape),
        normal(*w_shape),
        normal(w_shape[0]),
    )
    add(
        f"conv2d {number} NHWC",
        lambda x, w, o=options: nn.conv2d(x, w, **o),
        lambda x, w, o=options: F.conv2d(x.permute(0, 3, 1, 2), w.permute(3, 2, 0, 1), **o).permute(
            0, 2, 3, 1
        ),
        np.moveaxis(normal(*x_shape), 1, -1),
        np.transpose(normal(*w_shape), (2, 3, 1, 0)),
    )
for number, (length, w_shape, options) in enumerate(
    [(9, (4, 6, 3), {"stride": 2}), (8, (4, 3, 4), {"groups": 2, "dilation": 2, "padding": 3})]
):
    add(
        f"conv1d {number}",
        lambda x, w, b, o=options: nn.conv1d(x, w, b, layout="NCW", **o),
        lambda x, w, b, o=options: F.conv1d(x, w, b, **o),
        normal(2, 6, length),
        normal(*w_shape),
        normal(4),
    )
for number, (w_shape, options) in enumerate(
    [
        ((4, 3, 3, 3), {}),
        ((4, 3, 3, 2), {"stride": (2, 3), "padding": 1}),
        ((4, 2, 2, 3), {"stride": 3, "dilation": (2, 3), "output_padding": (2, 1)}),
        ((4, 3, 3, 3), {"groups": 2, "stride": 2, "padding": (1, 2)}),
        ((4, 1, 4, 4), {"groups": 4, "stride": 2, "padding": 1}),
    ]
):
    add(
        f"conv_transpose2d {number}",
        lambda x, w, b, o=options: nn.conv_transpose2d(x, w, b, layout="NCHW", **o),
        lambda x, w, b, o=options: F.conv_transpose2d(x, w, b, **o),
        normal(2, 4, 5, 3),
        normal(*w_shape),
        normal(w_shape[1] * options.get("groups", 1)),
    )
for number, (window, options) in enumerate(
    [(2, {}), ((3, 2), {"stride": (1, 3)}), (3, {"stride": 2, "padding": 1}), ((2, 4), {"padding": (1, 2)})]
):
    add(
        f"max_pool {number}",
        lambda x, k=window, o=options: nn.max_pool(x, k, layout="NCHW", **o),
        lambda x, k=window, o=options: F.max_pool2d(x, k, **o),
        normal(2, 3, 8, 9),
    )
    for counted in (True, False):
        add(
            f"avg_pool {number} {counted}",
            lambda x, k=window, o=options, c=counted: nn.avg_pool(
                x, k, layout="NCHW", count_include_pad=c, **o
            ),
            lambda x, k=window, o=options, c=counted: F.avg_pool2d(x, k, count_include_pad=c, **o),
            normal(2, 3, 8, 9),
        )
add(
    "global_avg_pool",
    lambda x: nn.global_avg_pool(x, layout="NCHW"),
    lambda x: F.adaptive_avg_pool2d(x, 1)[..., 0, 0],
    normal(2, 3, 5, 4),
)


def near(found: Any, expected: Any, rtol: float) -> None:
    """Up to a part of the largest number."""
    assert found.shape == expected.shape
    np.testing.assert_allclose(
        found, expected, rtol=0, atol=rtol * max(np.abs(expected).max(initial=0), 1e-3)
    )


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("dtype", "fd")
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name: str, dtype: str) -> None:
    ours, theirs, args = CASES[name]
    floating = lambda x: isinstance(x, np.ndarray) and x.dtype.kind == "f"
    given = tree_map(lambda x: x.astype(dtype) if floating(x) else x, args)
    leaves, _ = flatten(given)
    varying = [i for i, leaf in enumerate(leaves) if floating(leaf)]
    tensors = tree_map(lambda x: torch.tensor(x, requires_grad=bool(floating(x))), given)
    inputs = [flatten(tensors)[0][i] for i in varying]
    expected = flatten(theirs(*tensors))[0]
    rng = np.random.default_rng(1)
    weights = [rng.normal(size=tuple(out.shape)).astype(dtype) for out in expected]

    def weighted(leaf_values: Any) -> Any:
        replaced = iter(leaf_values)
        again = tree_map(lambda x: next(replaced) if floating(x) else x, given)
        found = flatten(ours(*again))[0]
        return sum(np.sum(out * w) for out, w in zip(found, weights, strict=True)), found

    (_, found), gradients = graphjit.value_and_grad(weighted, has_aux=True)([leaves[i] for i in varying])
    total = sum(torch.sum(out * torch.tensor(w)) for out, w in zip(expected, weights, strict=True))
    wanted = torch.autograd.grad(total, inputs, allow_unused=True)
    for one, two in zip(found, expected, strict=True):
        assert np.asarray(one).dtype.char == dtype
        near(np.asarray(one), two.detach().numpy(), RTOL[dtype])
    for one, two in zip(gradients, wanted, strict=True):
        near(one, np.zeros_like(one) if two is None else two.numpy(), RTOL[dtype])
