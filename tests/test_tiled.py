"""Both shapes of register tile give the bits of `loops`, stay in registers, and stay inside their arrays."""

from __future__ import annotations

import dataclasses
import itertools
import operator

import numpy as np
import pytest
from bits import DENSE, multiply_adds, only, spill
from golden import run

from numconv import jit
from numconv.cpu import channel_runs, loops, pixel_tiles, tiled
from numconv.cpu.channel_tiles import weights_of
from numconv.cpu.operands import padded_axes
from numconv.cpu.simd.ir import WIDE
from numconv.cpu.simd.tiles import SEVERAL, tile
from numconv.cpu.tile_choice import Choice, far_bytes
from numconv.cpu.window import input_as_window, row_runs
from numconv.machine import machine
from numconv.testing import CASES, EDGES, RESNET50, Case, arrays

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
        case = Case("map", (1, 2, 3, width + 2), (9, 2, 3, 3), options)
        problem = case.problem(np.float32)
        data = arrays(problem)
        assert_same_bits(run(tiled, problem, machine(2), *data), run(loops, problem, machine(2), *data))


@shapes
@pytest.mark.parametrize("special", [None, "x", "weight"])
@pytest.mark.parametrize("options", [{}, {"stride": (1, 2)}, {"dilation": (1, 2)}], ids=str)
@pytest.mark.parametrize("kernel", [(3, 5), (1, 7), (2, 6)], ids=str)
def test_pixels_at_the_ends_of_rows_leave_out_taps_of_zero_padding(kernel, options, special):
    for width, padding in itertools.product((1, 6, 9), [(2, 2), (3, 0), (0, 1)]):
        paddings = {"padding": ((1, 1), padding)}
        case = Case("ends", (1, 2, 4, width + 12), (19, 2, *kernel), paddings | options)
        problem = case.problem(np.float32)
        x, weight, bias = arrays(problem)
        if special == "x":
            x[0, 1, 1, 2], x[0, 0, 2, 0] = np.nan, np.inf
        elif special == "weight":
            weight[1, 1, 0, 0] = weight[2, 0, -1, -1] = np.inf
        ours, theirs = (run(method, problem, machine(2), x, weight, bias) for method in (tiled, loops))
        np.testing.assert_array_equal(ours, theirs)
        # Zeros times infinity are to be added up.
        assert np.isnan(ours).any() == (special is not None)


@shapes
@pytest.mark.parametrize("options", [{"padding": 1}, {"stride": 2, "activation": "relu"}], ids=str)
@pytest.mark.parametrize("channels", [5, 16, 41])
def test_few_taps_go_straight_to_an_output_that_has_its_channels_last(channels, options):
    for width in (8, 14, 15, 23, 47):
        case = Case("few", (2, 3, 5, 2 * width), (channels, 3, 3, 3), options)
        problem = dataclasses.replace(case.problem(np.float32), layout="NHWC")
        data, on = arrays(case.problem()), machine(2)
        expected = run(loops, case.problem(), on, *data)
        lying = np.full((4, *problem.laid_out(problem.out_shape)[1:]), 7, np.float32)
        out = problem.channels_first(lying[1:3], problem.out_shape)
        prepared, scratch = tiled.prepare(problem, on, *data[1:]), np.empty(tiled.scratch_bytes(problem, on), np.uint8)
        tiled.run(problem, on, prepared, data[0], out, scratch)
        assert_same_bits(out.copy(order="C"), expected)
        assert (lying[[0, 3]] == 7).all(), "run wrote beside `out`"


@shapes
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("spatial", [(7, 7), (14, 14), (3, 5), (1, 23), (15, 15), (40, 20)], ids=str)
def test_a_kernel_of_one_tap_gives_the_bits_of_loops_wherever_its_input_lies(spatial, dtype, threads):
    """Contiguous, small planes are read where they lie, others through a window; few sums finish at once."""
    on = machine(threads)
    for channels in (4, 40):
        case = Case("one tap", (2, 2 * channels, *spatial), (74, channels, 1, 1), {"groups": 2, "activation": "relu"})
        problem = case.problem(dtype)
        x, weight, bias = arrays(problem)
        expected = run(loops, problem, on, x, weight, bias)
        for given in (x, np.repeat(x, 2, axis=1)[:, ::2]):
            assert_same_bits(run(tiled, problem, on, given, weight, bias), expected)


def test_small_planes_alone_are_read_where_they_lie(monkeypatch):
    """The last block of a row ends with it, so that no tile reads beyond: whatever its width."""
    on, seen = machine(2), []
    monkeypatch.setattr(tiled, "input_as_window", lambda *given: seen.append(given[0]) or input_as_window(*given))
    chosen = tiled._choose
    for size, columns, read in ((14, 168, True), (14, 84, True), (14, 83, False), (7, 42, True), (28, 168, False)):
        problem = Case("one tap", (1, 3, size, size), (64, 3, 1, 1)).problem(np.float32).in_a_row
        data = arrays(problem)
        choice = tiled.Choice("channels", 1, columns, 64)
        with only("channels"):
            monkeypatch.setattr(tiled, "_choose", lambda problem, machine, shape, choice=choice: choice)
            tiled._launch.cache_clear()
            seen.clear()
            found = run(tiled, problem, on, *data)
            assert bool(seen) == read
            monkeypatch.setattr(tiled, "_choose", chosen)
        assert_same_bits(found, run(loops, problem, on, *data))
    tiled._launch.cache_clear()


FILLED_BY_TILES = [
    ("one row", (48,), {}),
    ("rows in a row", (12, 16), {"activation": "relu"}),
    ("planes", (2, 4, 40), {}),
    ("groups", (8, 16), {"groups": 2}),
]
FILLED_BEFOREHAND = [
    ("part of a vector", (4, 13), {}),
    ("padding", (16, 16), {"padding": 8}),
    ("stride", (31, 31), {"stride": 2}),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("spatial", "options", "by_tiles"),
    [
        pytest.param(*case, by_tiles, id=name)
        for by_tiles, cases in ((True, FILLED_BY_TILES), (False, FILLED_BEFOREHAND))
        for name, *case in cases
    ],
)
def test_tiles_of_one_tap_fill_the_window_where_vectors_are_whole(spatial, options, by_tiles, dtype):
    """Those of the first channels, whether these are many or few; from pixels that lie together, and no others."""
    on, groups = machine(2), options.get("groups", 1)
    for channels in (8, 15, 64):
        weights = (groups * channels, 40 // groups, *(1,) * len(spatial))
        problem = Case("one tap", (2, 40, *spatial), weights, options).problem(dtype)
        flat, (x, weight, bias) = tiled._flat(problem, on), arrays(problem)
        choice = tiled._choose(flat, on, "pixels")
        assert pixel_tiles.copies(flat, choice.rows, choice.columns) == by_tiles
        expected = run(loops, problem, on, x, weight, bias)
        with only("pixels"):
            for given in (x, np.repeat(x, 2, axis=1)[:, ::2], np.repeat(x, 2, axis=-1)[..., ::2]):
                assert_same_bits(run(tiled, problem, on, given, weight, bias), expected)


def test_tiles_fill_no_window_with_another_dtype():
    problem = Case("one tap", (1, 8, 48), (8, 8, 1)).problem(np.float32)
    assert pixel_tiles.copies(problem, 1, 48)
    assert not pixel_tiles.copies(dataclasses.replace(problem, x_dtype=np.dtype(np.int8)), 1, 48)


READ_IN_PLACE = [
    ("one run", (14, 14), (3, 3), {"padding": 1}),
    ("runs", (5, 56), (3, 3), {"padding": 1}),
    ("blocks", (3, 224), (3, 3), {"padding": 1}),
    ("stride", (29, 28), (3, 3), {"padding": 1, "stride": 2}),
    ("dilation", (13, 28), (3, 3), {"padding": 2, "dilation": 2}),
    ("row", (9, 26), (1, 7), {"padding": (0, 3)}),
    ("column", (17, 14), (7, 1), {"padding": (3, 0)}),
    ("no padding", (12, 32), (5, 5), {}),
    ("sides differ", (14, 15), (3, 2), {"padding": ((2, 0), (0, 0))}),
    ("one axis", (28,), (3,), {"padding": 1}),
    ("groups", (14, 14), (3, 3), {"padding": 1, "groups": 2}),
]
COPIED = [
    ("another padding", (14, 14), (3, 3), {"padding": 1, "padding_mode": "reflect"}),
    ("rows together", (7, 7), (3, 3), {"padding": 1}),
    ("more padding than taps", (6, 18), (3, 3), {"padding": (4, 5)}),
    ("many places are one", (32, 32), (3, 3), {"padding": 1}),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("spatial", "kernel", "options", "read"),
    [pytest.param(*case, read, id=name) for read in (True, False) for name, *case in (READ_IN_PLACE, COPIED)[not read]],
)
def test_what_tiles_leave_out_they_do_not_read_from_an_input_in_place(
    monkeypatch, spatial, kernel, options, read, dtype
):
    """Of a larger array that is NaN around the input. Where a weight is not finite, nothing may be left out."""
    seen, groups = [], options.get("groups", 1)
    monkeypatch.setattr(tiled, "input_as_window", lambda *given: seen.append(given[0]) or input_as_window(*given))
    channels = 300 if spatial == (32, 32) else 6
    case = Case("map", (2, channels, *spatial), (70, channels // groups, *kernel), options)
    problem, on = case.problem(dtype), machine(2)
    x, weight, bias = arrays(problem)
    around = np.full(x.size + 2000, np.nan, x.dtype)
    given = around[1000 : 1000 + x.size].reshape(x.shape)
    given[...] = x
    for value in (1, np.inf):
        weight.flat[5] = value
        expected = run(loops, problem, on, x, weight, bias)
        for source, lies in ((given, True), (np.repeat(x, 2, axis=-1)[..., ::2], False)):
            tiled._launch.cache_clear()
            seen.clear()
            with only("channels"):
                assert_same_bits(run(tiled, problem, on, source, weight, bias), expected)
            if WIDE:  # other runs of pixels may end with a row, or be taken together
                assert bool(seen) == (read and lies and value == 1)


@shapes
@pytest.mark.parametrize("width", [1, 2, 3])
def test_narrow_maps_of_many_rows_and_wide_kernels_are_covered(width):
    # The gradients by weights: the output is the kernel, and has its channels' rows one below the other.
    for height in (1, 3, 14, 17):
        for padding in (0, 1):
            x_shape = (1, 2, height + 8 - 2 * padding, width + 10 - 2 * padding)
            case = Case("kernel", x_shape, (35, 2, 9, 11), {"padding": padding})
            problem = case.problem(np.float32)
            data = arrays(problem)
            assert_same_bits(run(tiled, problem, machine(2), *data), run(loops, problem, machine(2), *data))


@shapes
@pytest.mark.parametrize("steps", [(1, 1, 2), (2, 3, 2), (1, 2, 1), (2, 1, 3)], ids=str)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("name", ["odd channels", "wide", "1x1 wide", "1-D", "3-D", "segments by channel"])
def test_an_output_may_be_every_so_manieth_element(name, layout, steps):
    case = CASES[name]
    data, on = arrays(case.problem()), machine(3)
    expected = run(tiled, case.problem(), on, *data)
    problem = dataclasses.replace(case.problem(), layout=layout)
    step = steps[-problem.rank :]
    shape = (*problem.out_shape[:2], *map(operator.mul, problem.out_spatial, step))
    wide = np.full(problem.laid_out(shape), 7, np.float32)
    part = problem.channels_first(wide, shape)[(..., *(slice(at - 1, None, at) for at in step))]
    for workspace in (None, 0):
        on = machine(3, workspace)
        prepared, scratch = tiled.prepare(problem, on, *data[1:]), np.empty(tiled.scratch_bytes(problem, on), np.uint8)
        tiled.run(problem, on, prepared, data[0], part, scratch)
        assert_same_bits(part.copy(order="C"), expected)
        part[...] = 7
        assert (wide == 7).all(), "run wrote between the elements of `out`"


@shapes
@pytest.mark.parametrize("turn", [
    lambda w: w[:, :, ::-1, ::-1],
    lambda w: w.swapaxes(0, 1).copy().swapaxes(0, 1),
    lambda w: w.swapaxes(0, 1).copy()[:, :, ::-1, ::-1].swapaxes(0, 1),
    lambda w: w[:, ::-1, :, ::-1],
    lambda w: np.repeat(w, 2, axis=3)[..., ::2],
])  # fmt: skip
def test_weights_that_are_a_view_are_packed_as_their_copy_is(turn):
    problem = Case("view", (1, 70, 6, 6), (140, 70, 5, 4)).problem(np.float32)
    x, weight, bias = arrays(problem)
    expected = run(tiled, problem, machine(2), x, turn(weight).copy(), bias)
    assert_same_bits(run(tiled, problem, machine(2), x, turn(weight), bias), expected)
    on = machine(2)
    strided, packed = (tiled.prepare(problem, on, w, bias) for w in (turn(weight), turn(weight).copy()))
    first, second = (prepared.weight.reshape(-1)[: weight.size] for prepared in (strided, packed))
    np.testing.assert_array_equal(first, second)
    assert strided.finite == packed.finite


@shapes
def test_integers_beside_floats_are_converted_as_loops_does():
    problem = EDGES[1].problem(np.uint64, np.float64)
    data = arrays(problem)
    assert_same_bits(run(tiled, problem, machine(2), *data), run(loops, problem, machine(2), *data))


def test_weights_come_from_afar_where_the_second_level_cache_does_not_keep_them():
    on, elements = dataclasses.replace(machine(2), caches=(0, 2 << 20)), 512 * 9
    problem = Case("map", (1, 512, 14, 14), (512, 512, 3, 3), {"padding": 1}).problem(np.float32)
    assert far_bytes(problem, on, 7, 14, 512, elements) == 512 * elements * 4, "a task's are too many"
    assert far_bytes(problem, on, 7, 14, 32, elements) == 32 * elements * 4 / 2, "two tasks share them"
    assert far_bytes(problem, on, 14, 14, 32, elements) == 32 * elements * 4
    assert far_bytes(problem, on, 7, 14, 256, 9) == 0, "the thread's stay"
    assert far_bytes(problem, dataclasses.replace(on, threads=32), 7, 14, 32, elements) == 0, "so do one task's"


def test_tiles_ask_for_weights_that_no_cache_keeps():
    on = dataclasses.replace(machine(2), caches=(48 << 10, 2 << 20))
    for channels, far in ((512, 1), (64, 0)):
        problem = Case("map", (1, channels, 14, 14), (channels, channels, 3, 3), {"padding": 1}).problem(np.float32)
        assert tiled.split(problem, on, Choice("channels", 14, 14, channels // 2), True).far == far


def test_channels_weights_lie_one_after_another():
    """So tiles that ask for those of the next block ask for what it reads."""
    problem = Case("map", (1, 3, 14, 14), (75, 3, 3, 3), {"padding": 1}).problem(np.float32)
    on, choice = machine(2), Choice("channels", 14, 14, 96)
    geometry, blocks = tiled._window(problem, on, choice)[0], tiled.split(problem, on, choice, True)
    unit, count = blocks.sum_columns, -(-75 // blocks.sum_columns)
    found = [[weights_of.py_func(block, tap, 0, 75, geometry, blocks) for tap in (0, 9, 27)] for block in range(count)]
    for block, (first, second, beyond) in enumerate(found):
        assert first == (min(unit, 75 - block * unit), block * unit * 27)
        assert second == (first[0], first[1] + 9 * first[0])
        assert beyond[0] == 0


def test_tiles_of_channels_alone_ask_for_lines_ahead():
    asked = [
        tile(1, 6, 2, np.dtype(np.float32), by_table, False).assembly().count("prefetcht1")
        for by_table in (True, False)
    ]
    assert asked[0] >= SEVERAL
    assert asked[1] == 0


@pytest.mark.parametrize("columns", range(1, 301))
def test_no_row_is_left_to_tiles_that_wait_or_waste(columns):
    """The cycles of a step of all tiles of a row, over its products; 16 registers hold runs of six at most."""
    rows, run = channel_runs.extent(columns)
    together, vectors = (rows if columns <= run else 1), channel_runs.VECTORS
    step = channel_runs.step_cycles(together * run * vectors, channel_runs.LEAST_STEP) / together
    assert -(-columns // run) * step <= (1.3 if WIDE else 1.75) * columns * vectors


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("extents", DENSE, ids=str)
def test_no_tile_that_ships_spills_a_vector(extents, dtype):
    assert spill(tile(*extents[:3], np.dtype(dtype), *extents[3:]), multiply_adds(*extents)) is None


@pytest.mark.parametrize("step", [1, 2, 3])
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_runs_of_rows_are_as_long_as_their_sources_follow_one_another(mode, step):
    for height, padding in ((1, 0), (4, 1), (9, (3, 5)), (30, 2)):
        pair = (padding, padding) if isinstance(padding, int) else padding
        options = {"padding": (pair, (0, 0)), "padding_mode": mode}
        problem = Case("map", (1, 1, height, 3), (1, 1, 1, 1), options).problem(np.float32)
        sources = padded_axes(problem)[1]
        for first, length in enumerate(row_runs(problem, step)):
            rows = sources[first::step]
            together = [b == (a + step if a >= 0 else -1) for a, b in itertools.pairwise(rows)]
            assert length == 1 + next((i for i, yes in enumerate(together) if not yes), len(together))
