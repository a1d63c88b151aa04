"""numconv.signal gives what scipy.signal gives, with its shapes and dtypes; and what it has beyond."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

import numconv as nc

MODES = ("full", "same", "valid")
SHAPES = [
    ((7,), (3,)),
    ((3,), (8,)),
    ((5, 6), (3, 4)),
    ((3, 2), (4, 5)),
    ((5, 3), (2, 6)),
    ((4, 3, 5), (2, 2, 3)),
    ((4, 3, 2, 5), (2, 3, 2, 2)),
    ((3, 2, 3, 2, 4), (2, 2, 1, 2, 3)),
]
DTYPES = ["bool", "uint8", "int16", "int64", "uint64", "float16", "float32", "float64", "complex64", "complex128"]


def draw(rng, shape, dtype):
    """Small integers in any dtype: sums are exact, and both orders of summation agree to the last bit."""
    values = rng.integers(0, 9, shape)
    return (values + 1j * rng.integers(0, 9, shape) if np.dtype(dtype).kind == "c" else values).astype(dtype)


def same(result, expected):
    assert result.dtype == expected.dtype
    np.testing.assert_array_equal(result, expected)


def either(function, expected, *args, **options):
    """Both give the same, or both refuse."""
    try:
        wanted = expected(*args, **options)
    except ValueError:
        with pytest.raises(ValueError, match=r"For 'valid' mode, one must be at least as large"):
            function(*args, **options)
        return
    same(function(*args, **options), wanted)


@pytest.mark.parametrize("name", ["correlate", "convolve"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["int64", "complex128"])
def test_any_number_of_axes(rng, name, mode, shapes, dtype):
    arrays = [draw(rng, shape, dtype) for shape in shapes]
    either(getattr(nc.signal, name), getattr(scipy.signal, name), *arrays, mode=mode, method="direct")


@pytest.mark.parametrize("name", ["correlate2d", "convolve2d"])
@pytest.mark.parametrize("shapes", [pair for pair in SHAPES if len(pair[0]) == 2], ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_images_with_what_lies_around_them(rng, name, shapes, mode):
    arrays = [draw(rng, shapes[0], "int16"), draw(rng, shapes[1], "complex128")]
    for kernel, (boundary, fillvalue) in itertools.product(
        (arrays[1], arrays[1].real.astype(np.uint8)), (("fill", 0), ("fill", 3), ("wrap", 0), ("symm", 0))
    ):
        either(getattr(nc.signal, name), getattr(scipy.signal, name), arrays[0], kernel, mode, boundary, fillvalue)


@pytest.mark.parametrize("first", DTYPES)
def test_every_pair_of_dtypes(rng, first):
    for second in DTYPES:
        x, kernel = draw(rng, 6, first), draw(rng, 3, second)
        same(nc.signal.convolve(x, kernel), np.convolve(x, kernel))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "uint64", "int64"])
def test_integers_wrap_in_the_results_dtype(rng, dtype):
    limits = np.iinfo(dtype)
    x, kernel = (rng.integers(limits.min, limits.max, shape, dtype, endpoint=True) for shape in ((6, 7), (3, 2)))
    same(nc.signal.correlate2d(x, kernel), scipy.signal.correlate2d(x, kernel))


@pytest.mark.parametrize("x_shape", list(itertools.product([1, 3], [1, 7], [6])), ids=str)
@pytest.mark.parametrize("axes", [2, (0, 2), (-1, 1), (2, 1, 0)], ids=str)
@pytest.mark.parametrize("name", ["fftconvolve", "oaconvolve"])
def test_along_some_axes_and_broadcast_along_others(rng, x_shape, axes, name):
    along = {axis % 3 for axis in np.atleast_1d(axes)}
    for size, mode in itertools.product([1, 3], MODES):
        kernel_shape = [2 if axis in along else x_shape[axis] if size == 3 else 1 for axis in range(3)]
        x, kernel = draw(rng, x_shape, "float64"), draw(rng, kernel_shape, "float64")
        try:
            expected = getattr(scipy.signal, name)(x, kernel, mode, axes)
        except ValueError:
            with pytest.raises(ValueError, match="For 'valid' mode"):
                getattr(nc.signal, name)(x, kernel, mode, axes)
            continue
        result = getattr(nc.signal, name)(x, kernel, mode, axes)
        assert result.dtype == expected.dtype
        np.testing.assert_allclose(result, expected, atol=1e-9)


@pytest.mark.parametrize("kernel_dtype", ["bool", "int8", "float16", "float32", "complex64"])
@pytest.mark.parametrize("dtype", ["bool", "int8", "float16", "float32"])
def test_fftconvolve_gives_floating_point(rng, dtype, kernel_dtype):
    x, kernel = draw(rng, 9, dtype), draw(rng, 4, kernel_dtype)
    result, expected = nc.signal.fftconvolve(x, kernel), scipy.signal.fftconvolve(x, kernel)
    assert result.dtype == expected.dtype
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-4)


@settings(max_examples=80)
@given(data=st.data())
def test_stride_and_dilation_are_slices_and_zeros(data):
    ndim = data.draw(st.integers(1, 4))
    pick = lambda low, high: tuple(data.draw(st.integers(low, high)) for _ in range(ndim))  # noqa: E731
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    stride, dilation, mode = pick(1, 3), pick(1, 2), data.draw(st.sampled_from(MODES))
    kernel = rng.integers(-9, 9, pick(1, 3))
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel.shape, strict=True)]
    x = rng.integers(-9, 9, [n + k for n, k in zip(pick(0, 4), reach, strict=True)])
    spread = np.zeros(reach, int)
    spread[tuple(slice(None, None, d) for d in dilation)] = kernel
    expected = scipy.signal.correlate(x, spread, mode, "direct")[tuple(slice(None, None, s) for s in stride)]
    same(nc.signal.correlate(x, kernel, mode, stride=stride, dilation=dilation), expected)


@pytest.mark.parametrize(("x_shape", "kernel_shape"), [((4, 9), (1, 3)), ((1, 9), (4, 3)), ((4, 9), (4, 3))], ids=str)
def test_a_batch_is_a_loop_over_correlations(rng, x_shape, kernel_shape):
    x, kernel = rng.integers(-9, 9, x_shape), rng.integers(-9, 9, kernel_shape)
    rows = zip(np.broadcast_to(x, (4, 9)), np.broadcast_to(kernel, (4, 3)), strict=True)
    expected = np.array([scipy.signal.correlate(row, taps, "same") for row, taps in rows])
    same(nc.signal.correlate(x, kernel, "same", axes=1), expected)
    result = nc.signal.correlate(x.T, kernel.T, "same", axes=0)
    same(result, expected.T)
    assert result.flags.c_contiguous


def test_an_axis_order_is_no_question():
    x, kernel = np.arange(30).reshape(5, 6), np.arange(6).reshape(2, 3)
    expected = nc.signal.correlate(x, kernel, axes=(0, 1), stride=(2, 3))
    same(nc.signal.correlate(x, kernel, axes=(1, 0), stride=(3, 2)), expected)


def test_scalars_and_nothing():
    assert nc.signal.correlate(2j, 3j) == scipy.signal.correlate(2j, 3j) == 6
    assert nc.signal.convolve(2, 3) == 6
    same(nc.signal.fftconvolve([], [1]), np.array([]))
    same(nc.signal.fftconvolve([5], [7]), np.array([35]))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("first", "second"), list(itertools.product(range(1, 6), repeat=2)))
def test_lags_are_scipys(mode, first, second):
    expected = scipy.signal.correlation_lags(first, second, mode)
    same(nc.signal.correlation_lags(first, second, mode), expected)
    assert len(expected) == len(nc.signal.correlate(np.ones(first), np.ones(second), mode))


def test_a_fourier_transform_is_chosen_for_large_kernels():
    x, kernel = np.ones(300_000), np.ones(48_000)
    assert nc.signal.choose_conv_method(x, kernel) == "fft"
    assert nc.signal.choose_conv_method(x, kernel[:5]) == "direct"
    assert nc.signal.choose_conv_method(x.astype(np.longdouble), kernel) == "direct"
    name, seconds = nc.signal.choose_conv_method(x[:30_000], kernel[:10_000], measure=True)
    assert name == min(seconds, key=lambda name: seconds[name])
    assert 0 < min(seconds.values()) <= max(seconds.values()) < math.inf


def test_where_no_fourier_transform_serves_it_adds_up():
    # Sums of int64 would not be exact after rounding.
    x = np.arange(400)
    assert nc.signal.choose_conv_method(x, x) == "direct"
    name, seconds = nc.signal.choose_conv_method(x, x, measure=True)
    assert name == "direct"
    assert 0 < seconds["direct"] < seconds["fft"] == math.inf
    same(nc.signal.correlate(x, x, method="fft"), nc.signal.correlate(x, x))


@pytest.mark.parametrize("name", ["correlate", "convolve", "correlate2d", "convolve2d"])
def test_the_word_fft_means_the_transform(rng, name):
    x, kernel = rng.standard_normal((40, 50)), rng.standard_normal((7, 9))
    function = getattr(nc.signal, name)
    assert nc.explain(function, x, kernel, method="fft").chosen == "fft"
    np.testing.assert_allclose(function(x, kernel, method="fft"), function(x, kernel, method="direct"), atol=1e-12)


@pytest.mark.parametrize("name", ["fftconvolve", "oaconvolve"])
def test_names_of_transforms_let_in_those_of_float32(name):
    function = getattr(nc.signal, name)
    assert nc.explain(function, (2048, 2048), (63, 63)).chosen == "fft32"
    assert nc.explain(nc.signal.convolve, (2048, 2048), (63, 63)).chosen == "fft"


@pytest.mark.parametrize("size", [5, 15])
@pytest.mark.parametrize("mode", MODES)
def test_a_filter_of_a_large_image_is_served_by_registers(size, mode):
    thoughts = nc.explain(nc.signal.correlate2d, (2048, 2048), (size, size), mode)
    assert thoughts.chosen == "depthwise"
    assert thoughts.problem.accumulator == np.float32


def test_words_for_the_method():
    problem = (nc.signal.correlate, (40, 50), (1, 1), "valid")
    assert nc.explain(*problem, method="direct").chosen != "matmul"
    assert nc.explain(*problem, method="loops").chosen == "loops"
    with pytest.raises(ValueError, match="method is 'fourier', but it must be one of auto, matmul"):
        nc.signal.correlate([1.0], [1.0], method="fourier")
    with pytest.raises(ValueError, match="answers this call without a correlation"):
        nc.explain(nc.signal.fftconvolve, [], [])


ERRORS = [
    (lambda: nc.signal.correlate([1], [[2]]),
     "in1 and in2 should have the same dimensionality, but their shapes are (1,) and (1, 1): insert axes with"
     " np.expand_dims"),
    (lambda: nc.signal.convolve([1], 2),
     "volume and kernel should have the same dimensionality, but their shapes are (1,) and (): insert axes with"
     " np.expand_dims"),
    (lambda: nc.signal.correlate2d([1], [2]),
     "correlate2d inputs must both be 2-D arrays, but their shapes are (1,) and (1,): any number of axes goes into"
     " numconv.signal.correlate and convolve"),
    (lambda: nc.signal.correlate([1], [2], "all"),
     "mode is 'all', but acceptable mode flags are 'valid', 'same', or 'full'"),
    (lambda: nc.signal.correlate([], [2]),
     "there is nothing to correlate in in1 and in2: (0,) and (1,); neither can be empty"),
    (lambda: nc.signal.correlate([[1, 2]], [[1], [2]], "valid"),
     "For 'valid' mode, one must be at least as large as the other in every dimension, for in1 and in2: (1, 2) and"
     " (2, 1)"),
    (lambda: nc.signal.correlate([1, 2], [1, 2, 3], "valid", dilation=2),
     "For 'valid' mode, the dilated in2 must fit into in1, for in1 and in2: (2,) and (3,) and dilation=(2,)"),
    (lambda: nc.signal.correlate([[1, 2]], [[1], [2], [3]], axes=1, stride=0),
     "stride is 0, but it takes one integer, or one for each of 1 axes, from 1 on"),
    (lambda: nc.signal.correlate(np.ones((2, 3)), np.ones((3, 3)), axes=1),
     "incompatible shapes for in1 and in2: (2, 3) and (3, 3); except along axes (1,) they must be equal or 1"),
    (lambda: nc.signal.correlate([1], [1], axes=1), "axes is 1, but axes exceeds dimensionality of input, which is 1"),
    (lambda: nc.signal.correlate([1], [1], axes=(0, 0)), "axes is (0, 0), but all axes must be unique"),
    (lambda: nc.signal.correlate([1], [1], axes=()), "when provided, axes cannot be empty: leave them out to take all"),
    (lambda: nc.signal.correlate([1], [1], axes=0.5),
     "axes is 0.5, but axes must be a scalar or iterable of integers"),
    (lambda: nc.signal.correlate2d([[1]], [[2]], boundary="mirror"),
     "boundary is 'mirror', but acceptable boundary flags are 'fill', 'circular' (or 'wrap'), and 'symmetric' (or"
     " 'symm')"),
    (lambda: nc.signal.correlate2d([[1]], [[2]], fillvalue=1j),
     "could not cast `fillvalue` directly to the output dtype: it is 1j and the result int64; convert an input"),
    *((lambda value=value: nc.signal.correlate2d([[1]], [[2]], fillvalue=value),
       f"could not cast `fillvalue` directly to the output dtype: it is {value} and the result int64; convert an input")
      for value in (float("nan"), float("inf"))),
    (lambda: nc.signal.fftconvolve(np.ones((7, 1)), np.ones((2, 9)), axes=1),
     "incompatible shapes for in1 and in2: (7, 1) and (2, 9); except along axes () they must be equal or 1"),
    (lambda: nc.signal.correlate2d([[1]], [[2]], fillvalue=[1, 2]),
     "`fillvalue` must be scalar or an array with one element: it has shape (2,)"),
    (lambda: nc.signal.correlation_lags(2, 2, "all"), "Mode all is invalid; it must be one of valid, same, full"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "text"), ERRORS, ids=lambda value: value[:50] if isinstance(value, str) else "")
def test_a_mistake_is_one_sentence(call, text):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the text is compared whole
        call()
    assert str(caught.value) == text
