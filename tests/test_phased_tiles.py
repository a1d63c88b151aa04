"""All phases in one launch: the bits of `loops`, for every kind of Problem that they serve, and where they serve."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from golden import run
from test_contract import guarded

import numconv as nc
from numconv.cpu import loops, phased_tiles, tiled
from numconv.cpu.phased_tiles import PhasedTiles, serves
from numconv.machine import machine
from numconv.phased import Phased, summing
from numconv.planner import Options, phased_on
from numconv.testing import ADJOINTS, CASES, Case, arrays

TWOS = {"input_dilation": 2}
# Blocks of rows, columns and channels whose ends are cut; phases of unlike sizes; what makes kernels take other ways.
SPREADS = (
    Case("spread map", (1, 5, 28, 28), (70, 5, 3, 3), {**TWOS, "padding": ((1, 2), (1, 2))}, bias=True),
    Case("spread to an odd size", (2, 3, 4, 4), (33, 3, 3, 3), {**TWOS, "padding": 1}),
    Case("spread wide", (1, 2, 3, 140), (40, 2, 4, 4), {**TWOS, "padding": 2}),
    Case("spread groups", (2, 4, 5, 5), (36, 2, 3, 5), {**TWOS, "groups": 2, "padding": (1, 2), "activation": "relu"}),
    Case("spread by 3 by 2", (1, 3, 6, 9), (18, 3, 7, 4), {"input_dilation": (3, 2), "padding": 3}),
    Case("spread and dilated", (1, 3, 9, 8), (17, 3, 3, 2), {**TWOS, "dilation": 3, "padding": 4}),
    Case("spread and cropped", (1, 3, 9, 10), (17, 3, 3, 3), {**TWOS, "padding": ((-3, -2), (1, -3))}),
    Case("spread NHWC", (2, 6, 7, 5), (21, 5, 3, 3), {**TWOS, "padding": 2, "layout": "NHWC"}, bias=True),
    Case("spread signal", (2, 4, 300), (33, 4, 5), {"input_dilation": (3,), "padding": 3}, bias=True),
    Case("spread volume", (1, 3, 4, 5, 6), (19, 3, 3, 3, 3), {"input_dilation": (2, 1, 2), "padding": 2}),
    Case("spread volume by all", (1, 2, 3, 5, 4), (16, 2, 4, 3, 3), {"input_dilation": 2, "padding": 1}),
    # Segments end within phases, at other taps in each, and windows hold a part of the channels.
    Case("spread segments", (1, 2100, 4, 3), (17, 2100, 5, 5), {**TWOS, "padding": 2}),
)
SERVED = (*SPREADS, *(case for case in ADJOINTS if serves(case.problem(np.float32))))
each_case = pytest.mark.parametrize("case", SERVED, ids=lambda case: case.name)


def together(problem):
    """All phases in one launch, however few the channels."""
    return PhasedTiles(problem, (tiled,) * len(summing(problem)), tiled.NAME)


def by_loops(problem, *data):
    """The result by `loops`."""
    return run(loops, dataclasses.replace(problem, layout="NCHW"), machine(2), *data)


def calculated(problem, x, weight, bias, threads, workspace=None):
    """The result in the layout's order of axes, with `out` and scratch full of garbage and between canaries."""
    method, on = together(problem), machine(threads, workspace)
    assert method.why_not(problem, machine(threads)) is None
    out, out_alive = guarded(math.prod(problem.out_shape), problem.accumulator)
    scratch, scratch_alive = guarded(method.scratch_bytes(problem, on), np.uint8)
    out.view(np.uint8)[:], scratch[:] = 0xFF, 0xFF
    result = problem.channels_first(out, problem.out_shape)
    x = np.ascontiguousarray(x if problem.layout == "NCHW" else np.moveaxis(x, 1, -1))
    prepared = method.prepare(problem, on, weight, bias)
    method.run(problem, on, prepared, problem.channels_first(x, problem.x_shape), result, scratch)
    assert out_alive(), "run wrote outside `out`"
    assert scratch_alive(), "run wrote outside scratch"
    return result


@each_case
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_bits_are_those_of_loops_for_any_number_of_shares(case, threads):
    problem = case.problem(np.float32)
    data = arrays(problem)
    expected = by_loops(problem, *data)
    np.testing.assert_array_equal(calculated(problem, *data, threads), expected)
    # The smallest blocks and windows of one plane.
    np.testing.assert_array_equal(calculated(problem, *data, threads, workspace=0), expected)


@pytest.mark.parametrize("dtypes", [("float64", "float64"), ("uint8", "float32")], ids="*".join)
def test_other_dtypes_have_the_bits_of_loops_too(dtypes):
    for case in SPREADS[:3]:
        problem = case.problem(*dtypes)
        data = arrays(problem)
        np.testing.assert_array_equal(calculated(problem, *data, 2), by_loops(problem, *data))


def test_nan_and_inf_stay_where_direct_summation_leaves_them():
    for wrong in (np.nan, np.inf):
        problem = SPREADS[0].problem(np.float32)
        x, weight, bias = arrays(problem)
        weight[3, 1] = wrong
        x[0, 2, 5, 27] = -wrong
        with np.errstate(invalid="ignore"):
            expected = by_loops(problem, x, weight, bias)
            np.testing.assert_array_equal(calculated(problem, x, weight, bias, 2), expected)


@pytest.mark.parametrize("case", [SPREADS[0], SPREADS[3], SPREADS[10]], ids=lambda case: case.name)
def test_weights_that_are_a_view_are_packed_as_their_copy_is(case):
    problem, on = case.problem(np.float32), machine(2)
    _, weight, bias = arrays(problem)
    adjoint = np.ascontiguousarray(np.flip(weight.swapaxes(0, 1), range(2, weight.ndim)))
    turned = np.flip(adjoint.swapaxes(0, 1), range(2, weight.ndim))
    method = together(problem)
    packed, copied = (method.prepare(problem, on, values, bias) for values in (turned, weight))
    np.testing.assert_array_equal(packed.weight[0, : weight.size], copied.weight[0, : weight.size])
    assert packed.finite
    turned[-1, -1, ..., -1] = np.inf
    assert not method.prepare(problem, on, turned, bias).finite


@pytest.mark.parametrize("threads", [1, 2, 16, 64])
def test_scratch_keeps_to_what_a_call_may_take(threads):
    large = (
        Case("large", (1, 64, 256, 256), (64, 64, 4, 4), {**TWOS, "padding": 1}),
        Case("deep", (1, 2048, 7, 7), (512, 2048, 3, 3), {**TWOS, "padding": 1}),
        Case("long", (1, 16, 500_000), (32, 16, 9), {**TWOS, "padding": 4}),
    )
    for case in (*SPREADS, *large):
        problem = case.problem(np.float32)
        moved = 4 * (math.prod(problem.x_shape) + math.prod(problem.out_shape))
        method = together(problem)
        most = method.scratch_bytes(problem, machine(threads))
        assert most <= moved / 4 + (16 << 20)
        least = method.scratch_bytes(problem, machine(threads, 0))
        assert least <= method.scratch_bytes(problem, machine(threads, (least + most) // 2)) <= (least + most) // 2


# Where they serve.


def kind(x_shape, weight_shape, method=tiled, **options):
    """The class that serves a Problem's phases by one method."""
    problem = Case("", x_shape, weight_shape, Options(**options)._asdict()).problem(np.float32)
    return type(phased_on(machine(2))(problem, (method,) * len(summing(problem))))


def test_dense_layers_that_tiles_serve_go_together():
    assert kind((1, 64, 28, 28), (64, 64, 3, 3), input_dilation=2, padding=((1, 2), (1, 2))) is PhasedTiles
    layer = nc.plan((1, 64, 28, 28), np.ones((64, 64, 3, 3), np.float32), op="transpose", stride=2, padding=1)
    assert isinstance(layer._module, PhasedTiles)


@pytest.mark.parametrize(
    ("x_shape", "weight_shape", "options"),
    [
        ((1, 64, 28, 28), (3, 64, 3, 3), {"input_dilation": 2}),
        ((1, 32, 28, 28), (32, 1, 3, 3), {"input_dilation": 2, "groups": 32}),
        ((1, 64, 28, 28), (64, 64, 3, 3), {"input_dilation": 2, "method": loops}),
        ((1, 64, 28, 28), (64, 64, 1, 1), {"input_dilation": 2}),
        ((1, 64, 28, 28), (64, 64, 3, 3), {"input_dilation": (1, 1), "padding": ((-1, -1), (0, 0))}),
        ((1, 64, 28, 28), (64, 64, 3, 3), {"input_dilation": 3, "stride": 2}),
        ((1, 64, 9, 9), (64, 64, 3, 3), {"padding": 2, "fold": 1, "padding_mode": "reflect"}),
        ((0, 64, 28, 28), (64, 64, 3, 3), {"input_dilation": 2}),
    ],
    ids=["few channels", "depthwise", "loops", "phases without taps", "one phase", "a stride", "a fold", "no batch"],
)
def test_all_else_goes_phase_by_phase(x_shape, weight_shape, options):
    assert kind(x_shape, weight_shape, **options) is Phased


def test_a_layer_is_one_launch_and_a_volume_one_for_each_depth(monkeypatch):
    launches, kernel = [], phased_tiles.correlate_phases
    monkeypatch.setattr(phased_tiles, "correlate_phases", lambda *args: launches.append(kernel(*args)))
    for name, count in (("spread 20 channels", 1), ("spread volume by all", 2)):
        case = next(case for case in (*SPREADS, *CASES.values()) if case.name == name)
        problem = case.problem(np.float32)
        launches.clear()
        calculated(problem, *arrays(problem), 1)
        assert len(launches) == count


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize(
    ("x_shape", "weight_shape", "options"),
    [
        ((2, 3, 4, 20), (3, 1, 1, 3), {"stride": (1, 2), "dilation": (1, 3)}),
        ((28, 15, 21), (28, 4, 7, 3), {"stride": 2, "groups": 4, "dilation": (1, 3)}),
        ((1, 1, 2, 3, 4), (1, 1, 1, 1, 3), {"stride": (1, 1, 2), "dilation": (1, 1, 3)}),
    ],
    ids=str,
)
def test_sums_that_rows_of_a_window_share_get_their_bias_once(x_shape, weight_shape, options, activation):
    """A phase of one tap with padding on both sides: the ends of its rows are the same zeros."""
    function = nc.conv_transpose3d if len(weight_shape) == 5 else nc.conv_transpose2d
    weight = np.zeros(weight_shape, np.float32)
    bias = np.ones(weight_shape[1] * options.get("groups", 1), np.float32)
    result = function(np.ones(x_shape, np.float32), weight, bias, activation=activation, method="tiled", **options)
    assert (result == 1).all()
