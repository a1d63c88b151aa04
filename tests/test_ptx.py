"""The interpreter of PTX finds what it is there to find: kernels broken on purpose, counts known beforehand."""

from __future__ import annotations

import pytest

pytest.importorskip("numba_cuda", reason="the extra `cuda` is not installed")

import numpy as np
from exact import fraction64, fused64
from numba import cuda
from ptx import Kernel
from ptx_device import DeviceArray, compile_ptx, signature
from ptx_memory import Counts, Fault

THREADS = 64


def run(function, *arrays, grid=(1,), threads=THREADS):
    """Compile and run; the counts."""
    arguments = signature([DeviceArray(array) for array in arrays])
    return Kernel(compile_ptx(function, arguments, threads, 1)).launch(grid, threads, arrays, Counts())


def reverse(barrier=True, reach=0, shift=0):
    """A block turns its 64 elements round through shared memory; each argument breaks it in one way."""

    def kernel(x, out):
        shared = cuda.shared.array(64, np.float32, alignment=16)
        thread = np.uint32(cuda.threadIdx.x)
        at = np.uint32(cuda.blockIdx.x * 64 + thread)
        shared[thread] = x[at]
        if barrier:
            cuda.syncthreads()
        out[np.uint32(at + reach)] = shared[np.uint32(63 - thread + shift)]

    return kernel


X = np.arange(128, dtype=np.float32)


def test_a_correct_kernel_gives_its_result_and_its_counts():
    out = np.zeros(128, np.float32)
    counts = run(reverse(), X, out, grid=(2,))
    np.testing.assert_array_equal(out, X.reshape(2, 64)[:, ::-1].ravel())
    assert counts.instructions["bar"] == 4
    assert counts.wavefronts == counts.ideal_wavefronts == 8
    assert counts.sectors == counts.ideal_sectors == {"ld": 16, "st": 16}


@pytest.mark.parametrize(
    ("broken", "what"),
    [
        ({"barrier": False}, "reads what another wrote"),
        ({"reach": 1}, "st global memory out of bounds"),
        ({"shift": 1}, "ld shared memory out of bounds"),
    ],
    ids=str,
)
def test_a_broken_kernel_is_caught(broken, what):
    with pytest.raises(Fault, match=what):
        run(reverse(**broken), X, np.zeros(128, np.float32), grid=(2,))


def test_writing_what_another_reads_before_a_barrier_is_caught():
    def kernel(x, out):
        shared = cuda.shared.array(64, np.float32, alignment=16)
        thread = np.uint32(cuda.threadIdx.x)
        shared[thread] = x[thread]
        cuda.syncthreads()
        out[thread] = shared[np.uint32(63 - thread)]
        shared[thread] = np.float32(0)

    with pytest.raises(Fault, match="a thread writes what another read"):
        run(kernel, X, np.zeros(64, np.float32))


def test_two_threads_that_write_one_word_are_caught():
    def kernel(x, out):
        shared = cuda.shared.array(64, np.float32, alignment=16)
        thread = np.uint32(cuda.threadIdx.x)
        shared[np.uint32(thread // 2)] = x[thread]
        cuda.syncthreads()
        out[thread] = shared[np.uint32(0)]

    with pytest.raises(Fault, match="two threads write one word"):
        run(kernel, X, np.zeros(64, np.float32))


def test_shared_memory_that_nobody_wrote_is_caught():
    def kernel(x, out):
        shared = cuda.shared.array(64, np.float32, alignment=16)
        thread = np.uint32(cuda.threadIdx.x)
        if thread > 0:
            shared[thread] = x[thread]
        cuda.syncthreads()
        out[thread] = shared[np.uint32(63 - thread)]

    with pytest.raises(Fault, match="read before it is written"):
        run(kernel, X, np.zeros(64, np.float32))


def test_a_barrier_that_some_threads_miss_is_caught():
    def kernel(x, out):
        shared = cuda.shared.array(64, np.float32, alignment=16)
        thread = np.uint32(cuda.threadIdx.x)
        shared[thread] = x[thread]
        if x[thread] < 10:
            cuda.syncthreads()
            out[thread] = x[thread]
        else:
            cuda.syncthreads()
            out[thread] = np.float32(0)

    with pytest.raises(Fault, match="not all threads reach"):
        run(kernel, X, np.zeros(64, np.float32))


def test_a_load_that_is_not_aligned_is_caught():
    text = """
    .visible .entry kernel(.param .u64 a, .param .u64 b, .param .u64 c, .param .u64 d, .param .u64 e, .param .u64 f,
    .param .u64 g)
    {
        .reg .f32 %f<3>;
        .reg .b64 %rd<2>;
        ld.param.u64 %rd1, [e];
        ld.global.v2.f32 {%f1, %f2}, [%rd1+4];
        ret;
    }
    """
    with pytest.raises(Fault, match="not aligned to 8 bytes"):
        Kernel(text).launch((1,), 32, [X])


@pytest.mark.parametrize(("step", "wavefronts"), [(1, 1), (2, 2), (8, 8), (32, 32), (33, 1)])
def test_bank_conflicts_are_counted(step, wavefronts):
    def kernel(x, out):
        shared = cuda.shared.array(2048, np.float32, alignment=16)
        thread = np.uint32(cuda.threadIdx.x)
        shared[np.uint32(thread * step)] = x[thread]
        out[thread] = shared[np.uint32(thread * step)]

    counts = run(kernel, X, np.zeros(32, np.float32), threads=32)
    assert counts.ideal_wavefronts == 1
    assert counts.wavefronts == wavefronts


def test_sectors_of_strided_stores_are_counted():
    def kernel(x, out):
        thread = np.uint32(cuda.threadIdx.x)
        out[np.uint32(thread * 8)] = x[thread]

    counts = run(kernel, X, np.zeros(256, np.float32), threads=32)
    assert (counts.sectors["st"], counts.ideal_sectors["st"]) == (32, 4)


def test_a_multiply_add_rounds_once():
    def kernel(x, out):
        thread = np.uint32(cuda.threadIdx.x)
        out[thread] = cuda.fma(x[thread], x[thread], -x[np.uint32(thread + 1)])

    x = np.array([1 + 2**-12, (1 + 2**-12) ** 2], np.float32)
    out = np.zeros(1, np.float32)
    run(kernel, x, out, threads=1)
    assert out[0] == np.float32(2.0**-24) != x[0] * x[0] - x[1]


@pytest.mark.parametrize("near", ["any", "cancelling", "tiny"])
def test_a_fused_float64_is_the_fraction_rounded_once(near, rng):
    x, weight = rng.standard_normal((2, 2000)) * 2.0 ** rng.integers(-30, 30, (2, 2000))
    noise = {"any": 2.0 ** rng.integers(-110, 110, 2000), "cancelling": -1 - 2.0**-52, "tiny": 2.0**-1000}[near]
    total = x * weight * noise
    np.testing.assert_array_equal(fused64(x, weight, total), fraction64(x, weight, total))
    assert np.isnan(fused64(np.nan, 1.0, 2.0))
    assert fused64(1e300, 1e300, -np.inf) == -np.inf


def test_threads_part_and_come_together():
    def kernel(x, out):
        thread = np.int32(cuda.threadIdx.x)
        total = np.float32(0)
        for i in range(thread):
            if i % 3 == 0:
                total += x[i]
        cuda.syncthreads()
        out[thread] = total

    out = np.zeros(64, np.float32)
    run(kernel, X, out)
    np.testing.assert_array_equal(out, [X[:thread:3].sum() for thread in range(64)])
