"""torch.nn.grad's names: the gradients of convolutions by input and weights, for NumPy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import ArrayLike, DTypeLike

from .adjoint import by_input, by_weight
from .dialect import correlation, options, wish
from .method import Array
from .planner import Call
from .problem import Padding, PerAxis


@correlation
def conv2d_input(
    input_size: Sequence[int],
    weight: ArrayLike,
    grad_output: ArrayLike,
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
    dtype: DTypeLike | None = None,
    overflow: str | None = None,
    conjugate: bool = False,
    layout: str = "NCHW",
    out: Array | None = None,
    workspace: int | None = None,
    device: str | None = None,
    stream: Any = None,
) -> Call:
    """The gradient of `conv2d` by its input: its adjoint.

    For any x and y of fitting shapes, ``(conv2d(x, w) * y).sum() == (x * conv2d_input(x.shape, w, y)).sum()``.

    Parameters
    ----------
    input_size : sequence of int
        Shape of the gradient: (batch, in_channels, height, width), or without batch.
    weight : array_like, shape (out_channels, in_channels / groups, kernel_height, kernel_width)
    grad_output : array_like
        The gradient by the output, of the output's shape.
    stride, padding, dilation, groups, padding_mode, padding_value
        Those of the `conv2d`. What fell on a padding other than zeros is added to the elements copied there.
    method, rtol, rtol_kind, reproducible, dtype, overflow, conjugate, layout, out, workspace, device, stream
        As in `conv2d`: with layout "NHWC", input_size and grad_output have the channels last; with conjugate, the
        weight's conjugate makes it the adjoint in the inner product of complex numbers.

    Returns
    -------
    np.ndarray, shape input_size
        The dtype is that of `conv2d`. Complex numbers are conjugated on request alone.

    Raises
    ------
    ValueError, TypeError
        As `conv2d`; ValueError also where grad_output has not the shape of its output.

    Notes
    -----
    Names and defaults are those of `torch.nn.grad.conv2d_input`. It runs as `conv_transpose2d` does.

    Examples
    --------
    >>> import numpy as np
    >>> import numconv as nc
    >>> nc.conv2d_input((1, 3, 3), np.ones((1, 1, 2, 2)), [[[1.0, 2.0], [3.0, 4.0]]])
    array([[[ 1.,  3.,  2.],
            [ 4., 10.,  6.],
            [ 3.,  7.,  4.]]])

    """
    return by_input(
        2,
        input_size,
        weight,
        grad_output,
        options(stride, padding, dilation, groups, padding_mode, None, dtype, padding_value, overflow, layout),
        wish(method, rtol, rtol_kind, reproducible, workspace),
        out,
        conjugate,
        device,
        stream,
    )


@correlation
def conv1d_input(
    input_size: Sequence[int],
    weight: ArrayLike,
    grad_output: ArrayLike,
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
    dtype: DTypeLike | None = None,
    overflow: str | None = None,
    conjugate: bool = False,
    layout: str = "NCHW",
    out: Array | None = None,
    workspace: int | None = None,
    device: str | None = None,
    stream: Any = None,
) -> Call:
    """The gradient of `conv1d` by its input: `conv2d_input` with one spatial axis.

    Parameters, dtypes and errors are those of `conv2d_input`; names and defaults those of
    `torch.nn.grad.conv1d_input`.

    Examples
    --------
    >>> import numconv as nc
    >>> nc.conv1d_input((1, 4), [[[1, -1]]], [[1, 2, 3]])
    array([[ 1,  1,  1, -3]])

    """
    return by_input(
        1,
        input_size,
        weight,
        grad_output,
        options(stride, padding, dilation, groups, padding_mode, None, dtype, padding_value, overflow, layout),
        wish(method, rtol, rtol_kind, reproducible, workspace),
        out,
        conjugate,
        device,
        stream,
    )


@correlation
def conv3d_input(
    input_size: Sequence[int],
    weight: ArrayLike,
    grad_output: ArrayLike,
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
    dtype: DTypeLike | None = None,
    overflow: str | None = None,
    conjugate: bool = False,
    layout: str = "NCHW",
    out: Array | None = None,
    workspace: int | None = None,
    device: str | None = None,
    stream: Any = None,
) -> Call:
    """The gradient of `conv3d` by its input: `conv2d_input` with three spatial axes.

    Parameters, dtypes and errors are those of `conv2d_input`; names and defaults those of
    `torch.nn.grad.conv3d_input`.

    Examples
    --------
    >>> import numconv as nc
    >>> nc.conv3d_input((1, 2, 2, 2), [[[[[2]]]]], [[[[1, 2], [3, 4]], [[5, 6], [7, 8]]]])[0, 1]
    array([[10, 12],
           [14, 16]])

    """
    return by_input(
        3,
        input_size,
        weight,
        grad_output,
        options(stride, padding, dilation, groups, padding_mode, None, dtype, padding_value, overflow, layout),
        wish(method, rtol, rtol_kind, reproducible, workspace),
        out,
        conjugate,
        device,
        stream,
    )


@correlation
def conv2d_weight(
    input: ArrayLike,
    weight_size: Sequence[int],
    grad_output: ArrayLike,
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
    dtype: DTypeLike | None = None,
    overflow: str | None = None,
    conjugate: bool = False,
    layout: str = "NCHW",
    out: Array | None = None,
    workspace: int | None = None,
    device: str | None = None,
    stream: Any = None,
) -> Call:
    """The gradient of `conv2d` by its weights: its adjoint by them.

    With the group of channels ci of the input at hand::

        w[co, ci, a, b] = sum over n, i, j of  x[n, ci, i*stride + a*dilation - before, ...] * grad_output[n, co, i, j]

    Parameters
    ----------
    input : array_like, shape (batch, in_channels, height, width) or (in_channels, height, width)
    weight_size : sequence of int
        Shape of the gradient: (out_channels, in_channels / groups, kernel_height, kernel_width).
    grad_output : array_like
        The gradient by the output, of the output's shape.
    stride, padding, dilation, groups, padding_mode, padding_value
        Those of the `conv2d`.
    method, rtol, rtol_kind, reproducible, dtype, overflow, conjugate, layout, out, workspace, device, stream
        As in `conv2d`: with layout "NHWC", input and grad_output have the channels last, the gradient never; with
        conjugate, the input's conjugate makes it the adjoint in the inner product of complex numbers.

    Returns
    -------
    np.ndarray, shape weight_size
        The dtype is that of `conv2d`. Complex numbers are conjugated on request alone.

    Raises
    ------
    ValueError, TypeError
        As `conv2d`; ValueError also where grad_output has not the shape of its output.

    Notes
    -----
    Names and defaults are those of `torch.nn.grad.conv2d_weight`. It is a correlation of the input, images in the place
    of channels, with grad_output as the kernel; with groups, methods other than `planar` copy a batch, to bring each
    group's images together. The gradient of a 1x1 layer is a matrix product, which `reproducible` excludes.

    Examples
    --------
    >>> import numpy as np
    >>> import numconv as nc
    >>> nc.conv2d_weight(np.arange(9.0).reshape(1, 3, 3), (1, 1, 2, 2), np.ones((1, 2, 2)))
    array([[[[ 8., 12.],
             [20., 24.]]]])

    """
    return by_weight(
        2,
        input,
        weight_size,
        grad_output,
        options(stride, padding, dilation, groups, padding_mode, None, dtype, padding_value, overflow, layout),
        wish(method, rtol, rtol_kind, reproducible, workspace),
        out,
        conjugate,
        device,
        stream,
    )


@correlation
def conv1d_weight(
    input: ArrayLike,
    weight_size: Sequence[int],
    grad_output: ArrayLike,
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
    dtype: DTypeLike | None = None,
    overflow: str | None = None,
    conjugate: bool = False,
    layout: str = "NCHW",
    out: Array | None = None,
    workspace: int | None = None,
    device: str | None = None,
    stream: Any = None,
) -> Call:
    """The gradient of `conv1d` by its weights: `conv2d_weight` with one spatial axis.

    Parameters, dtypes and errors are those of `conv2d_weight`; names and defaults those of
    `torch.nn.grad.conv1d_weight`.

    Examples
    --------
    >>> import numconv as nc
    >>> nc.conv1d_weight([[1, 2, 3]], (1, 1, 2), [[1, 10]])
    array([[[21, 32]]])

    """
    return by_weight(
        1,
        input,
        weight_size,
        grad_output,
        options(stride, padding, dilation, groups, padding_mode, None, dtype, padding_value, overflow, layout),
        wish(method, rtol, rtol_kind, reproducible, workspace),
        out,
        conjugate,
        device,
        stream,
    )


@correlation
def conv3d_weight(
    input: ArrayLike,
    weight_size: Sequence[int],
    grad_output: ArrayLike,
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
    dtype: DTypeLike | None = None,
    overflow: str | None = None,
    conjugate: bool = False,
    layout: str = "NCHW",
    out: Array | None = None,
    workspace: int | None = None,
    device: str | None = None,
    stream: Any = None,
) -> Call:
    """The gradient of `conv3d` by its weights: `conv2d_weight` with three spatial axes.

    Parameters, dtypes and errors are those of `conv2d_weight`; names and defaults those of
    `torch.nn.grad.conv3d_weight`.

    Examples
    --------
    >>> import numconv as nc
    >>> nc.conv3d_weight([[[[1, 2]]]], (1, 1, 1, 1, 2), [[[[3]]]])
    array([[[[[3, 6]]]]])

    """
    return by_weight(
        3,
        input,
        weight_size,
        grad_output,
        options(stride, padding, dilation, groups, padding_mode, None, dtype, padding_value, overflow, layout),
        wish(method, rtol, rtol_kind, reproducible, workspace),
        out,
        conjugate,
        device,
        stream,
    )
