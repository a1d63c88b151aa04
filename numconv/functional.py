"""torch.nn.functional's names and argument order, for NumPy arrays."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike, DTypeLike

from .bias_gradients import conv1d_bias, conv2d_bias, conv3d_bias
from .dialect import convolution, correlation, options, wish
from .gradients import (
    conv1d_input,
    conv1d_weight,
    conv2d_input,
    conv2d_weight,
    conv3d_input,
    conv3d_weight,
)
from .method import Array
from .patches import fold, unfold
from .planner import Call
from .planning import plan
from .pooling import avg_pool1d, avg_pool2d, avg_pool3d, max_pool1d, max_pool2d, max_pool3d
from .problem import Padding, PerAxis
from .quantized import conv_integer
from .transposed import conv_transpose1d, conv_transpose2d, conv_transpose3d

__all__ = [
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "conv1d",
    "conv1d_bias",
    "conv1d_input",
    "conv1d_weight",
    "conv2d",
    "conv2d_bias",
    "conv2d_input",
    "conv2d_weight",
    "conv3d",
    "conv3d_bias",
    "conv3d_input",
    "conv3d_weight",
    "conv_integer",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "fold",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "plan",
    "unfold",
]


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
    padding_value: complex = 0,
    method: str = "auto",
    rtol: float | None = None,
    rtol_kind: str = "expected",
    reproducible: bool = False,
    activation: str | None = None,
    dtype: DTypeLike | None = None,
    overflow: str | None = None,
    conjugate: bool = False,
    layout: str = "NCHW",
    out: Array | None = None,
    workspace: int | None = None,
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
    padding_mode : {"zeros", "constant", "reflect", "replicate", "circular", "symmetric"}
        What the padding holds; np.pad's names are constant, reflect, edge, wrap and symmetric. It may be wider than
        the input.
    padding_value : number
        What it holds with "constant". Padding is part of the sum, so inf and NaN there show.
    method : str
        "auto", or a method's name: see `numconv.explain`. One that cannot serve the call is a ValueError.
    rtol : float, optional
        Admit every method whose expected error, relative to max|x| * max over outputs of sum|w| + max|b|, meets it.
        None: direct summation, BLAS, or Fourier transforms in float64. Direct methods are always admitted.
    rtol_kind : {"expected", "bound"}
        Compare `rtol` with the expected error, or with the proved bound.
    reproducible : bool
        Admit only methods that keep the one order of summation: the same bits for any number of threads.
    activation : {None, "relu"}
        Applied to the result, bias included. NaN stays NaN.
    dtype : dtype, optional
        Of the result, and at least that of the sums, but for integers, which any sums but complex ones may become:
        sums of floats are rounded first, half to even.
    overflow : {None, "raise", "wrap", "saturate"}
        What becomes of a sum that the integers of `dtype` do not hold: an OverflowError that leaves `out` alone, the
        sum modulo 2**bits, or the nearest integer that they hold. None raises where the sums are integers, for those
        are exact and should stay so, and saturates where they are floats, as pictures do. Floats do not wrap. NaN
        saturates to 0. The sums themselves, of 64 bits, wrap around unseen.
    conjugate : bool
        Take the complex conjugate of the weight, as np.correlate does of its second input.
    layout : {"NCHW", "NHWC"}
        The order of axes of input and result; HW stands for all spatial axes, be they one or three. "NHWC" has the
        channels last, (batch, height, width, channels) or (height, width, channels), as image files and TensorFlow
        have them, and is read where it lies. The weight's axes are the same in both, and so are the bits.
    out : np.ndarray, optional
        Where the result goes: of its shape and dtype, sharing no memory with the input.
    workspace : int, optional
        Bytes of scratch that the call may take, at most. None: a quarter of input and output, plus 16 MiB. Methods
        take smaller blocks, or are refused.
    device : {None, "cpu", "cuda", "cuda:1", ...}, optional
        Where it is computed; None: where the input lies. With a NumPy array, "cuda" sends it to the device and brings
        the result back, in chunks of images that fit its memory.
    stream : optional
        The CUDA stream of the kernels: an object with `__cuda_stream__`, as CuPy's, torch's and numba's, or a handle.
        None: the one that the input's interface names; for torch's arrays, its current one.

    Returns
    -------
    np.ndarray, shape (batch, out_channels, out_height, out_width), without batch if the input has none
        Each side is floor((size + before + after - dilation * (kernel - 1) - 1) / stride) + 1. The dtype is
        np.result_type(input, weight); bool and integers are added up and returned in int64, or, where all are
        unsigned, the bias too, in uint64, and wrap around only beyond that. float16 is added up in float32.

    Raises
    ------
    ValueError
        A shape, size or name that does not fit; the message ends with the problem's line.
    TypeError
        A dtype that does not fit, such as object, or uint64 with a signed integer; a MaskedArray.
    OverflowError
        See `overflow`.

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
    >>> nc.conv2d(x, weight, [200], dtype=np.uint8)
    array([[[[252, 255],
             [255, 255]]]], dtype=uint8)

    """
    return convolution(
        2,
        input,
        weight,
        bias,
        options(stride, padding, dilation, groups, padding_mode, activation, dtype, padding_value, overflow, layout),
        wish(method, rtol, rtol_kind, reproducible, workspace),
        out,
        conjugate,
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
    padding_value: complex = 0,
    method: str = "auto",
    rtol: float | None = None,
    rtol_kind: str = "expected",
    reproducible: bool = False,
    activation: str | None = None,
    dtype: DTypeLike | None = None,
    overflow: str | None = None,
    conjugate: bool = False,
    layout: str = "NCHW",
    out: Array | None = None,
    workspace: int | None = None,
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
        options(stride, padding, dilation, groups, padding_mode, activation, dtype, padding_value, overflow, layout),
        wish(method, rtol, rtol_kind, reproducible, workspace),
        out,
        conjugate,
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
    padding_value: complex = 0,
    method: str = "auto",
    rtol: float | None = None,
    rtol_kind: str = "expected",
    reproducible: bool = False,
    activation: str | None = None,
    dtype: DTypeLike | None = None,
    overflow: str | None = None,
    conjugate: bool = False,
    layout: str = "NCHW",
    out: Array | None = None,
    workspace: int | None = None,
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
        options(stride, padding, dilation, groups, padding_mode, activation, dtype, padding_value, overflow, layout),
        wish(method, rtol, rtol_kind, reproducible, workspace),
        out,
        conjugate,
        device,
        stream,
    )
