"""layout="NHWC": channels in the last axis of input and output, with the bits of NCHW."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

import numconv as nc
from numconv import jit
from numconv.cpu import loops, tiled
from numconv.machine import machine
from numconv.method import allowed_scratch
from numconv.methods import methods
from numconv.testing import CASES, EDGES, Case, arrays, assert_matches

FUNCTIONS = {1: nc.conv1d, 2: nc.conv2d, 3: nc.conv3d}
# Cases whose arrays are contiguous in both layouts would compile every kernel once more, and show nothing.
ALIKE = (
    "one ",
    "kernel of",
    "large",
    "segments by row",
    "no input",
    "reflect beyond",
    "empty",
    "1x1 g",
    "1x1 s",
    "1x1 p",
)
TILED = [case for case in EDGES if not case.name.startswith((*ALIKE, "1x1 bias", "1x1 tall", "1x1 wide"))]
LOOPS = [CASES[name] for name in ("bias", "plain", "stride and dilation", "circular", "groups", "3-D")]
# The edges of squares of vectors, and strides that split rows into phases.
SQUARES = (
    Case("squares", (2, 16, 5, 16), (16, 16, 3, 3), {"padding": 1}),
    Case("over squares", (2, 33, 6, 34), (35, 33, 3, 3), {"padding": ((2, 0), (1, 3))}),
    Case("two phases", (2, 19, 9, 40), (64, 19, 5, 5), {"padding": 2, "stride": 2}),
    Case("three phases", (2, 19, 9, 40), (31, 19, 2, 3), {"stride": (1, 3), "dilation": 2}),
    Case("pixels in lanes", (2, 32, 3, 90), (8, 32, 1, 3), {"padding": "same", "padding_mode": "reflect"}, bias=True),
    # Images, of which every third or sixth element makes a plane.
    Case("RGB", (2, 3, 9, 75), (17, 3, 3, 3), {"padding": 1}, bias=True),
    Case("RGB by two", (2, 3, 9, 131), (8, 3, 7, 7), {"padding": ((3, 2), (1, 5)), "stride": 2}),
    Case("two of RGB", (1, 6, 9, 50), (16, 3, 3, 3), {"groups": 2, "padding": 1, "padding_mode": "reflect"}),
    Case("depths", (2, 7, 4, 6, 20), (18, 7, 3, 2, 2), {"padding": 1, "padding_mode": "circular"}),
)

DEPTHWISE = (
    Case("depthwise", (2, 7, 6, 9), (7, 1, 3, 3), {"groups": 7, "padding": 1, "activation": "relu"}, bias=True),
    Case("whole blocks", (1, 64, 5, 19), (64, 1, 3, 3), {"groups": 64, "padding": 2, "padding_mode": "reflect"}),
    Case("over blocks", (1, 97, 5, 13), (97, 1, 5, 5), {"groups": 97, "padding": ((0, 3), (4, 1)), "stride": 2}),
    Case("a constant", (1, 33, 8, 9), (33, 1, 3, 2),
         {"groups": 33, "padding": 3, "padding_mode": "constant", "padding_value": 2, "dilation": (2, 3)}),
    Case("signals", (2, 40, 3), (40, 1, 3), {"groups": 40}),
    Case("volumes", (1, 20, 4, 5, 9), (20, 1, 2, 3, 3), {"groups": 20, "padding": 1, "padding_mode": "circular"}),
)  # fmt: skip


def last(array, rank):
    """(batch, channels, ...) or (channels, ...) with channels last."""
    return np.ascontiguousarray(np.moveaxis(array, -rank - 1, -1))


def first(array, rank):
    return np.moveaxis(array, -1, -rank - 1)


def assert_same(function, rank, x, *args, **options):
    expected = function(x, *args, **options)
    result = function(last(x, rank), *args, **options, layout="NHWC")
    assert result.flags.c_contiguous
    np.testing.assert_array_equal(first(result, rank), expected, strict=True)
    return result


def normal(rng, *shapes):
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize(
    ("case", "method"),
    [(case, "tiled") for case in (*TILED, *SQUARES)] + [(case, "loops") for case in LOOPS],
    ids=lambda value: getattr(value, "name", value),
)
def test_the_bits_are_those_of_nchw(case, method):
    x, weight, bias = arrays(case.problem())
    assert_same(FUNCTIONS[case.rank], case.rank, x.reshape(case.x_shape), weight, bias, **case.options, method=method)


@pytest.mark.parametrize(("case", "method"), [
    (SQUARES[1], "winograd"), (CASES["groups"], "winograd"), (CASES["relu"], "winograd2"),
])  # fmt: skip
def test_transforms_have_the_bits_of_nchw(case, method):
    x, weight, bias = arrays(case.problem())
    assert_same(nc.conv2d, 2, x, weight, bias, **case.options, method=method)
    # What meets an inf is added up again.
    x[-1, 1, 3, 4] = np.inf
    assert_same(nc.conv2d, 2, x, weight, bias, **case.options, method=method)


@pytest.mark.parametrize("case", DEPTHWISE, ids=lambda case: case.name)
def test_depthwise_layers_have_the_bits_of_nchw(case):
    x, weight, bias = arrays(case.problem())
    function = FUNCTIONS[case.rank]
    expected = function(x, weight, bias, **case.options, reproducible=True)
    result = function(last(x, case.rank), weight, bias, **case.options, method="depthwise", layout="NHWC")
    np.testing.assert_array_equal(first(result, case.rank), expected)


@pytest.mark.parametrize("options", [{"padding": 4}, {"stride": 2, "padding": 3, "padding_mode": "reflect"}], ids=str)
def test_passes_over_an_image_have_the_bits_of_nchw(rng, options):
    x, weight = rng.standard_normal((2, 3, 40, 150), np.float32), np.ones((6, 1, 9, 7), np.float32)
    weight *= np.arange(1, 7, dtype=np.float32).reshape(6, 1, 1, 1)
    assert_same(nc.conv2d, 2, x, weight, normal(rng, (6,))[0], groups=3, method="separable", rtol=1e-3, **options)


def test_passes_take_few_channels_last():
    text = "5 channels lie last, which direct sums have in their lanes, but it takes 4 at most"
    with pytest.raises(ValueError, match=text):
        nc.conv2d(np.ones((1, 9, 9, 5)), np.ones((5, 1, 3, 3)), groups=5, layout="NHWC", method="separable", rtol=1.0)


def test_a_depthwise_view_of_every_other_channel_is_read_all_the_same(rng):
    x, weight = normal(rng, (2, 6, 7, 40), (20, 1, 3, 3))
    options = {"groups": 20, "layout": "NHWC", "method": "depthwise"}
    expected = nc.conv2d(x[..., ::2].copy(), weight, **options)
    np.testing.assert_array_equal(nc.conv2d(x[..., ::2], weight, **options), expected)
    np.testing.assert_array_equal(nc.conv2d(x[:, ::-1, 1:, :20], weight, **options),
                                  nc.conv2d(x[:, ::-1, 1:, :20].copy(), weight, **options))  # fmt: skip


@pytest.mark.parametrize(
    ("case", "dtype"),
    [(SQUARES[1], "float64"), (CASES["bias"], "float16"), (CASES["bias"], "int8")],
)
def test_other_dtypes_have_the_bits_of_nchw(case, dtype):
    assert_same(nc.conv2d, 2, *arrays(case.problem(dtype)), **case.options)


@pytest.mark.parametrize("method", methods(), ids=lambda method: method.NAME)
@pytest.mark.parametrize("name", ["bias", "1x1 bias relu", "rank 1"])
def test_a_method_refuses_channels_last_or_matches_the_oracle(method, name):
    problem = dataclasses.replace(CASES[name].problem(), layout="NHWC")
    if method.why_not(problem, machine(jit.threads())) is None:
        x, weight, bias = arrays(problem)
        settings = {"method": method.NAME, "rtol": 1.0, "layout": "NHWC"}
        result = nc.conv2d(last(x, 2), weight, bias, **CASES[name].options, **settings)
        assert_matches(problem, np.ascontiguousarray(first(result, 2)), method.error_bound(problem), x, weight, bias)


@pytest.mark.parametrize("name", ["1x1 bias relu", "1x1 groups", "1-D 1x1"])
def test_a_matrix_product_takes_channels_last_as_they_lie(name):
    case = CASES[name]
    problem = case.problem()
    x, weight, bias = arrays(problem)
    result = FUNCTIONS[case.rank](last(x, case.rank), weight, bias, **case.options, method="matmul", layout="NHWC")
    bound = nc.plan(x.shape, weight, bias, **case.options, method="matmul").error_bound
    assert_matches(problem, np.ascontiguousarray(first(result, case.rank)), bound, x, weight, bias)


@pytest.mark.parametrize("options", [
    {"stride": 2, "padding": 1, "output_padding": 1},
    {"stride": (1, 3), "dilation": (2, 1), "activation": "relu"},
    {"padding": 2, "padding_mode": "reflect"},
])  # fmt: skip
def test_transposed_convolutions_have_the_bits_of_nchw(rng, options):
    x, weight, bias = normal(rng, (2, 6, 5, 7), (6, 9, 3, 3), (9,))
    assert_same(nc.conv_transpose2d, 2, x, weight, bias, **options, reproducible=True)
    assert_same(nc.conv_transpose2d, 2, x[0], weight, bias, **options, reproducible=True)
    planned = nc.plan((2, 5, 7, 6), weight, bias, op="transpose", **options, layout="NHWC", reproducible=True)
    expected = nc.conv_transpose2d(x, weight, bias, **options, reproducible=True)
    np.testing.assert_array_equal(first(planned(last(x, 2)), 2), expected)


@pytest.mark.parametrize("options", [
    {"padding": 1, "stride": 2}, {"padding": 2, "padding_mode": "circular"}, {"groups": 2, "dilation": 2},
])  # fmt: skip
def test_gradients_take_and_give_channels_last(rng, options):
    groups = options.get("groups", 1)
    x, weight = normal(rng, (3, 6, 9, 8), (4, 6 // groups, 3, 3))
    (grad,) = normal(rng, nc.conv2d(x, weight, **options).shape)
    settings = {**options, "reproducible": True}
    by_input = nc.conv2d_input((3, 9, 8, 6), weight, last(grad, 2), **settings, layout="NHWC")
    np.testing.assert_array_equal(first(by_input, 2), nc.conv2d_input(x.shape, weight, grad, **settings))
    for images in (slice(None), 0):
        expected = nc.conv2d_weight(x[images], weight.shape, grad[images], **settings)
        args = last(x[images], 2), weight.shape, last(grad[images], 2)
        np.testing.assert_array_equal(nc.conv2d_weight(*args, **settings, layout="NHWC"), expected)
        planned = nc.plan(args[0].shape, args[2], op="weight", size=weight.shape, **settings, layout="NHWC")
        np.testing.assert_array_equal(planned(args[0]), expected)
    planned = nc.plan(grad.shape[:1] + grad.shape[2:] + (4,), weight, op="input", size=(3, 9, 8, 6), **settings,
                      layout="NHWC")  # fmt: skip
    np.testing.assert_array_equal(planned(last(grad, 2)), by_input)


@pytest.mark.parametrize(("shape", "dtype"), [
    ((3, 5, 7, 9), "float32"), ((5, 1, 9, 9), "complex64"), ((2, 20, 150, 130), "float16"), ((2, 4, 0, 3), "int8"),
    ((2, 3, 9), "uint8"), ((2, 3, 2, 5, 7), "float64"),
])  # fmt: skip
def test_gradients_by_the_bias_take_channels_last(rng, shape, dtype):
    rank = len(shape) - 2
    grad = (3 * rng.random(shape)).astype(dtype)
    function = {1: nc.conv1d_bias, 2: nc.conv2d_bias, 3: nc.conv3d_bias}[rank]
    np.testing.assert_array_equal(function(last(grad, rank), layout="NHWC"), function(grad), strict=True)
    np.testing.assert_array_equal(function(last(grad, rank)[1], layout="NHWC"), function(grad[1]), strict=True)


def test_quantized_bytes_take_channels_last(rng):
    x, weight = (rng.integers(0, 256, shape).astype(np.uint8) for shape in ((2, 4, 6, 7), (6, 2, 3, 3)))
    assert_same(nc.conv_integer, 2, x, weight, 7, rng.integers(0, 256, 6), padding=1, stride=2, groups=2)


def test_out_and_plans_take_channels_last(rng):
    x, weight = normal(rng, (2, 5, 6, 7), (3, 5, 2, 2))
    expected = nc.conv2d(x, weight)
    layer = nc.plan((2, 6, 7, 5), weight, layout="NHWC")
    wide = np.zeros((2, 5, 6, 6), np.float32)
    for out in (np.empty((2, 5, 6, 3), np.float32), wide[..., ::2]):
        assert nc.conv2d(last(x, 2), weight, layout="NHWC", out=out) is out
        np.testing.assert_array_equal(first(out, 2), expected)
        out[...] = 0
        assert layer(last(x, 2), out=out) is out
        np.testing.assert_array_equal(first(out, 2), expected)
    assert not wide[..., 1::2].any()
    strided = np.repeat(last(x, 2), 2, axis=2)[:, :, ::2]
    np.testing.assert_array_equal(nc.conv2d(strided, weight, layout="NHWC"), last(expected, 2))


def test_one_image_without_batch(rng):
    assert assert_same(nc.conv2d, 2, *normal(rng, (4, 9, 8), (2, 4, 3, 3))).shape == (7, 6, 2)


def test_no_copy_of_the_input_is_made():
    problem = nc.plan((1, 500, 500, 64), np.ones((64, 64, 3, 3), np.float32), layout="NHWC").problem
    assert str(problem) == "float32 1x500x500x64 * 64x64x3x3 NHWC"
    for method in (tiled, loops):
        assert method.scratch_bytes(problem, machine(2)) < min(allowed_scratch(problem, machine(2)), 8 << 20)


MISTAKES = [
    ({"layout": "NLC"}, "layout is 'NLC', but it must be 'NCHW' or 'NHWC', where HW stands for all spatial axes"
     " [float32 1x5x6x2 * 4x2x3x3]"),
    ({"x": np.ones((5, 2), np.float32)}, "the input has 2 axes, but it takes (height, width, channels) or (batch,"
     " height, width, channels): add the missing axes with x[None] [float32 5x2 * 4x2x3x3]"),
    ({"x": np.ones((1, 2, 5, 6), np.float32)}, "the input has 6 channels, but the weight takes 2 per group and groups"
     " is 1: the input's channels must be groups * weight.shape[1] = 2 [float32 1x2x5x6 * 4x2x3x3]"),
    ({"out": np.ones((1, 4, 3, 4), np.float32)}, "out has shape (1, 4, 3, 4), but the result has shape (1, 3, 4, 4):"
     " make it np.empty of that [float32 1x5x6x2 * 4x2x3x3 NHWC]"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "text"), MISTAKES)
def test_mistakes_speak_of_channels_last(options, text):
    x = options.pop("x", np.ones((1, 5, 6, 2), np.float32))
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        nc.conv2d(x, np.ones((4, 2, 3, 3), np.float32), **{"layout": "NHWC", **options})


def test_a_gradient_by_the_bias_knows_two_layouts():
    text = "layout is 'NHC', but it must be 'NCHW' or 'NHWC', where HW stands for all spatial axes [float64 (2, 3, 4)]"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        nc.conv2d_bias(np.ones((2, 3, 4)), layout="NHC")


def test_the_layout_is_a_word():
    with pytest.raises(TypeError, match="layout is 1, but it takes a word"):
        nc.conv2d(np.ones((1, 5, 6, 2)), np.ones((4, 2, 3, 3)), layout=1)
