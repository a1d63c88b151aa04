"""Both shapes of register tile give the bits of `loops`, stay in registers, and stay inside their arrays."""

from __future__ import annotations

import numpy as np
import pytest
from bits import CHANNELS, PIXELS, only, run, spill

from numconv import jit
from numconv.cpu import loops, tiled
from numconv.machine import machine
from numconv.testing import EDGES, RESNET50, arrays

shapes = pytest.mark.usefixtures("shape")


@pytest.fixture(params=tiled.SHAPES)
def shape(request):
    """One shape of tile after the other, the method's only."""
    with only(request.param):
        yield


def assert_same_bits(ours, theirs):
    kind = f"u{ours.itemsize}"
    np.testing.assert_array_equal(ours.view(kind), theirs.view(kind))


@shapes
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", EDGES, ids=lambda case: case.name)
def test_the_bits_are_those_of_loops_for_any_number_of_shares(case, dtype, threads):
    problem = case.problem(dtype)
    data = arrays(problem)
    assert_same_bits(run(tiled, problem, machine(threads), *data), run(loops, problem, machine(threads), *data))


@shapes
@pytest.mark.parametrize("case", RESNET50[9:], ids=lambda case: case.name)
def test_the_bits_of_real_layers_are_those_of_loops(case):
    problem, on = case.problem(np.float32), machine(jit.threads())
    data = arrays(problem)
    assert_same_bits(run(tiled, problem, on, *data), run(loops, problem, on, *data))


@shapes
@pytest.mark.parametrize("width", range(1, 40))
def test_every_width_of_map_is_covered(width):
    for options in ({}, {"padding": 1}, {"stride": 2, "padding": 1}):
        case = EDGES[1].__class__("map", (1, 2, 3, width + 2), (9, 2, 3, 3), options)
        problem = case.problem(np.float32)
        data = arrays(problem)
        assert_same_bits(run(tiled, problem, machine(2), *data), run(loops, problem, machine(2), *data))


@shapes
def test_integers_beside_floats_are_converted_as_loops_does():
    problem = EDGES[1].problem(np.uint64, np.float64)
    data = arrays(problem)
    assert_same_bits(run(tiled, problem, machine(2), *data), run(loops, problem, machine(2), *data))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("extents", PIXELS + CHANNELS, ids=str)
def test_no_tile_that_ships_spills_a_vector(extents, dtype):
    assert spill(extents, dtype) is None
