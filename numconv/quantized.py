"""ONNX's ConvInteger: correlations of bytes that stand for numbers around a zero point, exact in int32."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .dialect import convolution, correlation, options, wish
from .method import Array
from .planner import Call
from .problem import Padding
from .validate import as_array

PerAxis = int | tuple[int, ...] | list[int]
BYTES = ("int8", "uint8")


@correlation
def conv_integer(
    x: ArrayLike,
    w: ArrayLike,
    x_zero_point: ArrayLike = 0,
    w_zero_point: ArrayLike = 0,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
    *,
    overflow: str | None = None,
    method: str = "auto",
    layout: str = "NCHW",
    out: Array | None = None,
) -> Call:
    """Correlation of quantized bytes: `conv2d` of x - x_zero_point and w - w_zero_point, exact, in int32.

    A padded element holds the zero point, so it contributes 0.

    Parameters
    ----------
    x : array_like of int8 or uint8, shape (batch, in_channels, ...) or (in_channels, ...)
        Where ... is one to three axes: as many as w says.
    w : array_like of int8 or uint8, shape (out_channels, in_channels / groups, ...)
    x_zero_point : int
        What stands for 0 in x, within the range of its dtype.
    w_zero_point : int, or array_like of shape (out_channels,)
        The same for w, of all or of each output channel.
    stride, padding, dilation, groups, method, layout, out
        As in `conv2d`.
    overflow : {None, "raise", "wrap", "saturate"}
        What becomes of a sum that int32 does not hold, which takes more than 33,000 products. None raises; ONNX wraps.

    Returns
    -------
    np.ndarray of int32, shape (batch, out_channels, ...), without batch if the input has none

    Raises
    ------
    ValueError
        A zero point out of range or of another shape, and whatever `conv2d` refuses.
    TypeError
        Another dtype than int8 or uint8; a zero point that is no integer.
    OverflowError
        See `overflow`.

    Notes
    -----
    Where x_zero_point is not 0, x is copied once, in int16.

    References
    ----------
    ONNX operators, "ConvInteger", version 10.

    Examples
    --------
    >>> import numpy as np
    >>> import numconv as nc
    >>> x = np.arange(2, 11, dtype=np.uint8).reshape(1, 1, 3, 3)
    >>> nc.conv_integer(x, np.ones((1, 1, 2, 2), np.uint8), x_zero_point=1)
    array([[[[12, 16],
             [24, 28]]]], dtype=int32)

    """
    x, w = _bytes("x", x), _bytes("w", w)
    x_zero, w_zero = _zero_point("x", x_zero_point, x.dtype), _zero_point("w", w_zero_point, w.dtype)
    if x_zero.ndim:
        raise ValueError(f"x_zero_point has shape {x_zero.shape}, but it takes one integer for the whole of x")
    if w_zero.ndim and w_zero.shape != w.shape[:1]:
        raise ValueError(
            f"w_zero_point has shape {w_zero.shape}, but it takes one integer, or one for each of w's output channels:"
            f" shape {w.shape[:1]}"
        )
    if w.ndim not in (3, 4, 5):
        raise ValueError(
            f"w has {w.ndim} axes, but it takes 3 to 5: (output channels, input channels per group, and one to three"
            f" spatial axes)"
        )
    return convolution(
        w.ndim - 2,
        x - x_zero if x_zero else x,
        w - w_zero.reshape(-1, *(1,) * (w.ndim - 1)),
        None,
        options(stride, padding, dilation, groups, "zeros", None, np.int32, 0, overflow, layout),
        wish(method, None, "expected", False),
        out,
    )


def _bytes(name: str, value: Any) -> Array:
    array = as_array(name, value)
    if array.dtype.name not in BYTES:
        raise TypeError(f"{name} has dtype {array.dtype}, but conv_integer takes int8 and uint8: conv2d takes others")
    return array


def _zero_point(name: str, value: Any, dtype: np.dtype[Any]) -> Array:
    """A zero point as int16, in which differences of bytes are exact."""
    zero, limits = as_array(f"{name}_zero_point", value), np.iinfo(dtype)
    if zero.dtype.kind not in "iu":
        raise TypeError(f"{name}_zero_point has dtype {zero.dtype}, but it takes integers")
    if zero.size and not (limits.min <= zero.min() and zero.max() <= limits.max):
        raise ValueError(
            f"{name}_zero_point is {value!r}, but {name} is {dtype.name}, which holds {limits.min} to {limits.max}"
        )
    return zero.astype(np.int16)
