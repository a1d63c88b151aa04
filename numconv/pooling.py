"""torch.nn.functional's pooling, for NumPy arrays: the maximum or the mean of windows of one to three axes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .dialect import boolean
from .method import Array
from .pool_windows import counts_of, line_of, pooled, windows_of
from .validate import as_array, integer, refuse

__all__ = ["avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool1d", "max_pool2d", "max_pool3d"]

PerAxis = int | tuple[int, ...] | list[int]


def max_pool2d(
    input: ArrayLike,
    kernel_size: PerAxis,
    stride: PerAxis | None = None,
    padding: PerAxis = 0,
    dilation: PerAxis = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    layout: str = "NCHW",
) -> Any:
    """The maximum of each window: y[n, c, i, j] = max over a, b of x[n, c, i*stride + a*dilation - padding, ...].

    Parameters
    ----------
    input : array_like, shape (batch, channels, height, width) or (channels, height, width)
        Bool, integers or floats.
    kernel_size : int or one per axis
    stride : int or one per axis, optional
        kernel_size unless given.
    padding : int or one per axis
        Elements around the input that are smaller than any: at most half the window's extent.
    dilation : int or one per axis
    ceil_mode : bool
        Keep a last window that ends beyond the padded input, if it starts within the input or the padding before.
    return_indices : bool
        Give the place of each maximum too.
    layout : {"NCHW", "NHWC"}
        The order of axes of input and result, as in `conv2d`: "NHWC" has the channels last, and the same bits.

    Returns
    -------
    np.ndarray, shape (batch, channels, out_height, out_width), without batch if the input has none
        Of the input's dtype. Each side is floor((size + 2 * padding - dilation * (kernel_size - 1) - 1) / stride) + 1,
        or ceil. A window with NaN gives NaN.
    np.ndarray of int64, of the same shape, where `return_indices`
        The index in its channel's flattened image: of the first of equal maxima, or of the last NaN, as torch has it;
        -1 of a window that meets padding alone, as a dilated one may.

    Raises
    ------
    ValueError
        A shape or size that does not fit.
    TypeError
        Complex numbers, which have no order; an argument of another kind.

    Notes
    -----
    Names, order and defaults are those of `torch.nn.functional.max_pool2d`.

    References
    ----------
    A. Zhang et al., "Dive into Deep Learning", section 7.5.

    Examples
    --------
    >>> import numpy as np
    >>> import numconv as nc
    >>> x = np.arange(16.0).reshape(1, 4, 4)
    >>> nc.max_pool2d(x, 2)
    array([[[ 5.,  7.],
            [13., 15.]]])
    >>> nc.max_pool2d(x, 3, stride=2, padding=1, return_indices=True)[1]
    array([[[ 5,  7],
            [13, 15]]])

    """
    return _max_pool(2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices, layout)


def max_pool1d(
    input: ArrayLike,
    kernel_size: PerAxis,
    stride: PerAxis | None = None,
    padding: PerAxis = 0,
    dilation: PerAxis = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    layout: str = "NCHW",
) -> Any:
    """The maximum of each window of signals: `max_pool2d` with one spatial axis.

    Input (batch, channels, width) or (channels, width); names, order and defaults are torch's.
    Parameters, dtypes and errors are those of `max_pool2d`. See `torch.nn.functional.max_pool1d`.

    Examples
    --------
    >>> import numconv as nc
    >>> nc.max_pool1d([[3, 1, 4, 1, 5]], 2, stride=1)
    array([[3, 4, 4, 5]])

    """
    return _max_pool(1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices, layout)


def max_pool3d(
    input: ArrayLike,
    kernel_size: PerAxis,
    stride: PerAxis | None = None,
    padding: PerAxis = 0,
    dilation: PerAxis = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    layout: str = "NCHW",
) -> Any:
    """The maximum of each window of volumes: `max_pool2d` with three spatial axes.

    Input (batch, channels, depth, height, width) or the same without batch; names, order and defaults are torch's.
    Parameters, dtypes and errors are those of `max_pool2d`. See `torch.nn.functional.max_pool3d`.

    Examples
    --------
    >>> import numpy as np
    >>> import numconv as nc
    >>> nc.max_pool3d(np.arange(8).reshape(1, 2, 2, 2), 2)
    array([[[[7]]]])

    """
    return _max_pool(3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices, layout)


def avg_pool2d(
    input: ArrayLike,
    kernel_size: PerAxis,
    stride: PerAxis | None = None,
    padding: PerAxis = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    layout: str = "NCHW",
) -> Array:
    """The mean of each window: y[n, c, i, j] = (sum over a, b of x[n, c, i*stride + a - padding, ...]) / count.

    Parameters
    ----------
    input : array_like, shape (batch, channels, height, width) or (channels, height, width)
        Bool, integers, floats or complex numbers.
    kernel_size : int or one per axis
    stride : int or one per axis, optional
        kernel_size unless given.
    padding : int or one per axis
        Zeros around the input: at most half the window.
    ceil_mode : bool
        Keep a last window that ends beyond the padded input, if it starts within the input or the padding before.
    count_include_pad : bool
        Count the padding's zeros too. What lies beyond the padding is never counted.
    divisor_override : int, optional
        Divide by this instead of the count.
    layout : {"NCHW", "NHWC"}
        The order of axes of input and result, as in `conv2d`: "NHWC" has the channels last, and the same bits.

    Returns
    -------
    np.ndarray, shape (batch, channels, out_height, out_width), without batch if the input has none
        Floats and complex numbers keep their dtype, and are added up in it, row by row; float16 in float32. Bool and
        integers give float64, as in np.mean, where torch would cut their quotient. A window with NaN gives NaN.

    Raises
    ------
    ValueError
        A shape or size that does not fit.
    TypeError
        An argument of another kind.

    Notes
    -----
    Names, order and defaults are those of `torch.nn.functional.avg_pool2d`.

    References
    ----------
    A. Zhang et al., "Dive into Deep Learning", section 7.5.

    Examples
    --------
    >>> import numpy as np
    >>> import numconv as nc
    >>> x = np.arange(9.0).reshape(1, 3, 3)
    >>> nc.avg_pool2d(x, 2, stride=1)
    array([[[2., 3.],
            [5., 6.]]])
    >>> nc.avg_pool2d(x, 2, ceil_mode=True)
    array([[[2. , 3.5],
            [6.5, 8. ]]])

    """
    return _avg_pool(2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, layout)


def avg_pool1d(
    input: ArrayLike,
    kernel_size: PerAxis,
    stride: PerAxis | None = None,
    padding: PerAxis = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    *,
    layout: str = "NCHW",
) -> Array:
    """The mean of each window of signals: `avg_pool2d` with one spatial axis.

    Input (batch, channels, width) or (channels, width); names, order and defaults are torch's.
    Parameters, dtypes and errors are those of `avg_pool2d`. See `torch.nn.functional.avg_pool1d`.

    Examples
    --------
    >>> import numconv as nc
    >>> nc.avg_pool1d([[3.0, 1.0, 4.0, 2.0]], 2)
    array([[2., 3.]])

    """
    return _avg_pool(1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None, layout)


def avg_pool3d(
    input: ArrayLike,
    kernel_size: PerAxis,
    stride: PerAxis | None = None,
    padding: PerAxis = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    layout: str = "NCHW",
) -> Array:
    """The mean of each window of volumes: `avg_pool2d` with three spatial axes.

    Input (batch, channels, depth, height, width) or the same without batch; names, order and defaults are torch's.
    Parameters, dtypes and errors are those of `avg_pool2d`. See `torch.nn.functional.avg_pool3d`.

    Examples
    --------
    >>> import numpy as np
    >>> import numconv as nc
    >>> nc.avg_pool3d(np.arange(8.0).reshape(1, 2, 2, 2), 2)
    array([[[[3.5]]]])

    """
    return _avg_pool(3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, layout)


def _max_pool(
    rank: int,
    input: Any,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: Any,
    indices: Any,
    layout: Any,
) -> Any:
    x = as_array("input", input)
    windows = windows_of(rank, x, kernel_size, stride, padding, dilation, ceil_mode, layout)
    located = boolean("return_indices", indices)
    if x.dtype.kind == "c":
        refuse(TypeError, "complex numbers have no order: take the maximum of np.abs, say", line_of(x, windows.kernel))
    # The greatest of bools is that of their bytes.
    numbers = x.view(np.uint8) if x.dtype.kind == "b" else x.astype(np.float32) if x.dtype.char == "e" else x
    start = -np.inf if numbers.dtype.kind == "f" else np.iinfo(numbers.dtype).min
    counts = tuple(np.ones(size, np.int64) for size in windows.out)
    best, places = pooled(numbers, windows, numbers.dtype, start, counts, located)
    best = best.view(np.bool_) if x.dtype.kind == "b" else best.astype(x.dtype, copy=False)
    return (best, places) if located else best


def _avg_pool(
    rank: int,
    input: Any,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: Any,
    include: Any,
    override: Any,
    layout: Any,
) -> Array:
    x = as_array("input", input)
    if x.dtype.kind == "c":
        parts = (
            _avg_pool(rank, part, kernel_size, stride, padding, ceil_mode, include, override, layout)
            for part in (x.real, x.imag)
        )
        return np.stack(tuple(parts), axis=-1).view(x.dtype)[..., 0]
    windows = windows_of(rank, x, kernel_size, stride, padding, 1, ceil_mode, layout)
    include = boolean("count_include_pad", include)
    output = np.dtype(np.float64) if x.dtype.kind in "biu" else x.dtype
    numbers = x.view(np.uint8) if x.dtype.kind == "b" else x.astype(np.float32) if x.dtype.char == "e" else x
    counts = tuple(counts_of(windows, axis, include) for axis in range(rank))
    if override is not None:
        divisor = integer("divisor_override", override)
        if divisor == 0:
            refuse(ValueError, "divisor_override is 0, but nothing is divided by 0", line_of(x, windows.kernel))
        if abs(divisor) >= 2**63:
            sentence = f"divisor_override is {divisor}, but it must be below 2**63: divide the sums by it"
            refuse(ValueError, sentence, line_of(x, windows.kernel))
        counts = (counts[0] * 0 + divisor, *(count * 0 + 1 for count in counts[1:]))
    sums = np.result_type(output, np.float32)
    return pooled(numbers, windows, sums, 0, counts, False, mean=True)[0].astype(output, copy=False)
