"""A mistake in each argument of each public function other than conv2d is one sentence, by its exact text."""

from __future__ import annotations

import re

import numpy as np
import pytest

import numconv as nc
from numconv.validate import refuse

ONES = np.ones((5, 5))
NUMBERS = "but numconv takes bool, integers, floats and complex numbers: convert it with astype"
SHAPE = "but it takes the shape of the inputs to come, a tuple of integers"
WEIGHT = np.ones((4, 2, 3, 3), np.float32)
LAYER = nc.plan((1, 2, 5, 5), WEIGHT)
X = np.ones((1, 2, 5, 5), np.float32)
LINE = "[float32 1x2x5x5 * 4x2x3x3]"
TEXTBOOK = [nc.corr2d, nc.corr2d_multi_in, nc.corr2d_multi_in_out, nc.corr2d_multi_in_out_1x1, nc.trans_conv]


def error(kind, text, function, *args, **kwargs):
    call = lambda: function(*args, **kwargs)  # noqa: E731  # a table of calls
    return pytest.param(call, kind, text, id=f"{getattr(function, '__name__', 'plan()')}: {text.split(' [')[0][:60]}")


PLANS = [
    error(TypeError, f"x_shape is 5, {SHAPE}", nc.plan, 5, WEIGHT),
    error(
        TypeError, f"x_shape is None, {SHAPE}", nc.plan, None, WEIGHT
    ),
    error(TypeError, "x_shape is 2.0 of type float, but it takes an integer: round it first", nc.plan, [2.0], WEIGHT),
    error(ValueError, "the shape is (1, 2, -5), but no side of an array can be negative", nc.plan, (1, 2, -5), WEIGHT),
    error(
        ValueError,
        "the weight has 2 axes, but it takes 3 to 5: (output channels, input channels per group, and one to three"
        " spatial axes)",
        nc.plan, (1, 2, 5, 5), ONES,
    ),
    error(
        TypeError, "x_dtype is 'foo', but it takes a dtype, such as np.float32 or 'float32'",
        nc.plan, (1, 2, 5, 5), WEIGHT, x_dtype="foo",
    ),
    error(
        TypeError,
        f"the input has dtype object, {NUMBERS}",
        nc.plan, (1, 2, 5, 5), WEIGHT, x_dtype=object,
    ),
    error(
        ValueError,
        f"the input has shape (2, 5, 5), but this plan takes (1, 2, 5, 5): make a plan for each shape {LINE}",
        LAYER, X[0],
    ),
    error(
        TypeError,
        f"the input has dtype float64, but this plan takes float32: convert it with astype or make the plan with"
        f" x_dtype=float64 {LINE}",
        LAYER, X.astype(float),
    ),
    error(
        TypeError, "the input is a MaskedArray, but its mask would be lost: fill it first with its filled(0)",
        LAYER, np.ma.array(X),
    ),
    error(
        ValueError,
        f"out has shape (4, 5, 5), but the result has shape (1, 4, 3, 3): make it np.empty of that {LINE}",
        LAYER, X, out=np.ones((4, 5, 5), np.float32),
    ),
    error(
        ValueError,
        "out shares memory with an input, but the inputs are read while it is written: pass a copy"
        " [float32 1x2x5x5 * 2x2x1x1]",
        nc.plan(X.shape, np.ones((2, 2, 1, 1), np.float32)), X, out=X,
    ),
]  # fmt: skip

BOOK = [
    error(
        ValueError, "X has 3 axes and shape (2, 5, 5), but it takes 2: (h, w) [X (2, 5, 5), K (5, 5)]",
        nc.corr2d, np.ones((2, 5, 5)), ONES,
    ),
    error(
        ValueError, "K has 1 axes and shape (2,), but it takes 2: (kh, kw) [X (5, 5), K (2,)]", nc.corr2d, ONES, [1, 2]
    ),
    error(
        ValueError, "X has 2 axes and shape (5, 5), but it takes 3: (ci, h, w) [X (5, 5), K (5, 5)]",
        nc.corr2d_multi_in, ONES, ONES,
    ),
    error(
        ValueError, "K has 2 axes and shape (5, 5), but it takes 4: (co, ci, kh, kw) [X (1, 5, 5), K (5, 5)]",
        nc.corr2d_multi_in_out, ONES[None], ONES,
    ),
    error(
        ValueError, "K has 3 axes and shape (1, 5, 5), but it takes 4: (co, ci, 1, 1) [X (1, 5, 5), K (1, 5, 5)]",
        nc.corr2d_multi_in_out_1x1, ONES[None], ONES[None],
    ),
    error(
        ValueError,
        "K has a 5x5 kernel, but this function takes 1x1: call corr2d_multi_in_out [X (1, 5, 5), K (1, 1, 5, 5)]",
        nc.corr2d_multi_in_out_1x1, ONES[None], ONES[None, None],
    ),
    error(
        ValueError, "X has 0 axes and shape (), but it takes 2: (h, w) [X (), K (5, 5)]", nc.trans_conv, 1, ONES
    ),
    *(
        error(
            ValueError,
            "the kernel spans 5 with its dilation, but the padded input has only 4: pad more or take a smaller kernel"
            f" [float64 {x} * {weight}]",
            function, np.ones(x_shape), np.ones(k_shape),
        )
        for function, x_shape, k_shape, x, weight in (
            (nc.corr2d, (9, 4), (5, 5), "1x9x4", "1x1x5x5"),
            (nc.corr2d_multi_in, (3, 4, 9), (3, 5, 2), "3x4x9", "1x3x5x2"),
            (nc.corr2d_multi_in_out, (3, 4, 9), (2, 3, 5, 2), "3x4x9", "2x3x5x2"),
        )
    ),
    *(
        error(
            ValueError,
            f"the input has 2 channels, but the weight takes 3 per group and groups is 1: the input's channels must be"
            f" groups * weight.shape[1] = 3 [float64 2x5x5 * {weight}]",
            function, np.ones((2, 5, 5)), np.ones(k_shape),
        )
        for function, k_shape, weight in (
            (nc.corr2d_multi_in, (3, 2, 2), "1x3x2x2"),
            (nc.corr2d_multi_in_out, (4, 3, 2, 2), "4x3x2x2"),
            (nc.corr2d_multi_in_out_1x1, (4, 3, 1, 1), "4x3x1x1"),
        )
    ),
]  # fmt: skip

POOLS = [
    error(ValueError, "X has 3 axes and shape (1, 5, 5), but pool2d takes 2: (h, w)", nc.pool2d, ONES[None], (2, 2)),
    error(TypeError, "pool_size is 2, but it takes two integers (ph, pw)", nc.pool2d, ONES, 2),
    error(ValueError, "pool_size is (2, 2, 2), but it takes two integers (ph, pw)", nc.pool2d, ONES, (2, 2, 2)),
    error(
        TypeError, "pool_size is 2.5 of type float, but it takes an integer: round it first", nc.pool2d, ONES, [2.5, 2]
    ),
    error(ValueError, "pool_size is 0x2, but it must be at least 1x1 and at most X's 5x5", nc.pool2d, ONES, (0, 2)),
    error(ValueError, "pool_size is 2x6, but it must be at least 1x1 and at most X's 5x5", nc.pool2d, ONES, (2, 6)),
    error(
        TypeError,
        "complex numbers have no order: take the maximum of np.abs, say [complex128 1x5x5 pooled by 2x2]",
        nc.pool2d, ONES * 1j, (2, 2),
    ),
    error(ValueError, "mode is 'min', but it must be one of max, avg", nc.pool2d, ONES, (2, 2), "min"),
    error(
        TypeError,
        f"the input X has dtype <U1, {NUMBERS}",
        nc.pool2d, [["a"]], (1, 1),
    ),
]  # fmt: skip

LOOKS = [
    error(
        TypeError,
        f"{name} is no correlation of numconv, so there is nothing to plan: pass conv2d, say, and its arguments",
        look, function, (5, 5), (2, 2),
    )
    for look in (nc.explain, nc.cost)
    for name, function in (("pool2d", nc.pool2d), ("add", np.add), ("plan", nc.plan), ("3", 3))
] + [
    error(
        ValueError, "the shape is (1, -2), but no side of an array can be negative", look, nc.conv2d, (1, -2), WEIGHT
    )
    for look in (nc.explain, nc.cost)
]  # fmt: skip


# An array where a word or a flat tuple belongs: `==` of it is another array.
ARRAY = np.array([[1, 2], [3, 4]])
ARRAYS = [
    error(TypeError, "input_size is ((1, 2), (3, 4)), but it takes a shape, a tuple of integers",
          nc.conv2d_input, ((1, 2), (3, 4)), WEIGHT, X),
    error(TypeError, f"x_shape is ((1, 2),), {SHAPE}", nc.plan, ((1, 2),), WEIGHT),
    error(ValueError, f"op is {ARRAY!r}, but it must be one of conv, transpose, input, weight",
          nc.plan, X.shape, WEIGHT, op=ARRAY),
    error(TypeError, "op='conv' takes no output_padding: it is for op='transpose'",
          nc.plan, X.shape, WEIGHT, output_padding=np.array([1, 2])),
    error(ValueError, f"rtol_kind is {ARRAY!r}, but it must be one of expected, bound",
          nc.conv2d, X, WEIGHT, rtol_kind=ARRAY),
    error(TypeError, f"rtol is {10**400}, but it takes a number or None", nc.conv2d, X, WEIGHT, rtol=10**400),
    error(TypeError, f"device is {ARRAY!r}, but it takes 'cuda', 'cuda:1' (a device's number), 'cpu' or None",
          nc.conv2d, X, WEIGHT, device=ARRAY),
    error(ValueError, f"layout is {ARRAY!r}, but it must be 'NCHW' or 'NHWC', where HW stands for all spatial axes"
          " [float32 (1, 2, 5, 5)]", nc.conv2d_bias, X, layout=ARRAY),
    error(ValueError, f"mode is {ARRAY!r}, but it must be one of max, avg", nc.pool2d, ONES, (2, 2), ARRAY),
    error(ValueError, f"mode is {ARRAY!r}, but acceptable mode flags are 'valid', 'same', or 'full'",
          nc.signal.correlate, ONES, ONES, ARRAY),
    error(TypeError, f"method is {ARRAY!r}, but it takes a word: see help(numconv.conv2d) for those it knows",
          nc.signal.correlate, ONES, ONES, method=ARRAY),
    error(ValueError, "boundary is ['fill'], but acceptable boundary flags are 'fill', 'circular' (or 'wrap'), and"
          " 'symmetric' (or 'symm')", nc.signal.correlate2d, ONES, ONES, boundary=["fill"]),
    error(TypeError, "axes is 1.5, but it cannot be interpreted as an integer or several: round it first",
          nc.ndimage.correlate, ONES, ONES, axes=1.5),
    error(ValueError, f"divisor_override is {2**63}, but it must be below 2**63: divide the sums by it"
          " [float32 1x2x5x5 pooled by 2x2]", nc.avg_pool2d, X, 2, divisor_override=2**63),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "text"), [*PLANS, *BOOK, *POOLS, *LOOKS, *ARRAYS])
def test_a_mistake_is_one_sentence(call, kind, text):
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert str(caught.value) == text


@pytest.mark.parametrize("function", TEXTBOOK, ids=lambda function: function.__name__)
@pytest.mark.parametrize(("position", "name"), [(0, "input X"), (1, "kernel K")])
def test_the_textbooks_functions_name_the_argument_that_is_no_array_of_numbers(function, position, name):
    arguments = [ONES, ONES]
    for value, kind, start in (
        (np.array([None]), TypeError, f"the {name} has dtype object, but numconv takes bool"),
        (np.ma.array(ONES), TypeError, f"the {name} is a MaskedArray, but its mask would be lost"),
        ([[1], [1, 2]], ValueError, f"the {name} is a list that is no array"),
    ):
        arguments[position] = value
        with pytest.raises(kind, match=f"^{start}"):
            function(*arguments)


def test_an_argument_too_few_is_a_type_error():
    for call in (nc.conv2d, nc.explain, lambda: nc.explain(nc.conv2d), lambda: nc.plan((1, 2, 5, 5))):
        with pytest.raises(TypeError, match=r"missing .*argument"):
            call()


def test_an_unknown_option_is_a_type_error():
    for call in (
        lambda: nc.conv2d(X, WEIGHT, strides=2),
        lambda: nc.explain(nc.conv2d, X, WEIGHT, strides=2),
        lambda: nc.plan(X.shape, WEIGHT, strides=2),
    ):
        with pytest.raises(TypeError, match=r"unexpected keyword argument '?strides"):
            call()


def test_every_refusal_ends_with_the_line():
    with pytest.raises(ValueError, match=re.escape("it cannot [float32 1x1]")):
        refuse(ValueError, "it cannot", "float32 1x1")
