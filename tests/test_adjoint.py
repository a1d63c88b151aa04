"""Transposed convolutions and gradients: adjoint to the convolution for every option, and torch's by name and shape."""

from __future__ import annotations

import inspect
import pickle

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_properties import options, problems

import numconv as nc
from numconv import jit
from numconv.problem import PADDING_MODES
from numconv.testing import arrays

CONV = {1: nc.conv1d, 2: nc.conv2d, 3: nc.conv3d}
TRANSPOSE = {1: nc.conv_transpose1d, 2: nc.conv_transpose2d, 3: nc.conv_transpose3d}
BY_INPUT = {1: nc.conv1d_input, 2: nc.conv2d_input, 3: nc.conv3d_input}
BY_WEIGHT = {1: nc.conv1d_weight, 2: nc.conv2d_weight, 3: nc.conv3d_weight}
BY_BIAS = {1: nc.conv1d_bias, 2: nc.conv2d_bias, 3: nc.conv3d_bias}
X, W = np.ones((1, 2, 5, 5), np.float32), np.ones((2, 3, 3, 3), np.float32)

linear = problems(dtypes=("float64",), bias=False, activation=False)
whole = problems(dtypes=("int64",), bias=False, activation=False)


def given_options(problem):
    """What the gradients take of a Problem's options."""
    return {name: value for name, value in options(problem).items() if name != "activation"}


def same(one, other, scale):
    assert abs(one - other) <= 1e-12 * scale


# Adjoint.


@settings(max_examples=120)
@given(problem=linear, seed=st.integers(0, 2**32))
def test_the_gradients_are_the_adjoints(problem, seed):
    x, weight, _ = arrays(problem, seed)
    wanted, rank = given_options(problem), problem.rank
    y = CONV[rank](x, weight, **wanted)
    other = np.random.default_rng(seed).standard_normal(y.shape)
    by_input = BY_INPUT[rank](x.shape, weight, other, **wanted)
    by_weight = BY_WEIGHT[rank](x, weight.shape, other, **wanted)
    assert (by_input.shape, by_weight.shape) == (x.shape, weight.shape)
    # The terms' own size, of which a sum that cancels may be any part.
    sizes = {**wanted, "padding_value": abs(wanted.get("padding_value", 0))}
    scale = (CONV[rank](abs(x), abs(weight), **sizes) * abs(other)).sum()
    # A constant as padding has no part in the derivative by the input.
    constant = CONV[rank](np.zeros_like(x), weight, **wanted)
    same(((y - constant) * other).sum(), (x * by_input).sum(), scale)
    same((y * other).sum(), (weight * by_weight).sum(), scale)
    same(BY_BIAS[rank](other).sum(), other.sum(), abs(other).sum())


@settings(max_examples=80)
@given(problem=whole, seed=st.integers(0, 2**32), data=st.data())
def test_a_transposed_convolution_is_the_adjoint_of_the_convolution(problem, seed, data):
    rank, wanted = problem.rank, given_options(problem)
    extra = tuple(
        data.draw(st.integers(0, max(s, d) - 1)) for s, d in zip(problem.stride, problem.dilation, strict=True)
    )
    weight = arrays(problem, seed)[1]
    rng = np.random.default_rng(seed)
    inputs = tuple(data.draw(st.integers(1, 5)) for _ in range(rank))
    sides = [
        (n - 1) * s + d * (k - 1) + 1 - sum(p) + more
        for n, s, d, k, p, more in zip(
            inputs, problem.stride, problem.dilation, problem.kernel, problem.padding, extra, strict=True
        )
    ]
    y = rng.integers(-9, 9, (problem.batch, problem.out_channels, *inputs))
    if min(sides) < 1:
        with pytest.raises(ValueError, match="but every side must be at least 1"):
            TRANSPOSE[rank](y, weight, output_padding=extra, **wanted)
        return
    result = TRANSPOSE[rank](y, weight, output_padding=extra, **wanted)
    x = rng.integers(-9, 9, (problem.batch, problem.in_channels, *sides))
    assert result.shape == x.shape
    # With more output padding than a stride, the convolution of such an input has outputs more.
    forward, constant = (CONV[rank](image, weight, **wanted) for image in (x, np.zeros_like(x)))
    linear = (forward - constant)[:, :, *(slice(n) for n in inputs)]
    assert (linear * y).sum() == (x * result).sum()


@settings(max_examples=20)
@given(problem=linear, seed=st.integers(0, 2**32))
def test_any_number_of_threads_and_loops_and_tiled_give_the_same_bits(problem, seed):
    x, weight, _ = (None if a is None else a.astype(np.float32) for a in arrays(problem, seed))
    wanted, rank, most = given_options(problem), problem.rank, jit.threads()
    y = CONV[rank](x, weight, **wanted)
    calls = (
        lambda method: BY_INPUT[rank](x.shape, weight, y, **wanted, method=method),
        lambda method: BY_WEIGHT[rank](x, weight.shape, y, **wanted, method=method),
    )
    expected = [call("loops") for call in calls]
    try:
        for threads in range(1, most + 1):
            numba.set_num_threads(threads)
            for call, bits in zip(calls, expected, strict=True):
                np.testing.assert_array_equal(call("tiled"), bits)
    finally:
        numba.set_num_threads(most)


@pytest.mark.parametrize("mode", PADDING_MODES)
def test_the_gradient_by_the_input_is_that_of_differences(mode):
    # In integers the convolution is exact: its column for each unit input is the gradient's row.
    weight = np.arange(1, 19).reshape(2, 1, 3, 3)
    wanted = {"padding": ((2, 1), (1, 3)), "padding_mode": mode, "stride": (1, 2)}
    shape = nc.conv2d(np.zeros((1, 4, 3), int), weight, **wanted).shape
    grad = np.random.default_rng(0).integers(-9, 9, shape)
    rows = [(nc.conv2d(unit.reshape(1, 4, 3), weight, **wanted) * grad).sum() for unit in np.eye(12, dtype=int)]
    np.testing.assert_array_equal(nc.conv2d_input((1, 4, 3), weight, grad, **wanted).ravel(), rows)


# Names, shapes and dtypes.


@pytest.mark.parametrize("rank", CONV)
def test_names_order_and_defaults_are_torchs(rank):
    def positional(function):
        parameters = inspect.signature(function).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD}

    empty, steps = inspect.Parameter.empty, {"stride": 1, "padding": 0}
    assert list(positional(TRANSPOSE[rank]).items()) == list(
        {
            "input": empty,
            "weight": empty,
            "bias": None,
            **steps,
            "output_padding": 0,
            "groups": 1,
            "dilation": 1,
        }.items()
    )
    gradient = {**steps, "dilation": 1, "groups": 1}
    for function, first in ((BY_INPUT, ("input_size", "weight")), (BY_WEIGHT, ("input", "weight_size"))):
        wanted = {**dict.fromkeys((*first, "grad_output"), empty), **gradient}
        assert list(positional(function[rank]).items()) == list(wanted.items())
    keywords = inspect.signature(CONV[rank]).parameters
    for function in (TRANSPOSE[rank], BY_INPUT[rank], BY_WEIGHT[rank]):
        for p in inspect.signature(function).parameters.values():
            assert p.kind is not p.KEYWORD_ONLY or p == keywords[p.name]


@pytest.mark.parametrize("rank", CONV)
def test_one_image_without_batch_is_a_batch_of_one(rank):
    rng = np.random.default_rng(0)
    x, weight = rng.integers(-9, 9, (4, *(7,) * rank)), rng.integers(-9, 9, (6, 2, *(3,) * rank))
    wanted = {"stride": 2, "padding": 1, "groups": 2}
    y = CONV[rank](x, weight, **wanted)
    for alone, batched in (
        (TRANSPOSE[rank](y, weight, **wanted), TRANSPOSE[rank](y[None], weight, **wanted)[0]),
        (BY_INPUT[rank](x.shape, weight, y, **wanted), BY_INPUT[rank]((1, *x.shape), weight, y[None], **wanted)[0]),
        (BY_WEIGHT[rank](x, weight.shape, y, **wanted), BY_WEIGHT[rank](x[None], weight.shape, y[None], **wanted)),
        (BY_BIAS[rank](y), BY_BIAS[rank](y[None])),
    ):
        np.testing.assert_array_equal(alone, batched)


@pytest.mark.parametrize("rank", CONV)
def test_bias_and_activation_come_last(rank):
    rng = np.random.default_rng(0)
    y, weight, bias = rng.integers(-9, 9, (2, 4, *(4,) * rank)), rng.integers(-9, 9, (4, 3, *(3,) * rank)), [5, -50, 7]
    for mode in ("zeros", "circular"):
        wanted = {"stride": 2, "padding": 1, "padding_mode": mode}
        plain = TRANSPOSE[rank](y, weight, **wanted)
        result = TRANSPOSE[rank](y, weight, bias, **wanted, activation="relu")
        np.testing.assert_array_equal(result, np.maximum(plain + np.reshape(bias, (3, *(1,) * rank)), 0))


@pytest.mark.parametrize(
    ("padding", "sides"), [("valid", (9, 15)), ("full", (5, 11)), ("same", (8, 15)), ("same_lower", (8, 15))]
)
def test_padding_by_a_word_is_that_of_the_convolution(padding, sides):
    y, weight = np.random.default_rng(0).integers(-9, 9, (4, 1, 4, 5)), np.arange(9).reshape(1, 1, 3, 3)
    result = nc.conv_transpose2d(y, weight, stride=(2, 3), padding=padding)
    assert result.shape[2:] == sides
    x = np.random.default_rng(1).integers(-9, 9, result.shape)
    assert (nc.conv2d(x, weight, stride=(2, 3), padding=padding) * y).sum() == (x * result).sum()
    np.testing.assert_array_equal(nc.conv2d_input(x.shape, weight, y, stride=(2, 3), padding=padding), result)


@pytest.mark.parametrize("dtype", ["bool", "int16", "uint64", "float16", "float32", "complex64"])
def test_dtypes_are_those_of_the_convolution(dtype):
    x, weight = X.astype(dtype), W[:, :2].astype(dtype)
    y = nc.conv2d(x, weight)
    wanted = np.result_type(y, weight)
    assert nc.conv_transpose2d(x, weight).dtype == y.dtype
    if dtype != "uint64" or y.dtype == np.uint64:
        assert nc.conv2d_input(x.shape, weight, y).dtype == wanted
        assert nc.conv2d_weight(x, weight.shape, y).dtype == wanted
    assert nc.conv2d_bias(x).dtype == y.dtype
    # A wider dtype, once: each compiles a kernel.
    assert dtype != "float32" or nc.conv_transpose2d(x, weight, dtype=complex).dtype == np.complex128


@pytest.mark.parametrize("rank", CONV)
@pytest.mark.parametrize("mode", ["zeros", "circular"])
def test_out_is_filled_and_returned(rank, mode):
    rng = np.random.default_rng(0)
    x, weight = rng.integers(-9, 9, (2, 4, *(6,) * rank)), rng.integers(-9, 9, (6, 4, *(3,) * rank))
    wanted = {"stride": 4, "padding": 1, "padding_mode": mode}
    y = CONV[rank](x, weight, **wanted)
    for shape, call in (
        (x.shape, lambda out: BY_INPUT[rank](x.shape, weight, y, **wanted, out=out)),
        (weight.shape, lambda out: BY_WEIGHT[rank](x, weight.shape, y, **wanted, out=out)),
    ):
        out = np.full(shape, 77)
        expected = call(None)
        assert call(out) is out
        np.testing.assert_array_equal(out, expected)
        with pytest.raises(ValueError, match="out has shape"):
            call(np.full((1, *shape), 77))


def test_gradients_of_nothing_are_zeros():
    assert not nc.conv2d_weight(np.ones((0, 2, 5, 5)), (3, 2, 3, 3), np.ones((0, 3, 3, 3))).any()
    assert nc.conv2d_input((0, 2, 5, 5), np.ones((3, 2, 3, 3)), np.ones((0, 3, 3, 3))).shape == (0, 2, 5, 5)
    assert nc.conv2d_bias(np.ones((0, 3, 4, 4))).tolist() == [0, 0, 0]


def test_the_gradient_by_the_bias_does_not_depend_on_the_memory_layout():
    grad = np.random.default_rng(0).standard_normal((3, 5, 40, 50)).astype(np.float32)
    expected = nc.conv2d_bias(grad)
    np.testing.assert_array_equal(nc.conv2d_bias(np.asfortranarray(grad)), expected)
    np.testing.assert_allclose(expected, grad.sum(axis=(0, 2, 3), dtype=float), atol=1e-3)


# Plans.


@pytest.mark.parametrize("rank", CONV)
@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("batch", [(), (3,)], ids=["one image", "batch"])
def test_a_plan_of_each_operation_gives_what_the_call_gives(rank, mode, batch):
    rng = np.random.default_rng(0)
    x, weight = rng.integers(-9, 9, (*batch, 4, *(8,) * rank)), rng.integers(-9, 9, (6, 2, *(3,) * rank))
    wanted = {"stride": 3, "padding": 1, "groups": 2, "padding_mode": mode}
    y = CONV[rank](x, weight, **wanted)
    bias = rng.integers(-9, 9, 4)
    for op, args, streamed, expected in (
        ("conv", {}, x, y),
        ("transpose", {"bias": bias, "output_padding": 1, "activation": "relu"}, y,
         TRANSPOSE[rank](y, weight, bias, output_padding=1, activation="relu", **wanted)),
        ("input", {"size": x.shape}, y, BY_INPUT[rank](x.shape, weight, y, **wanted)),
        ("weight", {"size": weight.shape}, x, BY_WEIGHT[rank](x, weight.shape, y, **wanted)),
    ):  # fmt: skip
        planned = nc.plan(streamed.shape, y if op == "weight" else weight, op=op, **args, **wanted)
        again = pickle.loads(pickle.dumps(planned))
        out = np.full(expected.shape, 77)
        assert planned(streamed, out=out) is out
        for result in (out, planned(streamed), again(streamed)):
            np.testing.assert_array_equal(result, expected)
        with pytest.raises(ValueError, match="make a plan for each shape"):
            planned(streamed[..., :-1])
        with pytest.raises(ValueError, match="out has shape"):
            planned(streamed, out=out[..., :-1])


# Mistakes.


def mistake(kind, text, function, *args, **kwargs):
    return pytest.param(lambda: function(*args, **kwargs), kind, text, id=text[:60])


LINE = "[float32 1x2x5x5 * 2x3x3x3 transposed]"
FORWARD = "[float32 1x2x5x5 * 3x2x3x3]"


@pytest.mark.parametrize(("call", "kind", "text"), [
    mistake(
        ValueError,
        "the input has 2 axes, but it takes (channels, height, width) or (batch, channels, height, width): add the"
        " missing axes with x[None] [float32 5x5 * 2x3x3x3 transposed]",
        nc.conv_transpose2d, X[0, 0], W,
    ),
    mistake(
        ValueError,
        "the weight has 3 axes, but it takes 4: (input channels, output channels per group, height, width)"
        " [float32 1x2x5x5 * 3x3x3 transposed]",
        nc.conv_transpose2d, X, W[0],
    ),
    mistake(
        ValueError,
        "the input has 2 channels, but the weight takes 3: transposed, the weight is (input channels, output channels"
        " per group, height, width) [float32 1x2x5x5 * 3x2x3x3 transposed]",
        nc.conv_transpose2d, X, W.swapaxes(0, 1),
    ),
    mistake(
        ValueError, f"groups is 3, but it must divide the 2 input channels {LINE}",
        nc.conv_transpose2d, X, W, groups=3,
    ),
    mistake(
        ValueError,
        "the input is 0x5 and the kernel 3x3, but every side must be at least 1 [float32 1x2x0x5 * 2x3x3x3 transposed]",
        nc.conv_transpose2d, X[:, :, :0], W,
    ),
    mistake(
        ValueError,
        "output_padding is 2x1, but it must be less than the stride, 2x2, or the dilation, 1x1: a larger result is"
        f" padded with np.pad {LINE}",
        nc.conv_transpose2d, X, W, stride=2, output_padding=(2, 1),
    ),
    mistake(
        ValueError, f"output_padding is -1, but every output_padding must be at least 0 {LINE}",
        nc.conv_transpose2d, X, W, output_padding=-1,
    ),
    mistake(
        ValueError,
        "output_padding is 1x1, but with padding 'same' the result is 10x10, input times stride: leave one of them out"
        f" {LINE}",
        nc.conv_transpose2d, X, W, stride=2, output_padding=1, padding="same",
    ),
    mistake(
        ValueError, f"the result would be -1x1, but every side must be at least 1: pad less {LINE}",
        nc.conv_transpose2d, X, W, padding=(4, 3),
    ),
    mistake(
        ValueError, f"padding is -1, but it cannot be negative: slice the input instead {LINE}",
        nc.conv_transpose2d, X, W, padding=-1,
    ),
    mistake(
        ValueError, "the bias has shape (2,), but it takes (3,): one per output channel"
        " [float32 1x2x5x5 * 3x2x3x3]",
        nc.conv_transpose2d, X, W, [1, 2],
    ),
    mistake(TypeError, "input_size is 5, but it takes a shape, a tuple of integers", nc.conv2d_input, 5, W, X),
    mistake(TypeError, "weight_size is 5, but it takes a shape, a tuple of integers", nc.conv2d_weight, X, 5, X),
    mistake(
        ValueError,
        "grad_output has shape (1, 2, 5, 5), but the correlation's output has shape (1, 3, 3, 3): check the sizes,"
        f" stride, padding and dilation {FORWARD}",
        nc.conv2d_weight, X, (3, 2, 3, 3), X,
    ),
    mistake(
        ValueError,
        "grad_output has shape (3, 3, 3), but the correlation's output has shape (1, 3, 3, 3): check the sizes, stride,"
        f" padding and dilation {FORWARD}",
        nc.conv2d_input, X.shape, W.swapaxes(0, 1), np.ones((3, 3, 3), np.float32),
    ),
    mistake(
        ValueError,
        "the input has 2 channels, but the weight takes 3 per group and groups is 1: the input's channels must be"
        " groups * weight.shape[1] = 3 [float32 1x2x5x5 * 2x3x3x3]",
        nc.conv2d_input, X.shape, W, X,
    ),
    mistake(
        ValueError, "op is 'adjoint', but it must be one of conv, transpose, input, weight",
        nc.plan, X.shape, W, op="adjoint",
    ),
    mistake(
        TypeError, "op='input' needs the gradient's shape: pass it as size",
        nc.plan, X.shape, W, op="input",
    ),
    mistake(
        TypeError, "op='conv' takes no size: its result's shape follows from x_shape and the weight's",
        nc.plan, X.shape, W, size=X.shape,
    ),
    mistake(
        TypeError, "op='input' takes neither bias nor activation: a gradient has none",
        nc.plan, X.shape, W, op="input", size=X.shape, activation="relu",
    ),
    mistake(
        TypeError, "op='conv' takes no output_padding: it is for op='transpose'",
        nc.plan, X.shape, W, output_padding=1,
    ),
    mistake(
        ValueError, "grad_output has 2 axes, but it takes 3 or, with batch, 4: those of conv2d's output",
        nc.conv2d_bias, X[0, 0],
    ),
    mistake(
        TypeError, "the grad_output is a MaskedArray, but its mask would be lost: fill it first with its filled(0)",
        nc.conv2d_bias, np.ma.array(X),
    ),
])  # fmt: skip
def test_a_mistake_is_one_sentence(call, kind, text):
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert str(caught.value) == text


def test_a_shape_stands_for_an_array_and_a_size_for_itself():
    explained = nc.explain(nc.conv2d_input, (1, 3, 9, 9), (4, 3, 3, 3), (1, 4, 7, 7))
    assert explained.problem.out_shape == (1, 3, 9, 9)
    explained = nc.explain(nc.conv2d_weight, (1, 3, 9, 9), (4, 3, 3, 3), (1, 4, 7, 7))
    assert explained.problem.out_shape == (1, 4, 3, 3, 3)
