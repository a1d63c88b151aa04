"""On a real GPU: every method on every edge gives the CPU's bits. `pytest -m gpu` runs these alone."""

from __future__ import annotations

import pytest

pytest.importorskip("numba_cuda", reason="the extra `cuda` is not installed")

import numpy as np
from numba import cuda

import numconv as nc
from numconv.methods import cuda_methods
from numconv.testing import EDGES, arrays, assert_matches

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not cuda.is_available(), reason="no NVIDIA GPU and driver are here"),
]
FUNCTIONS = {1: nc.conv1d, 2: nc.conv2d, 3: nc.conv3d}


@pytest.mark.parametrize("method", cuda_methods(), ids=lambda method: method.NAME)
@pytest.mark.parametrize("case", EDGES, ids=lambda case: case.name)
def test_a_gpu_gives_the_cpus_bits(method, case):
    problem = case.problem(np.float32)
    thoughts = nc.explain(FUNCTIONS[problem.rank], *arrays(problem), **case.options, device="cuda")
    if any(one.name == method.NAME and one.seconds is None for one in thoughts.candidates):
        pytest.skip(f"{method.NAME} refuses it")
    x, weight, bias = arrays(problem)
    x = x.reshape(case.x_shape)
    expected = FUNCTIONS[problem.rank](x, weight, bias, **case.options, method="loops")
    there = [None if array is None else cuda.to_device(array) for array in (x, weight, bias)]
    found = FUNCTIONS[problem.rank](*there, **case.options, method=method.NAME).copy_to_host()
    sent = FUNCTIONS[problem.rank](x, weight, bias, **case.options, method=method.NAME, device="cuda")
    for result in (found, sent):
        if method.REPRODUCIBLE:
            assert result.tobytes() == expected.tobytes()
        else:
            whole = result.reshape(problem.out_shape)
            assert_matches(problem, whole, method.error_bound(problem), x.reshape(problem.x_shape), weight, bias)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint64", "float16", "float64", "complex64", "complex128"])
def test_a_gpu_gives_the_cpus_bits_in_every_dtype(dtype):
    problem = next(case for case in EDGES if case.name == "groups").problem(dtype)
    x, weight, bias = arrays(problem)
    expected = nc.conv2d(x, weight, bias, groups=3, padding=1, method="loops")
    found = nc.conv2d(*map(cuda.to_device, (x, weight, bias)), groups=3, padding=1)
    assert found.copy_to_host().tobytes() == expected.tobytes()


def test_a_plan_on_a_gpu_is_called_on_any_stream():
    x, weight = np.ones((4, 8, 20, 20), np.float32), np.ones((16, 8, 3, 3), np.float32)
    layer = nc.plan(x.shape, weight, padding=1, device="cuda")
    expected = nc.conv2d(x, weight, padding=1)
    stream = cuda.stream()
    out = cuda.device_array(expected.shape, np.float32)
    layer(cuda.to_device(x, stream=stream), out=out, stream=stream)
    stream.synchronize()
    np.testing.assert_array_equal(out.copy_to_host(), expected)
