"""Every mistake is one sentence, by its exact text, and changes nothing."""

from __future__ import annotations

import numpy as np
import pytest

import numconv as nc
from numconv import jit
from numconv.cpu import loops, tiled
from numconv.machine import machine
from numconv.methods import methods
from numconv.validate import describe

F4 = np.float32
NUMBERS = "but numconv takes bool, integers, floats and complex numbers: convert it with astype"
X, W, B = np.ones((1, 2, 5, 5), F4), np.ones((4, 2, 3, 3), F4), np.ones(4, F4)
HELP = "see help(numconv.conv2d) for those it knows"
NAMES = ", ".join(method.NAME for method in methods())
LINE = "[float32 1x2x5x5 * 4x2x3x3]"
# Bytes of scratch that the methods take at least for X and W.
LEAST = {
    method.NAME: method.scratch_bytes(describe(2, X.shape, X.dtype, W.shape, W.dtype), machine(jit.threads(), 9))
    for method in (tiled, loops)
}


def conv(x=X, weight=W, bias=None, **options):
    call = lambda: nc.conv2d(x, weight, bias, **options)  # noqa: E731  # a table of calls
    call.arguments = {"x": x, "weight": weight, "bias": bias, **options}
    return call


def error(kind, text, call, name=None):
    return pytest.param(call, kind, text, id=name or text.split(" [")[0][:70])


ARRAYS = [
    error(
        TypeError,
        f"the input has dtype object, {NUMBERS}",
        conv(x=np.array([None, 1])),
    ),
    error(
        TypeError,
        f"the weight has dtype <U3, {NUMBERS}",
        conv(weight="abc"),
    ),
    error(
        TypeError,
        f"the bias has dtype datetime64[D], {NUMBERS}",
        conv(bias=np.array(["2020-01-01"], "M8[D]")),
    ),
    error(
        TypeError,
        "the input has dtype float128, but numconv takes bool, integers, float16 to float64, complex64 and complex128:"
        " convert it with astype [float128 1x2x5x5 * 4x2x3x3]".replace("float128", np.dtype(np.longdouble).name),
        conv(x=X.astype(np.longdouble)),
    ),
    error(
        TypeError,
        "the input is a MaskedArray, but its mask would be lost: fill it first with its filled(0)",
        conv(x=np.ma.masked_equal(X, 0)),
    ),
    error(
        ValueError,
        "the weight is a list that is no array: setting an array element with a sequence. The requested array has an"
        " inhomogeneous shape after 1 dimensions. The detected shape was (2,) + inhomogeneous part.",
        conv(weight=[[1], [1, 2]]),
    ),
    error(
        TypeError,
        "the input is uint64 and the weight int8, but no integer dtype holds the sums of both: convert one so that both"
        " are signed or both unsigned [uint64 1x2x5x5 * 4x2x3x3]",
        conv(X.astype(np.uint64), W.astype(np.int8)),
    ),
    error(
        TypeError,
        f"the bias has dtype complex128, but the sums are float32, which cannot hold it: convert the bias, or the input"
        f" {LINE}",
        conv(bias=[1j, 0, 0, 0]),
    ),
    error(
        TypeError,
        "the bias has dtype float64, but the sums are int64, which cannot hold it: convert the bias, or the input"
        " [int64 1x2x5x5 * 4x2x3x3]",
        conv(X.astype(int), W.astype(int), [0.5, 0, 0, 0]),
    ),
]

SHAPES = [
    error(
        ValueError,
        "the input has 2 axes, but it takes (channels, height, width) or (batch, channels, height, width): add the"
        " missing axes with x[None] [float32 5x5 * 4x2x3x3]",
        conv(x=X[0, 0]),
    ),
    error(
        ValueError,
        "the input has 0 axes, but it takes (channels, width) or (batch, channels, width): add the missing axes with"
        " x[None] [int64 scalar * 1x1x1]",
        lambda: nc.conv1d(3, [[[1]]]),
    ),
    error(
        ValueError,
        "the input has 3 axes, but it takes (channels, depth, height, width) or (batch, channels, depth, height,"
        " width): add the missing axes with x[None] [float32 2x5x5 * 4x2x3x3]",
        lambda: nc.conv3d(X[0], W),
        "3-D rank",
    ),
    error(
        ValueError,
        "the weight has 3 axes, but it takes 4: (output channels, input channels per group, height, width)"
        " [float32 1x2x5x5 * 2x3x3]",
        conv(weight=W[0]),
    ),
    error(
        ValueError,
        "the input has 2 channels, but the weight takes 3 per group and groups is 1: the input's channels must be"
        " groups * weight.shape[1] = 3 [float32 1x2x5x5 * 4x3x3x3]",
        conv(weight=np.ones((4, 3, 3, 3), F4)),
    ),
    error(
        ValueError,
        "the kernel spans 9 with its dilation, but the padded input has only 7: pad more or take a smaller kernel"
        f" {LINE}",
        conv(dilation=4, padding=1),
    ),
    error(
        ValueError,
        "the kernel is 0x3, but every side of it must be at least 1 [float32 1x2x5x5 * 4x2x0x3]",
        conv(weight=np.ones((4, 2, 0, 3), F4)),
    ),
    error(ValueError, f"the bias has shape (3,), but it takes (4,): one per output channel {LINE}", conv(bias=[1] * 3)),
    error(
        ValueError,
        "the input is empty, so padding_mode 'circular' has nothing to repeat: use 'zeros' [float32 1x2x0x5 * 4x2x3x3]",
        conv(x=np.ones((1, 2, 0, 5), F4), padding=3, padding_mode="circular"),
    ),
]

PADDINGS = "one integer, one for each of the 2 spatial axes, one (before, after) pair for each, or one of"
WORDS = "valid, same, same_lower, full"
OPTIONS = [
    error(ValueError, f"stride is 0, but every stride must be at least 1 {LINE}", conv(stride=0)),
    error(ValueError, f"stride is (1, -1), but every stride must be at least 1 {LINE}", conv(stride=(1, -1))),
    error(ValueError, f"stride is {2**63}, but every stride must be below 2**63 {LINE}", conv(stride=2**63)),
    error(
        ValueError,
        f"stride is (1, 2, 3), but it takes one integer or one for each of the 2 spatial axes {LINE}",
        conv(stride=[1, 2, 3]),
    ),
    error(
        ValueError,
        f"stride is 'same', but it takes one integer or one for each of the 2 spatial axes {LINE}",
        conv(stride="same"),
    ),
    error(TypeError, "stride is 1.5 of type float, but it takes an integer: round it first", conv(stride=1.5)),
    error(TypeError, "stride is True, but it takes an integer: pass 1 if that is meant", conv(stride=True)),
    error(ValueError, f"dilation is 0, but every dilation must be at least 1 {LINE}", conv(dilation=0)),
    error(TypeError, "dilation is 2.0 of type float, but it takes an integer: round it first", conv(dilation=(1, 2.0))),
    error(
        ValueError,
        f"padding is {2**40}, but each side must be below 2**40, which no memory holds {LINE}",
        conv(padding=2**40),
    ),
    error(
        ValueError,
        f"the result would take {16 * (2 * 10**9 + 3) ** 2} bytes, more than there are addresses: pad less"
        f" {LINE[:-1]} padding {10**9}]",
        conv(padding=10**9),
    ),
    error(ValueError, f"padding is -1, but it cannot be negative: slice the input instead {LINE}", conv(padding=-1)),
    error(
        ValueError,
        f"padding is ((0, 1), (0, -2)), but it cannot be negative: slice the input instead {LINE}",
        conv(padding=[(0, 1), (0, -2)]),
    ),
    error(ValueError, f"padding is 'big', but as a word it must be one of {WORDS} {LINE}", conv(padding="big")),
    error(ValueError, f"padding is None, but it takes {PADDINGS} {WORDS} {LINE}", conv(padding=None)),
    error(ValueError, f"padding is (1, 2, 3), but it takes {PADDINGS} {WORDS} {LINE}", conv(padding=(1, 2, 3))),
    error(
        ValueError, f"padding is ((1, 2, 3), 0), but it takes {PADDINGS} {WORDS} {LINE}", conv(padding=[(1, 2, 3), 0])
    ),
    error(TypeError, "padding is {} of type dict, but it takes an integer: round it first", conv(padding={})),
    error(ValueError, f"groups is 0, but it must be at least 1 {LINE}", conv(groups=0)),
    error(
        ValueError,
        f"groups is 3, but it must divide both the 2 input channels and the 4 output channels {LINE}",
        conv(groups=3),
    ),
    error(
        ValueError,
        "groups is 2, but it must divide both the 2 input channels and the 3 output channels"
        " [float32 1x2x5x5 * 3x1x3x3]",
        conv(weight=W[:3, :1], groups=2),
    ),
    error(
        ValueError,
        f"the input has 2 channels, but the weight takes 2 per group and groups is 2: the input's channels must be"
        f" groups * weight.shape[1] = 4 {LINE}",
        conv(groups=2),
    ),
    error(TypeError, "groups is (1,) of type tuple, but it takes an integer: round it first", conv(groups=(1,))),
    error(TypeError, "groups is True, but it takes an integer: pass 1 if that is meant", conv(groups=True)),
    error(
        ValueError,
        "padding_mode is 'wrap', but it must be one of zeros, constant, reflect, replicate, circular, symmetric"
        f" {LINE}",
        conv(padding_mode="wrap"),
    ),
    error(
        TypeError,
        f"padding_mode is 0, but it takes a word: {HELP}",
        conv(padding_mode=0),
    ),
    error(
        ValueError,
        f"padding_value is 3, but padding_mode is 'zeros': pass padding_mode='constant' {LINE}",
        conv(padding_value=3),
    ),
    error(TypeError, "padding_value is [1, 2], but it takes one number", conv(padding_value=[1, 2])),
    error(
        TypeError,
        f"padding_value is 2j, but the sums are float32, which cannot hold it: convert the input {LINE}",
        conv(padding_mode="constant", padding_value=2j),
    ),
    error(ValueError, f"activation is 'gelu', but it must be None or 'relu' {LINE}", conv(activation="gelu")),
    error(TypeError, f"activation is 1, but it takes a word: {HELP}", conv(activation=1)),
    error(
        TypeError,
        "activation is 'relu', but complex numbers have no order: apply it to a real result"
        " [complex64 1x2x5x5 * 4x2x3x3]",
        conv(X.astype(np.complex64), W.astype(np.complex64), activation="relu"),
    ),
    error(TypeError, "dtype is 'foo', but it takes a dtype, such as np.float32 or 'float32'", conv(dtype="foo")),
    *(
        error(
            TypeError,
            f"dtype is {np.dtype(dtype).name}, but a result of float32 cannot become that: ask for an integer, float16"
            f" to float64, complex64 or complex128 of the same kind or wider, or convert the result with astype {LINE}",
            conv(dtype=dtype),
        )
        for dtype in (object, bool, np.longdouble)
    ),
    error(
        ValueError,
        f"overflow is 'clip', but it must be None, 'raise', 'wrap' or 'saturate' {LINE}",
        conv(overflow="clip"),
    ),
    error(TypeError, f"overflow is True, but it takes a word: {HELP}", conv(overflow=True)),
    error(
        ValueError,
        "overflow is 'wrap', but the sums are float32, and only integers wrap around: 'raise' and 'saturate' serve"
        f" floats {LINE}",
        conv(dtype=np.uint8, overflow="wrap"),
    ),
    error(TypeError, "conjugate is 1, but it takes True or False", conv(conjugate=1)),
]

METHODS = [
    error(
        ValueError,
        f"method is 'best', but it must be one of auto, {NAMES} {LINE}",
        conv(method="best"),
    ),
    error(TypeError, f"method is None, but it takes a word: {HELP}", conv(method=None)),
    error(
        ValueError,
        f"method='matmul' does not serve: the kernel has 9 taps, but a matrix product takes 1x1; 'auto' finds one that"
        f" does {LINE}",
        conv(method="matmul"),
    ),
    error(
        ValueError,
        "method='matmul' does not serve: it leaves the one order of summation, and reproducible=True excludes that;"
        " 'auto' finds one that does [float32 1x2x5x5 * 4x2x1x1]",
        conv(weight=W[:, :, :1, :1], method="matmul", reproducible=True),
    ),
    error(
        ValueError,
        "method='matmul' does not serve: its expected error is 1.2e-07, over rtol=1e-09; 'auto' finds one that does"
        " [float32 1x2x5x5 * 4x2x1x1]",
        conv(weight=W[:, :, :1, :1], method="matmul", rtol=1e-9),
    ),
    error(
        ValueError,
        "method='matmul' does not serve: its proved error bound is 1.2e-07, over rtol=1e-09; 'auto' finds one that does"
        " [float32 1x2x5x5 * 4x2x1x1]",
        conv(weight=W[:, :, :1, :1], method="matmul", rtol=1e-9, rtol_kind="bound"),
    ),
    error(
        ValueError,
        "rtol is -1, but it must be zero or more, or None for direct summation or BLAS",
        conv(rtol=-1),
    ),
    error(
        ValueError,
        "rtol is nan, but it must be zero or more, or None for direct summation or BLAS",
        conv(rtol=float("nan")),
    ),
    *(
        error(TypeError, f"rtol is {value!r}, but it takes a number or None", conv(rtol=value))
        for value in ("0.1", True, 1j, [1, 2])
    ),
    error(ValueError, "rtol_kind is 'proved', but it must be one of expected, bound", conv(rtol_kind="proved")),
    error(TypeError, "reproducible is 'no', but it takes True or False", conv(reproducible="no")),
    error(ValueError, "workspace is -1, but it must be zero bytes or more, or None for no wish", conv(workspace=-1)),
    error(
        TypeError,
        "workspace is 1e6 of type float, but it takes an integer: round it first".replace("1e6", "1000000.0"),
        conv(workspace=1e6),
    ),
    error(TypeError, "workspace is True, but it takes an integer: pass 1 if that is meant", conv(workspace=True)),
    error(
        ValueError,
        f"method='tiled' does not serve: its smallest windows take {LEAST['tiled']} bytes on {jit.threads()} threads,"
        f" but a call may take 9; 'auto' finds one that does {LINE}",
        conv(method="tiled", workspace=9),
    ),
    error(
        ValueError,
        f"method='loops' does not serve: it takes {LEAST['loops']} bytes of scratch at least, over workspace=9; 'auto'"
        f" finds one that does {LINE}",
        conv(method="loops", workspace=9),
    ),
    error(
        ValueError,
        f"workspace is 9, but every method needs scratch: allow {LEAST['loops']} bytes at least {LINE}",
        conv(workspace=9),
    ),
]


@pytest.mark.parametrize(("call", "kind", "text"), [*ARRAYS, *SHAPES, *OPTIONS, *METHODS])
def test_a_mistake_is_one_sentence_and_changes_nothing(call, kind, text):
    watched = [X, W, B]
    before = [array.tobytes() for array in watched]
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert str(caught.value) == text
    assert [array.tobytes() for array in watched] == before


def elsewhere(function, x, weight, bias, **options):
    """The same mistake through the other ways in."""
    if function is nc.plan:
        return nc.plan(x.shape, weight, bias, x_dtype=x.dtype, **options)
    return function(nc.conv2d, x, weight, bias, **options)


@pytest.mark.parametrize("function", [nc.plan, nc.explain, nc.cost], ids=lambda function: function.__name__)
@pytest.mark.parametrize(("call", "kind", "text"), [*OPTIONS, *METHODS])
def test_plan_explain_and_cost_make_the_same_sentences(function, call, kind, text):
    with pytest.raises(kind) as caught:
        elsewhere(function, **call.arguments)
    assert str(caught.value) == text
