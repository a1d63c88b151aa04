"""Arrays that begin at a cache line, and large ones not all at the same place of a page.

numpy's large arrays begin 16 bytes behind one, so that each vector of 64 bytes lies in two lines: a 3x3 filter into
such an output takes 1.17 times as long, a depthwise layer 1.04 times. And all of them begin at the start of a page: a
load then waits for an earlier store to the other array, of which it knows but the place within a page. Filters of
images with 1024 columns, whose rows are pages, take 1.04 to 1.1 times as long for it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .problem import Array

LINE_BYTES = 64
# Of smaller arrays, finding the line would cost what it saves: half a microsecond.
LEAST_BYTES = 16 << 10
PAGE_BYTES = 4 << 10
# Of arrays from here on, the room that is lost is little. They begin so many lines behind a page's first, by the number
# of a page: arrays of one size, of which one follows the other, lie far from each other, and from where numpy's begin.
LARGE_BYTES = 256 << 10
FIRST_LINE, LINES, STEP = 8, 48, 25


def whole_lines(size: int) -> int:
    """So many bytes, and what is missing to the next cache line."""
    return -(-size // LINE_BYTES) * LINE_BYTES


def empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """An array as np.empty makes it, at a cache line unless it is small, and at some line of a page if it is large."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < LEAST_BYTES:
        return np.empty(shape, dtype)
    room = np.empty(size + (PAGE_BYTES if size >= LARGE_BYTES else LINE_BYTES), np.uint8)
    address = room.__array_interface__["data"][0]
    start = -address % LINE_BYTES
    if size >= LARGE_BYTES:
        line = FIRST_LINE + address // PAGE_BYTES * STEP % LINES
        start = (LINE_BYTES * line - address) % PAGE_BYTES
    found: Array = room[start : start + size].view(dtype).reshape(shape)
    return found
