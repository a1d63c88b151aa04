"""Kernels of rank 1: found by the weights' values, for those who allow it, and as exact in passes as is said."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from golden import run
from hypothesis import given, settings
from hypothesis import strategies as st

import numconv as nc
from numconv import planner, reference
from numconv.cpu import loops, separable
from numconv.machine import machine
from numconv.problem import PADDING_MODES
from numconv.rank_one import LARGEST_RESIDUAL, factors, kernels, product, residual
from numconv.testing import CASES, Case, arrays, assert_matches, tolerance
from numconv.validate import describe

RANK_ONE = [case for case in CASES.values() if case.rank_one]
FUNCTIONS = {2: nc.conv2d, 3: nc.conv3d}
BELL = np.exp(-0.5 * (np.arange(-15, 16) / 5) ** 2)
NOT_KNOWN = "its kernels are not known to be of rank 1: large ones are looked at, where rtol is given"


def image_problem(weight, x_dtype=np.float32, size=40):
    """A Problem of an image for each kernel."""
    x_shape = (1, len(weight), *(size,) * (weight.ndim - 2))
    return describe(
        weight.ndim - 2, x_shape, np.dtype(x_dtype), weight.shape, weight.dtype, padding=3, groups=len(weight)
    )


def known(problem, weight):
    return dataclasses.replace(problem, rank_one=residual(problem, weight))


# Every option.


@settings(max_examples=120)
@given(data=st.data())
def test_every_option_together(data):
    pick = lambda values: data.draw(st.sampled_from(values))  # noqa: E731
    rank, dtype, mode = pick([2, 2, 3]), pick(["float32", "float64"]), pick(list(PADDING_MODES))
    sizes = [12, 30, 70, 140] if rank == 2 else [9, 20]
    case = Case(
        "any",
        (pick([1, 2]), 2, *(pick(sizes) for _ in range(rank))),
        (pick([2, 4]), 1, *(pick([2, 3, 5]) for _ in range(rank))),
        {
            "groups": 2,
            "stride": tuple(pick([1, 1, 2, 3]) for _ in range(rank)),
            "dilation": tuple(pick([1, 2]) for _ in range(rank)),
            "padding": tuple((pick([0, 1, 4]), pick([0, 2])) for _ in range(rank)),
            "padding_mode": mode,
            "padding_value": 3 if mode == "constant" else 0,
            "activation": pick([None, "relu"]),
        },
        bias=pick([False, True]),
        rank_one=True,
    )
    options = case.options | {"padding_value": 0}
    problem = dataclasses.replace(case, options=options if mode != "constant" else case.options).problem(dtype)
    arguments = arrays(problem, data.draw(st.integers(0, 99)))
    result = run(separable, problem, machine(pick([1, 3])), *arguments)
    assert_matches(problem, result, separable.error_bound(problem), *arguments)


@pytest.mark.parametrize("case", RANK_ONE, ids=lambda case: case.name)
def test_threads_blocks_and_batch_change_no_bit(case, monkeypatch):
    problem = case.problem()
    x, weight, bias = arrays(problem)
    expected = run(separable, problem, machine(1), x, weight, bias)
    for image in range(problem.batch):
        alone = dataclasses.replace(problem, batch=1)
        part = run(separable, alone, machine(2), x[image : image + 1], weight, bias)
        np.testing.assert_array_equal(part, expected[image : image + 1])
    for rows, columns in itertools.product((1, 4, 7), (16, 32, 48)):
        with monkeypatch.context() as patch:
            patch.setattr(separable, "_block", lambda problem, machine, block=(rows, columns): block)
            separable._launch.cache_clear()
            np.testing.assert_array_equal(run(separable, problem, machine(3), x, weight, bias), expected)
    separable._launch.cache_clear()


def test_bytes_are_converted_as_the_window_is_filled():
    weight = np.outer(BELL, BELL).astype(np.float32)[None, None]
    problem = known(image_problem(weight, np.uint8), weight)
    data = arrays(dataclasses.replace(problem, rank_one=None))[0], weight, None
    result = run(separable, problem, machine(2), *data)
    assert_matches(problem, result, separable.error_bound(problem), *data)


@pytest.mark.parametrize("weight", [
    np.outer([1, 4, 6, 4, 1], [-1, -2, 0, 2, 1]),  # Sobel's: a column of zeros
    np.outer([0, 0, 1, 2, 0], [1, 0, -3, 2, 0]),
    np.outer(BELL, BELL),
    np.einsum("a,b,c->abc", [1, 0, 2], [1, -1, 0], [0, 2, 1]),
], ids=["Sobel", "rows of zeros", "Gaussian", "3-D"])  # fmt: skip
def test_nan_and_inf_spread_over_the_outputs_of_direct_summation(weight):
    """And leave the same, for a zero of these kernels is one of a factor."""
    weight = weight.astype(np.float32)[None, None]
    problem = known(image_problem(weight), weight)
    x = arrays(dataclasses.replace(problem, rank_one=None))[0]
    flat = x.reshape(-1)
    flat[::997], flat[5::1499], flat[7::1801] = np.inf, -np.inf, np.nan
    result, expected = (run(method, problem, machine(2), x, weight, None) for method in (separable, loops))
    np.testing.assert_array_equal(np.isnan(result), np.isnan(expected))
    np.testing.assert_array_equal(np.isinf(result), np.isinf(expected))
    assert 0 < np.isfinite(expected).sum() < expected.size
    np.testing.assert_array_equal(result[np.isinf(expected)], expected[np.isinf(expected)])
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-4 * np.abs(weight).sum())


def test_no_scale_of_the_weights_overflows_or_underflows_sooner_than_the_sum():
    weight = np.outer(BELL, BELL).astype(np.float32)[None, None]
    x = arrays(image_problem(weight))[0]
    for up, down in ((2.0**100, 2.0**-100), (2.0**-100, 2.0**100), (2.0**-120, 1.0), (1.0, 2.0**-120)):
        scaled = weight * np.float32(up)
        problem, image = known(image_problem(scaled), scaled), x * np.float32(down)
        result = run(separable, problem, machine(2), image, scaled, None)
        assert_matches(problem, result, separable.error_bound(problem), image, scaled, None)


# The figure.


@pytest.mark.parametrize("off", [0, 1e-6, 1e-5, 3e-4])
def test_the_residual_is_what_the_factors_leave(rng, off):
    vectors = rng.standard_normal((2, 4, 9))
    weight = product(vectors) * (1 + off * rng.standard_normal((4, 9, 9)))
    weight = weight.astype(np.float32)[:, None]
    problem = image_problem(weight)
    left = weight[:, 0] - product([vector.astype(np.float64) for vector in factors(weight[:, 0], np.dtype("f4"))])
    worst = max(np.abs(left).sum(axis=(1, 2)) / np.abs(weight).sum(axis=(1, 2, 3)))
    assert worst <= residual(problem, weight) <= 2.001 * worst
    assert residual(problem, weight) <= 2 * max(off, 2.0**-23)


def test_factors_carry_the_scale_last():
    for shape, scale in (((3, 5, 7), 2.0**90), ((2, 3, 4, 5), 2.0**-90)):
        vectors = [np.random.default_rng(1).standard_normal((shape[0], length)) for length in shape[1:]]
        *others, last = factors(product(vectors) * scale, np.dtype(np.float64))
        assert all(0.5 <= np.abs(vector).max() < 1 for vector in others)
        np.testing.assert_allclose(product([*others, last]), product(vectors) * scale, rtol=1e-13)


def test_a_roomier_dtype_asks_for_a_better_factorisation():
    bell = np.outer(BELL, BELL)[None, None] / np.outer(BELL, BELL).sum()
    figures = {dtype: residual(image_problem(bell.astype(dtype), dtype), bell.astype(dtype)) for dtype in "efd"}
    assert figures["e"] == 2.0**-12
    assert figures["f"] == 2.0**-24
    assert figures["d"] <= 2.0**-50
    # float32 weights in sums of float64 are of rank 1 within what float32 rounded.
    assert 2.0**-27 < residual(image_problem(bell.astype("f"), "d"), bell.astype("f")) <= 2.0**-24


def flaw(position, value):
    weight = np.outer(BELL, BELL).astype(np.float32)[None, None]
    weight[0, 0, position[0], position[1]] = value
    return weight


@pytest.mark.parametrize("weight", [
    np.random.default_rng(0).standard_normal((1, 1, 9, 9)),
    flaw((3, 4), 2.0),
    flaw((3, 4), np.nan),
    flaw((0, 0), np.inf),
    np.zeros((1, 1, 9, 9)),
    np.ones((1, 1, 3, 3)),
    np.ones((1, 1, 1, 40)),
    np.ones((1, 1, 9, 9), complex),
    np.ones((1, 1, 9, 9), np.int64),
], ids=["random", "a flaw", "NaN", "inf", "zeros", "small", "a row", "complex", "integers"])  # fmt: skip
def test_what_is_not_known_to_be_of_rank_one(weight):
    assert residual(image_problem(weight, weight.dtype), weight) is None


def test_a_channel_of_zeros_is_of_rank_one_beside_others():
    weight = np.stack([np.outer(BELL, BELL), np.zeros((31, 31))]).astype(np.float32)[:, None]
    problem = known(image_problem(weight), weight)
    data = arrays(dataclasses.replace(problem, rank_one=None))[0], weight, None
    result = run(separable, problem, machine(1), *data)
    assert_matches(problem, result, separable.error_bound(problem), *data)
    assert not result[:, 1].any()


def test_the_residual_is_in_both_error_figures():
    problem = CASES["rank 1"].problem()
    for rank_one in (2.0**-24, LARGEST_RESIDUAL):
        there = dataclasses.replace(problem, rank_one=rank_one)
        assert rank_one < separable.expected_error(there) <= separable.error_bound(there) <= rank_one + 14 * 2.0**-24
    assert separable.error_bound(there) > loops.error_bound(there)


def test_a_kernel_nearly_of_rank_one_serves_within_its_residual(rng):
    weight = (np.outer(BELL, BELL) * (1 + 1e-4 * rng.standard_normal((31, 31)))).astype(np.float32)[None, None]
    x = rng.standard_normal((1, 1, 90, 90), dtype=np.float32)
    planned = nc.plan(x.shape, weight, method="separable")
    error = np.abs(planned(x) - reference.correlate(planned.problem, x, weight, None)).max()
    allowed = tolerance(planned.problem, planned.error_bound, x, weight, None)
    assert 1e-3 * allowed < error <= allowed
    assert planned.problem.rank_one > 2.0**-15


# Who is asked.


BLUR = np.outer(BELL, BELL).astype(np.float32)[None, None]
LARGE = (1, 1, 256, 256)


def test_auto_takes_it_where_rtol_allows():
    error = separable.expected_error(nc.explain(nc.conv2d, np.zeros(LARGE, np.float32), BLUR, rtol=1).problem)
    x = np.zeros(LARGE, np.float32)
    assert nc.explain(nc.conv2d, x, BLUR, rtol=error).chosen == "separable"
    explained = nc.explain(nc.conv2d, x, BLUR, rtol=error * 0.999)
    assert explained.chosen == "depthwise"
    refusal = {candidate.name: candidate.refusal for candidate in explained.candidates}["separable"]
    assert refusal == f"its expected error is {error:.2g}, over rtol={error * 0.999:g}"
    assert "rank 1 within 3.0e-08" in str(nc.plan(LARGE, BLUR, rtol=1e-5).problem)
    # In proved error, it is ahead of direct summation.
    bounded = nc.plan(LARGE, BLUR, rtol=1e-5, rtol_kind="bound")
    assert bounded.method == "separable"
    assert bounded.error_bound < nc.plan(LARGE, BLUR, reproducible=True).error_bound / 10


@pytest.mark.parametrize("wish", [{}, {"reproducible": True}, {"rtol": 1e-3, "reproducible": True}], ids=str)
def test_the_weights_are_not_looked_at_for_others(wish, monkeypatch):
    monkeypatch.setattr(planner, "residual", lambda problem, weight: pytest.fail("the weights were looked at"))
    explained = nc.explain(nc.conv2d, np.zeros(LARGE, np.float32), BLUR, **wish)
    assert explained.candidates[1].refusal == NOT_KNOWN


@pytest.mark.parametrize("weight", [(1, 1, 31, 31), np.random.default_rng(0).standard_normal((1, 1, 31, 31))],
                         ids=["a shape", "values"])  # fmt: skip
def test_what_is_not_of_rank_one_is_refused(weight):
    assert nc.explain(nc.conv2d, LARGE, weight, rtol=1.0).chosen != "separable"
    with pytest.raises(ValueError, match=f"method='separable' does not serve: {NOT_KNOWN}"):
        nc.explain(nc.conv2d, LARGE, weight, method="separable")


def test_transposed_convolutions_run_in_phases_without_it():
    x = np.ones((1, 1, 200, 200), np.float32)
    assert nc.explain(nc.conv_transpose2d, x, BLUR, stride=2, rtol=1.0).chosen != "separable"
    stride_1 = nc.conv_transpose2d(x, BLUR, method="separable")
    np.testing.assert_allclose(stride_1, nc.conv_transpose2d(x, BLUR), atol=1e-3)


def test_scipys_names_take_it_too():
    image = np.random.default_rng(0).standard_normal((300, 300)).astype(np.float32)
    result = nc.signal.correlate2d(image, BLUR[0, 0], "same", rtol=1e-5)
    expected = nc.signal.correlate2d(image, BLUR[0, 0], "same")
    assert (result != expected).any()
    np.testing.assert_allclose(result, expected, atol=1e-5 * np.abs(image).max() * BLUR.sum())


def test_the_kernels_of_a_volume_end_with_its_planes():
    weight = np.arange(2 * 3 * 4 * 5.0).reshape(2, 1, 3, 4, 5)
    problem = describe(3, (1, 2, 9, 9, 9), weight.dtype, weight.shape, weight.dtype, groups=2)
    np.testing.assert_array_equal(kernels(problem, weight), np.moveaxis(weight[:, 0], 1, -1))
