"""Large kernels: transforms, direct sums and scipy's two ways, on one image and along a long signal."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import scipy.signal

import numconv as nc
from numconv.testing import Case, arrays

CASES = (
    *(Case(f"{size}x{size} on 2048x2048", (1, 1, 2048, 2048), (1, 1, size, size)) for size in (31, 63, 127)),
    Case("48,000 taps on a million", (1, 1, 10**6), (1, 1, 48_000)),
)
METHODS = ("fft", "fft32", "depthwise", "tiled")


@pytest.mark.parametrize("name", [*METHODS, "fftconvolve", "oaconvolve"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_large_kernel(case, dtype, name, benchmark):
    problem = case.problem(dtype)
    if problem.rank == 1 and name in ("depthwise", "tiled"):
        pytest.skip("direct sums of 48,000 taps take seconds")
    x, weight, _ = arrays(problem)
    if name in METHODS:
        try:
            layer = nc.plan(x.shape, weight, method=name)
        except ValueError as error:
            pytest.skip(str(error))
        run = functools.partial(layer, x, out=np.empty(problem.out_shape, dtype))
    else:
        image, kernel = x[0, 0], np.ascontiguousarray(np.flip(weight[0, 0]))
        run = functools.partial(getattr(scipy.signal, name), image, kernel, "valid")
    result = run().reshape(problem.out_shape)
    # The oracle would take minutes: float64 transforms of the same arrays stand for it.
    exact = nc.plan(x.shape, weight.astype(float), x_dtype=float, method="fft")(x.astype(float))
    assert np.abs(result - exact).max() <= 1e-5 * np.abs(x).max() * np.abs(weight).sum()
    benchmark.group = f"{case.name} {dtype}"
    benchmark.pedantic(run, rounds=5, warmup_rounds=1)
