"""The one order of summation, in exact arithmetic: what the direct methods must give to the last bit.

Written from the words of the design, not from the package: an output's products are added by input channel, then kernel
plane, row and column, each by a fused multiply-add into an accumulator that starts at 0; a fresh one starts every
max(1, 8192 // volume) channels, or, in a kernel of more than 8192 taps, every max(1, 8192 // row length) rows; the
partial sums are added in order, and the bias last.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

MODES = {
    "zeros": "constant",
    "constant": "constant",
    "reflect": "reflect",
    "replicate": "edge",
    "circular": "wrap",
    "symmetric": "symmetric",
}


def fused32(x, weight, total):
    """The sum of x * weight and total, rounded once, to float32.

    The product is exact in float64. The sum is rounded to odd there, so that the last rounding sees on which side of a
    tie the exact sum lies.
    """
    product, total = x.astype(np.float64) * weight, total.astype(np.float64)
    rounded = product + total
    part = rounded - product
    error = (product - (rounded - part)) + (total - part)
    even = rounded.view(np.int64) % 2 == 0
    odd = np.nextafter(rounded, np.where(error > 0, np.inf, -np.inf))
    return np.where((error != 0) & even, odd, rounded).astype(np.float32)


@np.vectorize
def _fused64(x, weight, total):
    return float(Fraction(x) * Fraction(weight) + Fraction(total))


def fused64(x, weight, total):
    """The sum of x * weight and total, rounded once, to float64; slow."""
    return np.asarray(_fused64(x, weight, total), np.float64)


def wrapped(x, weight, total):
    """The sum of x * weight and total, modulo 2**64."""
    return x * weight + total


FUSED = {"float32": fused32, "float64": fused64, "complex64": fused32, "complex128": fused64}


def step(x, weight, total):
    """One product more in the accumulator; complex products by the design's four fused steps."""
    fused = FUSED.get(total.dtype.name, wrapped)
    x, weight, total = np.broadcast_arrays(x, weight, total)
    if total.dtype.kind != "c":
        return fused(x, weight, total.copy())
    result = np.empty(total.shape, total.dtype)
    result.real = fused(-x.imag, weight.imag, fused(x.real, weight.real, total.real))
    result.imag = fused(x.imag, weight.real, fused(x.real, weight.imag, total.imag))
    return result


def starts_afresh(channel, tap, kernel):
    """Whether a fresh accumulator starts at this channel and tap (a position in the kernel)."""
    if math.prod(kernel) <= 8192:
        return not any(tap) and channel % max(1, 8192 // math.prod(kernel)) == 0
    row = 0
    for position, size in zip(tap[:-1], kernel[:-1], strict=True):
        row = row * size + position
    return tap[-1] == 0 and row % max(1, 8192 // kernel[-1]) == 0


def correlate(problem, x, weight, bias):
    """The Problem's result, every rounding included."""
    kind = problem.accumulator
    x = x.reshape(problem.x_shape).astype(kind)
    value = {"constant_values": problem.padding_value} if problem.padding_mode in ("zeros", "constant") else {}
    x = np.pad(x, ((0, 0), (0, 0), *problem.padding), MODES[problem.padding_mode], **value)
    channels = problem.in_channels // problem.groups
    x = x.reshape(problem.batch, problem.groups, 1, channels, *x.shape[2:])
    shape = (problem.batch, problem.groups, problem.out_channels // problem.groups, *problem.out_spatial)
    weight = weight.astype(kind).reshape(1, *shape[1:3], channels, *problem.kernel)
    total, partial = np.zeros(shape, kind), np.zeros(shape, kind)
    for channel in range(channels):
        for tap in np.ndindex(problem.kernel):
            if starts_afresh(channel, tap, problem.kernel):
                total, partial = total + partial, np.zeros(shape, kind)
            at = tuple(
                slice(position * dilation, position * dilation + (size - 1) * stride + 1, stride)
                for position, dilation, size, stride in zip(
                    tap, problem.dilation, problem.out_spatial, problem.stride, strict=True
                )
            )
            values = weight[:, :, :, channel, *tap].reshape(*weight.shape[:3], *(1,) * problem.rank)
            partial = step(x[:, :, :, channel, *at], values, partial)
    total = (total + partial).reshape(problem.out_shape)
    if bias is not None:
        total = total + bias.astype(kind).reshape(-1, *(1,) * problem.rank)
    if problem.activation == "relu":
        total = np.where(total < 0, kind.type(0), total)
    return total.astype(problem.output)
