"""Fourier transforms: within the proved error, NaN and inf where direct sums have them, chosen where faster."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.fft

import numconv as nc
from numconv import jit, reference
from numconv.accuracy import any_order_expected
from numconv.cpu import fft, fft32, overlap
from numconv.machine import machine
from numconv.testing import CASES, Case, arrays, assert_matches
from numconv.validate import describe

FUNCTIONS = {1: nc.conv1d, 2: nc.conv2d, 3: nc.conv3d}
# Several tiles to an axis, by a small cache; axes of one tap first, between and last; strides, groups and chunks.
TILED = (
    Case("1-D", (2, 3, 700), (4, 3, 60), {"padding": 9}, bias=True),
    Case("1-D stride", (1, 2, 701), (2, 2, 33), {"stride": 3, "padding": 4}),
    Case("rows", (2, 2, 5, 300), (3, 2, 1, 40), {"stride": (2, 1)}, bias=True),
    Case("columns", (1, 2, 300, 7), (3, 2, 40, 1), {"stride": (1, 3), "padding": (7, 1)}),
    Case("between", (1, 2, 40, 5, 41), (2, 2, 7, 1, 9), {"padding": (3, 1, 2)}, bias=True),
    Case("images", (3, 2, 60, 61), (5, 2, 9, 11), {"padding": 4, "activation": "relu"}, bias=True),
    Case("groups", (2, 6, 60, 61), (9, 2, 9, 11), {"groups": 3, "padding": (0, 4)}, bias=True),
    Case("depthwise", (2, 7, 50, 51), (7, 1, 9, 9), {"groups": 7}, bias=True),
    Case("dilation and stride", (1, 2, 60, 61), (2, 2, 5, 4), {"dilation": (3, 4), "stride": (2, 3), "padding": 6}),
    *(Case(mode, (1, 2, 50, 40), (3, 2, 15, 9), {"padding": 12, "padding_mode": mode})
      for mode in ("reflect", "replicate", "circular", "symmetric")),
    Case("constant", (1, 2, 50, 40), (3, 2, 15, 9),
         {"padding": 12, "padding_mode": "constant", "padding_value": -2}),
    Case("3-D", (1, 2, 20, 21, 22), (3, 2, 5, 6, 7), {"padding": 3, "stride": (1, 2, 1)}, bias=True),
)  # fmt: skip


@pytest.fixture(params=[1, 2], ids=["one in a transform", "two in a transform"])
def small_tiles(request, monkeypatch):
    """The smallest tiles that there are, so that small inputs are many of them, and how many share a transform."""
    monkeypatch.setattr(overlap, "_cost", lambda problem, tiling, item: (tiling.size, tiling.parts != request.param))
    cached = (overlap.ranked, overlap.fitting)
    for function in cached:
        function.cache_clear()
    yield request.param
    for function in cached:
        function.cache_clear()


def run(method, problem, x, weight, bias, threads=2, workspace=None):
    """Prepare and run."""
    on = machine(threads, workspace)
    out = np.empty(problem.out_shape, problem.accumulator)
    scratch = np.empty(method.scratch_bytes(problem, on), np.uint8)
    method.run(problem, on, method.prepare(problem, on, weight, bias), x.reshape(problem.x_shape), out, scratch)
    return out


@pytest.mark.parametrize("case", TILED, ids=lambda case: case.name)
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
def test_many_tiles_match_the_oracle(small_tiles, case, dtype):
    if dtype == "complex64" and case.options.get("activation"):
        return
    problem = case.problem(dtype)
    data = arrays(problem)
    expected = None
    for method in (fft, fft32):
        if method.why_not(problem, machine(2)) is None:
            tiling, _ = overlap.fitting(problem, machine(2), 8)
            assert math.prod(tiling.counts) > 1
            assert tiling.parts == (1 if dtype == "complex64" else small_tiles)
            result = run(method, problem, *data)
            assert_matches(problem, result, method.expected_error(problem), *data)
            np.testing.assert_array_equal(run(method, problem, *data, threads=1), result)
            assert expected is None or (result != expected).any()
            expected = result


@pytest.mark.parametrize("case", TILED[:9], ids=lambda case: case.name)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, "huge"])
def test_nan_inf_and_overflow_stay_in_their_tiles_with_the_bits_of_loops(small_tiles, case, dtype, value):
    problem = case.problem(dtype)
    x, weight, bias = arrays(problem)
    clean = run(fft, problem, x, weight, bias)
    x.reshape(-1)[x.size // 3] = np.finfo(dtype).max if value == "huge" else value
    result = run(fft, problem, x, weight, bias)
    with np.errstate(all="ignore"):
        direct = FUNCTIONS[problem.rank](x, weight, bias, **case.options, method="loops").reshape(problem.out_shape)
    inside = ~np.isfinite(direct)
    np.testing.assert_array_equal(result[inside], direct[inside])
    assert np.isfinite(result[~inside]).all()
    # A tile is repaired as a whole and has the bits of loops; the others are what they were. What no sum overflows for
    # is no error: the tile keeps to the bound, which grows with the largest input.
    share = np.abs(weight.astype(np.float64)).sum(axis=tuple(range(1, weight.ndim))).max() * fft.error_bound(problem)
    with np.errstate(all="ignore"):
        kept = np.abs(result - direct.astype(np.float64)) <= share * float(np.finfo(dtype).max) * (value == "huge")
    assert ((result == direct) | (result == clean) | inside | kept).all()
    assert (result[~inside] == clean[~inside]).any()


@pytest.mark.parametrize(
    ("x_scale", "weight_scale"), [(5e-324, 1e100), (1e200, 1e-322), (1e-310, 1e-3), (1e300, 1e300)]
)
def test_numbers_that_underflow_or_overflow_have_the_bits_of_loops(rng, x_scale, weight_scale):
    x, weight = rng.integers(-3, 4, (1, 1, 30, 31)) * x_scale, rng.integers(-3, 4, (2, 1, 5, 5)) * weight_scale
    with np.errstate(over="ignore"):
        expected = nc.conv2d(x, weight, method="loops")
    np.testing.assert_array_equal(nc.conv2d(x, weight, method="fft"), expected)


def test_a_nan_in_the_weight_is_where_direct_sums_have_it():
    x, weight, _ = arrays(CASES["groups"].problem())
    weight[1, 0, 1, 1], weight[4, 0, 0, 0] = np.nan, np.inf
    options = CASES["groups"].options
    expected = nc.conv2d(x, weight, **options, method="loops")
    np.testing.assert_array_equal(nc.conv2d(x, weight, **options, method="fft"), expected)


@pytest.mark.parametrize(
    ("x_dtype", "weight_dtype"), [("uint8", "int8"), ("int16", "int8"), ("bool", "int16"), ("uint8", "uint8")]
)
def test_integers_are_exact(x_dtype, weight_dtype):
    for case in (CASES["large kernel"], TILED[5], Case("", (1, 2, 5000), (2, 2, 700), {}, True)):
        problem = case.problem(x_dtype, weight_dtype)
        x, weight, bias = arrays(problem)
        # The ends of the dtypes' ranges, where the sums are largest.
        for array in (x, weight):
            if array.dtype.kind in "iu":
                array.reshape(-1)[:] = np.where(
                    array.reshape(-1) > 0, np.iinfo(array.dtype).max, np.iinfo(array.dtype).min
                )
        assert fft.why_not(problem, machine(2)) is None
        assert fft.error_bound(problem) == fft.expected_error(problem) == 0
        assert_matches(problem, run(fft, problem, x, weight, bias), 0.0, x, weight, bias)


def test_integers_that_rounding_may_not_make_exact_are_refused():
    problem = CASES["large kernel"].problem("int32")
    reason = fft.why_not(problem, machine(2))
    assert reason.startswith("sums of int32 * int32 may be wrong by")
    assert reason.endswith("but integers must be exact after rounding")
    assert fft32.why_not(CASES["large kernel"].problem("int8"), machine(2)).endswith("transforms are of float32")


@pytest.mark.parametrize(
    ("case", "dtype", "reason"),
    [
        (CASES["1x1"], "float32", "the kernel has one tap, so that there is nothing to transform"),
        (CASES["no input channels"], "float32", "there is nothing to transform: an array is empty"),
        (CASES["plain"], "float64", "the sums are float64, but its transforms are of float32"),
    ],
    ids=str,
)
def test_what_it_does_not_take_it_refuses_in_a_sentence(case, dtype, reason):
    assert fft32.why_not(case.problem(dtype), machine(2)) == reason


def test_transforms_of_the_kernels_take_64_mib_unless_the_workspace_is_larger():
    problem = Case("", (1, 100, 60, 60), (100, 100, 31, 31)).problem("float64")
    tiling, on = overlap.ranked(problem, 8)[0], machine(2, 1 << 31)
    held = overlap.transform_bytes(problem, tiling, 8)
    assert fft.why_not(problem, machine(2)) == (
        f"the kernels' transforms take {held} bytes, over {64 << 20}: workspace={held} allows that"
    )
    assert fft.why_not(problem, on) is None
    assert overlap.fitting(problem, on, 8)[0] == tiling
    smaller = Case("", (1, 32, 60, 60), (32, 32, 31, 31)).problem("float64")
    spectrum = fft.prepare(smaller, machine(2), np.ones(smaller.weight_shape), None).spectrum
    assert spectrum.nbytes == overlap.transform_bytes(smaller, overlap.fitting(smaller, machine(2), 8)[0], 8)
    assert spectrum.nbytes <= overlap.SPECTRUM_BYTES


def test_tiles_that_take_too_much_scratch_are_refused():
    problem = Case("", (1, 500, 60, 60), (2, 500, 31, 31)).problem("float64")
    reason = fft.why_not(problem, machine(2))
    assert reason.startswith("all channels of one tile take ")
    assert reason.endswith(
        f"bytes of scratch at least, but a call may take {overlap.allowed_scratch(problem, machine(2))}"
    )


# Errors.


def test_float64_transforms_of_float32_are_more_exact_than_sums():
    for taps in (2, 9, 961, 48_000):
        problem = describe(1, (1, 1, 100_000), np.dtype("f4"), (1, 1, taps), np.dtype("f4"))
        assert fft.expected_error(problem) <= any_order_expected(problem)
        assert fft.error_bound(problem) <= 1.01 * 2.0**-24


@pytest.mark.parametrize("scale", ["normal", "positive", "one bright", "growing"])
def test_errors_stay_far_below_the_expected_ones(rng, scale):
    case = Case("", (1, 2, 300, 310), (2, 2, 31, 33))
    problem = case.problem("float32")
    x, weight = rng.standard_normal(problem.x_shape), rng.standard_normal(problem.weight_shape)
    if scale == "positive":
        x, weight = abs(x), abs(weight)
    elif scale == "one bright":
        x[0, 0, 150, 150] = 1e6
    elif scale == "growing":
        x *= np.exp(np.linspace(0, 20, x.shape[-1]))
    x, weight = x.astype(np.float32), weight.astype(np.float32)
    exact = reference.correlate(problem, x, weight, None)
    unit = np.abs(x).max() * np.abs(weight).sum(axis=(1, 2, 3)).max()
    errors = {
        method.NAME: np.abs(run(method, problem, x, weight, None) - exact).max() / unit for method in (fft, fft32)
    }
    assert errors["fft"] <= 2.0**-24
    assert errors["fft"] <= errors["fft32"] <= fft32.expected_error(problem) / 4


def test_the_expected_error_grows_with_the_logarithm_of_the_tile():
    small, large = (describe(1, (1, 1, n), np.dtype("f8"), (1, 1, n // 2), np.dtype("f8")) for n in (100, 100_000))
    assert fft.expected_error(small) < fft.expected_error(large) < 2 * fft.expected_error(small)
    assert fft.expected_error(large) < any_order_expected(large)


# The choice.


@pytest.mark.parametrize(
    ("dtype", "options", "names"),
    [
        ("float64", {}, {"fft"}),
        ("float32", {}, {"fft"}),
        ("float32", {"rtol": 1e-5}, {"fft32"}),
        ("float32", {"rtol": 1e-7}, {"fft"}),
        ("float64", {"reproducible": True}, {"tiled", "depthwise"}),
    ],
)
def test_large_kernels_are_served_by_transforms(dtype, options, names):
    x, kernel = np.broadcast_to(np.dtype(dtype).type(0), (1, 1, 2048, 2048)), np.zeros((1, 1, 63, 63), dtype)
    assert nc.explain(nc.conv2d, x, kernel, **options).chosen in names


def test_31x31_on_a_large_image_is_served_by_transforms_in_float64():
    x, kernel = np.broadcast_to(0.0, (1, 1, 2048, 2048)), np.zeros((1, 1, 31, 31))
    assert nc.explain(nc.conv2d, x, kernel).chosen == "fft"
    assert nc.plan(x.shape, kernel).method == "fft"


def test_small_kernels_are_not():
    for shape, weight in (
        ((1, 64, 56, 56), (64, 64, 3, 3)),
        ((1, 1, 2048, 2048), (1, 1, 5, 5)),
        ((1, 1, 64), (1, 1, 9)),
    ):
        function = FUNCTIONS[len(shape) - 2]
        assert not nc.explain(function, shape, weight, rtol=1.0).chosen.startswith("fft")


def test_lengths_are_the_fast_ones():
    for least in (*range(1, 2000), 48_001, 999_983, 2**20 + 1):
        assert overlap.fast_length(least) == scipy.fft.next_fast_len(least, real=True)


def test_threads_share_the_chunks_and_errors_reach_the_caller():
    seen = []
    jit.spread(seen.append, 3)
    assert sorted(seen) == [0, 1, 2]

    def fail(number):
        if number == 2:
            raise ArithmeticError("in a thread")

    with pytest.raises(ArithmeticError, match="in a thread"):
        jit.spread(fail, 3)
