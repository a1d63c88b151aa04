"""One input channel for each output: the bits of `loops`, no spill, and nothing written beside the output."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from bits import LANES, STRIPS, spill
from golden import run
from hypothesis import given, settings
from hypothesis import strategies as st

from numconv import jit
from numconv.cpu import depthwise, loops, row_strips, row_tiles
from numconv.cpu.simd.pixels import pixels_tile
from numconv.cpu.simd.rows import rows_tile
from numconv.cpu.simd.strips import strip_tile
from numconv.machine import machine
from numconv.testing import Case, arrays


def assert_bits_of_loops(problem, threads=2):
    data, on = arrays(problem), machine(threads)
    assert depthwise.why_not(problem, on) is None
    ours, theirs = run(depthwise, problem, on, *data), run(loops, problem, on, *data)
    kind = f"u{ours.itemsize}"
    np.testing.assert_array_equal(ours.view(kind), theirs.view(kind))


def assert_bits_with_channels_last(problem, threads=2, spoil=None):
    """The bits of `loops` from channels that lie last, between canaries."""
    x, weight, bias = arrays(problem)
    if spoil is not None:
        weight.flat[::5] = spoil
    expected = run(loops, problem, machine(1), x, weight, bias)
    last, on = dataclasses.replace(problem, layout="NHWC"), machine(threads)
    assert depthwise.why_not(last, on) is None
    lying = np.moveaxis(np.ascontiguousarray(np.moveaxis(x.reshape(problem.x_shape), 1, -1)), -1, 1)
    guarded = np.full(expected.size + 64, 7, problem.accumulator)
    out = last.channels_first(guarded[32:-32], last.out_shape)
    scratch = np.full(depthwise.scratch_bytes(last, on), 0xFF, np.uint8)
    depthwise.run(last, on, depthwise.prepare(last, on, weight, bias), lying, out, scratch)
    np.testing.assert_array_equal(out, expected)
    assert (guarded[:32] == 7).all()
    assert (guarded[-32:] == 7).all()


def plane(height, width, kernel, groups=2, multiplier=1, batch=1, **options):
    shapes = (batch, groups, height, width), (groups * multiplier, 1, *kernel)
    return Case("plane", *shapes, {"groups": groups, **options})


@pytest.mark.parametrize("kernel", [(1, 1), (2, 3), (3, 3), (4, 2), (5, 5), (7, 7), (1, 9), (9, 1), (31, 31)], ids=str)
@pytest.mark.parametrize("size", [(40, 40), (33, 70), (47, 129)], ids=str)
@pytest.mark.parametrize("padding", [0, 1], ids=["read in place", "through a window"])
def test_every_kernel_on_maps_wide_and_narrow(kernel, size, padding):
    assert_bits_of_loops(plane(*size, kernel, padding=padding).problem(np.float32))


VOLUMES = [
    ("cube", (1, 1, 6, 9, 70), (1, 1, 3, 3, 3), {"padding": 1}),
    ("read in place", (2, 1, 5, 9, 150), (1, 1, 3, 2, 3), {}),
    ("bank", (1, 2, 7, 8, 33), (6, 1, 5, 5, 5), {"groups": 2, "padding": 2, "stride": (2, 1, 2)}),
    ("spread", (1, 3, 9, 17, 20), (3, 1, 2, 5, 3), {"groups": 3, "padding": (1, 0, 2), "dilation": (3, 2, 1)}),
    ("mirrored", (1, 1, 6, 9, 20), (1, 1, 4, 1, 1), {"padding": (3, 0, 0), "padding_mode": "reflect"}),
    ("steps", (1, 1, 9, 19, 140), (1, 1, 3, 4, 7), {"stride": (3, 2, 1)}),
]


@pytest.mark.parametrize(("name", "x_shape", "weight_shape", "options"), VOLUMES, ids=lambda value: str(value)[:13])
def test_a_kernel_may_be_several_planes_deep(name, x_shape, weight_shape, options):
    problem = Case(name, x_shape, weight_shape, options).problem(np.float32)
    for threads in (1, 3):
        assert_bits_of_loops(problem, threads)
    if problem.in_channels == 1:
        assert_bits_with_channels_last(problem)


@pytest.mark.parametrize("height", [*range(3, 18), 28, 29, 35, 36])
def test_every_height_of_map(height):
    for stride in (1, 2, 3):
        assert_bits_of_loops(plane(height, 20, (3, 3), stride=stride, padding=1).problem(np.float32))


@pytest.mark.parametrize("width", [*range(3, 70), 127, 128, 129])
def test_every_width_of_map(width):
    for padding, kernel in itertools.product((0, 2), ((3, 3), (2, 3))):
        assert_bits_of_loops(plane(9, width, kernel, groups=1, padding=padding).problem(np.float32))


@pytest.mark.parametrize("stride", row_strips.STRIDES)
@pytest.mark.parametrize("kernel", row_strips.KERNELS)
def test_strips_of_a_padding_that_differs_on_every_side(kernel, stride):
    for height, width, padding in ((15, 17, ((5, 0), (0, 6))), (8, 40, ((0, 3), (7, 1))), (7, 7, ((1, 1), (0, 0)))):
        case = plane(height, width, (kernel, kernel), stride=stride, padding=padding)
        assert_bits_of_loops(case.problem(np.float32))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kernel", row_strips.KERNELS)
def test_strips_by_several_vectors(kernel, dtype):
    """Maps of so many columns have them side by side, with and without columns that need masks."""
    for width, padding in itertools.product((24, 40, 47, 48, 49, 63, 64, 65, 80, 96, 97, 112, 130), (0, kernel // 2)):
        assert_bits_of_loops(plane(31, width, (kernel, kernel), padding=padding).problem(dtype))
    for padding in (((0, 0), (33, 2)), ((1, 2), (2, 50))):
        assert_bits_of_loops(plane(31, 60, (kernel, kernel), padding=padding).problem(dtype))


@pytest.mark.parametrize("mode", ["reflect", "circular"])
def test_strips_over_a_window_of_another_padding(mode):
    assert_bits_of_loops(plane(20, 33, (5, 5), padding=2, padding_mode=mode).problem(np.float32))


@pytest.mark.parametrize("stride", row_strips.STRIDES)
def test_strips_over_a_window_of_another_dtype(stride):
    case = plane(20, 33, (3, 3), padding=1, stride=stride)
    assert_bits_of_loops(case.problem(np.uint8, np.float32))


@pytest.mark.parametrize("width", [16, 50, 64, 100, 128])
def test_padding_beside_the_input_is_not_read(width):
    """The elements that lie around a plane of a larger array are no padding: NaN there must not be seen."""
    problem, on = plane(14, width, (5, 5), padding=2).problem(np.float32), machine(2)
    x, weight, bias = arrays(problem)
    surrounded = np.full(x.size + 512, np.nan, np.float32)
    inner = surrounded[256:-256].reshape(x.shape)
    inner[...] = x
    np.testing.assert_array_equal(
        run(depthwise, problem, on, inner, weight, bias), run(loops, problem, on, x, weight, bias)
    )


CONSTANT = [{"padding_mode": "constant", "padding_value": 3}]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_every_option_together(dtype, data):
    pick = lambda values: data.draw(st.sampled_from(values))  # noqa: E731
    case = plane(
        pick([7, 14, 30]),
        pick([7, 14, 33, 70]),
        (pick([1, 2, 3, 5]), pick([1, 3, 4])),
        groups=pick([1, 2, 5]),
        multiplier=pick([1, 3]),
        batch=pick([1, 2]),
        stride=(pick([1, 2, 3]), pick([1, 2, 3])),
        dilation=(pick([1, 2]), pick([1, 3])),
        padding=(pick([0, 1, 3]), pick([0, 2])),
        **pick(
            [{"padding_mode": mode} for mode in ("zeros", "reflect", "replicate", "circular", "symmetric")] + CONSTANT
        ),
        activation=pick([None, "relu"]),
    )
    try:
        problem = case.problem(dtype)
    except ValueError:
        return  # a kernel larger than its padded input
    assert_bits_of_loops(problem, pick([1, 2, 5]))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_option_together_with_channels_last(data):
    pick = lambda values: data.draw(st.sampled_from(values))  # noqa: E731
    side, stride = pick([1, 3, 5, 7]), pick([1, 2])
    case = plane(
        pick([7, 8, 15]),
        pick([7, 11, 130]),
        pick([(side, side), (3, 4), (2, 11)]),
        groups=pick([2, 3, 5, 17, 32, 40]),
        batch=pick([1, 2]),
        stride=pick([stride, (3, stride)]),
        dilation=pick([1, 1, (2, 1), (3, 2)]),
        padding=pick([0, side // 2, ((0, 3), (4, 1))]),
        **pick([{"padding_mode": mode} for mode in ("zeros", "reflect", "circular")] + CONSTANT),
        activation=pick([None, "relu"]),
    )
    try:
        problem = case.problem(np.float32)
    except ValueError:
        return  # a kernel larger than its padded input
    assert_bits_with_channels_last(problem, pick([1, 2, 5]))


@pytest.mark.parametrize("dtypes", [(np.float32,), (np.uint8, np.float32), (np.float64,)], ids=str)
@pytest.mark.parametrize("options", [{"padding": 1}, {"stride": 2}, {"padding": 2, "dilation": 2}], ids=str)
def test_few_channels_last_are_planes(dtypes, options):
    """Those of images, of any dtype and with several outputs for each input."""
    for groups, multiplier, size in ((3, 1, (40, 150)), (3, 2, (14, 33)), (4, 1, (9, 70)), (1, 3, (20, 30))):
        case = plane(*size, (3, 3), groups=groups, multiplier=multiplier, batch=2, **options)
        assert_bits_with_channels_last(case.problem(*dtypes))


@pytest.mark.parametrize("threads", [1, 2, 3, 16, 64])
def test_few_rows_of_channels_last_are_shared_by_channels(threads):
    assert_bits_with_channels_last(plane(3, 9, (3, 3), groups=75, padding=1).problem(np.float64), threads)


@pytest.mark.parametrize("spoil", [np.nan, np.inf])
def test_padding_meets_every_weight_of_channels_last(spoil):
    """Zeros of padding are terms: what is not finite meets them too."""
    assert_bits_with_channels_last(plane(9, 9, (3, 3), groups=20, padding=1).problem(np.float32), spoil=spoil)


@pytest.mark.parametrize("spatial", [(50,), (3, 8, 20)], ids=["1-D", "3-D"])
def test_other_ranks(spatial):
    kernel = (1,) * (len(spatial) - 1) + (5,)
    case = Case("rank", (2, 3, *spatial), (6, 1, *kernel), {"groups": 3, "padding": (0,) * (len(spatial) - 1) + (2,)})
    assert_bits_of_loops(case.problem(np.float32))


def test_views_that_are_not_contiguous_are_read_as_they_lie():
    problem = plane(20, 80, (3, 3)).problem(np.float32)
    x, weight, bias = arrays(problem)
    wide = np.zeros((1, 2, 20, 160), np.float32)
    wide[..., ::2] = x
    on = machine(2)
    np.testing.assert_array_equal(
        run(depthwise, problem, on, wide[..., ::2], weight, bias), run(depthwise, problem, on, x, weight, bias)
    )


def test_nothing_beside_the_output_is_written():
    problem, on = plane(19, 37, (3, 3), padding=1).problem(np.float32), machine(2)
    x, weight, bias = arrays(problem)
    guarded = np.full(problem.out_shape[1] * problem.pixels + 64, 7, np.float32)
    out = guarded[32:-32].reshape(problem.out_shape)
    scratch = np.empty(depthwise.scratch_bytes(problem, on), np.uint8)
    depthwise.run(problem, on, depthwise.prepare(problem, on, weight, bias), x, out, scratch)
    assert (guarded[:32] == 7).all()
    assert (guarded[-32:] == 7).all()


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (Case("", (1, 4, 9, 9), (4, 2, 3, 3), {"groups": 2}).problem(), "sums 2 input channels, but it takes one"),
        (plane(9, 9, (3, 3)).problem(np.int32), "the sums are int64"),
        (plane(99, 99, (91, 91)).problem(), "the kernel has 8281 taps"),
    ],
)
def test_what_it_refuses(problem, words):
    assert words in depthwise.why_not(problem, machine(jit.threads()))


TILES = list(itertools.product(row_tiles.HEIGHTS, (1, 2, row_tiles.VECTORS), (False, True)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("extents", TILES, ids=str)
def test_no_tile_that_ships_spills_a_vector(extents, dtype):
    rows, vectors, _ = extents
    assert spill(rows_tile(np.dtype(dtype), *extents), rows * vectors) is None


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("extents", STRIPS, ids=str)
def test_no_strip_that_ships_spills_a_vector(extents, dtype):
    kernel, _, rows, _ = extents
    assert spill(strip_tile(np.dtype(dtype), *extents), rows * kernel**2) is None


@pytest.mark.parametrize("extents", LANES, ids=str)
def test_no_tile_of_channels_last_that_ships_spills_a_vector(extents):
    rows, *_, pixels = extents
    assert spill(pixels_tile(np.dtype(np.float32), *extents), rows * pixels) is None
