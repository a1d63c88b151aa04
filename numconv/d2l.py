"""The textbook's functions, by its names: "Dive into Deep Learning", sections 7.2 to 7.5 and 14.10."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .adjoint import transposed
from .dialect import correlation
from .method import Array
from .planner import Call, Options, Wish
from .pooling import avg_pool2d, max_pool2d
from .validate import as_array, integer, is_word

__all__ = ["corr2d", "corr2d_multi_in", "corr2d_multi_in_out", "corr2d_multi_in_out_1x1", "pool2d", "trans_conv"]

POOL_MODES = ("max", "avg")


def _pair(X: Any, K: Any, x_axes: str, k_axes: str) -> tuple[Array, Array]:
    """Both arguments as arrays, with as many axes as their letters name."""
    arrays = as_array("input X", X), as_array("kernel K", K)
    for name, array, axes in zip(("X", "K"), arrays, (x_axes, k_axes), strict=True):
        count = len(axes.split(", "))
        if array.ndim != count:
            raise ValueError(
                f"{name} has {array.ndim} axes and shape {array.shape}, but it takes {count}: ({axes})"
                f" [X {arrays[0].shape}, K {arrays[1].shape}]"
            )
    return arrays


def _no_batch(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[1:]


@correlation
def corr2d(X: ArrayLike, K: ArrayLike) -> Call:
    """Two-dimensional cross-correlation: Y[i, j] = sum over a, b of X[i + a, j + b] * K[a, b].

    Parameters
    ----------
    X : array_like, shape (h, w)
    K : array_like, shape (kh, kw)

    Returns
    -------
    np.ndarray, shape (h - kh + 1, w - kw + 1)
        Integers are added up and returned in int64 (uint64 where all are unsigned); else np.result_type(X, K).

    Raises
    ------
    ValueError
        Wrong number of axes, or a kernel larger than X.
    TypeError
        A dtype that is not numeric.

    References
    ----------
    "Dive into Deep Learning", section 7.2.1.

    Examples
    --------
    >>> import numpy as np
    >>> import numconv as nc
    >>> nc.corr2d(np.arange(9).reshape(3, 3), [[0, 1], [2, 3]])
    array([[19, 25],
           [37, 43]])

    """
    X, K = _pair(X, K, "h, w", "kh, kw")
    return Call(2, X[None], K[None, None], shape=_no_batch)


@correlation
def corr2d_multi_in(X: ArrayLike, K: ArrayLike) -> Call:
    """Cross-correlation with several input channels: correlate each with its kernel and add up.

    Parameters
    ----------
    X : array_like, shape (ci, h, w)
    K : array_like, shape (ci, kh, kw)

    Returns
    -------
    np.ndarray, shape (h - kh + 1, w - kw + 1)
        Dtype and errors as in `corr2d`.

    References
    ----------
    "Dive into Deep Learning", section 7.4.1.

    Examples
    --------
    >>> import numpy as np
    >>> import numconv as nc
    >>> X = np.stack([np.arange(9).reshape(3, 3), np.arange(1, 10).reshape(3, 3)])
    >>> nc.corr2d_multi_in(X, [[[0, 1], [2, 3]], [[1, 2], [3, 4]]])
    array([[ 56,  72],
           [104, 120]])

    """
    X, K = _pair(X, K, "ci, h, w", "ci, kh, kw")
    return Call(2, X, K[None], shape=_no_batch)


@correlation
def corr2d_multi_in_out(X: ArrayLike, K: ArrayLike) -> Call:
    """Cross-correlation with several input and output channels: one kernel of shape (ci, kh, kw) per output channel.

    Parameters
    ----------
    X : array_like, shape (ci, h, w)
    K : array_like, shape (co, ci, kh, kw)

    Returns
    -------
    np.ndarray, shape (co, h - kh + 1, w - kw + 1)
        Dtype and errors as in `corr2d`.

    References
    ----------
    "Dive into Deep Learning", section 7.4.2.

    Examples
    --------
    >>> import numpy as np
    >>> import numconv as nc
    >>> X = np.stack([np.arange(9).reshape(3, 3), np.arange(1, 10).reshape(3, 3)])
    >>> K = np.array([[[0, 1], [2, 3]], [[1, 2], [3, 4]]])
    >>> nc.corr2d_multi_in_out(X, np.stack([K, K + 1, K + 2]))
    array([[[ 56,  72],
            [104, 120]],
    <BLANKLINE>
           [[ 76, 100],
            [148, 172]],
    <BLANKLINE>
           [[ 96, 128],
            [192, 224]]])

    """
    X, K = _pair(X, K, "ci, h, w", "co, ci, kh, kw")
    return Call(2, X, K)


@correlation
def corr2d_multi_in_out_1x1(X: ArrayLike, K: ArrayLike) -> Call:
    """Cross-correlation with a 1x1 kernel, as one matrix product of shape (co, ci) @ (ci, h*w).

    Floats and complex numbers go through np.matmul on reshaped views, so X is not copied when it is contiguous.
    Integers, which a BLAS does not take, go through the loops, exactly. An X of a narrower dtype than K's, which would
    be copied first, goes through whatever is fastest.

    Parameters
    ----------
    X : array_like, shape (ci, h, w)
    K : array_like, shape (co, ci, 1, 1)

    Returns
    -------
    np.ndarray, shape (co, h, w)
        Dtype and errors as in `corr2d`.

    References
    ----------
    "Dive into Deep Learning", section 7.4.3.

    Examples
    --------
    >>> import numpy as np
    >>> import numconv as nc
    >>> X = np.arange(8.0).reshape(2, 2, 2)
    >>> nc.corr2d_multi_in_out_1x1(X, np.array([1.0, 10.0]).reshape(1, 2, 1, 1))
    array([[[40., 51.],
            [62., 73.]]])

    """
    X, K = _pair(X, K, "ci, h, w", "co, ci, 1, 1")
    if K.shape[2:] != (1, 1):
        raise ValueError(
            f"K has a {K.shape[2]}x{K.shape[3]} kernel, but this function takes 1x1: call corr2d_multi_in_out"
            f" [X {X.shape}, K {K.shape}]"
        )
    common = np.result_type(X, K)
    product = X.dtype == common and common.char in "fdFD"
    return Call(2, X, K, wish=Wish("matmul" if product else "auto"))


@correlation
def trans_conv(X: ArrayLike, K: ArrayLike) -> Call:
    """Transposed convolution, stride 1: Y[i + a, j + b] collects X[i, j] * K[a, b] over all i, j, a, b.

    Parameters
    ----------
    X : array_like, shape (h, w)
    K : array_like, shape (kh, kw)

    Returns
    -------
    np.ndarray, shape (h + kh - 1, w + kw - 1)
        Dtype and errors as in `corr2d`.

    References
    ----------
    "Dive into Deep Learning", section 14.10.1.

    Examples
    --------
    >>> import numconv as nc
    >>> nc.trans_conv([[0.0, 1.0], [2.0, 3.0]], [[0.0, 1.0], [2.0, 3.0]])
    array([[ 0.,  0.,  1.],
           [ 0.,  4.,  6.],
           [ 4., 12.,  9.]])

    """
    X, K = _pair(X, K, "h, w", "kh, kw")
    return transposed(2, X[None], K[None, None], None, Options(), 0, Wish())._replace(shape=_no_batch)


def pool2d(X: ArrayLike, pool_size: tuple[int, int], mode: str = "max") -> Array:
    """Pooling with a window that moves by one: the maximum or the mean of X[i:i+ph, j:j+pw].

    Parameters
    ----------
    X : array_like, shape (h, w)
    pool_size : (ph, pw)
    mode : {"max", "avg"}

    Returns
    -------
    np.ndarray, shape (h - ph + 1, w - pw + 1)
        "max" keeps the dtype of X; "avg" gives what np.mean gives.

    Raises
    ------
    ValueError
        Wrong number of axes, a window larger than X or smaller than 1x1, or another mode.
    TypeError
        A dtype that is not numeric, or a window side that is no integer; "max" of complex numbers.

    References
    ----------
    "Dive into Deep Learning", section 7.5.1.

    Examples
    --------
    >>> import numpy as np
    >>> import numconv as nc
    >>> X = np.arange(9.0).reshape(3, 3)
    >>> nc.pool2d(X, (2, 2))
    array([[4., 5.],
           [7., 8.]])
    >>> nc.pool2d(X, (2, 2), "avg")
    array([[2., 3.],
           [5., 6.]])

    """
    array = as_array("input X", X)
    try:
        sides = tuple(pool_size)
    except TypeError:
        raise TypeError(f"pool_size is {pool_size!r}, but it takes two integers (ph, pw)") from None
    if len(sides) != 2:
        raise ValueError(f"pool_size is {pool_size!r}, but it takes two integers (ph, pw)")
    ph, pw = (integer("pool_size", side) for side in sides)
    if array.ndim != 2:
        raise ValueError(f"X has {array.ndim} axes and shape {array.shape}, but pool2d takes 2: (h, w)")
    if not is_word(mode, POOL_MODES):
        raise ValueError(f"mode is {mode!r}, but it must be one of {', '.join(POOL_MODES)}")
    if not (1 <= ph <= array.shape[0] and 1 <= pw <= array.shape[1]):
        raise ValueError(
            f"pool_size is {ph}x{pw}, but it must be at least 1x1 and at most X's {array.shape[0]}x{array.shape[1]}"
        )
    pool = max_pool2d if mode == "max" else avg_pool2d
    pooled: Array = pool(array[None], (ph, pw), stride=1)[0]
    return pooled
