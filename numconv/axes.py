"""A correlation over any number of axes, as a Call of one to three: what `signal` and `ndimage` share.

Input and kernel have equally many axes, and a kernel may be one of several. Beyond three axes, the leading ones fold:
the windows that the kernel meets along them, a strided view of the input, become channels, and their positions the
batch. With one folded axis nothing is copied; with more, the folded windows are. A short last axis that the kernel does
not reach along, the colours of an image, say, is one of channels that lie last.
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
# Elements of a last axis that may be channels: rows of so few would leave vectors empty. Of more than the few, the
# kernels have channels in the lanes, and take them in the dtype of the sums alone.
MOST_CHANNELS, FEW_CHANNELS = 128, 4


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
    x, padding = _cropped(x, frame.padding)
    if _channels_last(x, weight, padding, frame):
        return _by_channels(x, weight, padding, frame, finish, wish, dtype, out)
    rank = min(x.ndim - 1, NATIVE)
    folded = x.ndim - 1 - rank
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

    def unfold(result: Array) -> Array:
        result = result.reshape(*places, *result.shape[1:])
        return finish(np.moveaxis(result, folded, 0))

    return Call(
        rank,
        _contiguous(x),
        weight.reshape(kernels, taps, *weight.shape[1 + folded :]),
        options=_options(frame, padding, slice(folded, None), dtype)._replace(groups=inputs),
        wish=wish,
        out=None if out is None else out.reshape(1, kernels, *out.shape[1:]),
        finish=unfold,
    )


def _channels_last(x: Array, weight: Array, padding: list[tuple[int, int]], frame: Frame) -> bool:
    """Whether the last axis runs as channels that lie last."""
    sums = np.result_type(x, weight)
    idle = weight.shape[-1] == 1 and not any(padding[-1]) and frame.stride[-1] == 1
    fits = 2 < x.ndim <= NATIVE + 2 and len(x) == len(weight) == 1 and x.shape[-1] <= MOST_CHANNELS
    return idle and fits and sums.kind == "f" and (x.shape[-1] <= FEW_CHANNELS or x.dtype == sums)


def _by_channels(
    x: Array,
    weight: Array,
    padding: list[tuple[int, int]],
    frame: Frame,
    finish: Callable[[Array], Array],
    wish: Wish,
    dtype: np.dtype[Any] | None,
    out: Array | None,
) -> Call:
    """The Call of a kernel that each element of the last axis meets."""
    channels = x.shape[-1]
    # (1, *axes, channels) is one image with its channels last, and the result is, too.
    options = _options(frame, padding, slice(-1), dtype)._replace(groups=channels, layout="NHWC")
    kernels = np.broadcast_to(weight[..., 0], (channels, *weight.shape[1:-1]))[:, None]
    return Call(x.ndim - 2, _contiguous(x), kernels, options=options, wish=wish, out=out, finish=finish)


def _options(frame: Frame, padding: list[tuple[int, int]], axes: slice, dtype: np.dtype[Any] | None) -> Options:
    """What a Frame asks along some of its axes."""
    return Options(
        stride=tuple(frame.stride[axes]),
        padding=tuple(padding[axes]),
        dilation=tuple(frame.dilation[axes]),
        padding_mode=frame.padding_mode,
        dtype=dtype,
        padding_value=frame.padding_value,
    )


def _contiguous(x: Array) -> Array:
    """One layout, one compiled kernel. What stands in for an array, in `explain`, has no strides and stays."""
    return np.ascontiguousarray(x) if any(x.strides) else x


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
