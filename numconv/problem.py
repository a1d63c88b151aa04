"""The Problem: one correlation, fully described and valid, without its arrays.

Every dialect ends here; validate.py makes Problems, and says what is wrong with a call that is none.

The formula, with everything written out (g is the group of output channel co)::

    out[n, co, o] = bias[co] + sum over ci, k of  x[n, g*cig + ci, o*stride + k*dilation - before] * weight[co, ci, k]

where o and k run over the spatial axes and cig = in_channels / groups.

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

Pairs = tuple[tuple[int, int], ...]
Padding = int | str | Sequence[int] | Sequence[Sequence[int]]

# Ours and torch's name for a padding mode, and np.pad's.
PADDING_MODES = {
    "zeros": "constant",
    "reflect": "reflect",
    "replicate": "edge",
    "circular": "wrap",
    "symmetric": "symmetric",
}
ACTIVATIONS = (None, "relu")
# What becomes of a sum that the integers asked for do not hold. None: raise for integers, saturate for floats.
OVERFLOWS = (None, "raise", "wrap", "saturate")
# A fresh accumulator starts at least every so many taps: part of the order of summation, never to be tuned.
SEGMENT = 8192


@dataclasses.dataclass(frozen=True, eq=True)
class Problem:
    """One correlation: shapes, options and dtypes. Spatial tuples have one entry for each of the 1 to 3 axes.

    overflow is "raise", "wrap" or "saturate" where the output is of integers that may not hold the sums, else None.
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
    dilation: tuple[int, ...]
    x_dtype: np.dtype[Any]
    weight_dtype: np.dtype[Any]
    accumulator: np.dtype[Any]
    output: np.dtype[Any]
    has_bias: bool
    activation: str | None
    overflow: str | None

    @property
    def rank(self) -> int:
        """The number of spatial axes."""
        return len(self.spatial)

    @functools.cached_property
    def out_spatial(self) -> tuple[int, ...]:
        """The output's spatial shape: floor((size + before + after - dilation*(kernel-1) - 1) / stride) + 1."""
        return tuple(
            (size + sum(pad) - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, pad, dilation in zip(
                self.spatial, self.kernel, self.stride, self.padding, self.dilation, strict=True
            )
        )

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
        return math.prod(self.out_shape) * self.taps

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
        parts = ["*".join(dtype.name for dtype in dtypes) + " " + shapes(self.x_shape, self.weight_shape)]
        if self.output != np.result_type(*dtypes):
            parts.append(f"dtype {self.output.name}")
        parts += [f"overflow {self.overflow}"] if self.overflow else []
        parts += [f"groups {self.groups}"] * (self.groups != 1)
        for name, default in (("stride", 1), ("dilation", 1)):
            values = getattr(self, name)
            parts += [f"{name} {cross(values)}"] * any(value != default for value in values)
        if any(map(any, self.padding)):
            mode = "" if self.padding_mode == "zeros" else f" {self.padding_mode}"
            parts.append(f"padding {_pads(self.padding)}{mode}")
        parts += ["bias"] * self.has_bias
        parts += [self.activation] if self.activation else []
        return " ".join(parts)


def cross(values: Sequence[int]) -> str:
    return "x".join(map(str, values)) if len(values) else "scalar"


def _pads(padding: Pairs) -> str:
    sides = [str(a) if a == b else f"{a}+{b}" for a, b in padding]
    return sides[0] if len(set(sides)) == 1 else "x".join(sides)


def shapes(x_shape: Sequence[int], weight_shape: Sequence[int]) -> str:
    return f"{cross(x_shape)} * {cross(weight_shape)}"
