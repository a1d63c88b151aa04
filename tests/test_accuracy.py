"""The proved bounds hold on inputs chosen to break them, and the expected errors hold on random ones."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings, target
from hypothesis import strategies as st

from numconv import jit, reference
from numconv.accuracy import any_order_bound, any_order_expected, direct_bound, direct_expected
from numconv.machine import machine
from numconv.methods import methods as table
from numconv.planner import Wish, candidates
from numconv.problem import SEGMENT
from numconv.rank_one import product, residual
from numconv.testing import CASES, EDGES, Case, arrays, assert_matches, tolerance
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
        # A method of one input channel gets the taps as the columns of its kernel, one of planes does so twice.
        row = x[:, :, 0]
        for sides, kernel in (((taps + 63,), (taps,)), ((2, 1, taps), (1, 1, taps))):
            x, weight = np.resize(row, (1, 1, *sides)), weight.reshape(1, 1, *kernel)
            problem = describe(len(sides), x.shape, x.dtype, weight.shape, weight.dtype)
            if method.why_not(problem, on) is None:
                break
        else:
            assert taps > SEGMENT or not method.REPRODUCIBLE
            return
    out = np.empty(problem.out_shape, np.float32)
    prepared = method.prepare(problem, on, weight, None)
    method.run(problem, on, prepared, x, out, np.empty(method.scratch_bytes(problem, on), np.uint8))
    assert_matches(problem, out, method.error_bound(problem), x, weight, None)


# Problems that every method finds one of among: so many outputs of each, at least.
FAMILIES = {
    "points": lambda outputs: Case("points", (1, 300, outputs // 2), (2, 300, 1), bias=True),
    "map": lambda outputs: Case("map", (outputs // 256, 16, 8, 8), (4, 16, 3, 3), {"padding": 1}, bias=True),
    "filter": lambda outputs: Case("filter", (1, 1, 38, 30 + outputs // 8), (1, 1, 31, 31)),
    "planes": lambda outputs: Case("planes", (1, 2, outputs // 8 + 1, 8, 9), (2, 2, 1, 7, 8), bias=True),
    "rank 1": lambda outputs: Case("rank 1", (1, 1, 38, 30 + outputs // 8), (1, 1, 31, 31), rank_one=True),
}
DISTRIBUTIONS = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "uniform": lambda rng, shape: rng.uniform(-1, 1, shape),
    "positive": lambda rng, shape: rng.uniform(0, 1, shape),
    "any magnitude": lambda rng, shape: rng.choice([-1, 1], shape) * 2.0 ** rng.uniform(-20, 20, shape),
    "bytes": lambda rng, shape: rng.integers(0, 256, shape) / 255,
    "heavy tails": lambda rng, shape: rng.standard_t(2, shape),
}
methods = pytest.mark.parametrize("method", table(), ids=lambda method: method.NAME)


def served(method, outputs, dtype="float32"):
    """The Problems of the families that a method serves."""
    problems = [family(outputs).problem(dtype) for family in FAMILIES.values()]
    return [problem for problem in problems if method.why_not(problem, machine(jit.threads())) is None]


def run(method, problem, x, weight, bias):
    on, out = machine(jit.threads()), np.empty(problem.out_shape, problem.accumulator)
    prepared = method.prepare(problem, on, weight, bias)
    method.run(problem, on, prepared, x, out, np.empty(method.scratch_bytes(problem, on), np.uint8))
    return out


def share(result, problem, error, data, expected=None):
    """The largest error of a result over the one that is allowed: above 1 is a broken promise."""
    exact = reference.correlate(problem, *data) if expected is None else expected
    allowed = tolerance(problem, error, *data)
    return float(np.abs(result - exact).max() / allowed) if allowed else float((result != exact).any()) * math.inf


@functools.cache
def drawn(problem, distribution):
    """Arrays of a Problem from a named distribution, and the oracle's result."""
    rng = np.random.default_rng(7)
    shapes = problem.x_shape, problem.weight_shape, (problem.out_channels,)
    data = [DISTRIBUTIONS[distribution](rng, shape).astype(problem.x_dtype) for shape in shapes]
    if problem.rank_one is not None:
        vectors = [DISTRIBUTIONS[distribution](rng, (problem.out_channels, length)) for length in problem.kernel]
        data[1] = product(vectors).astype(problem.weight_dtype).reshape(problem.weight_shape)
        assert residual(problem, data[1]) <= problem.rank_one
    data[2] = data[2] if problem.has_bias else None
    return tuple(data), reference.correlate(problem, *data)


@methods
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_thousands_of_draws_stay_within_the_expected_error(method, distribution):
    found = served(method, 4096)
    assert found, "give FAMILIES a Problem that it serves"
    for problem in (*found, *served(method, 2048, "complex64")):
        data, expected = drawn(problem, distribution)
        assert expected.size >= 2048
        assert share(run(method, problem, *data), problem, method.expected_error(problem), data, expected) <= 1


def numbers(dtype, factors):
    """Floats of any magnitude, so many of whose products do not overflow, subnormal ones and zeros among them."""
    info = np.finfo(dtype)
    largest = 2.0 ** (info.maxexp // (factors + 1))
    finite = st.floats(-largest, largest, width=info.bits, allow_subnormal=True)
    near_one = st.integers(-64, 64).map(lambda step: float(1 + step * info.eps))
    return st.one_of(finite, near_one, st.floats(0, float(info.tiny), width=info.bits, allow_subnormal=True))


@st.composite
def hunted(draw, shape, dtype, factors=2):
    """An array made to hurt: a few numbers over and over, in an order or with signs that make them cancel."""
    size = math.prod(shape)
    flat = np.resize(np.array(draw(st.lists(numbers(dtype, factors), min_size=1, max_size=5)), dtype), size)
    order = draw(st.sampled_from(["in turn", "shuffled", "alternating", "cancelling", "growing", "one large"]))
    if order == "shuffled":
        np.random.default_rng(draw(st.integers(0, 99))).shuffle(flat)
    elif order == "alternating":
        flat[1::2] *= -1
    elif order == "cancelling":
        flat[size - size // 2 :] = -flat[: size // 2]
    elif order == "growing":
        flat = flat[np.argsort(np.abs(flat))]
    elif order == "one large":
        flat[draw(st.integers(0, size - 1))] = 2.0 ** draw(st.integers(-20, 20))
    return flat.reshape(shape)


@methods
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@settings(max_examples=40)
@given(data=st.data())
def test_no_hunted_input_breaks_the_proved_bound(method, dtype, data):
    if not (problems := served(method, 256, dtype)):
        assert dtype != "float32", "give FAMILIES a Problem that it serves"
        return
    problem = data.draw(st.sampled_from(problems))
    x = data.draw(hunted(problem.x_shape, dtype))
    bias = data.draw(hunted((problem.out_channels,), dtype)) if problem.has_bias else None
    if problem.rank_one is None:
        weight = data.draw(hunted(problem.weight_shape, dtype))
    else:
        vectors = [data.draw(hunted((problem.out_channels, length), dtype, 4)) for length in problem.kernel]
        weight = product(vectors).reshape(problem.weight_shape)
        # Subnormal weights may not be of rank 1.
        problem = dataclasses.replace(problem, rank_one=residual(problem, weight))
        assume(problem.rank_one is not None)
    arrays = x, weight, bias
    reached = share(run(method, problem, *arrays), problem, method.error_bound(problem), arrays)
    # hypothesis looks where the share is largest.
    target(reached)
    assert reached <= 1


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
@pytest.mark.parametrize("method", [m for m in table() if m.REPRODUCIBLE], ids=lambda method: method.NAME)
def test_the_bound_of_direct_summation_is_not_idle(method, dtype):
    """Just above 1, a running sum loses nearly half an ulp at each step to addends of nearly that: 99% of the bound."""
    for problem in served(method, 2048, dtype):
        x, weight = (np.ones(shape, dtype) for shape in (problem.x_shape, problem.weight_shape))
        info = np.finfo(dtype)
        weight.reshape(len(weight), -1)[:, 1:] = info.eps / 2 * (1 - info.eps)
        data = x, weight, None if not problem.has_bias else np.zeros(problem.out_channels, dtype)
        # Of a complex sum, the real part alone errs, in half of its steps; the factor for both parts is sqrt(2).
        least = 0.34 if dtype == "complex64" else 0.98
        assert least <= share(run(method, problem, *data), problem, method.error_bound(problem), data) <= 1


@pytest.mark.parametrize("kind", ["expected", "bound"])
@methods
def test_rtol_admits_what_meets_it_and_refuses_what_is_over_it(method, kind):
    on, figure = machine(jit.threads()), {"expected": "expected error", "bound": "proved error bound"}[kind]
    for problem in served(method, 4096):
        error = (method.error_bound if kind == "bound" else method.expected_error)(problem)

        def refusal(rtol, problem=problem):
            found = candidates(problem, on, Wish(rtol=rtol, rtol_kind=kind))
            return next(candidate.refusal for candidate in found if candidate.name == method.NAME)

        assert refusal(error) is None
        below = error * (1 - 1e-9)
        sentence = f"its {figure} is {error:.2g}, over rtol={below:g}"
        assert refusal(below) == (None if method.REPRODUCIBLE else sentence)
        if method.REPRODUCIBLE:
            assert refusal(0.0) is None
        spends = f"it spends digits: rtol={method.expected_error(problem):.1e} or more, or its name, lets it in"
        assert refusal(None) == (spends if method.NEEDS_RTOL else None)


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
