"""The gradients of convolutions by their bias: grad_output added up over batch and space."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .method import Array
from .validate import accumulator_dtype, as_array


def conv2d_bias(grad_output: ArrayLike) -> Array:
    """The gradient of `conv2d` by its bias: grad_output added up over batch and space.

    Parameters
    ----------
    grad_output : array_like, shape (batch, out_channels, height, width) or (out_channels, height, width)
        The gradient by the output.

    Returns
    -------
    np.ndarray, shape (out_channels,)
        In the dtype of `conv2d`'s sums, and then of its result. Added up by np.sum, pairwise over space and then over
        the batch, by one thread and in one memory layout: always the same bits. With unit roundoff u, the error is at
        most (batch + 26 + log2(pixels)) * u times the sum of the absolute values; float16 adds pixels / 8192, for it
        is converted so many at a time. Integers are exact.

    Raises
    ------
    ValueError, TypeError
        Another number of axes; a dtype that `conv2d` does not take.

    Examples
    --------
    >>> import numpy as np
    >>> import numconv as nc
    >>> nc.conv2d_bias(np.ones((2, 3, 4, 5)))
    array([40., 40., 40.])

    """
    return _bias(2, grad_output)


def conv1d_bias(grad_output: ArrayLike) -> Array:
    """The gradient of `conv1d` by its bias: `conv2d_bias` with one spatial axis.

    Parameters, dtypes and errors are those of `conv2d_bias`.

    Examples
    --------
    >>> import numconv as nc
    >>> nc.conv1d_bias([[1, 2, 3], [4, 5, 6]])
    array([ 6, 15])

    """
    return _bias(1, grad_output)


def conv3d_bias(grad_output: ArrayLike) -> Array:
    """The gradient of `conv3d` by its bias: `conv2d_bias` with three spatial axes.

    Parameters, dtypes and errors are those of `conv2d_bias`.

    Examples
    --------
    >>> import numconv as nc
    >>> nc.conv3d_bias([[[[1, 2], [3, 4]]]])
    array([10])

    """
    return _bias(3, grad_output)


def _bias(rank: int, grad_output: ArrayLike) -> Array:
    grad = as_array("grad_output", grad_output)
    if grad.ndim not in (rank + 1, rank + 2):
        raise ValueError(
            f"grad_output has {grad.ndim} axes, but it takes {rank + 1} or, with batch, {rank + 2}: those of"
            f" conv{rank}d's output"
        )
    accumulator = accumulator_dtype(grad.dtype, grad.dtype, f"{grad.dtype.name} {grad.shape}")
    space = tuple(axis for axis in range(grad.ndim) if axis != grad.ndim - rank - 1)
    # In one memory layout, for np.sum's order follows the layout.
    total: Array = np.ascontiguousarray(grad).sum(space, accumulator)
    return total if accumulator.kind in "iu" else total.astype(grad.dtype)
