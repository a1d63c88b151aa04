"""Packing: weights in the order in which tiles with channels in the lanes read them."""

from __future__ import annotations

import numpy as np

from ..method import Array
from .channel_runs import VECTORS
from .simd.copies import transpose
from .simd.ir import vector_lanes
from .simd.shares import Share, njit, portion

# Taps of a channel that lie together, from which on they are packed by squares of vectors, not one by one.
LEAST_RUN = 4


@njit(parallel=True)
def pack(share: Share, weight: Array, packed: Array, finite: Array) -> None:
    """Weights (groups, co, ci, taps) block by block: of each `unit` channels, packed (groups * co * taps,) has a
    row of channels for each tap. finite (groups, blocks): whether all weights of a block are.
    """
    first, end = portion(finite.size, share)
    for task in range(first, end):
        group, block = divmod(task, finite.shape[1])
        finite[group, block] = pack_block(weight[group], packed, group * weight.shape[1], block)


@njit()
def pack_block(weight: Array, packed: Array, before: int, block: int) -> bool:
    """One block of a group's weights (co, ci, taps), behind so many channels of other groups; returns whether all are
    finite.
    """
    channels, inputs, taps = weight.shape
    lanes = vector_lanes(packed)
    first = block * VECTORS * lanes
    count = min(VECTORS * lanes, channels - first)
    target = packed[(before + first) * inputs * taps :][: count * inputs * taps]
    # Of an adjoint, the taps lie in a run the other way round.
    way = 1 if weight.strides[2] == weight.itemsize else -1
    squares = abs(weight.strides[2]) == weight.itemsize and weight.strides[0] % weight.itemsize == 0
    apart = weight.strides[0] // weight.itemsize
    for ci in range(inputs):
        if squares and taps >= LEAST_RUN:
            for begin in range(0, taps, lanes):
                tap = begin if way > 0 else taps - 1 - begin
                for channel in range(0, count, lanes):
                    source, place = weight[first + channel, ci, tap:], target[(ci * taps + tap) * count + channel :]
                    transpose(source, apart, place, way * count, min(lanes, count - channel), min(lanes, taps - begin))
        else:
            for tap in range(taps):
                source, place = weight[first : first + count, ci, tap], target[(ci * taps + tap) * count :]
                for channel in range(count):
                    place[channel] = source[channel]
    finite = True
    for i in range(len(target)):
        finite &= abs(target[i]) < np.inf
    return finite
