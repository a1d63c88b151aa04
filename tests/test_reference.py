"""The oracle is the formula: held against plain Python loops, and against scipy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.signal

from numconv import reference
from numconv.testing import EDGES, arrays
from numconv.validate import describe

SMALL = [case for case in EDGES if case.problem().products < 30_000]


def position(index, size, mode):
    """Where a padded position lies in the input, or None in padding of zeros."""
    if 0 <= index < size:
        return index
    if mode in ("zeros", "constant"):
        return None
    if mode == "replicate":
        return min(max(index, 0), size - 1)
    if mode == "circular":
        return index % size
    period = 2 * size - (2 if mode == "reflect" else 0)
    index %= period
    return index if index < size else period - index - (0 if mode == "reflect" else 1)


def plain(problem, x, weight, bias):
    """The formula of problem.py in Python's own numbers: exact integers, floats of 64 bits."""
    x, weight = x.reshape(problem.x_shape), weight.tolist()
    channels, outs = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    out = np.zeros(problem.out_shape, object)
    for n, co, *pixel in np.ndindex(problem.out_shape):
        total = 0
        for ci, *tap in itertools.product(range(channels), *map(range, problem.kernel)):
            at = [
                position(o * stride + k * dilation - pad[0], size, problem.padding_mode)
                for o, stride, k, dilation, pad, size in zip(
                    pixel, problem.stride, tap, problem.dilation, problem.padding, problem.spatial, strict=True
                )
            ]
            factor = weight[co][ci]
            for k in tap:
                factor = factor[k]
            total += (problem.padding_value if None in at else x[n, co // outs * channels + ci, *at].item()) * factor
        total += 0 if bias is None else bias[co].item()
        out[n, co, *pixel] = max(total, 0) if problem.activation == "relu" else total
    return out


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_the_oracle_is_the_formula(case):
    # Integers, so that both are exact.
    problem = case.problem(np.int64)
    data = arrays(problem)
    result = reference.correlate(problem, *data)
    assert result.dtype == np.int64
    np.testing.assert_array_equal(result, plain(problem, *data).astype(np.int64))


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("name", ["bias", "stride and dilation", "groups", "3-D"])
def test_the_oracle_is_more_exact_than_the_dtype(name, dtype):
    problem = next(case for case in EDGES if case.name == name).problem(dtype)
    data = arrays(problem)
    result, expected = reference.correlate(problem, *data), plain(problem, *data)
    assert result.dtype == (np.clongdouble if dtype == "complex128" else np.longdouble)
    np.testing.assert_allclose(result, expected.astype(result.dtype), rtol=0, atol=1e-12)


def test_integers_wrap_modulo_2_to_the_64():
    problem = describe(1, (1, 1, 1), np.dtype("u8"), (1, 1, 1), np.dtype("u8"))
    x = np.full((1, 1, 1), 2**63 + 1, np.uint64)
    assert reference.correlate(problem, x, np.full((1, 1, 1), 3, np.uint64), None).item() == (2**63 + 1) * 3 % 2**64


def test_scipy_agrees_on_an_image(rng):
    x, weight = rng.standard_normal((1, 3, 20, 21)), rng.standard_normal((1, 3, 5, 4))
    problem = describe(2, x.shape, x.dtype, weight.shape, weight.dtype)
    expected = scipy.signal.correlate(x[0], weight[0], "valid", "direct")
    np.testing.assert_allclose(reference.correlate(problem, x, weight, None)[0], expected, rtol=0, atol=1e-12)


def test_relu_keeps_nan():
    problem = describe(1, (1, 1, 3), np.dtype("f4"), (1, 1, 1), np.dtype("f4"), activation="relu")
    x = np.array([[[np.nan, -1, 1]]], np.float32)
    np.testing.assert_array_equal(reference.correlate(problem, x, np.ones((1, 1, 1)), None)[0, 0], [np.nan, 0, 1])
