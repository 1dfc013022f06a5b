"""Losses: how far predictions are from targets, as one number or element by element.

Input: predictions, or their logits, and targets of the same shape (or integer labels). Output: the mean, the
sum, or all the losses.
Invariant: losses of logits take logarithms of no probability, so they are finite where the logits are.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import scipy.special
from numpy.typing import ArrayLike

from graphjit.nn.activations import relu
from graphjit.nn.checks import axis_of, complain

Reduction = Literal["mean", "sum", "none"]


def _reduced(name: str, losses: Any, reduction: Reduction) -> Any:
    """The mean, the sum, or the losses themselves."""
    if reduction == "mean":
        return np.mean(losses)
    if reduction == "sum":
        return np.sum(losses)
    if reduction != "none":
        raise complain(name, f'reduction is "mean", "sum" or "none", not {reduction!r}')
    return losses


def _smoothing(name: str, label_smoothing: float) -> None:
    """Labels that are smoothed are still probabilities."""
    if not 0.0 <= label_smoothing <= 1.0:
        raise complain(name, f"label_smoothing is between 0 and 1, not {label_smoothing!r}")


def _numbers(targets: Any, like: Any) -> Any:
    """Targets that are integers or bools as numbers of the predictions' dtype: NumPy would compute in
    float64, also where these are float32.
    """
    if not (hasattr(targets, "dtype") and hasattr(like, "dtype")):
        return targets
    return targets.astype(like.dtype) if targets.dtype.kind in "biu" and like.dtype.kind == "f" else targets


def _difference(predictions: Any, targets: Any) -> Any:
    return np.subtract(predictions, _numbers(targets, predictions))


def mse(predictions: ArrayLike, targets: ArrayLike, *, reduction: Reduction = "mean") -> Any:
    """The squared difference.

    Parameters
    ----------
    predictions, targets : array_like
        Numbers; they broadcast.
    reduction : {"mean", "sum", "none"}, optional
        What is returned.

    Returns
    -------
    number or ndarray
        Of ``(predictions - targets) ** 2``.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> float(graphjit.nn.mse(np.array([1.0, 2.0]), np.array([1.0, 4.0])))
    2.0
    """
    return _reduced("mse", np.square(_difference(predictions, targets)), reduction)


def mae(predictions: ArrayLike, targets: ArrayLike, *, reduction: Reduction = "mean") -> Any:
    """The absolute difference.

    Parameters
    ----------
    predictions, targets : array_like
        Numbers; they broadcast.
    reduction : {"mean", "sum", "none"}, optional
        What is returned.

    Returns
    -------
    number or ndarray
        Of ``abs(predictions - targets)``; the derivative is 0 where both are equal.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> float(graphjit.nn.mae(np.array([1.0, 2.0]), np.array([1.0, 4.0])))
    1.0
    """
    return _reduced("mae", np.abs(_difference(predictions, targets)), reduction)


def huber(
    predictions: ArrayLike, targets: ArrayLike, *, delta: float = 1.0, reduction: Reduction = "mean"
) -> Any:
    """Half the squared difference up to a bound, and from there on a straight line.

    Parameters
    ----------
    predictions, targets : array_like
        Numbers; they broadcast.
    delta : float, optional
        The difference from which on the loss grows linearly, with this slope.
    reduction : {"mean", "sum", "none"}, optional
        What is returned.

    Returns
    -------
    number or ndarray
        Of ``d**2 / 2`` or ``delta * (abs(d) - delta / 2)``, where ``d`` is the difference.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> graphjit.nn.huber(np.array([0.5, 3.0]), 0.0, reduction="none")
    array([0.125, 2.5  ])
    """
    difference = _difference(predictions, targets)
    near = np.clip(difference, -delta, delta)
    # one formula for both parts: no branch, and the second derivative at 0 is 1
    return _reduced("huber", near * (difference - 0.5 * near), reduction)


def hinge(scores: ArrayLike, targets: ArrayLike, *, reduction: Reduction = "mean") -> Any:
    """How much a score is short of 1 on its target's side: the loss of support vector machines.

    Parameters
    ----------
    scores : array_like
        Numbers, whose sign is the prediction.
    targets : array_like
        -1 or 1; they broadcast against `scores`.
    reduction : {"mean", "sum", "none"}, optional
        What is returned.

    Returns
    -------
    number or ndarray
        Of ``max(0, 1 - targets * scores)``; the derivative at the margin is 0.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> graphjit.nn.hinge(np.array([0.5, 2.0, 0.5]), np.array([1, 1, -1]), reduction="none")
    array([0.5, 0. , 1.5])
    """
    return _reduced("hinge", relu(1 - np.multiply(_numbers(targets, scores), scores)), reduction)


def kl_divergence(
    log_predictions: ArrayLike,
    targets: ArrayLike,
    *,
    log_targets: bool = False,
    axis: int = -1,
    reduction: Reduction = "mean",
) -> Any:
    """Kullback and Leibler's divergence of predicted probabilities from others.

    Parameters
    ----------
    log_predictions : array_like
        Logarithms of probabilities, such as `log_softmax` gives.
    targets : array_like
        Probabilities of the same shape. One that is 0 contributes nothing, whatever was predicted for it.
    log_targets : bool, optional
        Whether `targets` are logarithms of probabilities too.
    axis : int, optional
        The axis along which they sum to 1.
    reduction : {"mean", "sum", "none"}, optional
        What is returned of the divergences, one for each distribution. For matrices the mean is that of
        PyTorch's ``reduction="batchmean"``.

    Returns
    -------
    number or ndarray
        Of ``sum(targets * (log(targets) - log_predictions))`` along `axis`.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> p, q = np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([[0.25, 0.75], [1.0, 0.0]])
    >>> with np.errstate(divide="ignore"):
    ...     graphjit.nn.kl_divergence(np.log(q), p, reduction="none").round(4)
    array([0.1438, 0.    ])
    """
    targets = _numbers(targets, log_predictions)
    probabilities: Any
    if log_targets:
        probabilities = np.exp(targets)
        entropies = probabilities * _counted(probabilities, targets)
    else:
        probabilities, entropies = targets, scipy.special.xlogy(targets, targets)
    missed = entropies - probabilities * _counted(probabilities, log_predictions)
    return _reduced("kl_divergence", np.sum(missed, axis=axis), reduction)


def _counted(probabilities: ArrayLike, logarithms: ArrayLike) -> Any:
    """Logarithms that a probability multiplies: 0 for an impossible one that has no probability either."""
    nothing = np.logical_and(np.equal(probabilities, 0), np.equal(logarithms, -np.inf))
    return np.where(nothing, 0, logarithms)


def binary_cross_entropy_with_logits(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    pos_weight: ArrayLike | None = None,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
) -> Any:
    """The negative logarithm of the probability that a logit gives to a yes or a no.

    Parameters
    ----------
    logits : array_like
        Numbers whose `sigmoid` is the probability of a yes.
    targets : array_like
        0 or 1, or probabilities in between; of the same shape.
    weight : array_like, optional
        Factors of the losses; they broadcast.
    pos_weight : array_like, optional
        Factors of the part for a yes, which outweigh many a no.
    label_smoothing : float, optional
        How far targets are moved towards 1/2: from t to ``t * (1 - label_smoothing) + label_smoothing / 2``.
    reduction : {"mean", "sum", "none"}, optional
        What is returned; the mean is over all elements, weights or not, as in PyTorch.

    Returns
    -------
    number or ndarray
        Of ``-t * log_sigmoid(logits) - (1 - t) * log_sigmoid(-logits)``.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> logits = np.array([0.0, 1000.0, -1000.0])
    >>> graphjit.nn.binary_cross_entropy_with_logits(logits, np.array([1, 1, 1]), reduction="none").round(4)
    array([6.931e-01, 0.000e+00, 1.000e+03])
    """
    name = "binary_cross_entropy_with_logits"
    _smoothing(name, label_smoothing)
    targets = _numbers(targets, logits)
    if label_smoothing:
        targets = np.multiply(targets, 1.0 - label_smoothing) + 0.5 * label_smoothing
    heavier = targets if pos_weight is None else np.multiply(targets, pos_weight)
    # two logarithms: with one of them and a difference, small losses would be rounding errors
    losses = -(
        heavier * scipy.special.log_expit(logits)
        + np.subtract(1, targets) * scipy.special.log_expit(np.negative(logits))
    )
    return _reduced(name, losses if weight is None else losses * weight, reduction)


def cross_entropy(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    axis: int = -1,
    reduction: Reduction = "mean",
) -> Any:
    """The negative logarithm of the probability that logits give to the right class.

    Parameters
    ----------
    logits : array_like
        Numbers whose `softmax` along `axis` are the probabilities of classes. A class whose logit is -inf is
        impossible: the loss is infinite where it is right, and else it takes no part.
    targets : array_like
        Integers, the shape of `logits` without `axis`: the right classes, counted from 0. Or probabilities of
        all classes, in the shape of `logits`.
    weight : array_like, optional
        One factor for each class.
    ignore_index : int, optional
        A label that stands for none: its loss is 0, and the mean leaves it out (PyTorch's is -100).
    label_smoothing : float, optional
        The part of the targets that is spread evenly over all classes.
    axis : int, optional
        The axis of classes: the last one, as in JAX; in PyTorch it is 1.
    reduction : {"mean", "sum", "none"}, optional
        What is returned. With labels the mean is weighted by the `weight` of the right classes, as in
        PyTorch.

    Returns
    -------
    number or ndarray
        Of ``-log_softmax(logits)`` at the labels, or of ``-sum(targets * log_softmax(logits))``.

    Raises
    ------
    ShapeError
        The shape of `targets` or of `weight` does not fit, or there is no such axis.

    Examples
    --------
    >>> import numpy as np
    >>> import graphjit
    >>> logits = np.array([[1.0, 1.0, 1.0], [0.0, 1000.0, 1000.0]])
    >>> graphjit.nn.cross_entropy(logits, np.array([2, 1]), reduction="none").round(4)
    array([1.0986, 0.6931])
    >>> probabilities = np.array([[0.0, 0.5, 0.5], [0.0, 0.9, 0.1]])
    >>> graphjit.nn.cross_entropy(logits, probabilities, reduction="none").round(4)
    array([1.0986, 0.6931])
    """
    name = "cross_entropy"
    _smoothing(name, label_smoothing)
    axis = axis_of(name, axis, np.ndim(logits))
    classes = np.shape(logits)[axis]
    logarithms = np.moveaxis(scipy.special.log_softmax(logits, axis=axis), axis, -1)
    if weight is not None and np.shape(weight) != (classes,):
        raise complain(name, f"weight has shape {np.shape(weight)}, for {classes} classes it is ({classes},)")
    if np.ndim(targets) == np.ndim(logits):
        if ignore_index is not None:
            raise complain(name, "ignore_index is a label, but targets are probabilities")
        soft = np.moveaxis(_numbers(targets, logits), axis, -1)
        return _reduced(name, _soft(name, logarithms, soft, weight, label_smoothing), reduction)
    if np.shape(targets) != logarithms.shape[:-1]:
        raise complain(
            name,
            f"targets have shape {np.shape(targets)}; labels for logits of shape {np.shape(logits)} and axis={axis} have "
            f"{logarithms.shape[:-1]}, probabilities the same as logits",
        )
    losses, factors = _hard(logarithms, targets, weight, ignore_index, label_smoothing)
    if reduction == "mean" and factors is not None:
        return np.sum(losses) / np.sum(factors, dtype=losses.dtype)  # counts of labels are integers
    return _reduced(name, losses, reduction)


def _soft(name: str, logarithms: Any, targets: Any, weight: Any, smoothing: float) -> Any:
    """Losses for probabilities."""
    if np.shape(targets) != logarithms.shape:
        raise complain(
            name, f"targets have shape {np.shape(targets)}, logits {logarithms.shape}, classes last"
        )
    if smoothing:
        targets = targets * (1.0 - smoothing) + smoothing / logarithms.shape[-1]
    if weight is not None:
        targets = targets * weight
    return -np.sum(targets * _counted(targets, logarithms), axis=-1)


def _hard(
    logarithms: Any, labels: Any, weight: Any, ignored: int | None, smoothing: float
) -> tuple[Any, Any | None]:
    """Losses for labels, and the factors by which a mean weighs them; None: all the same."""
    counted = None
    if ignored is not None:
        counted = np.not_equal(labels, ignored)
        labels = np.where(counted, labels, 0)
    losses = -np.take_along_axis(logarithms, np.expand_dims(labels, -1), axis=-1)[..., 0]
    factors: Any = counted
    if weight is not None:
        factors = np.take(weight, labels)
        losses = losses * factors
    if smoothing:
        spread = np.sum(logarithms if weight is None else logarithms * weight, axis=-1)
        losses = losses * (1.0 - smoothing) - spread * (smoothing / logarithms.shape[-1])
    if counted is not None:
        losses = np.where(counted, losses, 0)
        factors = np.where(counted, factors, 0)
    return losses, factors
