"""torch.nn.functional's names and argument order, for NumPy arrays."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike, DTypeLike

from .dialect import convolution, correlation, data_type, options, stand_in, where_they_lie, wish
from .method import Array
from .planner import Call, Plan
from .problem import Padding
from .validate import canonical

__all__ = ["conv1d", "conv2d", "conv3d", "plan"]

PerAxis = int | tuple[int, ...] | list[int]


@correlation
def conv2d(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    method: str = "auto",
    rtol: float | None = None,
    rtol_kind: str = "expected",
    reproducible: bool = False,
    activation: str | None = None,
    dtype: DTypeLike | None = None,
    out: Array | None = None,
    device: str | None = None,
    stream: Any = None,
) -> Call:
    """Multi-channel cross-correlation of images, the "convolution" of deep learning.

    With g the group of output channel co, and cig = in_channels / groups::

        y[n, co, i, j] = bias[co] + sum over ci, a, b of
            x[n, g*cig + ci, i*stride + a*dilation - before, j*stride + b*dilation - before] * weight[co, ci, a, b]

    Parameters
    ----------
    input : array_like, shape (batch, in_channels, height, width) or (in_channels, height, width)
        Whatever np.asarray takes of bool, integers, floats or complex numbers, in any memory layout; or an array on a
        CUDA device, which has `__cuda_array_interface__` or `__dlpack__`: then weight and bias lie there too, and the
        result comes as CuPy's or torch's array for theirs, else as numba's.
    weight : array_like, shape (out_channels, in_channels / groups, kernel_height, kernel_width)
    bias : array_like, shape (out_channels,), optional
    stride, dilation : int or one per axis
        Steps of the window over the input, and between the kernel's elements, in elements.
    padding : int, one int per axis, one (before, after) pair per axis, or a word
        Elements added around the input. "valid": none. "same": ceil(size / stride) outputs, an odd element after,
        as torch has it; "same_lower": before. "full": dilation * (kernel - 1) on each side.
    groups : int
        The channels of input and output fall into so many groups; each output group sees its input group alone.
    padding_mode : {"zeros", "reflect", "replicate", "circular", "symmetric"}
        What the padding holds; np.pad's names are constant, reflect, edge, wrap and symmetric.
    method : str
        "auto", or a method's name: see `numconv.explain`. One that cannot serve the call is a ValueError.
    rtol : float, optional
        Admit every method whose expected error, relative to max|x| * max over outputs of sum|w| + max|b|, meets it.
        None: direct summation or BLAS. Direct methods are always admitted.
    rtol_kind : {"expected", "bound"}
        Compare `rtol` with the expected error, or with the proved bound.
    reproducible : bool
        Admit only methods that keep the one order of summation: the same bits for any number of threads.
    activation : {None, "relu"}
        Applied to the result, bias included. NaN stays NaN.
    dtype : dtype, optional
        Of the result, and at least that of the sums.
    out : np.ndarray, optional
        Where the result goes: of its shape and dtype, sharing no memory with the input.
    device : {None, "cpu", "cuda", "cuda:1", ...}, optional
        Where it is computed; None: where the input lies. With a NumPy array, "cuda" sends it to the device and brings
        the result back, in chunks of images that fit its memory.
    stream : optional
        The CUDA stream of the kernels: numba's, or a handle. None: the one that the input's interface names.

    Returns
    -------
    np.ndarray, shape (batch, out_channels, out_height, out_width), without batch if the input has none
        Each side is floor((size + before + after - dilation * (kernel - 1) - 1) / stride) + 1. The dtype is
        np.result_type(input, weight); bool and integers are added up and returned in int64, or, where all are
        unsigned, in uint64, and wrap around only beyond that. float16 is added up in float32.

    Raises
    ------
    ValueError
        A shape, size or name that does not fit; the message ends with the problem's line.
    TypeError
        A dtype that does not fit, such as object, or uint64 with a signed integer; a MaskedArray.

    Notes
    -----
    Names and defaults are those of `torch.nn.functional.conv2d`. The direct methods add up in one order: input
    channel, kernel row, kernel column, each a fused multiply-add, the bias last.

    References
    ----------
    A. Zhang et al., "Dive into Deep Learning", sections 7.2 to 7.4.

    Examples
    --------
    >>> import numpy as np
    >>> import numconv as nc
    >>> x = np.arange(18, dtype=np.float32).reshape(1, 2, 3, 3)
    >>> weight = np.ones((1, 2, 2, 2), np.float32)
    >>> nc.conv2d(x, weight, bias=[1])
    array([[[[53., 61.],
             [77., 85.]]]], dtype=float32)
    >>> nc.conv2d(x, weight, padding="same", stride=2).shape
    (1, 1, 2, 2)

    """
    return convolution(
        2,
        input,
        weight,
        bias,
        options(stride, padding, dilation, groups, padding_mode, activation, dtype),
        wish(method, rtol, rtol_kind, reproducible),
        out,
        device,
        stream,
    )


@correlation
def conv1d(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    method: str = "auto",
    rtol: float | None = None,
    rtol_kind: str = "expected",
    reproducible: bool = False,
    activation: str | None = None,
    dtype: DTypeLike | None = None,
    out: Array | None = None,
    device: str | None = None,
    stream: Any = None,
) -> Call:
    """Multi-channel cross-correlation of signals: `conv2d` with one spatial axis.

    Input (batch, in_channels, width) or (in_channels, width), weight (out_channels, in_channels / groups,
    kernel_width). Parameters, dtypes and errors are those of `conv2d`; names and defaults those of
    `torch.nn.functional.conv1d`.

    Examples
    --------
    >>> import numconv as nc
    >>> nc.conv1d([[0, 1, 2, 3]], [[[1, -1]]])
    array([[-1, -1, -1]])

    """
    return convolution(
        1,
        input,
        weight,
        bias,
        options(stride, padding, dilation, groups, padding_mode, activation, dtype),
        wish(method, rtol, rtol_kind, reproducible),
        out,
        device,
        stream,
    )


@correlation
def conv3d(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    method: str = "auto",
    rtol: float | None = None,
    rtol_kind: str = "expected",
    reproducible: bool = False,
    activation: str | None = None,
    dtype: DTypeLike | None = None,
    out: Array | None = None,
    device: str | None = None,
    stream: Any = None,
) -> Call:
    """Multi-channel cross-correlation of volumes: `conv2d` with three spatial axes.

    Input (batch, in_channels, depth, height, width) or the same without batch, weight (out_channels, in_channels /
    groups, kernel_depth, kernel_height, kernel_width). Parameters, dtypes and errors are those of `conv2d`; names and
    defaults those of `torch.nn.functional.conv3d`.

    Examples
    --------
    >>> import numpy as np
    >>> import numconv as nc
    >>> nc.conv3d(np.ones((1, 2, 2, 2)), np.ones((1, 1, 2, 2, 2)))
    array([[[[8.]]]])

    """
    return convolution(
        3,
        input,
        weight,
        bias,
        options(stride, padding, dilation, groups, padding_mode, activation, dtype),
        wish(method, rtol, rtol_kind, reproducible),
        out,
        device,
        stream,
    )


def plan(
    x_shape: tuple[int, ...],
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    x_dtype: DTypeLike | None = None,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    method: str = "auto",
    rtol: float | None = None,
    rtol_kind: str = "expected",
    reproducible: bool = False,
    activation: str | None = None,
    dtype: DTypeLike | None = None,
    device: str | None = None,
) -> Plan:
    """Prepare a correlation once, to run it again and again.

    Parameters
    ----------
    x_shape : tuple of int
        Shape of the inputs to come: (batch, channels, ...) or (channels, ...), where ... is one to three axes.
    weight : array_like
        Copied, so that later edits have no effect. Its number of axes says how many are spatial.
    x_dtype : dtype, optional
        Of the inputs to come; the weight's unless given.
    bias, stride, padding, dilation, groups, padding_mode, method, rtol, rtol_kind, reproducible, activation, dtype
        As in `conv2d`.
    device : {None, "cpu", "cuda", "cuda:1", ...}, optional
        Where the plan keeps its weights and runs, on inputs there or on NumPy arrays; None: where the weights lie.

    Returns
    -------
    Plan
        ``plan(x, out=None)`` gives the result of `conv2d` (`conv1d`, `conv3d`); see `numconv.Plan`.

    Examples
    --------
    >>> import numpy as np
    >>> import numconv as nc
    >>> layer = nc.plan((1, 3, 5, 5), np.ones((2, 3, 3, 3), np.float32), padding=1, activation="relu")
    >>> layer(np.ones((1, 3, 5, 5), np.float32))[0, 0, 0]
    array([12., 18., 18., 18., 12.], dtype=float32)

    """
    kernel, bias, device = where_they_lie(weight, bias, device)
    rank = kernel.ndim - 2
    if rank not in (1, 2, 3):
        raise ValueError(
            f"the weight has {kernel.ndim} axes, but it takes 3 to 5: (output channels, input channels per group, and"
            f" one to three spatial axes)"
        )
    shape = canonical("x_shape", x_shape)
    if not isinstance(shape, tuple):
        raise TypeError(f"x_shape is {x_shape!r}, but it takes the shape of the inputs to come, a tuple of integers")
    x = stand_in(shape, kernel.dtype if x_dtype is None else data_type("x_dtype", x_dtype))
    wanted = options(stride, padding, dilation, groups, padding_mode, activation, dtype)
    wishes = wish(method, rtol, rtol_kind, reproducible)
    return Plan(convolution(rank, x, kernel, bias, wanted, wishes, device=device))
