"""Transforms of many tiles at a time by scipy.fft, and their products.

Arrays are (..., *sides): the last so many axes are transformed. Complex numbers are transformed where they lie, real
ones to half as many complex ones in new memory.
"""

from __future__ import annotations

import math

import numpy as np

from ..method import Array
from .simd.shares import njit

# Frequencies multiplied at a time: those of a few channels fit the first-level cache.
FREQUENCIES = 256


def forward(tiles: Array, sides: tuple[int, ...]) -> Array:
    """The transforms. Rows of complex numbers may have room behind the last side."""
    import scipy.fft

    axes, inside = range(-len(sides), 0), tiles[..., : sides[-1]]
    if tiles.dtype.kind == "c":
        found = scipy.fft.fftn(inside, axes=axes, overwrite_x=True)
        if not np.may_share_memory(found, inside):
            inside[...] = found
        return tiles
    # One axis after another, since those after the first need no memory more.
    half: Array = scipy.fft.rfft(inside)
    return half if len(sides) == 1 else scipy.fft.fftn(half, axes=axes[:-1], overwrite_x=True)


def backward(products: Array, sides: tuple[int, ...], kept: tuple[int, ...], is_complex: bool) -> Array:
    """What the transforms come from, times the number of those that each mixes: of each axis so many numbers, from the
    first on. The products are overwritten.
    """
    import scipy.fft

    # One axis after another, so that those after the first transform what is kept alone.
    found, axes = products[..., : sides[-1]] if is_complex else products, len(sides)
    for axis in range(-axes, 0 if is_complex else -1):
        found = scipy.fft.ifft(found, axis=axis, norm="forward", overwrite_x=True)
        found = found[..., : kept[axis], *(slice(None),) * (-axis - 1)]
    return found if is_complex else scipy.fft.irfft(found, n=sides[-1], norm="forward", overwrite_x=True)


def multiplied(x: Array, weight: Array, scratch: Array) -> Array:
    """Transforms of the result from those of the input, (..., groups, channels, *frequencies), and of the weight,
    (groups, output channels, input channels, *frequencies): in their place where that can be, or in the scratch where
    its dtype is theirs.
    """
    groups, outputs, inputs, *frequencies = weight.shape
    if outputs == inputs == 1:
        return np.multiply(x, weight[:, 0], out=x)
    lead = x.shape[: x.ndim - 2 - len(frequencies)]
    shape = (*lead, groups, outputs, *frequencies)
    found = scratch[: math.prod(shape)].reshape(shape) if scratch.dtype == x.dtype else np.empty(shape, x.dtype)
    multiply(
        x.reshape(math.prod(lead), groups, inputs, -1),
        weight.reshape(groups, outputs, inputs, -1),
        found.reshape(math.prod(lead), groups, outputs, -1),
    )
    return found


@njit()
def multiply(x: Array, weight: Array, out: Array) -> None:
    """Out (tiles, groups, co, frequencies) = the sum over ci of x (tiles, groups, ci, frequencies) times weight
    (groups, co, ci, frequencies): so many frequencies of one output channel at a time, for all tiles.
    """
    groups, outputs, inputs, frequencies = weight.shape
    for group in range(groups):
        for first in range(0, frequencies, FREQUENCIES):
            end = min(first + FREQUENCIES, frequencies)
            for co in range(outputs):
                for tile in range(len(x)):
                    sums = out[tile, group, co, first:end]
                    sums[:] = 0
                    for ci in range(inputs):
                        add_products(sums, x[tile, group, ci, first:end], weight[group, co, ci, first:end])


@njit()
def add_products(sums: Array, x: Array, weight: Array) -> None:
    """Add x * weight to the sums."""
    for f in range(len(sums)):
        sums[f] += x[f] * weight[f]
