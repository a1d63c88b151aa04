"""conv_integer: exact, as ONNX's ConvInteger has it, and every mistake one sentence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import numconv as nc

BYTES = st.sampled_from(["int8", "uint8"])
X, W = np.ones((1, 2, 5, 5), np.uint8), np.ones((4, 2, 3, 3), np.int8)


def definition(x, w, x_zero_point, w_zero_point, stride, padding, dilation, groups):
    """The padding holds the zero point; then both lose theirs, and int64 adds up."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)), constant_values=x_zero_point)
    x = x.astype(np.int64) - int(x_zero_point)
    w = w.astype(np.int64) - np.asarray(w_zero_point, np.int64).reshape(-1, 1, 1, 1)
    return nc.conv2d(x, w, None, stride, 0, dilation, groups)


@settings(max_examples=60)
@given(st.data(), BYTES, BYTES, st.integers(1, 2), st.integers(0, 2), st.integers(1, 2), st.integers(1, 2))
def test_it_is_the_correlation_of_the_differences(data, x_dtype, w_dtype, stride, padding, dilation, groups):
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    zero = {"int8": st.integers(-128, 127), "uint8": st.integers(0, 255)}
    draw = lambda shape, dtype: rng.integers(*(-128, 128) if dtype == "int8" else (0, 256), shape).astype(dtype)  # noqa: E731
    x, w = draw((2, 2 * groups, 7, 6), x_dtype), draw((2 * groups, 2, 3, 2), w_dtype)
    x_zero_point = data.draw(zero[x_dtype])
    w_zero_point = data.draw(zero[w_dtype] | st.lists(zero[w_dtype], min_size=len(w), max_size=len(w)))
    arguments = (x, w, x_zero_point, w_zero_point, stride, padding, dilation, groups)
    result = nc.conv_integer(*arguments)
    assert result.dtype == np.int32
    np.testing.assert_array_equal(result, definition(*arguments))


def test_the_example_of_onnx():
    # onnx/backend/test/case/node/convinteger.py: with and without padding.
    x, w = np.arange(2, 11, dtype=np.uint8).reshape(1, 1, 3, 3), np.ones((1, 1, 2, 2), np.uint8)
    assert nc.conv_integer(x, w, np.uint8(1)).tolist() == [[[[12, 16], [24, 28]]]]
    expected = [[[[1, 3, 5, 3], [5, 12, 16, 9], [11, 24, 28, 15], [7, 15, 17, 9]]]]
    assert nc.conv_integer(x, w, np.uint8(1), padding=1).tolist() == expected


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_weight_tells_how_many_axes_are_spatial(rank):
    x, w = np.full((2, *(4,) * rank), 3, np.uint8), np.full((1, 2, *(2,) * rank), -1, np.int8)
    expected = -2 * 2 * 2**rank
    assert nc.conv_integer(x, w, x_zero_point=1).tolist() == np.full((1, *(3,) * rank), expected).tolist()


def test_a_sum_beyond_int32_raises_or_wraps():
    x = np.full((40_000, 1), 255, np.uint8)
    w = x[None]
    with pytest.raises(OverflowError, match=r"a sum is 2601000000, but int32 holds"):
        nc.conv_integer(x, w)
    assert nc.conv_integer(x, w, overflow="wrap").tolist() == [[2601000000 - 2**32]]


def test_it_is_explained_and_writes_to_out():
    assert nc.explain(nc.conv_integer, X, W).chosen == "loops"
    out = np.empty((1, 4, 3, 3), np.int32)
    assert nc.conv_integer(X, W, out=out) is out
    assert (out == 18).all()


@pytest.mark.parametrize(
    ("kind", "text", "arguments"),
    [
        (TypeError, "x has dtype float64, but conv_integer takes int8 and uint8: conv2d takes others", (X * 1.0, W)),
        (
            TypeError,
            "w has dtype int16, but conv_integer takes int8 and uint8: conv2d takes others",
            (X, W * np.int16(1)),
        ),
        (TypeError, "x_zero_point has dtype float64, but it takes integers", (X, W, 1.0)),
        (TypeError, "w_zero_point has dtype bool, but it takes integers", (X, W, 0, True)),
        (ValueError, "x_zero_point is -1, but x is uint8, which holds 0 to 255", (X, W, -1)),
        (ValueError, "w_zero_point is [0, 128], but w is int8, which holds -128 to 127", (X, W, 0, [0, 128])),
        (ValueError, "x_zero_point has shape (2,), but it takes one integer for the whole of x", (X, W, [0, 1])),
        (
            ValueError,
            "w_zero_point has shape (3,), but it takes one integer, or one for each of w's output channels: shape (4,)",
            (X, W, 0, [1, 2, 3]),
        ),
        (
            ValueError,
            "w has 2 axes, but it takes 3 to 5: (output channels, input channels per group, and one to three spatial"
            " axes)",
            (X, W[0, 0]),
        ),
        (
            ValueError,
            "stride is 0, but every stride must be at least 1 [uint8 1x2x5x5 * 4x2x3x3]",
            (X, W, 0, 0, 0),
        ),
    ],
)
def test_a_mistake_is_one_sentence(kind, text, arguments):
    with pytest.raises(kind) as caught:
        nc.conv_integer(*arguments)
    assert str(caught.value) == text
