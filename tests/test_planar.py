"""Planes in the lanes: the bits of `loops`, no spill, no copy of a batch, and what chooses it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from bits import OUTPUTS, spill
from golden import run
from hypothesis import given, settings
from hypothesis import strategies as st
from test_memory import peak

import numconv as nc
from numconv import jit
from numconv.cpu import loops, planar
from numconv.cpu.simd.ir import WIDE
from numconv.cpu.simd.outputs import EVERYTHING, outputs_tile
from numconv.machine import machine
from numconv.method import allowed_scratch
from numconv.testing import Case, arrays

CONSTANT = [{"padding_mode": "constant", "padding_value": 3}]


def assert_bits_of_loops(problem, on):
    data = arrays(problem)
    assert planar.why_not(problem, on) is None
    ours, theirs = run(planar, problem, on, *data), run(loops, problem, on, *data)
    kind = f"u{ours.itemsize}"
    np.testing.assert_array_equal(ours.view(kind), theirs.view(kind))


def as_large_as_the_map(kernel, extra, groups, inputs=1, outputs=1, batch=1, bias=False, **options):
    """A kernel that a map with so many more rows and columns covers."""
    sides = tuple(k + more for k, more in zip(kernel, extra, strict=True))
    shapes = (batch, groups * inputs, *sides), (groups * outputs, inputs, *kernel)
    return Case("gradient", *shapes, {"groups": groups, **options}, bias)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_every_option_together(dtype, data):
    pick = lambda values: data.draw(st.sampled_from(values))  # noqa: E731
    depth = pick([None, 3, 18])
    dilation = (pick([1, 2]), pick([1, 2, 3]))
    kernel = (pick([5, 8, 14]), pick([1, 7, 16, 29]))
    reach = tuple((k - 1) * d for k, d in zip(kernel, dilation, strict=True))
    more = tuple(r - k + 1 + pick([0, 1, 2, 4]) for r, k in zip(reach, kernel, strict=True))
    stride, padding = (pick([1, 2]), pick([1, 1, 3])), (pick([0, 1, 2]), pick([0, 1]))
    if depth is not None:
        kernel, more, dilation = (1, *kernel), (depth - 1, *more), (1, *dilation)
        stride, padding = (pick([1, 2]), *stride), (pick([0, 0, 1]), *padding)
    case = as_large_as_the_map(
        kernel,
        more,
        groups=pick([2, 7, 16, 33] if depth is None else [1, 1, 2, 17]),
        inputs=pick([1, 2, 3]),
        outputs=pick([1, 2, 5]),
        batch=pick([1, 2]),
        bias=pick([False, True]),
        stride=stride,
        dilation=dilation,
        padding=padding,
        **pick([{"padding_mode": mode} for mode in ("zeros", "reflect", "replicate", "circular")] + CONSTANT),
        activation=pick([None, "relu"]),
    )
    try:
        problem = case.problem(dtype)
    except ValueError:
        return  # a padding that does not fit its mode
    on = machine(pick([1, 2, 5]), pick([None, 1 << 18]))
    if planar.why_not(problem, on) is None:
        assert_bits_of_loops(problem, on)


@pytest.mark.parametrize(
    "case",
    [
        as_large_as_the_map((100, 101), (2, 2), 3, inputs=2),
        as_large_as_the_map((40, 40), (2, 2), 17, inputs=11),
        as_large_as_the_map((9001,), (6,), 5, inputs=2, padding=2),
        as_large_as_the_map((1, 20, 20), (2, 1, 1), 4, inputs=30, outputs=2),
        as_large_as_the_map((3, 20, 20), (1, 1, 1), 4, inputs=9, padding=1),
        as_large_as_the_map((1, 40, 40), (17, 2, 1), 1, inputs=6, outputs=5),
    ],
    ids=lambda case: str(case.problem()),
)
@pytest.mark.parametrize("workspace", [None, 1 << 16], ids=["large pieces", "small pieces"])
def test_segments_within_a_channel_and_across_channels(case, workspace):
    assert_bits_of_loops(case.problem(np.float32), machine(2, workspace))


@pytest.mark.parametrize("threads", [1, 3, 16, 64])
def test_any_number_of_threads_shares_channels_planes_and_rows(threads):
    problem = as_large_as_the_map((1, 12, 12), (3, 30, 2), 8, inputs=2, outputs=4, padding=(0, 0, 1)).problem(
        np.float32
    )
    assert_bits_of_loops(problem, machine(threads))


LAYERS = [
    # (batch, channels, side, groups, kernel, stride): MobileNetV2, EfficientNet, ConvNeXt, ResNeXt, ResNet
    (1, 144, 56, 144, 3, 1), (1, 32, 112, 32, 3, 1), (1, 240, 28, 240, 5, 2), (1, 96, 56, 96, 7, 1),
    (8, 144, 56, 144, 3, 2), (8, 960, 7, 960, 3, 1), (1, 128, 56, 32, 3, 1), (1, 256, 28, 32, 3, 1),
    (1, 512, 7, 1, 3, 1),
]  # fmt: skip


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_the_gradients_of_layers_in_many_groups_are_grouped(layer):
    batch, channels, side, groups, kernel, stride = layer
    for outputs in (channels, 2 * channels):
        shapes = (outputs, channels // groups, kernel, kernel), (batch, outputs, -(-side // stride), -(-side // stride))
        call = (batch, channels, side, side), *shapes, stride, kernel // 2, 1, groups
        assert nc.explain(nc.conv2d_weight, *call).chosen == "planar"


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_batch_is_read_where_it_lies(rank, layout, rng):
    """By call and by plan: the bits of a copy that brings the images of each group together."""
    spatial, options = (9,) * rank, {"groups": 6, "padding": 1, "layout": layout}
    last = lambda array: array if layout == "NCHW" else np.ascontiguousarray(np.moveaxis(array, 1, -1))  # noqa: E731
    x, grad = (last(rng.random((3, count, *spatial)).astype(np.float32)) for count in (12, 18))
    size = (18, 2, *(3,) * rank)
    function = {1: nc.conv1d_weight, 2: nc.conv2d_weight, 3: nc.conv3d_weight}[rank]
    expected = function(x, size, grad, method="loops", **options)
    np.testing.assert_array_equal(function(x, size, grad, method="planar", **options), expected)
    planned = nc.plan(x.shape, grad, op="weight", size=size, method="planar", **options)
    np.testing.assert_array_equal(planned(x), expected)


def test_a_batch_is_not_copied():
    x = np.ones((16, 64, 56, 56), np.float32)
    call = x, (64, 1, 3, 3), x
    allowed = allowed_scratch(nc.explain(nc.conv2d_weight, *call, padding=1, groups=64).problem, machine(jit.threads()))
    assert peak(lambda: nc.conv2d_weight(*call, padding=1, groups=64)) <= min(allowed, x.nbytes // 4)


def test_padding_beside_the_input_is_not_read():
    problem, on = as_large_as_the_map((12, 13), (0, 0), 5, padding=1).problem(np.float32), machine(2)
    x, weight, bias = arrays(problem)
    surrounded = np.full(x.size + 512, np.nan, np.float32)
    inner = surrounded[256:-256].reshape(x.shape)
    inner[...] = x
    np.testing.assert_array_equal(
        run(planar, problem, on, inner, weight, bias), run(loops, problem, on, x, weight, bias)
    )


def padded_planes(kernel, padding, left_out=True, **options):
    """More planes than lanes, whose tiles leave out products with the padding, or add up all."""
    padding = (0, *padding) if isinstance(padding, tuple) else (0, padding, padding)
    case = as_large_as_the_map((1, *kernel), (17, 0, 0), padding=padding, **{"groups": 1, "outputs": 5, **options})
    problem, on = case.problem(np.float32), machine(2)
    assert (planar._met(problem, planar._choose(problem, on)) != EVERYTHING) == left_out
    return problem, on


@pytest.mark.parametrize(
    ("kernel", "padding", "options"),
    [
        ((7, 7), 1, {"inputs": 3, "bias": True}),
        ((14, 14), 1, {"groups": 2, "activation": "relu"}),
        ((5, 6), 2 if WIDE else 1, {}),
        ((3, 4), ((1, 0), (0, 2)), {}),
        ((9, 7), (9, 1), {"stride": (1, 2, 1), "dilation": (1, 2, 1)}),
        ((2, 2), ((3, 1), (0, 1)), {"inputs": 3}),
    ],
    ids=str,
)
def test_products_with_padding_are_left_out(kernel, padding, options):
    assert_bits_of_loops(*padded_planes(kernel, padding, **options))


@pytest.mark.parametrize(
    ("kernel", "padding", "options"),
    [
        ((7, 7), 1, {"stride": (1, 1, 2)}),
        ((7, 7), (1, 4), {"dilation": (1, 1, 2)}),
        ((7, 7), 1, {"padding_mode": "replicate"}),
        ((7, 7), 1, *CONSTANT),
        ((7, 15), 2, {}),
        ((6, 6), 3, {"inputs": 2}),
    ],
    ids=str,
)
def test_tiles_for_steps_and_sizes_of_their_own_add_up_all(kernel, padding, options):
    assert_bits_of_loops(*padded_planes(kernel, padding, left_out=False, **options))


@pytest.mark.parametrize("spoil", [np.nan, np.inf])
@pytest.mark.parametrize("lanes", ["groups", "planes"])
def test_padding_meets_every_pixel_of_the_kernel(lanes, spoil):
    """Zeros of padding are terms: what is not finite meets them too."""
    problem, on = padded_planes((6, 7), 1)
    if lanes == "groups":
        problem, on = as_large_as_the_map((6, 7), (0, 0), 5, padding=2).problem(np.float32), machine(1)
    x, weight, bias = arrays(problem)
    weight[2, 0, ..., 0, 0] = spoil
    np.testing.assert_array_equal(run(planar, problem, on, x, weight, bias), run(loops, problem, on, x, weight, bias))


def test_no_zero_is_negative_for_what_is_left_out():
    """Sums of products that underflow are -0, until a term of +0 or the bias makes them +0."""
    problem, on = padded_planes((7, 7), 1)
    x, weight, bias = arrays(problem)
    x[:], weight[:] = -1e-30, 1e-30
    found = run(planar, problem, on, x, weight, bias)
    assert not np.signbit(found).any()
    assert not found.any()


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (as_large_as_the_map((9, 9), (2, 2), 1).problem(), "there is one group and no axis of planes"),
        (as_large_as_the_map((9, 9), (2, 2), 3).problem(np.int32), "the sums are int64"),
        (as_large_as_the_map((3, 3), (9, 9), 3).problem(), "an output plane has 100 pixels"),
        (as_large_as_the_map((9, 9), (2, 2), 3).problem(np.uint8, np.float32), "the input is uint8"),
        (
            dataclasses.replace(as_large_as_the_map((9, 9), (2, 2), 3).problem(), layout="NHWC"),
            "the output has its channels last",
        ),
        (as_large_as_the_map((1, 9), (10**7, 0), 3, stride=(10**7 // 2, 1)).problem(), "its smallest panels take"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_it_refuses(problem, words):
    assert words in planar.why_not(problem, machine(jit.threads()))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("extents", OUTPUTS, ids=str)
def test_no_tile_that_ships_spills_a_vector(extents, dtype):
    assert spill(outputs_tile(np.dtype(dtype), *extents), math.prod(extents[:3])) is None
