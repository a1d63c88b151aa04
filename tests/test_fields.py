"""Records: what a kernel reads is what Python packed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from numba.core.errors import TypingError

from numconv.cpu.simd.fields import packed, record
from numconv.cpu.simd.shares import njit
from numconv.method import Array


class First(NamedTuple):
    """Of every kind of field."""

    count: int
    table: Array
    value: float
    other: Array


class Second(NamedTuple):
    """Behind the first's arrays."""

    last: int


FIRST = First(-7, np.array([5, -1, 2**62]), 0.1, np.zeros(0, np.int64))


@njit(parallel=True)
def unpack(share, integers, values):
    """Everything, one number after the other."""
    first, second = record(First, integers, 0), record(Second, integers, 1)
    values[0], values[1], values[2] = first.count, second.last, first.value
    values[3], values[4] = len(first.table), len(first.other)
    for i in range(len(first.table)):
        values[5 + i] = first.table[i]


@njit(parallel=True)
def unknown(share, integers, values):
    """Of a field that there is not."""
    values[0] = record(Second, integers, 1).first


def test_a_kernel_reads_what_was_packed():
    values = np.zeros(8)
    unpack(1, packed(FIRST, Second(11)), values)
    assert values.tolist() == [-7, 11, 0.1, 3, 0, 5, -1, 2.0**62]


def test_an_array_of_another_length_needs_no_other_kernel():
    values = np.zeros(8)
    unpack(1, packed(FIRST._replace(table=np.array([9])), Second(12)), values)
    assert values[:6].tolist() == [-7, 12, 0.1, 1, 0, 9]
    assert len(unpack.compiled.signatures) == 1


def test_a_field_that_there_is_not_does_not_compile():
    with pytest.raises(TypingError, match="first"):
        unknown(1, packed(FIRST, Second(11)), np.zeros(8))
