"""torch.nn.functional's transposed convolutions: the adjoints of its convolutions, as layers of their own."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike, DTypeLike

from .adjoint import transposed
from .dialect import correlation, options, wish
from .method import Array
from .planner import Call
from .problem import Padding, PerAxis


@correlation
def conv_transpose2d(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: PerAxis = 1,
    padding: Padding = 0,
    output_padding: PerAxis = 0,
    groups: int = 1,
    dilation: PerAxis = 1,
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
    """Transposed convolution of images: the adjoint of `conv2d` by its input, as a layer of its own.

    Each input is multiplied by the whole kernel and added up, stride apart: with g the group of input channel ci, and
    cog = out_channels / groups::

        y[n, g*cog + co, i*stride + a*dilation - before, j*stride + b*dilation - before] +=
            x[n, ci, i, j] * weight[ci, co, a, b]

    Parameters
    ----------
    input : array_like, shape (batch, in_channels, height, width) or (in_channels, height, width)
    weight : array_like, shape (in_channels, out_channels / groups, kernel_height, kernel_width)
        As `conv2d` from out_channels to in_channels has it.
    bias : array_like, shape (out_channels,), optional
    stride, dilation : int or one per axis
        Those of the convolution that it is the adjoint of: elements between neighbouring inputs' outputs, and between
        the kernel's elements.
    padding : int, one int per axis, one (before, after) pair per axis, or a word
        What that convolution pads, so what is taken from the ends of the result. "same", "same_lower": the result is
        input times stride; "full": dilation * (kernel - 1) is taken from each end; "valid": nothing.
    output_padding : int or one per axis
        Outputs more at the end of each axis, fewer than the stride or the dilation: several inputs of a strided
        convolution have outputs of one size, and this chooses.
    groups : int
        The channels of input and output fall into so many groups; each output group sees its input group alone.
    padding_mode : {"zeros", "reflect", "replicate", "circular", "symmetric", "constant"}
        That of the convolution whose adjoint it is. "zeros" and "constant" drop what falls on the padding; the others
        add it to the elements that they would have copied there.
    padding_value : number
        The constant of the convolution. It has no part in its adjoint.
    method, rtol, rtol_kind, reproducible, activation, dtype, overflow, conjugate, layout, out, workspace
        As in `conv2d`.
    device, stream
        As in `conv2d`.

    Returns
    -------
    np.ndarray, shape (batch, out_channels, out_height, out_width), without batch if the input has none
        Each side is (size - 1) * stride + dilation * (kernel - 1) + 1 - before - after + output_padding. The dtype is
        that of `conv2d`.

    Raises
    ------
    ValueError, TypeError
        As `conv2d`; ValueError also for an output_padding that is too large.

    Notes
    -----
    Names and defaults are those of `torch.nn.functional.conv_transpose2d`. It runs as stride * stride plain
    correlations, each with every stride-th tap of the kernel, never over inserted zeros. The taps of each are added up
    in the one order of summation, those of the kernel turned round.

    References
    ----------
    V. Dumoulin and F. Visin, "A guide to convolution arithmetic for deep learning", 2016, chapter 4.

    Examples
    --------
    >>> import numpy as np
    >>> import numconv as nc
    >>> nc.conv_transpose2d([[[0, 1], [2, 3]]], [[[[1, 10], [100, 1000]]]], stride=2)
    array([[[   0,    0,    1,   10],
            [   0,    0,  100, 1000],
            [   2,   20,    3,   30],
            [ 200, 2000,  300, 3000]]])

    """
    return transposed(
        2,
        input,
        weight,
        bias,
        options(stride, padding, dilation, groups, padding_mode, activation, dtype, padding_value, overflow, layout),
        output_padding,
        wish(method, rtol, rtol_kind, reproducible, workspace),
        out,
        conjugate,
        device,
        stream,
    )


@correlation
def conv_transpose1d(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: PerAxis = 1,
    padding: Padding = 0,
    output_padding: PerAxis = 0,
    groups: int = 1,
    dilation: PerAxis = 1,
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
    """Transposed convolution of signals: `conv_transpose2d` with one spatial axis.

    Input (batch, in_channels, width) or (in_channels, width), weight (in_channels, out_channels / groups,
    kernel_width). Parameters, dtypes and errors are those of `conv_transpose2d`; names and defaults those of
    `torch.nn.functional.conv_transpose1d`.

    Examples
    --------
    >>> import numconv as nc
    >>> nc.conv_transpose1d([[1, 2, 3]], [[[1, 10]]])
    array([[ 1, 12, 23, 30]])

    """
    return transposed(
        1,
        input,
        weight,
        bias,
        options(stride, padding, dilation, groups, padding_mode, activation, dtype, padding_value, overflow, layout),
        output_padding,
        wish(method, rtol, rtol_kind, reproducible, workspace),
        out,
        conjugate,
        device,
        stream,
    )


@correlation
def conv_transpose3d(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: PerAxis = 1,
    padding: Padding = 0,
    output_padding: PerAxis = 0,
    groups: int = 1,
    dilation: PerAxis = 1,
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
    """Transposed convolution of volumes: `conv_transpose2d` with three spatial axes.

    Input (batch, in_channels, depth, height, width) or the same without batch, weight (in_channels, out_channels /
    groups, kernel_depth, kernel_height, kernel_width). Parameters, dtypes and errors are those of `conv_transpose2d`;
    names and defaults those of `torch.nn.functional.conv_transpose3d`.

    Examples
    --------
    >>> import numpy as np
    >>> import numconv as nc
    >>> nc.conv_transpose3d(np.ones((1, 2, 2, 2)), np.ones((1, 1, 2, 2, 2)))[0, 1]
    array([[2., 4., 2.],
           [4., 8., 4.],
           [2., 4., 2.]])

    """
    return transposed(
        3,
        input,
        weight,
        bias,
        options(stride, padding, dilation, groups, padding_mode, activation, dtype, padding_value, overflow, layout),
        output_padding,
        wish(method, rtol, rtol_kind, reproducible, workspace),
        out,
        conjugate,
        device,
        stream,
    )
