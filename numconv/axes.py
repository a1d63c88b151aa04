"""A correlation over any number of axes, as a Call of one to three: what `signal` and `ndimage` share.

Input and kernel have equally many axes, and a kernel may be one of several. Beyond three axes, the leading ones fold:
the windows that the kernel meets along them, a strided view of the input, become channels, and their positions the
batch. With one folded axis nothing is copied; with more, the folded windows are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .method import Array
from .planner import Call, Options, Wish
from .problem import PADDING_MODES

NATIVE = 3


class Frame(NamedTuple):
    """How a kernel meets its input: for each axis, (before, after) elements of padding, where negative ones crop, and
    the steps between outputs and between the kernel's elements; and what the padding holds.
    """

    padding: Sequence[tuple[int, int]]
    stride: Sequence[int]
    dilation: Sequence[int]
    padding_mode: str = "zeros"
    padding_value: complex = 0


def reverse(array: Array, axes: Sequence[int]) -> Array:
    """The array turned round along some axes, as a view."""
    return array[tuple(slice(None, None, -1) if axis in axes else slice(None) for axis in range(array.ndim))]


def correlate(
    x: Array,
    weight: Array,
    frame: Frame,
    finish: Callable[[Array], Array],
    *,
    wish: Wish,
    dtype: np.dtype[Any] | None = None,
    out: Array | None = None,
) -> Call:
    """The Call that correlates x (inputs, *axes) with weight (kernels, *axes), of one dtype or as conv2d takes them.

    `finish` gets the result as (kernels, *axes). One input meets every kernel; as many as kernels, each its own. `out`
    is where the result goes, contiguous and of its shape, if no axis folds.
    """
    rank = min(x.ndim - 1, NATIVE)
    folded = x.ndim - 1 - rank
    x, padding = _cropped(x, frame.padding)
    inputs, kernels = len(x), len(weight)
    if folded:
        lead = slice(1, 1 + folded)
        x = _padded(x, [(0, 0), *padding[:folded], *[(0, 0)] * rank], frame)
        reach = [d * (k - 1) + 1 for d, k in zip(frame.dilation[:folded], weight.shape[lead], strict=True)]
        windows = np.lib.stride_tricks.sliding_window_view(x, reach, tuple(range(1, 1 + folded)))
        steps = [slice(None, None, step) for step in (*frame.stride[:folded], *(1,) * rank, *frame.dilation[:folded])]
        windows = windows[(slice(None), *steps)]
        places, spatial = windows.shape[lead], windows.shape[1 + folded : 1 + folded + rank]
        order = [*range(1, 1 + folded), 0, *range(1 + folded + rank, windows.ndim)]
        windows = windows.transpose(order + list(range(1 + folded, 1 + folded + rank)))
        taps = math.prod(weight.shape[lead])
        x = windows.reshape(math.prod(places), inputs * taps, *spatial)
    else:
        places, taps = (), 1
        x = x[None]

    if any(x.strides):
        # One layout, one compiled kernel. What stands in for an array, in `explain`, has no strides and stays.
        x = np.ascontiguousarray(x)

    def unfold(result: Array) -> Array:
        result = result.reshape(*places, *result.shape[1:])
        return finish(np.moveaxis(result, folded, 0))

    return Call(
        rank,
        x,
        weight.reshape(kernels, taps, *weight.shape[1 + folded :]),
        options=Options(
            stride=tuple(frame.stride[folded:]),
            padding=tuple(padding[folded:]),
            dilation=tuple(frame.dilation[folded:]),
            groups=inputs,
            padding_mode=frame.padding_mode,
            dtype=dtype,
            padding_value=frame.padding_value,
        ),
        wish=wish,
        out=None if out is None else out.reshape(1, kernels, *out.shape[1:]),
        finish=unfold,
    )


def _cropped(x: Array, padding: Sequence[tuple[int, int]]) -> tuple[Array, list[tuple[int, int]]]:
    """The input without what negative padding cuts off, and the padding that remains."""
    sizes = zip(x.shape[1:], padding, strict=True)
    kept = [slice(max(0, -before), size - max(0, -after)) for size, (before, after) in sizes]
    return x[:, *kept], [(max(0, before), max(0, after)) for before, after in padding]


def _padded(x: Array, pairs: list[tuple[int, int]], frame: Frame) -> Array:
    """The input with padding, for the axes that fold."""
    if not any(map(any, pairs)):
        return x
    mode: Any = PADDING_MODES[frame.padding_mode]
    value = {"constant_values": frame.padding_value} if mode == "constant" else {}
    padded: Array = np.pad(x, pairs, mode, **value)
    return padded
