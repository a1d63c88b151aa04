"""The method contract: every method, on every named case, refuses with a sentence or gives the oracle's result."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import numconv as nc
from numconv import jit
from numconv.machine import machine
from numconv.methods import methods as table
from numconv.testing import CASES, EDGES, Case, arrays, assert_matches

FUNCTIONS = {1: nc.conv1d, 2: nc.conv2d, 3: nc.conv3d}
DTYPES = [
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
]
FEW = ("bias", "stride and dilation", "circular", "groups", "1x1 bias relu", "1x1 groups", "3-D", "no input channels")
HALVES = {
    "1x1": CASES["1x1 groups"],
    "channels last": Case("channels last", (1, 9, 10, 40), (40, 1, 3, 3), {"groups": 40, "layout": "NHWC"}),
    "gradient": Case("gradient", (1, 20, 9, 10), (20, 1, 7, 8), {"groups": 20}),
}
GUARD = 64
# They multiply less than the sums that they compute.
TRANSFORMS = ("winograd", "winograd2", "fft", "fft32")

methods = pytest.mark.parametrize("method", table(), ids=lambda method: method.NAME)


def problems():
    """Every case in the two common dtypes, a few in all."""
    for case in EDGES:
        for dtype in DTYPES if case.name in FEW else ("float32", "float64"):
            if not (dtype.startswith("complex") and case.options.get("activation")):
                yield pytest.param(case, dtype, id=f"{case.name} {dtype}")


def guarded(size, dtype):
    """An array of that size inside a larger one of canaries, and whether the canaries are alive."""
    around = np.full(size * np.dtype(dtype).itemsize + 2 * GUARD, 0xA5, np.uint8)
    inside = around[GUARD:-GUARD].view(dtype)
    return inside, lambda: (around[:GUARD] == 0xA5).all() and (around[-GUARD:] == 0xA5).all()


def run(method, problem, x, weight, bias, garbage=0xFF):
    """Prepare and run, with `out` and scratch full of garbage and between canaries."""
    on = machine(jit.threads())
    x = x.astype(np.float32) if x.dtype == np.float16 else x
    out, out_alive = guarded(int(np.prod(problem.out_shape)), problem.accumulator)
    scratch, scratch_alive = guarded(method.scratch_bytes(problem, on), np.uint8)
    out.view(np.uint8)[:] = garbage
    scratch[:] = garbage
    out = out.reshape(problem.out_shape)
    prepared = method.prepare(problem, on, weight, bias)
    result = method.run(problem, on, prepared, x.reshape(problem.x_shape), out, scratch)
    assert result is None
    assert out_alive(), "run wrote outside `out`"
    assert scratch_alive(), "run wrote outside scratch"
    return out.astype(problem.output)


@methods
@pytest.mark.parametrize(("case", "dtype"), list(problems()))
def test_a_method_refuses_with_a_sentence_or_matches_the_oracle(method, case, dtype):
    problem = case.problem(dtype)
    data = arrays(problem)
    reason = method.why_not(problem, machine(jit.threads()))
    if reason is not None:
        assert len(reason.split()) > 4
        assert not reason.endswith(".")
        with pytest.raises(ValueError, match="does not serve") as error:
            FUNCTIONS[problem.rank](*data, **case.options, method=method.NAME)
        assert reason in str(error.value)
        return
    before = [None if array is None else array.copy() for array in data]
    result = run(method, problem, *data)
    assert_matches(problem, result, method.error_bound(problem), *data)
    for array, copy in zip(data, before, strict=True):
        np.testing.assert_array_equal(array, copy)
    np.testing.assert_array_equal(run(method, problem, *data, garbage=0x7F), result)


@methods
@pytest.mark.parametrize("name", HALVES)
def test_halves_meet_wider_weights(method, name):
    # A method gets float16 as float32, which is not what it adds up in here.
    problem = HALVES[name].problem("float16", "float64")
    if method.why_not(problem, machine(jit.threads())) is not None:
        return
    x, weight, bias = arrays(problem)
    laid_out = x if problem.layout == "NCHW" else np.ascontiguousarray(np.moveaxis(x, 1, -1))
    result = nc.conv2d(laid_out, weight, bias, **HALVES[name].options, method=method.NAME)
    result = result if problem.layout == "NCHW" else np.moveaxis(result, -1, 1)
    assert_matches(problem, result, method.error_bound(problem), x, weight, bias)


@methods
@pytest.mark.parametrize("case", EDGES, ids=lambda case: case.name)
def test_call_and_plan_give_what_the_method_gives(method, case):
    problem = case.problem(np.float32)
    if method.why_not(problem, machine(jit.threads())) is not None:
        return
    x, weight, bias = arrays(problem)
    options = {**case.options, "method": method.NAME}
    x = x.reshape(case.x_shape)
    expected = run(method, problem, x, weight, bias).reshape(problem.out_shape[len(problem.x_shape) - x.ndim :])
    np.testing.assert_array_equal(FUNCTIONS[problem.rank](x, weight, bias, **options), expected)
    planned = nc.plan(x.shape, weight, bias, **options)
    assert planned.method == method.NAME
    np.testing.assert_array_equal(planned(x), expected)
    np.testing.assert_array_equal(planned(x), expected)


def views(x):
    """The same numbers in other memory layouts."""
    reversed_ = x[..., ::-1, ::-1].copy()[..., ::-1, ::-1]
    wide = np.repeat(x, 2, axis=-1)
    frozen, frozen_view = x.copy(), wide.copy()[..., ::2]
    frozen.flags.writeable = frozen_view.flags.writeable = False
    return {
        "negative strides": reversed_,
        "channels last": np.ascontiguousarray(np.moveaxis(x, 1, -1)).transpose(0, 3, 1, 2),
        "columns first": np.asfortranarray(x),
        "every other column": wide[..., ::2],
        "read-only": frozen,
        "read-only view": frozen_view,
        "big-endian": x.astype(x.dtype.newbyteorder(">")),
        "one element off": np.append(x.dtype.type(0), x)[1:].reshape(x.shape),
        "unaligned": np.frombuffer(b"\0" + x.tobytes(), x.dtype, offset=1).reshape(x.shape),
    }


@methods
@pytest.mark.parametrize("layout", views(np.zeros((1, 1, 1, 1))))
@pytest.mark.parametrize("name", ["padding by side", "1x1 wide", "depthwise", "large kernel"])
def test_the_memory_layout_changes_no_bit(method, layout, name):
    case = CASES[name]
    problem = case.problem(np.float32)
    if method.why_not(problem, machine(jit.threads())) is not None:
        return
    x, weight, bias = arrays(problem)
    expected = nc.conv2d(x, weight, bias, **case.options, method=method.NAME)
    result = nc.conv2d(views(x)[layout], views(weight)[layout], bias, **case.options, method=method.NAME)
    np.testing.assert_array_equal(result, expected)
    if layout == "one element off":
        out = np.empty(expected.size + 1, np.float32)[1:].reshape(expected.shape)
        np.testing.assert_array_equal(nc.conv2d(x, weight, bias, **case.options, method=method.NAME, out=out), expected)


@methods
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["padding", "1x1 wide"])
def test_nan_and_inf_stay_where_direct_summation_puts_them(method, dtype, name):
    case = CASES[name]
    problem = case.problem(dtype)
    if method.why_not(problem, machine(jit.threads())) is not None:
        return
    # Small integers: every order of summation gives the same finite numbers.
    x, weight, bias = (None if array is None else np.rint(array * 8) for array in arrays(problem))
    x[0, 0, 0, 0], x[0, 1, 2, 3], x[0, 2, 4, 4] = np.nan, np.inf, -np.inf
    weight[1, 0], weight[2, 1] = np.inf, np.nan
    padded = np.pad(x, ((0, 0), (0, 0), *problem.padding))
    windows = np.lib.stride_tricks.sliding_window_view(padded, problem.kernel, (2, 3))
    with np.errstate(invalid="ignore"):
        expected = (windows[:, None] * weight[:, :, None, None]).sum(axis=(2, 5, 6))
    expected += 0 if bias is None else bias.reshape(-1, 1, 1)
    np.testing.assert_array_equal(run(method, problem, x, weight, bias), expected)


@methods
def test_prepared_weights_can_be_pickled(method):
    # The first case that it takes.
    problems = (case.problem(np.float32) for case in EDGES)
    problem = next(found for found in problems if method.why_not(found, machine(1)) is None)
    _, weight, bias = arrays(problem)
    prepared = method.prepare(problem, machine(1), weight, bias)
    for ours, theirs in zip(pickle.loads(pickle.dumps(prepared)), prepared, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@methods
@pytest.mark.parametrize("case", EDGES, ids=lambda case: case.name)
def test_a_method_tells_its_work_and_its_error_of_what_it_takes(method, case):
    problem, on = case.problem(np.float32), machine(2)
    if method.why_not(problem, on) is not None:
        return
    work = method.work(problem, on)
    assert work.flops >= problem.flops or method.NAME in TRANSFORMS
    assert work.bytes >= problem.bytes
    assert min(work.rate, work.overhead) > 0
    assert work.prepare_bytes >= 0
    assert 0 <= method.expected_error(problem) <= method.error_bound(problem) < 1
    assert method.scratch_bytes(problem, on) >= 0


@methods
def test_a_method_is_a_module_that_says_what_it_does(method):
    assert method.__name__.endswith(f".{method.NAME}")
    assert method.__doc__.count("\n") > 3
    assert isinstance(method.REPRODUCIBLE, bool)
    assert isinstance(method.NEEDS_RTOL, bool)
    assert isinstance(method.STRIDED_OUT, bool)
    assert not (method.REPRODUCIBLE and method.NEEDS_RTOL)
