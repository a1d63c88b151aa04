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
def fraction64(x, weight, total):
    """The same by fractions of integers, for finite numbers."""
    return float(Fraction(x) * Fraction(weight) + Fraction(total))


def _two_sum(a, b):
    """(the sum rounded, its error), exact together."""
    rounded = a + b
    part = rounded - a
    return rounded, (a - (rounded - part)) + (b - part)


def _halves(a):
    """Two numbers of half the digits with that sum."""
    high = a * 134217729.0
    high = high - (high - a)
    return high, a - high


@np.errstate(all="ignore")
def fused64(x, weight, total):
    """The sum of x * weight and total, rounded once, to float64.

    As in fused32, with the product and its error in two numbers: S. Boldo and G. Melquiond, "Emulation of FMA and
    correctly rounded sums", 2008. Beyond the exponents for which that is exact, in fractions.
    """
    x, weight, total = np.broadcast_arrays(*(np.asarray(one, np.float64) for one in (x, weight, total)))
    product = x * weight
    (x_high, x_low), (w_high, w_low) = _halves(x), _halves(weight)
    error = x_low * w_low - (((product - x_high * w_high) - x_low * w_high) - x_high * w_low)
    high, low = _two_sum(total, error)
    high, rest = _two_sum(product, high)
    odd, left = _two_sum(low, rest)
    even = odd.view(np.int64) % 2 == 0
    odd = np.where((left != 0) & even, np.nextafter(odd, np.where(left > 0, np.inf, -np.inf)), odd)
    result = np.where(product == 0, product + total, high + odd)
    sizes = np.abs(np.stack(np.broadcast_arrays(x, weight, product, total)))
    strange = ~((sizes < 2.0**400) & ((sizes > 2.0**-400) | (sizes == 0))).all(axis=0)
    strange |= (product == 0) & (x != 0) & (weight != 0)
    finite = np.isfinite(x) & np.isfinite(weight) & np.isfinite(total)
    beyond = np.where(np.isfinite(x) & np.isfinite(weight), total, product + total)
    result, strange = np.where(finite, result, beyond), strange & finite
    if strange.any():
        result[strange] = fraction64(x[strange], weight[strange], total[strange])
    return result


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
