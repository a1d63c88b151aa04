"""The proved bounds hold on inputs chosen to break them, and the expected errors hold on random ones."""

from __future__ import annotations

import math

import numpy as np
import pytest

from numconv import jit, reference
from numconv.accuracy import any_order_bound, any_order_expected, direct_bound, direct_expected
from numconv.machine import machine
from numconv.methods import methods as table
from numconv.problem import SEGMENT
from numconv.testing import CASES, EDGES, arrays, assert_matches, tolerance
from numconv.validate import describe

UNIT = 2.0**-24


def line(taps, dtype="float32", bias=False):
    """A Problem of one output channel with so many taps, as channels of 1x1."""
    kind = np.dtype(dtype)
    return describe(1, (1, taps, 64), kind, (1, taps, 1), kind, *((1,), kind) * bias)


def worst(rng, taps, name):
    """Inputs that push every rounding one way, or make the sums large and their results small."""
    x, weight = np.ones((1, taps, 64), np.float32), np.ones((1, taps, 1), np.float32)
    if name == "rounded down each time":
        weight[0, 1:] = 0.75 * UNIT
    elif name == "rounded up each time":
        weight[0, 1:] = 1.25 * UNIT
    elif name == "a third of everything":
        x /= 3
        weight /= 3
    elif name == "cancelling":
        weight[0, 1::2] = -1
        x *= 1 + rng.random((1, taps, 64)).astype(np.float32)
    elif name == "growing":
        x *= (1 + rng.random((1, taps, 64)) * np.arange(taps).reshape(1, -1, 1)).astype(np.float32)
    elif name == "large then small":
        x[:, : taps // 2] *= 2.0**20
        x[:, taps // 2 :] *= rng.random((1, taps - taps // 2, 64)).astype(np.float32)
    return x, weight


@pytest.mark.parametrize("method", table(), ids=lambda method: method.NAME)
@pytest.mark.parametrize("taps", [1, 2, 7, 100, 3000, 20_000])
@pytest.mark.parametrize(
    "name",
    ["rounded down each time", "rounded up each time", "a third of everything", "cancelling", "growing",
     "large then small"],
)  # fmt: skip
def test_no_chosen_input_breaks_the_proved_bound(rng, method, taps, name):
    problem, on = line(taps), machine(jit.threads())
    x, weight = worst(rng, taps, name)
    if method.why_not(problem, on) is not None:
        # A method of one input channel gets the taps as the columns of its kernel.
        x, weight = np.resize(x[:, :, 0], (1, 1, taps + 63)), weight.reshape(1, 1, -1)
        problem = describe(1, x.shape, x.dtype, weight.shape, weight.dtype)
        if method.why_not(problem, on) is not None:
            assert taps > SEGMENT
            return
    out = np.empty(problem.out_shape, np.float32)
    prepared = method.prepare(problem, on, weight, None)
    method.run(problem, on, prepared, x, out, np.empty(method.scratch_bytes(problem, on), np.uint8))
    assert_matches(problem, out, method.error_bound(problem), x, weight, None)


@pytest.mark.parametrize("method", table(), ids=lambda method: method.NAME)
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
@pytest.mark.parametrize("taps", [3, 300, 10_000])
def test_random_inputs_stay_within_the_expected_error(method, taps, dtype):
    problem, on = line(taps, dtype, bias=True), machine(jit.threads())
    if method.why_not(problem, on) is not None:
        return
    x, weight, bias = arrays(problem)
    out = np.empty(problem.out_shape, problem.accumulator)
    prepared = method.prepare(problem, on, weight, bias)
    method.run(problem, on, prepared, x, out, np.empty(method.scratch_bytes(problem, on), np.uint8))
    assert_matches(problem, out, method.expected_error(problem), x, weight, bias)


def test_segments_keep_the_proved_error_of_long_sums_small():
    # 100,000 taps go through at most 8192 additions in a segment and 12 over the segments.
    assert direct_bound(line(100_000)) == pytest.approx((8192 + 12) * UNIT, rel=1e-3)
    assert any_order_bound(line(100_000)) == pytest.approx(100_000 * UNIT, rel=1e-2)


def test_the_figures_are_the_papers():
    # gamma(n) = n*u / (1 - n*u), and exp(8 * sqrt(n) * u + n * u**2 / (1 - u)) - 1.
    gamma, expected = 300 * UNIT / (1 - 300 * UNIT), math.expm1(8 * math.sqrt(300) * UNIT + 300 * UNIT**2)
    problem = line(300)
    assert direct_bound(problem) == any_order_bound(problem) == pytest.approx(gamma, rel=1e-12)
    assert direct_expected(problem) == any_order_expected(problem) == pytest.approx(expected, rel=1e-6)
    assert direct_bound(line(300, "complex64")) == pytest.approx(math.sqrt(2) * 600 * UNIT / (1 - 600 * UNIT))


@pytest.mark.parametrize("case", EDGES, ids=lambda case: case.name)
def test_the_expected_error_is_never_over_the_proved(case):
    problem = case.problem()
    for expected, bound in ((direct_expected, direct_bound), (any_order_expected, any_order_bound)):
        assert 0 <= expected(problem) <= bound(problem)


@pytest.mark.parametrize("figure", [direct_bound, direct_expected, any_order_bound, any_order_expected])
def test_integers_have_no_error(figure):
    assert figure(line(300, "int32")) == figure(line(300, "uint64")) == 0


def test_a_sum_too_long_for_its_dtype_has_no_bound():
    assert any_order_bound(line(2**24)) == math.inf
    assert any_order_bound(line(2**24, "float64")) < 1e-7


# The checker itself.


@pytest.mark.parametrize("name", ["bias", "1x1", "3-D"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int32", "complex64"])
def test_the_checker_tells_a_wrong_result_from_a_right_one(name, dtype):
    problem = CASES[name].problem(dtype)
    data = arrays(problem)
    right = reference.correlate(problem, *data).astype(problem.output)
    assert_matches(problem, right, direct_bound(problem), *data)
    wrong = right.copy()
    # A hundred times what is allowed, or one in integers.
    wrong.flat[5] += max(100 * tolerance(problem, direct_bound(problem), *data), problem.output.kind in "iu")
    for spoilt in (wrong, right[..., :-1], right.astype(np.complex128)):
        with pytest.raises(AssertionError):
            assert_matches(problem, spoilt, direct_bound(problem), *data)


def test_the_named_cases_have_names_of_their_own():
    assert len({case.name for case in EDGES}) == len(EDGES)
    assert all(case.problem() for case in CASES.values())
