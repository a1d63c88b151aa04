"""Pooling against NumPy on windows of a padded input, and against torch where it is installed."""

from __future__ import annotations

import inspect
import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import numconv as nc

MAX = {1: nc.max_pool1d, 2: nc.max_pool2d, 3: nc.max_pool3d}
AVG = {1: nc.avg_pool1d, 2: nc.avg_pool2d, 3: nc.avg_pool3d}
SIZES = {1: 20, 2: 9, 3: 5}
X = np.ones((1, 2, 5, 6), np.float32)
LINE = "[float32 1x2x5x6 pooled by 2x3]"


def extent(size, kernel, stride, padding, dilation, ceil_mode):
    """By torch's formula, with a last window only where it starts within the input or the padding before."""
    steps = (size + 2 * padding - dilation * (kernel - 1) - 1) / stride
    count = (math.ceil if ceil_mode else math.floor)(steps) + 1
    return count - (ceil_mode and (count - 1) * stride >= size + padding)


def windows(x, options, rank):
    """For each output place: its index, its elements (planes, count), their flat index, its count with the padding."""
    per_axis = zip(*[options[name] for name in ("kernel_size", "stride", "padding", "dilation")], strict=True)
    flat, axes = x.reshape(-1, *x.shape[-rank:]), []
    for size, (kernel, stride, padding, dilation) in zip(x.shape[-rank:], per_axis, strict=True):
        starts = [
            o * stride - padding for o in range(extent(size, kernel, stride, padding, dilation, options["ceil_mode"]))
        ]
        taken = [[i for i in range(start, start + dilation * kernel, dilation) if 0 <= i < size] for start in starts]
        axes.append(
            [(inside, min(start + kernel, size + padding) - start) for start, inside in zip(starts, taken, strict=True)]
        )
    for place in itertools.product(*(range(len(axis)) for axis in axes)):
        inside = [axis[i][0] for axis, i in zip(axes, place, strict=True)]
        grid = np.ix_(range(len(flat)), *inside)
        index = np.ravel_multi_index(np.meshgrid(*inside, indexing="ij"), x.shape[-rank:]).reshape(-1)
        yield (
            place,
            flat[grid].reshape(len(flat), -1),
            index,
            math.prod(axis[i][1] for axis, i in zip(axes, place, strict=True)),
        )


def by_definition(x, options, rank, reduce):
    """Every window reduced: reduce(elements, flat index, padded count) gives one number for each plane."""
    found = {place: reduce(*rest) for place, *rest in windows(x, options, rank)}
    shape = np.max(list(found), axis=0) + 1
    values = np.stack([found[place] for place in np.ndindex(*shape)], axis=-1)
    return values.reshape(*x.shape[:-rank], *shape)


@st.composite
def calls(draw, dilated):
    """(input, options for each axis, rank)."""
    rank = draw(st.integers(1, 3))
    axis = lambda strategy: draw(st.tuples(*[strategy] * rank))  # noqa: E731
    kernel, dilation = axis(st.integers(1, 4)), axis(st.integers(1, 2)) if dilated else (1,) * rank
    padding = tuple(draw(st.integers(0, (d * (k - 1) + 1) // 2)) for k, d in zip(kernel, dilation, strict=True))
    # Two elements at least, so that no dilated window steps over the whole input.
    spatial = tuple(
        max(2, d * (k - 1) + 1 - 2 * p) + draw(st.integers(0, SIZES[rank]))
        for k, d, p in zip(kernel, dilation, padding, strict=True)
    )
    options = {
        "kernel_size": kernel,
        "stride": axis(st.integers(1, 4)),
        "padding": padding,
        "dilation": dilation,
        "ceil_mode": draw(st.booleans()),
    }
    leading = draw(st.sampled_from([(2,), (2, 3), (0, 1), (1, 2)]))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    # Few different numbers, so that maxima are equal.
    return rng.integers(-9, 9, leading + spatial).astype(np.float64), options, rank


def with_nan(x, dtype, share=0.1):
    x = x.astype(dtype)
    if x.dtype.kind == "f":
        x[np.random.default_rng(0).random(x.shape) < share] = np.nan
    return x


@settings(max_examples=150)
@given(calls(dilated=True), st.sampled_from(["float32", "float64", "float16", "int64", "uint8", "bool"]))
def test_maxima_and_their_places(call, dtype):
    x, options, rank = call
    x = with_nan(x, dtype)
    best, places = MAX[rank](x, **options, return_indices=True)
    np.testing.assert_array_equal(MAX[rank](x, **options), best)
    assert (best.dtype, places.dtype) == (x.dtype, np.int64)
    if not x.size:
        assert best.size == places.size == 0
        return

    def place(values, index, _):
        last = values.shape[1] - 1 - np.argmax(np.isnan(values)[:, ::-1], axis=1)
        return index[np.where(np.isnan(values).any(axis=1), last, np.argmax(values, axis=1))]

    np.testing.assert_array_equal(best, by_definition(x, options, rank, lambda values, *_: values.max(axis=1)))
    np.testing.assert_array_equal(places, by_definition(x, options, rank, place))


@settings(max_examples=150)
@given(
    calls(dilated=False),
    st.sampled_from(["float32", "float64", "float16", "int16", "uint64", "bool", "complex64"]),
    st.booleans(),
    st.sampled_from([None, 1, 7, -2]),
)
def test_means(call, dtype, count_include_pad, divisor):
    x, options, rank = call
    x = with_nan(np.abs(x) if dtype == "uint64" else x, dtype)
    options = {**options, "count_include_pad": count_include_pad}
    given_options = {name: value for name, value in options.items() if name != "dilation"}
    if rank > 1:
        given_options["divisor_override"] = divisor
    result = AVG[rank](x, **given_options)
    assert result.dtype == (np.float64 if x.dtype.kind in "biu" else x.dtype)
    if not x.size:
        assert result.size == 0
        return

    def mean(values, _, padded):
        count = divisor if divisor and rank > 1 else padded if count_include_pad else values.shape[1]
        # Sums of small integers are exact, so there is one rounding.
        wide = np.result_type(result, np.float32)
        return (values.astype(np.complex128 if wide.kind == "c" else np.float64).sum(axis=1) / count).astype(
            result.dtype
        )

    np.testing.assert_array_equal(result, by_definition(x, options, rank, mean))


@pytest.mark.parametrize("value", [-np.inf, np.nan])
def test_a_window_of_nothing_greater_keeps_the_place_of_the_first_or_of_the_last_nan(value):
    x = np.full((1, 6), value)
    best, places = nc.max_pool1d(x, 3, return_indices=True)
    np.testing.assert_array_equal(best, np.full((1, 2), value))
    assert places.tolist() == ([[2, 5]] if np.isnan(value) else [[0, 3]])
    lowest = np.full((1, 3), -128, np.int8)
    assert nc.max_pool1d(lowest, 3, return_indices=True)[1].tolist() == [[0]]


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_and_layouts_change_no_bit(rng, threads, set_threads):
    x = rng.standard_normal((3, 5, 33, 40), dtype=np.float32)
    expected = nc.avg_pool2d(x, 3, 2, 1), *nc.max_pool2d(x, 3, 2, 1, return_indices=True)
    set_threads(threads)
    frozen = x.copy()
    frozen.flags.writeable = False
    for view in (x[..., ::-1].copy()[..., ::-1], np.asfortranarray(x), frozen, x.astype(">f4")):
        results = nc.avg_pool2d(view, 3, 2, 1), *nc.max_pool2d(view, 3, 2, 1, return_indices=True)
        for ours, theirs in zip(results, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("rank", MAX)
def test_names_order_and_defaults_are_torchs(rank):
    shared = {"input": inspect.Parameter.empty, "kernel_size": inspect.Parameter.empty, "stride": None, "padding": 0}
    maximum = {**shared, "dilation": 1, "ceil_mode": False, "return_indices": False}
    mean = {**shared, "ceil_mode": False, "count_include_pad": True, **({"divisor_override": None} if rank > 1 else {})}
    for function, names in ((MAX[rank], maximum), (AVG[rank], mean)):
        parameters = inspect.signature(function).parameters
        by_place = {name: p.default for name, p in parameters.items() if p.kind is not p.KEYWORD_ONLY}
        assert list(by_place.items()) == list(names.items())


@settings(max_examples=60)
@given(calls(dilated=True), st.sampled_from(["float32", "bool"]))
def test_channels_last_are_pooled_where_they_lie_with_the_same_bits(call, dtype):
    x, options, rank = call
    x = with_nan(x, dtype)
    last = np.ascontiguousarray(np.moveaxis(x, -rank - 1, -1))
    turned = lambda array: np.moveaxis(array, -1, -rank - 1)  # noqa: E731
    results = MAX[rank](last, **options, return_indices=True, layout="NHWC")
    for ours, theirs in zip(results, MAX[rank](x, **options, return_indices=True), strict=True):
        assert ours.flags.c_contiguous
        np.testing.assert_array_equal(turned(ours), theirs)
    np.testing.assert_array_equal(MAX[rank](last, **options, layout="NHWC"), results[0])
    del options["dilation"]
    options["padding"] = tuple(min(p, k // 2) for p, k in zip(options["padding"], options["kernel_size"], strict=True))
    assume(all(n + 2 * p >= k for n, p, k in
               zip(x.shape[-rank:], options["padding"], options["kernel_size"], strict=True)))  # fmt: skip
    for include in (True, False):
        expected = AVG[rank](x, **options, count_include_pad=include)
        result = AVG[rank](last, **options, count_include_pad=include, layout="NHWC")
        np.testing.assert_array_equal(turned(result), expected, strict=True)


@settings(max_examples=200)
@given(calls(dilated=True), st.sampled_from(["float32", "float64"]), st.booleans())
def test_maxima_are_torchs(call, dtype, nans):
    functional = pytest.importorskip("torch.nn.functional", reason="torch is no dependency")
    import torch

    x, options, rank = call
    # Where it is asked for places, torch takes half the kernel at most, not half of what it spans.
    assume(x.size and all(2 * p <= k for p, k in zip(options["padding"], options["kernel_size"], strict=True)))
    x = with_nan(x, dtype, 0.1 * nans)
    theirs = getattr(functional, f"max_pool{rank}d")(torch.from_numpy(x), **options, return_indices=True)
    for mine, their in zip(MAX[rank](x, **options, return_indices=True), theirs, strict=True):
        np.testing.assert_array_equal(mine, their.numpy())


@settings(max_examples=200)
@given(calls(dilated=False), st.sampled_from(["float32", "float64"]), st.booleans(), st.sampled_from([None, 3]))
def test_means_are_torchs(call, dtype, count_include_pad, divisor):
    functional = pytest.importorskip("torch.nn.functional", reason="torch is no dependency")
    import torch

    x, options, rank = call
    # avg_pool3d takes no window larger than the input, whatever the padding.
    assume(x.size and all(k <= n for k, n in zip(options["kernel_size"], x.shape[-rank:], strict=True)))
    del options["dilation"]
    options["count_include_pad"] = count_include_pad
    if rank > 1:
        options["divisor_override"] = divisor
    x = with_nan(x, dtype)
    theirs = getattr(functional, f"avg_pool{rank}d")(torch.from_numpy(x), **options)
    np.testing.assert_array_equal(AVG[rank](x, **options), theirs.numpy())


def error(kind, text, function, *args, **kwargs):
    return pytest.param(lambda: function(*args, **kwargs), kind, text, id=f"{function.__name__}: {text[:60]}")


NUMBERS = "but numconv takes bool, integers, floats and complex numbers: convert it with astype"
BOTH = [
    mistake
    for pool in (nc.max_pool2d, nc.avg_pool2d)
    for mistake in (
        error(TypeError, f"the input has dtype object, {NUMBERS}", pool, np.array([None]), 2),
        error(
            ValueError,
            "the input has 2 axes, but it takes (channels, height, width) or (batch, channels, height, width): add the"
            " missing axes with x[None] [float32 5x6]",
            pool,
            X[0, 0],
            2,
        ),
        error(
            ValueError,
            "the input is empty, but a window takes one element at least [float32 1x2x0x6 pooled by 2x2]",
            pool,
            X[:, :, :0],
            2,
        ),
        error(
            ValueError,
            "kernel_size is (1, 2, 3), but it takes one integer or one for each of the 2 spatial axes"
            " [float32 1x2x5x6]",
            pool,
            X,
            (1, 2, 3),
        ),
        error(ValueError, "kernel_size is 0, but every kernel_size must be at least 1 [float32 1x2x5x6]", pool, X, 0),
        error(TypeError, "kernel_size is 2.5 of type float, but it takes an integer: round it first", pool, X, 2.5),
        error(ValueError, f"stride is 0, but every stride must be at least 1 {LINE}", pool, X, (2, 3), 0),
        error(ValueError, f"padding is -1, but every padding must be at least 0 {LINE}", pool, X, (2, 3), None, -1),
        error(
            ValueError,
            f"padding is 1x2, but it may be half the window at most, which spans 3 {LINE}",
            pool,
            X,
            (2, 3),
            None,
            (1, 2),
        ),
        error(
            ValueError,
            "the window spans 7 with its dilation, but the padded input has only 5: pad more or take a smaller window"
            " [float32 1x2x5x6 pooled by 7x1]",
            pool,
            X,
            (7, 1),
        ),
        error(TypeError, "ceil_mode is 1, but it takes True or False", pool, X, 2, ceil_mode=1),
        error(
            ValueError,
            "the input has 2 axes, but it takes (height, width, channels) or (batch, height, width, channels): add the"
            " missing axes with x[None] [float32 5x6]",
            pool,
            X[0, 0],
            2,
            layout="NHWC",
        ),
        error(
            ValueError,
            "layout is 'NHC', but it must be 'NCHW' or 'NHWC', where HW stands for all spatial axes [float32 1x2x5x6]",
            pool,
            X,
            2,
            layout="NHC",
        ),
    )
]
ONE = [
    error(
        TypeError,
        "complex numbers have no order: take the maximum of np.abs, say [complex64 1x2x5x6 pooled by 2x2]",
        nc.max_pool2d,
        X.astype(np.complex64),
        2,
    ),
    error(
        ValueError, f"dilation is 0, but every dilation must be at least 1 {LINE}", nc.max_pool2d, X, (2, 3), dilation=0
    ),
    error(TypeError, "return_indices is 'no', but it takes True or False", nc.max_pool2d, X, 2, return_indices="no"),
    *(
        error(
            TypeError,
            f"the input has dtype {X.astype(np.longdouble).dtype.name}, but numconv takes bool, integers, float16 to"
            f" float64, complex64 and complex128: convert it with astype [{X.astype(np.longdouble).dtype.name}"
            f" {'x'.join(map(str, X.shape))}]",
            function,
            X.astype(np.longdouble),
            2,
        )
        for function in (nc.max_pool2d, nc.avg_pool2d)
    ),
    error(TypeError, "count_include_pad is 0, but it takes True or False", nc.avg_pool2d, X, 2, count_include_pad=0),
    error(
        ValueError,
        f"divisor_override is 0, but nothing is divided by 0 {LINE}",
        nc.avg_pool2d,
        X,
        (2, 3),
        divisor_override=0,
    ),
    error(
        TypeError,
        "divisor_override is 2.0 of type float, but it takes an integer: round it first",
        nc.avg_pool2d,
        X,
        2,
        divisor_override=2.0,
    ),
]


@pytest.mark.parametrize(("call", "kind", "text"), [*BOTH, *ONE])
def test_a_mistake_is_one_sentence(call, kind, text):
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert str(caught.value) == text


def test_a_window_larger_than_the_input_is_kept_where_it_ends_beyond():
    """As in torch: the only one, and the mean over what there is."""
    x = np.arange(1.0, 5.0)[None]
    assert nc.max_pool1d(x, 5, ceil_mode=True).tolist() == [[4]]
    assert nc.avg_pool1d(x, 5, ceil_mode=True).tolist() == [[2.5]]
    assert nc.max_pool1d(x, 3, 2, dilation=2, ceil_mode=True).tolist() == [[3]]
    with pytest.raises(ValueError, match="the window spans 5"):
        nc.max_pool1d(x, 5, 1, ceil_mode=True)


def test_a_window_that_meets_padding_alone_has_no_place():
    best, places = nc.max_pool1d(np.ones((1, 1)), 2, padding=1, dilation=2, return_indices=True)
    assert best.tolist() == [[-np.inf]]
    assert places.tolist() == [[-1]]
