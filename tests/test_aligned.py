"""Large results begin at a cache line, whatever numpy's allocator does; small ones are numpy's own."""

from __future__ import annotations

import numpy as np
import pytest

import numconv as nc
from numconv import aligned


@pytest.mark.parametrize("dtype", ["uint8", "float32", "complex128"])
@pytest.mark.parametrize("shape", [(20_000,), (3, 5, 70, 80), (1 << 20,)])
def test_an_array_is_whole_writeable_and_at_a_line(shape, dtype):
    found = [aligned.empty(shape, dtype) for _ in range(5)]
    for number, array in enumerate(found):
        array[...] = number
    for number, array in enumerate(found):
        assert (array.shape, array.dtype, array.flags.c_contiguous) == (shape, np.dtype(dtype), True)
        assert (array == number).all()
        assert array.nbytes < aligned.LEAST_BYTES or array.__array_interface__["data"][0] % aligned.LINE_BYTES == 0


def test_large_arrays_of_one_size_lie_at_different_places_of_a_page():
    """And at none of the first lines, where numpy's own begin."""
    arrays = [aligned.empty((1, 1, 1024, 1024), np.float32) for _ in range(6)]
    places = [array.__array_interface__["data"][0] % aligned.PAGE_BYTES for array in arrays]
    assert min(places) >= aligned.FIRST_LINE * aligned.LINE_BYTES
    assert len(set(places)) > len(places) // 2


def test_small_arrays_are_numpys():
    assert aligned.empty((4, 5), np.float32).base is None
    assert aligned.empty((0, 5), np.float32).shape == (0, 5)


def test_results_are_at_a_line():
    x, weight = np.ones((1, 3, 80, 80), np.float32), np.ones((8, 3, 3, 3), np.float32)
    for result in (nc.conv2d(x, weight), nc.plan(x.shape, weight)(x), nc.conv2d(x, weight, layout="NCHW", padding=1)):
        assert result.ctypes.data % aligned.LINE_BYTES == 0
