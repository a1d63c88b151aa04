"""The gradients of convolutions by their bias: grad_output added up over batch and space."""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import ArrayLike

from .dialect import operand
from .method import Array
from .validate import accumulator_dtype, with_batch

# Elements that are copied at a time, and channels: a cache line of those that lie last, at least.
BLOCK, LEAST_CHANNELS = 1 << 18, 16


def conv2d_bias(grad_output: ArrayLike, *, layout: str = "NCHW") -> Array:
    """The gradient of `conv2d` by its bias: grad_output added up over batch and space.

    Parameters
    ----------
    grad_output : array_like, shape (batch, out_channels, height, width) or (out_channels, height, width)
        The gradient by the output; an array on a CUDA device is added up there.
    layout : {"NCHW", "NHWC"}
        The order of its axes, as in `conv2d`: "NHWC" has the channels last, and the same bits.

    Returns
    -------
    np.ndarray, shape (out_channels,)
        In the dtype of `conv2d`'s sums, and then of its result. Added up by np.sum, pairwise over space and then over
        the batch, by one thread and a few channels at a time: always the same bits, on a device too. With unit roundoff
        u, the error is at most (batch + 26 + log2(pixels)) * u times the sum of the absolute values. Integers are
        exact.

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
    return _bias(2, grad_output, layout)


def conv1d_bias(grad_output: ArrayLike, *, layout: str = "NCHW") -> Array:
    """The gradient of `conv1d` by its bias: `conv2d_bias` with one spatial axis.

    Parameters, dtypes and errors are those of `conv2d_bias`.

    Examples
    --------
    >>> import numconv as nc
    >>> nc.conv1d_bias([[1, 2, 3], [4, 5, 6]])
    array([ 6, 15])

    """
    return _bias(1, grad_output, layout)


def conv3d_bias(grad_output: ArrayLike, *, layout: str = "NCHW") -> Array:
    """The gradient of `conv3d` by its bias: `conv2d_bias` with three spatial axes.

    Parameters, dtypes and errors are those of `conv2d_bias`.

    Examples
    --------
    >>> import numconv as nc
    >>> nc.conv3d_bias([[[[1, 2], [3, 4]]]])
    array([10])

    """
    return _bias(3, grad_output, layout)


def _bias(rank: int, grad_output: ArrayLike, layout: str) -> Array:
    grad = operand("grad_output", grad_output)
    if grad.ndim not in (rank + 1, rank + 2):
        raise ValueError(
            f"grad_output has {grad.ndim} axes, but it takes {rank + 1} or, with batch, {rank + 2}: those of"
            f" conv{rank}d's output"
        )
    line = f"{grad.dtype.name} {grad.shape}"
    batch, channels, *space = with_batch(rank, grad.shape, layout, line)
    accumulator, pixels = accumulator_dtype(grad.dtype, grad.dtype, line), math.prod(space)
    result = accumulator if accumulator.kind in "iu" else grad.dtype
    if not isinstance(grad, np.ndarray):
        from .cuda.launch import added_up

        there: Array = added_up(grad.channels_first(rank, layout), accumulator, result)
        return there
    images = grad if grad.ndim == rank + 2 else grad[None]
    images = images if layout == "NCHW" else np.moveaxis(images, -1, 1)
    sums = np.empty((batch, channels), accumulator)
    step = max(LEAST_CHANNELS, BLOCK // max(1, pixels))
    for n, first in itertools.product(range(batch), range(0, channels, step)):
        # In one memory layout and one dtype, for the order of np.sum follows both; a copy only where they differ.
        planes = np.ascontiguousarray(images[n, first : first + step], accumulator)
        planes.reshape(len(planes), pixels).sum(1, accumulator, sums[n, first : first + step])
    total: Array = sums.sum(0, accumulator)
    return total.astype(result, copy=False)
