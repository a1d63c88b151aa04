"""The loops keep the one order of summation to the last bit, however the work is cut."""

from __future__ import annotations

import dataclasses

import exact
import numpy as np
import pytest

from numconv.cpu import loops
from numconv.machine import machine
from numconv.testing import EDGES, Case, arrays
from numconv.validate import describe

SMALL = [case for case in EDGES if not case.name.startswith("segments") and case.name != "large kernel"]
# Across the boundaries of segments and panels: more than 8192 taps by channels, by rows, by one row, in three axes.
LONG = (
    Case("64 taps", (1, 64, 4, 5), (3, 64, 1, 1)),
    Case("65 taps", (1, 65, 4, 5), (3, 65, 1, 1)),
    Case("8192 taps", (1, 8192, 2), (2, 8192, 1)),
    Case("8193 taps", (1, 8193, 2), (2, 8193, 1), bias=True),
    Case("1000 channels of 9 taps", (1, 1000, 4, 4), (2, 1000, 3, 3), {"padding": 1}, bias=True),
    Case("kernel of 8192 taps", (1, 3, 66, 130), (1, 3, 64, 128)),
    Case("kernel of 8320 taps", (1, 3, 66, 132), (2, 3, 64, 130), bias=True),
    Case("row of 8192 taps", (1, 2, 8195), (2, 2, 8192)),
    Case("row of 8193 taps", (1, 2, 8195), (2, 2, 8193), bias=True),
    Case("two rows of 9000 taps", (1, 2, 3, 9003), (1, 2, 2, 9000)),
    Case("volume of 9216 taps", (1, 2, 5, 50, 51), (2, 2, 4, 48, 48)),
)


def run(problem, x, weight, bias, threads=1, kernel=None):
    """The method by itself, with so many shares of the work."""
    on = machine(threads)
    out = np.empty(problem.out_shape, problem.accumulator)
    scratch = np.empty(loops.scratch_bytes(problem, on), np.uint8)
    prepared = loops.prepare(problem, on, weight, bias)
    loops.run(problem, on, prepared, x.reshape(problem.x_shape), out, scratch)
    return out.astype(problem.output)


def assert_same_bits(result, expected):
    """Equal to the last bit, signs of zeros included; any NaN equals any NaN."""
    assert result.dtype == expected.dtype
    np.testing.assert_array_equal(result, expected)
    parts = [(result.real, expected.real), (result.imag, expected.imag)] if result.dtype.kind == "c" else [
        (result, expected)
    ]  # fmt: skip
    for ours, theirs in parts:
        np.testing.assert_array_equal(np.signbit(ours), np.signbit(theirs))


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_every_case_has_the_bits_of_the_one_order_in_float32(case):
    problem = case.problem(np.float32)
    data = arrays(problem)
    assert_same_bits(run(problem, *data), exact.correlate(problem, *data))


@pytest.mark.parametrize("dtype", ["float64", "complex64"])
@pytest.mark.parametrize("name", ["bias", "stride and dilation", "reflect", "groups", "3-D"])
def test_other_dtypes_have_the_bits_of_the_one_order(name, dtype):
    case = next(case for case in EDGES if case.name == name)
    problem = case.problem(dtype)
    data = arrays(problem)
    assert_same_bits(run(problem, *data), exact.correlate(problem, *data))


@pytest.mark.parametrize("case", LONG, ids=lambda case: case.name)
def test_long_sums_start_fresh_accumulators_where_the_design_says(case):
    problem = case.problem(np.float32)
    data = arrays(problem)
    assert_same_bits(run(problem, *data), exact.correlate(problem, *data))


def test_the_long_sums_can_tell_a_wrong_boundary():
    # If a single accumulator gave the same bits, the test above would prove nothing.
    problem = describe(1, (1, 9000, 4), np.dtype("f4"), (2, 9000, 1), np.dtype("f4"))
    x, weight, _ = arrays(problem)
    total = np.zeros((2, 4), np.float32)
    for channel in range(9000):
        total = exact.fused32(x[0, channel][None], weight[:, channel], total)
    assert (run(problem, x, weight, None)[0] != total).any()


@pytest.mark.parametrize("name", ["odd channels", "wide", "one pixel", "groups", "segments by channel", "3-D"])
@pytest.mark.parametrize("shares", [2, 3, 7])
def test_the_number_of_shares_changes_no_bit(name, shares):
    problem = next(case for case in EDGES if case.name == name).problem(np.float32)
    data = arrays(problem)
    assert_same_bits(run(problem, *data, threads=shares), run(problem, *data))


@pytest.mark.parametrize("pixels", loops.PIXELS)
@pytest.mark.parametrize("channels", loops.CHANNELS)
def test_the_block_changes_no_bit(monkeypatch, pixels, channels):
    problem = describe(2, (2, 5, 18, 19), np.dtype("f4"), (70, 5, 3, 3), np.dtype("f4"), padding=1)
    data = arrays(problem)
    expected = run(problem, *data)
    monkeypatch.setattr(loops, "_blocks", lambda problem, machine: (pixels, channels))
    assert_same_bits(run(problem, *data, threads=2), expected)


def test_any_split_of_the_batch_gives_the_same_bits():
    problem = describe(2, (5, 3, 9, 9), np.dtype("f4"), (6, 3, 3, 3), np.dtype("f4"), padding=1)
    x, weight, _ = arrays(problem)
    whole = run(problem, x, weight, None, threads=3)
    for first in range(5):
        for end in range(first + 1, 6):
            part = dataclasses.replace(problem, batch=end - first)
            assert_same_bits(run(part, x[first:end], weight, None), whole[first:end])


def test_any_split_of_the_output_channels_gives_the_same_bits():
    problem = describe(2, (1, 20, 9, 9), np.dtype("f4"), (13, 20, 3, 3), np.dtype("f4"))
    x, weight, _ = arrays(problem)
    whole = run(problem, x, weight, None)
    for end in range(1, 14):
        part = dataclasses.replace(problem, out_channels=end)
        assert_same_bits(run(part, x, weight[:end], None), whole[:, :end])


def test_shares_that_one_thread_runs_give_the_bits_of_all(monkeypatch):
    problem = next(case for case in EDGES if case.name == "groups").problem(np.float32)
    data = arrays(problem)
    expected, alone = run(problem, *data, threads=2), loops.correlate.compiled
    monkeypatch.setattr(loops, "correlate", lambda shares, *given: alone(-shares, *given))
    assert_same_bits(run(problem, *data, threads=2), expected)


def test_float16_is_added_up_in_float32_and_rounded_once():
    problem = next(case for case in EDGES if case.name == "bias").problem(np.float16)
    x, weight, bias = arrays(problem)
    assert_same_bits(run(problem, x.astype(np.float32), weight, bias), exact.correlate(problem, x, weight, bias))


def test_padding_holds_the_input_exactly_in_every_dtype():
    # A zero of another dtype beside a uint64 would make it a float64.
    x = np.array([[[2**64 - 1, 2**63 + 1]]], np.uint64)
    problem = describe(1, x.shape, x.dtype, (1, 1, 1), x.dtype, padding=1, padding_mode="replicate")
    result = run(problem, x, np.ones((1, 1, 1), np.uint64), None)
    assert result.ravel().tolist() == [2**64 - 1, 2**64 - 1, 2**63 + 1, 2**63 + 1]


def test_one_compiled_kernel_serves_every_shape_of_a_dtype():
    problem = describe(2, (1, 1, 1, 1), np.dtype("f4"), (1, 1, 1, 1), np.dtype("f4"))
    run(problem, *arrays(problem))
    compiled = len(loops.correlate.compiled.signatures)
    for case in (*SMALL, *LONG):
        problem = case.problem(np.float32)
        run(problem, *arrays(problem))
    assert len(loops.correlate.compiled.signatures) == compiled, "each compiles for seconds"


def test_the_loops_refuse_nothing():
    assert [loops.why_not(case.problem(), machine(1)) for case in EDGES] == [None] * len(EDGES)
