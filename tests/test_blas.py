"""np.matmul's loops are found by address, and its BLAS is held to one thread and given back."""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest

import numconv as nc
from numconv.cpu import blas
from numconv.cpu.simd.native import call_loop

GET = ctypes.CFUNCTYPE(ctypes.c_int)
SET = ctypes.CFUNCTYPE(None, ctypes.c_int)


@pytest.fixture
def threads():
    """The BLAS's number of threads, as a function; put back at the end. It starts at 2."""
    found = blas.find_blas()
    if found is None:
        pytest.skip("NumPy's BLAS is no OpenBLAS with threads of its own")
    get, set_ = GET(found.get_threads), SET(found.set_threads)
    before = get()
    set_(2)
    yield get
    set_(before)


@numba.njit
def run_loop(loop, start):
    call_loop(loop, start, start + 3 * 8, start + 7 * 8)


@pytest.mark.parametrize("dtype", ["f", "d", "F", "D"])
def test_the_loop_of_each_dtype_is_np_matmul(dtype):
    a, b = np.arange(6, dtype=dtype).reshape(2, 3), np.arange(12, dtype=dtype).reshape(3, 4)
    out = np.empty((2, 4), dtype)
    job = np.array(
        [a.ctypes.data, b.ctypes.data, out.ctypes.data, 1, 2, 3, 4, 0, 0, 0, *a.strides, *b.strides, *out.strides]
    )
    run_loop(blas.matmul_loop(np.dtype(dtype)), job.ctypes.data)
    np.testing.assert_array_equal(out, a @ b)


def test_the_last_to_release_gives_the_threads_back(threads):
    found, state = blas.find_blas(), np.zeros(3, np.int64)
    counts = []
    for act, *holds in ((blas.hold,), (blas.hold,), (blas.hold,), (blas.release, 2), (blas.release, 1)):
        act(found, state, *holds)
        counts.append(threads())
    assert counts == [1, 1, 1, 1, 2]
    assert state.tolist()[:2] == [0, 0]


def test_holding_starts_from_the_threads_of_the_moment(threads):
    found, state = blas.find_blas(), np.zeros(3, np.int64)
    for count in (2, 1, 2):
        SET(found.set_threads)(count)
        blas.hold(found, state)
        blas.release(found, state, 1)
        assert threads() == count


def test_kernels_from_many_threads_leave_the_blas_as_it_was(threads, rng):
    x, weight = rng.standard_normal((1, 64, 40, 40)), rng.standard_normal((64, 64, 1, 1))
    expected = nc.conv2d(x, weight, method="matmul")
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: nc.conv2d(x, weight, method="matmul"), range(200)))
    assert threads() == 2
    assert blas.held().tolist()[:2] == [0, 0]
    assert all(np.array_equal(result, expected) for result in results)


def test_an_exception_before_the_kernel_holds_nothing(threads):
    with pytest.raises(ValueError, match="method='matmul' does not serve"):
        nc.conv2d(np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2)), method="matmul")
    assert threads() == 2
    assert blas.held().tolist()[:2] == [0, 0]


def test_the_name_tells_the_library():
    assert blas.blas_name().strip()


@pytest.mark.parametrize(
    "replacement",
    [
        pytest.param(lambda verb: None, id="no OpenBLAS"),
        pytest.param(lambda verb: lambda: 2, id="OpenMP threads"),
        pytest.param(lambda verb: lambda: 0, id="no threads"),
    ],
)
def test_another_blas_is_not_held(monkeypatch, replacement):
    monkeypatch.setattr(blas, "_function", replacement)
    assert blas.find_blas.__wrapped__() is None


@pytest.mark.parametrize("error", [ImportError, OSError])
def test_a_library_that_does_not_load_is_not_held(monkeypatch, error):
    def fail():
        raise error

    monkeypatch.setattr(blas, "_library", fail)
    assert blas.find_blas.__wrapped__() is None
    assert blas.blas_name.__wrapped__() == np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]
