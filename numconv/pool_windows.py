"""Where the windows of a pooling lie, and the kernel's launch: planes of one channel, or of all that lie last.

In either layout, the window's elements come in row-major order, so both have the same bits; nothing is transposed.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from . import jit
from .dialect import boolean
from .method import Array
from .problem import cross
from .validate import accumulator_dtype, canonical, per_axis, refuse, with_batch


class Windows(NamedTuple):
    """Where the windows of a pooling lie, one entry for each spatial axis; last: the channels are, so many of them."""

    spatial: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    out: tuple[int, ...]
    last: int | None

    def out_shape(self, x: Array) -> tuple[int, ...]:
        """The result's shape, in the order of axes of the input."""
        rank = len(self.out)
        if self.last is None:
            return (*x.shape[:-rank], *self.out)
        return (*x.shape[: -rank - 1], *self.out, self.last)


def line_of(x: Array, kernel: tuple[int, ...]) -> str:
    return f"{x.dtype.name} {cross(x.shape)} pooled by {cross(kernel)}"


def windows_of(
    rank: int, x: Array, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: Any, layout: Any
) -> Windows:
    """The windows of a call, or its one-sentence error."""
    line = f"{x.dtype.name} {cross(x.shape)}"
    accumulator_dtype(x.dtype, x.dtype, line)  # refuses what kernels do not know
    _, channels, *sides = with_batch(rank, x.shape, layout, line)
    size = per_axis("kernel_size", canonical("kernel_size", kernel), rank, 1, line)
    line = line_of(x, size)
    steps = size if stride is None else per_axis("stride", canonical("stride", stride), rank, 1, line)
    pads = per_axis("padding", canonical("padding", padding), rank, 0, line)
    apart = per_axis("dilation", canonical("dilation", dilation), rank, 1, line)
    ceil_mode = boolean("ceil_mode", ceil_mode)
    spatial, out = tuple(sides), []
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
        count = (length + 2 * p - reach + (s - 1 if ceil_mode else 0)) // s + 1
        if count < 1:
            refuse(
                ValueError,
                f"the window spans {reach} with its dilation, but the padded input has only {length + 2 * p}: pad more"
                f" or take a smaller window",
                line,
            )
        # The last window must start in the input or in the padding before it.
        out.append(count - (ceil_mode and (count - 1) * s >= length + p))
    return Windows(spatial, size, steps, pads, apart, tuple(out), None if layout == "NCHW" else channels)


def counts_of(windows: Windows, axis: int, include_padding: bool) -> Array:
    """How many elements each window of an axis counts: those of the input, or of the padded input."""
    size, kernel, stride, padding, _, out = (values[axis] for values in windows[:6])
    first = np.arange(out) * stride - padding
    end = np.minimum(first + kernel, size + padding)
    if include_padding:
        return end - first
    return np.minimum(end, size) - np.maximum(first, 0)


def pooled(
    x: Array,
    windows: Windows,
    dtype: np.dtype[Any],
    start: float,
    counts: tuple[Array, ...],
    located: bool,
    mean: bool = False,
) -> tuple[Array, Array]:
    """(result, places of the maxima): a plane is every image and channel, or, channels last, every image."""
    # Imported late: numba takes a while to set up the kernels, and `import numconv` should not.
    from .cpu.pool import pool

    rank, inside = len(windows.out), 1 if windows.last is None else windows.last
    shape, missing = windows.out_shape(x), (1,) * (3 - rank)
    planes = math.prod(shape) // max(1, math.prod(windows.out) * inside)
    *rows, columns = (*missing, *windows.out)
    out = np.empty((planes, *rows, columns * inside), dtype)
    places = np.full(out.shape if located else (0, 1, 1, 1), -1)
    ones = [np.ones(1, np.int64)] * (3 - rank)
    *rows, columns = (*missing, *windows.spatial)
    image = np.ascontiguousarray(x).reshape(planes, *rows, columns * inside)
    pool(jit.threads(), image, out, places, np.array([start], dtype), (*ones, *counts), _launch(windows, mean, located))
    return out.reshape(shape), places.reshape(shape) if located else places


@functools.lru_cache(maxsize=1024)
def _launch(windows: Windows, mean: bool, located: bool) -> Array:
    """What `pool` is told of windows."""
    from .cpu.pool import Pool
    from .cpu.simd.fields import packed

    missing = 3 - len(windows.out)
    fields = [
        *((1,) * missing + windows.kernel),
        *((1,) * missing + windows.stride),
        *((0,) * missing + windows.padding),
        *((1,) * missing + windows.dilation),
    ]
    size, kernel, stride, padding, dilation, out = (values[-1] for values in windows[:6])
    inside = 1 if windows.last is None else windows.last
    first = padding - dilation * np.arange(kernel)
    edges = np.stack([first, first + size], axis=1)
    interior = np.clip(-(-edges // stride), 0, out).reshape(-1)
    return packed(Pool._make((*fields, inside, int(mean), int(located), interior)))
