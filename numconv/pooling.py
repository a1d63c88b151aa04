"""torch.nn.functional's pooling, for NumPy arrays: the maximum or the mean of windows of one to three axes."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from . import jit
from .dialect import boolean
from .method import Array
from .problem import cross
from .validate import as_array, canonical, integer, per_axis, refuse

__all__ = ["avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool1d", "max_pool2d", "max_pool3d"]

PerAxis = int | tuple[int, ...] | list[int]


class Windows(NamedTuple):
    """Where the windows of a pooling lie, one entry for each spatial axis."""

    spatial: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    out: tuple[int, ...]


def max_pool2d(
    input: ArrayLike,
    kernel_size: PerAxis,
    stride: PerAxis | None = None,
    padding: PerAxis = 0,
    dilation: PerAxis = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
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

    Returns
    -------
    np.ndarray, shape (batch, channels, out_height, out_width), without batch if the input has none
        Of the input's dtype. Each side is floor((size + 2 * padding - dilation * (kernel_size - 1) - 1) / stride) + 1,
        or ceil. A window with NaN gives NaN.
    np.ndarray of int64, of the same shape, where `return_indices`
        The index in its flattened image: of the first of equal maxima, or of the last NaN, as torch has it.

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
    return _max_pool(2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool1d(
    input: ArrayLike,
    kernel_size: PerAxis,
    stride: PerAxis | None = None,
    padding: PerAxis = 0,
    dilation: PerAxis = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
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
    return _max_pool(1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(
    input: ArrayLike,
    kernel_size: PerAxis,
    stride: PerAxis | None = None,
    padding: PerAxis = 0,
    dilation: PerAxis = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
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
    return _max_pool(3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def avg_pool2d(
    input: ArrayLike,
    kernel_size: PerAxis,
    stride: PerAxis | None = None,
    padding: PerAxis = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
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
    return _avg_pool(2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def avg_pool1d(
    input: ArrayLike,
    kernel_size: PerAxis,
    stride: PerAxis | None = None,
    padding: PerAxis = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
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
    return _avg_pool(1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


def avg_pool3d(
    input: ArrayLike,
    kernel_size: PerAxis,
    stride: PerAxis | None = None,
    padding: PerAxis = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
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
    return _avg_pool(3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def _max_pool(
    rank: int, input: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: Any, indices: Any
) -> Any:
    x = as_array("input", input)
    windows = _windows(rank, x, kernel_size, stride, padding, dilation, ceil_mode)
    located = boolean("return_indices", indices)
    if x.dtype.kind == "c":
        refuse(TypeError, "complex numbers have no order: take the maximum of np.abs, say", _line(x, windows.kernel))
    # The greatest of bools is that of their bytes.
    numbers = x.view(np.uint8) if x.dtype.kind == "b" else x.astype(np.float32) if x.dtype.char == "e" else x
    start = -np.inf if numbers.dtype.kind == "f" else np.iinfo(numbers.dtype).min
    counts = tuple(np.ones(size, np.int64) for size in windows.out)
    best, places = _pool(numbers, windows, numbers.dtype, start, counts, located)
    best = best.view(np.bool_) if x.dtype.kind == "b" else best.astype(x.dtype, copy=False)
    return (best, places) if located else best


def _avg_pool(
    rank: int, input: Any, kernel_size: Any, stride: Any, padding: Any, ceil_mode: Any, include: Any, override: Any
) -> Array:
    x = as_array("input", input)
    if x.dtype.kind == "c":
        parts = (
            _avg_pool(rank, part, kernel_size, stride, padding, ceil_mode, include, override)
            for part in (x.real, x.imag)
        )
        return np.stack(tuple(parts), axis=-1).view(x.dtype)[..., 0]
    windows = _windows(rank, x, kernel_size, stride, padding, 1, ceil_mode)
    include = boolean("count_include_pad", include)
    output = np.dtype(np.float64) if x.dtype.kind in "biu" else x.dtype
    numbers = x.view(np.uint8) if x.dtype.kind == "b" else x.astype(np.float32) if x.dtype.char == "e" else x
    counts = tuple(_counts(windows, axis, include) for axis in range(rank))
    if override is not None:
        divisor = integer("divisor_override", override)
        if divisor == 0:
            refuse(ValueError, "divisor_override is 0, but nothing is divided by 0", _line(x, windows.kernel))
        counts = (counts[0] * 0 + divisor, *(count * 0 + 1 for count in counts[1:]))
    sums = np.result_type(output, np.float32)
    return _pool(numbers, windows, sums, 0, counts, False, mean=True)[0].astype(output, copy=False)


def _line(x: Array, kernel: tuple[int, ...]) -> str:
    return f"{x.dtype.name} {cross(x.shape)} pooled by {cross(kernel)}"


def _windows(rank: int, x: Array, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: Any) -> Windows:
    """The windows of a call, or its one-sentence error."""
    line = f"{x.dtype.name} {cross(x.shape)}"
    if x.ndim not in (rank + 1, rank + 2):
        axes = ", ".join(("depth", "height", "width")[-rank:])
        refuse(
            ValueError,
            f"the input has {x.ndim} axes, but it takes (channels, {axes}) or (batch, channels, {axes}): add the"
            f" missing axes with x[None]",
            line,
        )
    size = per_axis("kernel_size", canonical("kernel_size", kernel), rank, 1, line)
    line = _line(x, size)
    steps = size if stride is None else per_axis("stride", canonical("stride", stride), rank, 1, line)
    pads = per_axis("padding", canonical("padding", padding), rank, 0, line)
    apart = per_axis("dilation", canonical("dilation", dilation), rank, 1, line)
    ceil_mode = boolean("ceil_mode", ceil_mode)
    spatial, out = x.shape[-rank:], []
    if 0 in spatial:
        refuse(ValueError, "the input is empty, but a window takes one element at least", line)
    for length, k, s, p, d in zip(spatial, size, steps, pads, apart, strict=True):
        reach = d * (k - 1) + 1
        if 2 * p > reach:
            refuse(
                ValueError,
                f"padding is {cross(pads)}, but it may be half the window at most, which spans {reach}",
                line,
            )
        if length + 2 * p < reach:
            refuse(
                ValueError,
                f"the window spans {reach} with its dilation, but the padded input has only {length + 2 * p}: pad more"
                f" or take a smaller window",
                line,
            )
        count = (length + 2 * p - reach + (s - 1 if ceil_mode else 0)) // s + 1
        # The last window must start in the input or in the padding before it.
        out.append(count - (ceil_mode and (count - 1) * s >= length + p))
    return Windows(spatial, size, steps, pads, apart, tuple(out))


def _counts(windows: Windows, axis: int, include_padding: bool) -> Array:
    """How many elements each window of an axis counts: those of the input, or of the padded input."""
    size, kernel, stride, padding, _, out = (values[axis] for values in windows)
    first = np.arange(out) * stride - padding
    end = np.minimum(first + kernel, size + padding)
    if include_padding:
        return end - first
    return np.minimum(end, size) - np.maximum(first, 0)


def _pool(
    x: Array,
    windows: Windows,
    dtype: np.dtype[Any],
    start: float,
    counts: tuple[Array, ...],
    located: bool,
    mean: bool = False,
) -> tuple[Array, Array]:
    """(result, places of the maxima): every image and channel is a plane."""
    # Imported late: numba takes a while to set up the kernels, and `import numconv` should not.
    from .cpu.pool import pool

    rank = len(windows.out)
    shape = x.shape[:-rank] + windows.out
    missing = (1,) * (3 - rank)
    planes = int(np.prod(x.shape[:-rank]))
    out = np.empty((planes, *missing, *windows.out), dtype)
    places = np.full(out.shape if located else (0, 1, 1, 1), -1)
    ones = [np.ones(1, np.int64)] * (3 - rank)
    integers, interior = _launch(windows, mean, located, jit.threads())
    image = np.ascontiguousarray(x).reshape(planes, *missing, *windows.spatial)
    pool(image, out, places, np.array([start], dtype), (*ones, *counts), interior, integers)
    return out.reshape(shape), places.reshape(shape) if located else places


@functools.lru_cache(maxsize=1024)
def _launch(windows: Windows, mean: bool, located: bool, threads: int) -> tuple[Array, Array]:
    """The integers of a launch, and at which output columns each window column meets the input."""
    missing = 3 - len(windows.out)
    fields = [
        *((1,) * missing + windows.kernel),
        *((1,) * missing + windows.stride),
        *((0,) * missing + windows.padding),
        *((1,) * missing + windows.dilation),
    ]
    size, kernel, stride, padding, dilation, out = (values[-1] for values in windows)
    first = padding - dilation * np.arange(kernel)
    edges = np.stack([first, first + size], axis=1)
    return np.array([*fields, mean, located, threads]), np.clip(-(-edges // stride), 0, out)
