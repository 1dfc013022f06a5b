"""Recurrent layers: one step of a cell, and whole sequences.

Input: features of a batch, for each time, a state, weights. Output: what each step gives, and the state at
the end.
Invariants: weights are of shape (gates * hidden, features), as in PyTorch, the blocks of `lstm` in the order
input, forget, cell, output, those of `gru` in the order reset, update, new. After the end of a sequence that
is shorter than others its state is held, and its outputs are zero. Products that need no earlier step are
taken for all steps at once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
import scipy.special

from graphjit.api.control import scan
from graphjit.nn.activations import relu
from graphjit.nn.checks import complain
from graphjit.trace.pytree import flatten, tree_map

Nonlinearity = Literal["tanh", "relu"]

GATES = {"rnn": 1, "lstm": 4, "gru": 3}
"""How many blocks of rows the weights of a layer have."""


# ---------------------------------------------------------------------------------------------------- cells


def rnn_cell(
    x: Any,
    h: Any,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    b_hh: Any = None,
    *,
    nonlinearity: Nonlinearity = "tanh",
) -> Any:
    """One step of Elman's recurrent network.

    Parameters
    ----------
    x : ndarray
        Features of shape (..., features).
    h : ndarray
        The state, of shape (..., hidden).
    w_ih, w_hh : ndarray
        Weights of features and state, of shape (hidden, features) and (hidden, hidden).
    b_ih, b_hh : ndarray, optional
        Shifts of shape (hidden,); they are added up.
    nonlinearity : {"tanh", "relu"}, optional
        What is applied at the end.

    Returns
    -------
    ndarray
        The new state ``tanh(x @ w_ih.T + b_ih + h @ w_hh.T + b_hh)``.

    Raises
    ------
    ShapeError
        Shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> graphjit.nn.rnn_cell(np.ones((1, 2)), np.ones((1, 1)), np.ones((1, 2)), np.ones((1, 1))).round(4)
    array([[0.9951]])
    """
    _fitting("rnn_cell", x, h, w_ih, w_hh, b_ih, b_hh)
    return _rnn_step(_applied("rnn_cell", nonlinearity), w_hh, None, h, _inputs(x, w_ih, b_ih, b_hh))


def lstm_cell(
    x: Any, state: tuple[Any, Any], w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None
) -> tuple[Any, Any]:
    """One step of a long short-term memory.

    Parameters
    ----------
    x : ndarray
        Features of shape (..., features).
    state : tuple of two ndarrays
        Output and cell ``(h, c)``, each of shape (..., hidden).
    w_ih, w_hh : ndarray
        Weights of features and output, of shape (4 * hidden, features) and (4 * hidden, hidden): blocks for
        the gates i, f, g, o.
    b_ih, b_hh : ndarray, optional
        Shifts of shape (4 * hidden,); they are added up.

    Returns
    -------
    h, c : ndarray
        The new state: ``c = sigmoid(f) * c + sigmoid(i) * tanh(g)`` and ``h = sigmoid(o) * tanh(c)``.

    Raises
    ------
    ShapeError
        Shapes do not fit.

    Notes
    -----
    Hochreiter and Schmidhuber, "Long Short-Term Memory", 1997; Gers and others, "Learning to Forget", 2000.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> state = np.zeros((1, 1)), np.ones((1, 1))
    >>> h, c = graphjit.nn.lstm_cell(np.ones((1, 2)), state, np.zeros((4, 2)), np.zeros((4, 1)))
    >>> h.round(4), c
    (array([[0.2311]]), array([[0.5]]))
    """
    _fitting("lstm_cell", x, state, w_ih, w_hh, b_ih, b_hh)
    return _lstm_step(w_hh, None, state, _inputs(x, w_ih, b_ih, b_hh))


def gru_cell(x: Any, h: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Any:
    """One step of a gated recurrent unit.

    Parameters
    ----------
    x : ndarray
        Features of shape (..., features).
    h : ndarray
        The state, of shape (..., hidden).
    w_ih, w_hh : ndarray
        Weights of features and state, of shape (3 * hidden, features) and (3 * hidden, hidden): blocks for
        the gates r, z, n.
    b_ih, b_hh : ndarray, optional
        Shifts of shape (3 * hidden,). The reset gate multiplies the block n of `b_hh`, so they are two.

    Returns
    -------
    ndarray
        The new state ``(1 - z) * n + z * h``, with ``n = tanh(x_n + r * h_n)``.

    Raises
    ------
    ShapeError
        Shapes do not fit.

    Notes
    -----
    Cho and others, "Learning Phrase Representations using RNN Encoder-Decoder", 2014, with the reset gate
    after the product, as in PyTorch and cuDNN.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> graphjit.nn.gru_cell(np.ones((1, 2)), np.ones((1, 1)), np.zeros((3, 2)), np.zeros((3, 1)))
    array([[0.5]])
    """
    _fitting("gru_cell", x, h, w_ih, w_hh, b_ih, b_hh)
    return _gru_step(w_hh, b_hh, h, _inputs(x, w_ih, b_ih, None))


def _inputs(x: Any, w_ih: Any, b_ih: Any, b_hh: Any) -> Any:
    """What features give to the gates, and the shifts."""
    gates = np.matmul(x, w_ih.T)
    for shift in (b_ih, b_hh):
        gates = gates if shift is None else gates + shift
    return gates


def _applied(name: str, nonlinearity: str) -> Callable[[Any], Any]:
    """The function that a nonlinearity names."""
    if nonlinearity not in ("tanh", "relu"):
        raise complain(name, f'nonlinearity is "tanh" or "relu", not {nonlinearity!r}')
    return np.tanh if nonlinearity == "tanh" else relu


def _rnn_step(applied: Callable[[Any], Any], w_hh: Any, _: Any, h: Any, gates: Any) -> Any:
    return applied(gates + np.matmul(h, w_hh.T))


def _lstm_step(w_hh: Any, _: Any, state: tuple[Any, Any], gates: Any) -> tuple[Any, Any]:
    h, c = state
    i, f, g, o = np.split(gates + np.matmul(h, w_hh.T), 4, axis=-1)
    sigmoid: Callable[[Any], Any] = scipy.special.expit
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def _gru_step(w_hh: Any, b_hh: Any, h: Any, gates: Any) -> Any:
    by_state = np.matmul(h, w_hh.T)
    by_state = by_state if b_hh is None else by_state + b_hh
    xr, xz, xn = np.split(gates, 3, axis=-1)
    hr, hz, hn = np.split(by_state, 3, axis=-1)
    r, z = scipy.special.expit(xr + hr), scipy.special.expit(xz + hz)
    n = np.tanh(xn + r * hn)
    return n + z * (h - n)


# ------------------------------------------------------------------------------------------ whole sequences


def rnn(
    x: Any,
    h: Any,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    b_hh: Any = None,
    *,
    nonlinearity: Nonlinearity = "tanh",
    lengths: Any = None,
    batch_first: bool = False,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """Elman's recurrent network over a whole sequence.

    Parameters
    ----------
    x : ndarray
        Features of shape (time, batch, features).
    h : ndarray or None
        The first state, of shape (batch, hidden); None: zeros.
    w_ih, w_hh, b_ih, b_hh : ndarray
        Weights and shifts, as in `rnn_cell`.
    nonlinearity : {"tanh", "relu"}, optional
        What each step applies at the end.
    lengths : ndarray of int, optional
        How many steps each sequence of the batch has; what comes after them in `x` is not read.
    batch_first : bool, optional
        Whether `x` and the outputs are of shape (batch, time, ...).
    reverse : bool, optional
        Whether a sequence is read from its last step to its first; outputs stay in the order of `x`.

    Returns
    -------
    outputs : ndarray
        The state after each step, of shape (time, batch, hidden); zero after the end of a sequence, as in
        PyTorch's ``pad_packed_sequence``.
    h : ndarray
        The state at the end of each sequence.

    Raises
    ------
    ShapeError
        Shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> outputs, h = graphjit.nn.rnn(np.ones((3, 2, 1)), None, np.eye(1), np.eye(1), lengths=np.array([3, 1]))
    >>> outputs[:, :, 0].round(4).T, h[:, 0].round(4)
    (array([[0.7616, 0.9427, 0.9597],
           [0.7616, 0.    , 0.    ]]), array([0.9597, 0.7616]))
    """
    step = partial(_rnn_step, _applied("rnn", nonlinearity))
    return _sequence("rnn", step, x, h, (w_ih, w_hh, b_ih, b_hh), lengths, batch_first, reverse)


def lstm(
    x: Any,
    state: tuple[Any, Any] | None,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    b_hh: Any = None,
    *,
    lengths: Any = None,
    batch_first: bool = False,
    reverse: bool = False,
) -> tuple[Any, tuple[Any, Any]]:
    """A long short-term memory over a whole sequence.

    Parameters
    ----------
    x : ndarray
        Features of shape (time, batch, features).
    state : tuple of two ndarrays, or None
        The first output and cell ``(h, c)``, each of shape (batch, hidden); None: zeros.
    w_ih, w_hh, b_ih, b_hh : ndarray
        Weights and shifts, as in `lstm_cell`.
    lengths : ndarray of int, optional
        How many steps each sequence of the batch has; what comes after them in `x` is not read.
    batch_first : bool, optional
        Whether `x` and the outputs are of shape (batch, time, ...).
    reverse : bool, optional
        Whether a sequence is read from its last step to its first; outputs stay in the order of `x`.

    Returns
    -------
    outputs : ndarray
        ``h`` after each step, of shape (time, batch, hidden); zero after the end of a sequence, as in
        PyTorch's ``pad_packed_sequence``.
    state : tuple of two ndarrays
        Output and cell at the end of each sequence.

    Raises
    ------
    ShapeError
        Shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> outputs, (h, c) = graphjit.nn.lstm(np.ones((5, 2, 3)), None, np.ones((16, 3)), np.ones((16, 4)))
    >>> outputs.shape, h.shape, c.shape
    ((5, 2, 4), (2, 4), (2, 4))
    """
    result: tuple[Any, tuple[Any, Any]] = _sequence(
        "lstm", _lstm_step, x, state, (w_ih, w_hh, b_ih, b_hh), lengths, batch_first, reverse
    )
    return result


def gru(
    x: Any,
    h: Any,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    b_hh: Any = None,
    *,
    lengths: Any = None,
    batch_first: bool = False,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """A gated recurrent unit over a whole sequence.

    Parameters
    ----------
    x : ndarray
        Features of shape (time, batch, features).
    h : ndarray or None
        The first state, of shape (batch, hidden); None: zeros.
    w_ih, w_hh, b_ih, b_hh : ndarray
        Weights and shifts, as in `gru_cell`.
    lengths : ndarray of int, optional
        How many steps each sequence of the batch has; what comes after them in `x` is not read.
    batch_first : bool, optional
        Whether `x` and the outputs are of shape (batch, time, ...).
    reverse : bool, optional
        Whether a sequence is read from its last step to its first; outputs stay in the order of `x`.

    Returns
    -------
    outputs : ndarray
        The state after each step, of shape (time, batch, hidden); zero after the end of a sequence, as in
        PyTorch's ``pad_packed_sequence``.
    h : ndarray
        The state at the end of each sequence.

    Raises
    ------
    ShapeError
        Shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> outputs, h = graphjit.nn.gru(np.ones((5, 2, 3)), None, np.ones((12, 3)), np.ones((12, 4)))
    >>> outputs.shape, bool(np.all(outputs[-1] == h))
    ((5, 2, 4), True)
    """
    return _sequence("gru", _gru_step, x, h, (w_ih, w_hh, b_ih, b_hh), lengths, batch_first, reverse)


def _sequence(
    name: str,
    step: Callable[..., Any],
    x: Any,
    state: Any,
    weights: tuple[Any, Any, Any, Any],
    lengths: Any,
    batch_first: bool,
    reverse: bool,
) -> tuple[Any, Any]:
    """All steps of a cell: its products with features at once, then the loop."""
    w_ih, w_hh, b_ih, b_hh = weights
    if np.ndim(x) != 3:
        raise complain(
            name,
            f"x has shape {np.shape(x)}, not (time, batch, features) or, batch_first, (batch, time, ...)",
        )
    _fitting(name, x, state, *weights)
    x = np.swapaxes(x, 0, 1) if batch_first else x
    time, batch, _ = x.shape
    going = None
    if lengths is not None:
        if np.shape(lengths) != (batch,):
            raise complain(
                name, f"lengths have shape {np.shape(lengths)}, one for each sequence is ({batch},)"
            )
        going = np.less(np.arange(time)[:, None], lengths)[..., None]
        x = np.where(going, x, 0)  # what fills up may be anything, NaN too
    gates = _inputs(x, w_ih, b_ih, None if name == "gru" else b_hh)
    if state is None:
        nothing = np.zeros((batch, w_hh.shape[1]), gates.dtype)
        state = (nothing, nothing) if name == "lstm" else nothing
    one = partial(_step_of_some, step, w_hh, b_hh)
    last, outputs = scan(one, state, (gates, going), reverse=reverse)
    return (np.swapaxes(outputs, 0, 1) if batch_first else outputs), last


def _step_of_some(
    step: Callable[..., Any], w_hh: Any, b_hh: Any, state: Any, given: tuple[Any, Any]
) -> tuple[Any, Any]:
    """A step of the sequences that have not ended; the state of the others is held."""
    gates, going = given
    new = step(w_hh, b_hh, state, gates)
    output = new[0] if isinstance(new, tuple) else new
    if going is None:
        return new, output
    return tree_map(partial(np.where, going), new, state), np.where(going, output, 0)


def _fitting(name: str, x: Any, state: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any) -> None:
    """Weights of one number of gates, of hidden units and of features, and a state of these units."""
    gates = GATES[name.removesuffix("_cell")]
    if np.ndim(w_hh) != 2 or w_hh.shape[0] != gates * w_hh.shape[1]:
        raise complain(name, f"w_hh has shape {np.shape(w_hh)}, not ({gates} * hidden, hidden)")
    wanted = w_hh.shape[0], x.shape[-1]
    if np.shape(w_ih) != wanted:
        raise complain(
            name, f"w_ih has shape {np.shape(w_ih)}, for x of shape {x.shape} and this w_hh it is {wanted}"
        )
    for what, shift in (("b_ih", b_ih), ("b_hh", b_hh)):
        if shift is not None and np.shape(shift) != wanted[:1]:
            raise complain(name, f"{what} has shape {np.shape(shift)}, for this w_hh it is {wanted[:1]}")
    for part in () if state is None else flatten(state)[0]:
        if np.shape(part)[-1:] != w_hh.shape[1:]:
            raise complain(
                name, f"a state has shape {np.shape(part)}, for this w_hh it is (..., {w_hh.shape[1]})"
            )
