"""The Problem: one correlation, fully described and valid, without its arrays.

Every dialect ends here; validate.py makes Problems, and says what is wrong with a call that is none.

The formula, with everything written out (g is the group of output channel co)::

    out[n, co, o] = bias[co] + sum over ci, k of  x[n, g*cig + ci, o*stride + k*dilation - before] * weight[co, ci, k]

where o and k run over the spatial axes and cig = in_channels / groups.

The adjoints are Problems too. With an input dilation s, x is read at ``(o*stride + k*dilation - before) / s`` for those
k where that is an integer: a transposed correlation, of which the zeros between inputs are no terms. A padding below
zero crops. With a fold, so many of the first and last outputs of each axis are added to those that padding_mode would
have copied there: the adjoint of padding. phases.py takes such a Problem apart into plain ones.

Glossary, for kernels, where names are short: n image of the batch, ci input channel, co output channel,
d h w depth, row and column of the input, od oh ow of the output, kd kh kw of the kernel; a *tap* is one
(ci, kd, kh, kw) of the weights, a *pixel* is one (od, oh, ow) of the output.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Pairs = tuple[tuple[int, int], ...]
PerAxis = int | tuple[int, ...] | list[int]
Padding = int | str | Sequence[int] | Sequence[Sequence[int]]

# Ours and torch's name for a padding mode, and np.pad's.
PADDING_MODES = {
    "zeros": "constant",
    "constant": "constant",
    "reflect": "reflect",
    "replicate": "edge",
    "circular": "wrap",
    "symmetric": "symmetric",
}
ACTIVATIONS = (None, "relu")
# The order of axes of input and output; HW stands for all spatial axes. Weights are (co, ci, ...) in both.
LAYOUTS = ("NCHW", "NHWC")
# What becomes of a sum that the integers asked for do not hold. None: raise for integers, saturate for floats.
OVERFLOWS = (None, "raise", "wrap", "saturate")
# A fresh accumulator starts at least every so many taps: part of the order of summation, never to be tuned.
SEGMENT = 8192


@dataclasses.dataclass(frozen=True, eq=True)
class Problem:
    """One correlation: shapes, options and dtypes. Spatial tuples have one entry for each of the 1 to 3 axes.

    overflow is "raise", "wrap" or "saturate" where the output is of integers that may not hold the sums, else None.
    rank_one is how far the kernels are at most from products of one vector an axis (rank_one.py), None if not known.
    layout is how input and output lie in memory; shapes here, and the arrays that methods get, are (n, c, ...) always.
    """

    batch: int
    groups: int
    in_channels: int
    out_channels: int
    spatial: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Pairs
    padding_mode: str
    padding_value: complex
    dilation: tuple[int, ...]
    x_dtype: np.dtype[Any]
    weight_dtype: np.dtype[Any]
    accumulator: np.dtype[Any]
    output: np.dtype[Any]
    has_bias: bool
    activation: str | None
    overflow: str | None
    input_dilation: tuple[int, ...]
    fold: Pairs
    rank_one: float | None = None
    layout: str = "NCHW"

    @property
    def rank(self) -> int:
        """The number of spatial axes."""
        return len(self.spatial)

    @functools.cached_property
    def out_spatial(self) -> tuple[int, ...]:
        """The output's spatial shape: floor((size + before + after - dilation*(kernel-1) - 1) / stride) + 1, less the
        fold, where size = (input size - 1) * input dilation + 1.
        """
        return tuple(
            ((size - 1) * spread + sum(pad) - dilation * (kernel - 1)) // stride + 1 - sum(fold)
            for size, spread, kernel, stride, pad, dilation, fold in zip(
                self.spatial, self.input_dilation, self.kernel, self.stride, self.padding, self.dilation, self.fold,
                strict=True,
            )
        )  # fmt: skip

    @functools.cached_property
    def plain(self) -> bool:
        """Whether a method takes it as it is: no input dilation, no crop, no fold."""
        return max(self.input_dilation) == 1 and not any(map(any, self.fold)) and min(map(min, self.padding)) >= 0

    @functools.cached_property
    def x_shape(self) -> tuple[int, ...]:
        """Shape of the input, batch included."""
        return (self.batch, self.in_channels, *self.spatial)

    @functools.cached_property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weights."""
        return (self.out_channels, self.in_channels // self.groups, *self.kernel)

    @functools.cached_property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of the output, batch included."""
        return (self.batch, self.out_channels, *self.out_spatial)

    def laid_out(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """A shape (batch, channels, ...) in the layout's order of axes."""
        return shape if self.layout == "NCHW" else (shape[0], *shape[2:], shape[1])

    def channels_first(self, array: Array, shape: tuple[int, ...]) -> Array:
        """A view of that shape (batch, channels, ...) of an array in the layout's order of axes, batch or none."""
        if self.layout == "NCHW":
            return array if array.ndim == len(shape) else array.reshape(shape)
        # np.moveaxis would take 3 us of a small call.
        return array.reshape(self.laid_out(shape)).transpose(0, len(shape) - 1, *range(1, len(shape) - 1))

    @functools.cached_property
    def pixels(self) -> int:
        """Output pixels of one image and channel."""
        return math.prod(self.out_spatial)

    @functools.cached_property
    def taps(self) -> int:
        """Products added up for one output element, padding's zeros included."""
        return self.in_channels // self.groups * math.prod(self.kernel)

    @property
    def products(self) -> int:
        """Multiplications of the whole correlation, padding's zeros included."""
        if self.plain:
            return math.prod(self.out_shape) * self.taps
        channels = self.batch * self.out_channels * (self.in_channels // self.groups)
        return channels * math.prod(sum(outputs * taps for outputs, taps in axis) for axis in self._meetings())

    @property
    def sums(self) -> int:
        """Outputs that add up any product at all: with an input dilation, some may meet no tap."""
        if self.plain or not self.taps:
            return math.prod(self.out_shape) * (self.taps > 0)
        met = (sum(outputs for outputs, taps in axis if taps) for axis in self._meetings())
        return self.batch * self.out_channels * math.prod(met)

    def _meetings(self) -> list[list[tuple[int, int]]]:
        """For each axis, how many outputs meet how many of its taps; those that a fold takes away included."""
        found = []
        for axis, spread in enumerate(self.input_dilation):
            outputs = self.out_spatial[axis] + sum(self.fold[axis])
            steps = np.arange(self.kernel[axis]) * self.dilation[axis] - self.padding[axis][0]
            found.append(
                [
                    (
                        len(range(o, outputs, spread)),
                        int(np.count_nonzero((o * self.stride[axis] + steps) % spread == 0)),
                    )
                    for o in range(min(spread, outputs))
                ]
            )
        return found

    @property
    def flops(self) -> int:
        """Real floating-point (or integer) operations: two for a real product and its addition, eight for a complex."""
        return self.products * (8 if self.accumulator.kind == "c" else 2)

    @property
    def bytes(self) -> int:
        """Bytes of input, weights and output, each moved once."""
        return (
            math.prod(self.x_shape) * self.x_dtype.itemsize
            + math.prod(self.weight_shape) * self.weight_dtype.itemsize
            + math.prod(self.out_shape) * self.output.itemsize
        )

    @functools.cached_property
    def segments(self) -> tuple[int, int]:
        """Where the order of summation starts a fresh accumulator, in taps: (period, segment).

        Accumulators start at every multiple of `period`, and within a period at every multiple of `segment`: every
        8192 // volume channels, or, for a kernel of a larger volume, at each channel and every
        8192 // (row length) rows of it.
        """
        volume = math.prod(self.kernel)
        if volume <= SEGMENT:
            period = SEGMENT // volume * volume
            return period, period
        return volume, max(1, SEGMENT // self.kernel[-1]) * self.kernel[-1]

    @property
    def longest_sum(self) -> int:
        """Additions that one product goes through at most: within its segment, over the segments, and the bias."""
        period, segment = self.segments
        periods, rest = divmod(self.taps, period)
        count = periods * -(-period // segment) + -(-rest // segment)
        return min(segment, self.taps) + max(0, count - 1) + self.has_bias

    @functools.cached_property
    def in_a_row(self) -> Problem:
        """The same Problem along one axis, for a kernel of one tap that meets every pixel in turn."""
        ones = dict.fromkeys(("kernel", "stride", "dilation", "input_dilation"), (1,))
        axis: dict[str, Any] = {"padding": ((0, 0),), "fold": ((0, 0),), **ones}
        return dataclasses.replace(self, spatial=(math.prod(self.spatial),), **axis)

    @functools.cached_property
    def _hash(self) -> int:
        return hash(tuple(getattr(self, field.name) for field in dataclasses.fields(self)))

    def __hash__(self) -> int:
        """Computed once: a Problem keys the caches of every call."""
        return self._hash

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone: another process hashes strings otherwise, so the hash must not travel."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def __str__(self) -> str:
        """One line: the tests' id, the benchmarks' key, the end of every error message."""
        dtypes = [self.x_dtype] + ([self.weight_dtype] if self.weight_dtype != self.x_dtype else [])
        shown = shapes(self.laid_out(self.x_shape), self.weight_shape)
        parts = ["*".join(dtype.name for dtype in dtypes) + " " + shown]
        if self.output != np.result_type(*dtypes):
            parts.append(f"dtype {self.output.name}")
        parts += [f"overflow {self.overflow}"] if self.overflow else []
        parts += [f"groups {self.groups}"] * (self.groups != 1)
        for name in ("stride", "dilation", "input_dilation"):
            values = getattr(self, name)
            parts += [f"{name.replace('_', ' ')} {cross(values)}"] * any(value != 1 for value in values)
        modes = {"zeros": "", "constant": f" constant {self.padding_value}"}
        mode = modes.get(self.padding_mode, f" {self.padding_mode}")
        folds = any(map(any, self.fold))
        if any(map(any, self.padding)):
            parts.append(f"padding {_pads(self.padding)}{'' if folds else mode}")
        parts += [f"fold {_pads(self.fold)}{mode}"] * folds
        parts += ["bias"] * self.has_bias
        parts += [self.activation] if self.activation else []
        parts += [f"rank 1 within {self.rank_one:.1e}"] if self.rank_one is not None else []
        parts += [self.layout] * (self.layout != "NCHW")
        return " ".join(parts)


def padded_indices(size: int, pair: tuple[int, int], mode: str) -> Array:
    """Where each index of a padded axis lies in the axis, -1 in constant padding; np.pad knows every padding mode."""
    known: Any = PADDING_MODES[mode]
    outside = {"constant_values": -1} if known == "constant" else {}
    return np.pad(np.arange(size), pair, known, **outside)


def border_indices(size: int, pair: tuple[int, int], mode: str) -> Array:
    """The first and the last of `padded_indices`, for what is padded before and behind the axis, and none between."""
    # What padding repeats lies no further from an end than it is long.
    near = max(pair) + 1
    short = min(size, 2 * near)
    padded = padded_indices(short, pair, mode)
    found = np.concatenate([padded[: pair[0]], padded[pair[0] + short :]])
    return np.where(found >= near, found + (size - short), found)


def cross(values: Sequence[int]) -> str:
    return "x".join(map(str, values)) if len(values) else "scalar"


def _pads(padding: Pairs) -> str:
    sides = [str(a) if a == b else f"{a}+{b}" for a, b in padding]
    return sides[0] if len(set(sides)) == 1 else "x".join(sides)


def shapes(x_shape: Sequence[int], weight_shape: Sequence[int]) -> str:
    return f"{cross(x_shape)} * {cross(weight_shape)}"
