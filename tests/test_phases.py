"""Input dilations, crops and folds: by every method, in phases, they are the formula and keep the one order."""

from __future__ import annotations

import math
import pickle
import types

import numpy as np
import pytest
from test_contract import guarded

import numconv as nc
from numconv import jit, planner, reference
from numconv.machine import machine
from numconv.method import Work
from numconv.methods import methods as table
from numconv.phased import summing
from numconv.phases import boxes
from numconv.planner import Call, Options, Wish, phased_on
from numconv.plans import Plan, execute
from numconv.problem import PADDING_MODES
from numconv.testing import ADJOINTS, CASES, Case, arrays, assert_matches
from numconv.validate import describe

FUNCTIONS = {1: nc.conv1d, 2: nc.conv2d, 3: nc.conv3d}
FEW = ("spread by 2", "spread over the kernel relu", "crop", "fold by side", "spread by side")

each_case = pytest.mark.parametrize("case", ADJOINTS, ids=lambda case: case.name)
methods = pytest.mark.parametrize("method", table(), ids=lambda method: method.NAME)


def problems():
    """Every case in float32, a few in other dtypes."""
    for case in ADJOINTS:
        for dtype in ("float32", "float16", "complex64", "int64", "uint8") if case.name in FEW else ("float32",):
            if not (dtype.startswith("complex") and case.options.get("activation")):
                yield pytest.param(case, dtype, id=f"{case.name} {dtype}")


def serving(method, problem):
    """A method for all phases of a Problem."""
    return phased_on(machine(1))(problem, (method,) * len(summing(problem)), method.NAME)


def run(phased, problem, x, weight, bias, threads, garbage=0xFF):
    """Prepare and run, with `out` and scratch full of garbage and between canaries."""
    on = machine(threads)
    out, out_alive = guarded(math.prod(problem.out_shape), problem.accumulator)
    scratch, scratch_alive = guarded(phased.scratch_bytes(problem, on), np.uint8)
    out.view(np.uint8)[:], scratch[:] = garbage, garbage
    out = out.reshape(problem.out_shape)
    x = x.astype(np.float32) if x.dtype == np.float16 else x
    phased.run(problem, on, phased.prepare(problem, on, weight, bias), x, out, scratch)
    assert out_alive(), "run wrote outside `out`"
    assert scratch_alive(), "run wrote outside scratch"
    return out.astype(problem.output)


def call_of(case, dtype=np.float32, **wish):
    """The case as a dialect would ask for it."""
    x, weight, bias = arrays(case.problem(dtype))
    return Call(case.rank, x.reshape(case.x_shape), weight, bias, Options(**case.options), Wish(**wish))


# The formula.


def formula(problem, x, weight, bias):
    """problem.py's own words in plain loops: no zero is inserted, and none padded."""
    sides = tuple(size + sum(ends) for size, ends in zip(problem.out_spatial, problem.fold, strict=True))
    result = np.zeros((*problem.out_shape[:2], *sides), problem.accumulator)
    channels, outs = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    for place in np.ndindex(sides):
        for tap in np.ndindex(problem.kernel):
            at = [
                o * stride + k * dilation - before
                for o, stride, k, dilation, (before, _) in zip(
                    place, problem.stride, tap, problem.dilation, problem.padding, strict=True
                )
            ]
            between = any(i % spread for i, spread in zip(at, problem.input_dilation, strict=True))
            at = [i // spread for i, spread in zip(at, problem.input_dilation, strict=True)]
            if between or not all(0 <= i < size for i, size in zip(at, problem.spatial, strict=True)):
                continue
            for co in range(problem.out_channels):
                first = co // outs * channels
                result[:, co, *place] += x[:, first : first + channels, *at] @ weight[co, :, *tap]
    # The fold, as the adjoint of np.pad: <np.pad(e), result> for every unit vector e.
    mode = PADDING_MODES[problem.padding_mode]
    out = np.zeros(problem.out_shape, problem.accumulator)
    for place in np.ndindex(problem.out_spatial):
        unit = np.zeros(problem.out_spatial, problem.accumulator)
        unit[place] = 1
        out[:, :, *place] = (result * np.pad(unit, problem.fold, mode)).sum(axis=tuple(range(2, result.ndim)))
    out += 0 if bias is None else bias.reshape(-1, *(1,) * problem.rank)
    return np.maximum(out, 0) if problem.activation == "relu" else out


@each_case
def test_the_oracle_is_the_formula(case):
    problem = case.problem(np.int64)
    data = arrays(problem)
    np.testing.assert_array_equal(reference.correlate(problem, *data), formula(problem, *data))


@methods
@pytest.mark.parametrize(("case", "dtype"), list(problems()))
def test_a_method_refuses_with_a_sentence_or_matches_the_oracle(method, case, dtype):
    problem, on = case.problem(dtype), machine(jit.threads())
    phased, call = serving(method, problem), call_of(case, dtype, method=method.NAME)
    data = arrays(problem)
    reason = phased.why_not(problem, on)
    if reason is not None:
        with pytest.raises(ValueError, match="does not serve") as error:
            execute(call)
        assert reason in str(error.value)
        return
    result = run(phased, problem, *data, jit.threads())
    assert_matches(problem, result, phased.error_bound(problem), *data)
    np.testing.assert_array_equal(run(phased, problem, *data, jit.threads(), garbage=0x7F), result)
    np.testing.assert_array_equal(execute(call), result.reshape(problem.out_shape[call.x.ndim != case.rank + 2 :]))
    planned = Plan(call)
    assert planned.method == method.NAME
    np.testing.assert_array_equal(planned(call.x), execute(call))


@each_case
@pytest.mark.parametrize("threads", [1, 3])
def test_loops_and_tiled_give_the_same_bits_for_any_number_of_threads(case, threads):
    problem = case.problem(np.float32)
    data = arrays(problem)
    loops, tiled = (serving(method, problem) for method in table() if method.NAME in ("loops", "tiled"))
    expected = run(loops, problem, *data, 2)
    np.testing.assert_array_equal(run(tiled, problem, *data, threads), expected)
    np.testing.assert_array_equal(run(loops, problem, *data, threads), expected)


@pytest.mark.parametrize(
    "case", [case for case in ADJOINTS if not case.options.get("fold")], ids=lambda case: case.name
)
def test_the_order_of_summation_is_that_over_inserted_zeros(case):
    # A fused multiply-add of zero changes no sum, so leaving it out may change no bit.
    problem = case.problem(np.float32)
    x, weight, bias = arrays(problem)
    options = {name: getattr(problem, name) for name in ("stride", "dilation", "groups", "activation")}
    padded = reference._pad(problem, x)
    expected = FUNCTIONS[problem.rank](padded, weight, bias, **options, reproducible=True)
    result = execute(call_of(case, reproducible=True))
    np.testing.assert_array_equal(result.reshape(expected.shape), expected)


# Phases.


@each_case
def test_phases_are_plain_and_write_every_output_once(case):
    problem = case.problem()
    middle, *others = boxes(problem)
    assert middle.middle
    assert not any(box.middle for box in others)
    for box in (middle, *others):
        written = np.zeros(box.shape, int)
        for phase in box.phases:
            assert phase.problem.plain or not phase.taps
            written[phase.outputs] += 1
        assert (written == 1).all()


@each_case
def test_products_and_sums_are_those_of_the_phases(case):
    problem = case.problem()
    phases = summing(problem)
    # A phase's Problem may be of a part of the batch.
    images = [problem.batch // max(1, phase.problem.batch) for phase in phases]
    assert problem.products == sum(n * phase.problem.products for n, phase in zip(images, phases, strict=True))
    assert problem.sums == sum(
        n * math.prod(phase.problem.out_shape) * (phase.problem.taps > 0)
        for n, phase in zip(images, phases, strict=True)
    )


def test_a_stride_of_any_size_makes_no_more_phases_than_outputs():
    x, weight = np.ones((1, 1, 2)), np.ones((1, 1, 2))
    result = nc.conv_transpose1d(x, weight, stride=1000)
    assert np.flatnonzero(result).tolist() == [0, 1, 1000, 1001]


def test_outputs_without_taps_are_the_bias_alone():
    result = nc.conv_transpose1d([[1.0, 1.0]], [[[1.0], [1.0]]], [-3.0, -0.0], stride=3, activation="relu")
    assert result.tolist() == [[0, 0, 0, 0], [1, 0, 0, 1]]
    assert not np.signbit(result).any()


@pytest.mark.parametrize("batch", [1, 6, 7])
def test_scratch_is_a_quarter_of_input_and_output_at_most(batch):
    for rank, size in ((1, 2_000_000), (2, 1000), (3, 100)):
        x, weight = (batch, 4, *(size,) * rank), (4, 4, *(3,) * rank)
        problem = describe(rank, x, np.dtype("f4"), weight, np.dtype("f4"), input_dilation=(2,) * rank, padding=2)
        both = 4 * (math.prod(problem.x_shape) + math.prod(problem.out_shape))
        loops = serving(table()[-1], problem)
        # One image of a signal is two phases, and a phase is the least.
        assert loops.scratch_bytes(problem, machine(2)) <= (both if (rank, batch) == (1, 1) else both // 4) + (16 << 20)


@pytest.mark.parametrize(
    ("x_shape", "images", "together"),
    [((2, 4, 9), 2, True), ((3, 4, 100_000), 1, True), ((2, 1, 700_000), 1, False)],
    ids=["all at once", "images apart", "phases apart"],
)
def test_images_and_phases_run_apart_where_scratch_is_short(x_shape, images, together):
    case = Case("signals", x_shape, (4, x_shape[1], 5), {"input_dilation": (2,), "padding": 3}, bias=True)
    problem = case.problem()
    (middle,) = boxes(problem)
    assert [(len(row.phases), row.images) for row in middle.rows] == [(2, images)] if together else [(1, images)] * 2
    x, weight, bias = arrays(problem)
    whole = execute(call_of(case, method="loops"))
    for n in range(problem.batch):
        image = Call(1, x[n : n + 1, :, :99], weight, bias, Options(**case.options), Wish(method="loops"))
        np.testing.assert_array_equal(execute(image)[..., :190], whole[n : n + 1, :, :190])


# The planner.


def fake(name, seconds, refusal=lambda problem: None):
    """A method that does nothing but answer the planner's questions; seconds by the Problem."""
    return types.SimpleNamespace(
        NAME=name,
        REPRODUCIBLE=True,
        NEEDS_RTOL=False,
        STRIDED_OUT=False,
        why_not=lambda problem, on: refusal(problem),
        error_bound=lambda problem: 1e-4,
        expected_error=lambda problem: 1e-6,
        work=lambda problem, on: Work(seconds(problem), 1.0, 0.0, 1.0, 0.0),
        scratch_bytes=lambda problem, on: 7,
    )


@pytest.fixture
def offer(monkeypatch):
    """Put other methods into the table, and forget what they were chosen for."""
    yield lambda *methods: monkeypatch.setattr(planner, "methods", lambda: methods)
    planner._chosen.cache_clear()


def test_each_phase_goes_to_its_fastest_method_and_the_seconds_add_up(offer):
    # Stride 2 and kernel 3 make a phase of one tap and one of two.
    one = fake("one", lambda problem: 2.0, lambda problem: "it takes one tap" if problem.taps > 1 else None)
    two = fake("two", lambda problem: 5.0)
    offer(one, two)
    explained = nc.explain(nc.conv_transpose1d, (1, 1, 40), (1, 1, 3), stride=2)
    assert explained.chosen == "two+one"
    rows = [(row.name, row.refusal) for row in explained.candidates]
    assert rows == [("two+one", None), ("one", "it takes one tap"), ("two", None)]
    assert [row.seconds for row in explained.candidates][::2] == pytest.approx([9, 12], rel=1e-6)
    with pytest.raises(ValueError, match="method='one' does not serve: it takes one tap"):
        nc.explain(nc.conv_transpose1d, (1, 1, 40), (1, 1, 3), stride=2, method="one")


def test_explain_shows_what_serves_and_its_seconds():
    explained = nc.explain(nc.conv_transpose2d, (1, 64, 28, 28), (64, 32, 3, 3), stride=2, padding=1, output_padding=1)
    assert str(explained.problem) == "float32 1x64x28x28 * 32x64x3x3 input dilation 2x2 padding 1+2"
    taken = next(row for row in explained.candidates if row.name == explained.chosen)
    assert taken.seconds == min(row.seconds for row in explained.candidates if row.seconds)
    assert taken.flops >= explained.problem.flops
    assert f"->  {explained.chosen}" in str(explained)


def test_cost_counts_no_inserted_zeros():
    # Each of 5*6 inputs meets each of 3*3 taps, for each pair of channels.
    counts = nc.cost(nc.conv_transpose2d, (2, 3, 5, 6), (3, 4, 3, 3), stride=2)
    assert counts.forward_multiplications == 2 * 3 * 4 * (11 * 13 * 9 - sum_of_gaps())
    forward = nc.cost(nc.conv_transpose2d, (1, 1, 2, 2), (1, 1, 1, 1), stride=3)
    assert (forward.forward_multiplications, forward.forward_additions) == (4, 0)


def sum_of_gaps():
    """Pairs of an output and a tap between inputs, padding's zeros aside."""
    met = [sum((o + k) % 2 == 0 for o in range(size) for k in range(3)) for size in (11, 13)]
    return 11 * 13 * 9 - met[0] * met[1]


@each_case
def test_a_pickled_plan_does_the_same(case):
    call = call_of(case)
    planned = Plan(call)
    other = pickle.loads(pickle.dumps(planned))
    np.testing.assert_array_equal(other(call.x), planned(call.x))
    assert (repr(other), other.prepared_bytes) == (repr(planned), planned.prepared_bytes)
    assert planned.prepared_bytes >= call.weight.nbytes * bool(summing(planned.problem)) / 4


def test_a_plan_keeps_one_scratch_and_writes_where_it_is_told():
    call = call_of(CASES["spread by 2"])
    planned = Plan(call)
    expected = planned(call.x)
    (free,) = planned._free.values()
    out = np.full(expected.shape, 7, np.float32)
    assert planned(call.x, out=out) is out
    np.testing.assert_array_equal(out, expected)
    assert len(free) == 1
    assert len(free[0]) == planned.scratch_bytes
    strided = np.full((*expected.shape[:-1], 2 * expected.shape[-1]), 7, np.float32)[..., ::2]
    np.testing.assert_array_equal(planned(call.x, out=strided), expected)
