"""`dtype=` of integers and `overflow=`: every sum is what Python's own integers and fractions make of it."""

from __future__ import annotations

import math
import tracemalloc

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import numconv as nc

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
LINE = "[float32 1x1x3 * 1x1x1 dtype int8 overflow raise]"


def identity(x, **options):
    """The sums of one tap of 1: x itself."""
    return nc.conv1d(x[None], np.ones((1, 1, 1), x.dtype), **options)[0]


def narrowed(value, dtype, overflow):
    """One number as an integer of that dtype, by Python's own; None where it is refused."""
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    if isinstance(value, float):
        if math.isfinite(value):
            value = round(value)
        elif overflow == "raise":
            return None
        else:
            value = 0 if math.isnan(value) else high if value > 0 else low
    if overflow == "raise" and not low <= value <= high:
        return None
    if overflow == "wrap":
        return (value - low) % (high - low + 1) + low
    return min(max(value, low), high)


def near(dtype):
    """Numbers about the ends of a dtype, and others."""
    ends = [int(end) + step for end in (np.iinfo(dtype).min, np.iinfo(dtype).max) for step in (-1, 0, 1)]
    return st.one_of(st.sampled_from(ends), st.integers(-300, 300), st.integers(-(2**63), 2**64 - 1))


@given(
    st.data(),
    st.sampled_from(INTEGERS),
    st.sampled_from(["int64", "uint64"]),
    st.sampled_from([None, "raise", "wrap", "saturate"]),
)
def test_integers_are_refused_wrapped_or_saturated(data, dtype, sums, overflow):
    limits = np.iinfo(sums)
    inside = near(dtype).filter(lambda value: limits.min <= value <= limits.max)
    values = data.draw(st.lists(inside, min_size=1, max_size=6))
    expected = [narrowed(value, dtype, overflow or "raise" if dtype != sums else "wrap") for value in values]
    x = np.array(values, sums)
    if None in expected:
        out = np.full((1, len(values)), 77, dtype)
        with pytest.raises(OverflowError, match=f"but {dtype} holds {np.iinfo(dtype).min} to {np.iinfo(dtype).max}"):
            nc.conv1d(x[None], np.ones((1, 1, 1), sums), dtype=dtype, overflow=overflow, out=out)
        assert (out == 77).all()
        return
    result = identity(x, dtype=dtype, overflow=overflow)
    assert result.dtype == dtype
    assert result.tolist() == expected


@given(
    st.data(),
    st.sampled_from(["uint8", "int8", "int32", "uint64"]),
    st.sampled_from(["float32", "float64"]),
    st.sampled_from([None, "raise", "saturate"]),
)
def test_floats_are_rounded_half_to_even_and_saturate(data, dtype, sums, overflow):
    halves = st.integers(-600, 600).map(lambda value: value / 2)
    others = st.sampled_from([math.nan, math.inf, -math.inf]) | near(dtype).map(float)
    values = data.draw(st.lists(halves | others, min_size=1, max_size=6))
    x = np.array(values, sums)
    expected = [narrowed(value, dtype, overflow or "saturate") for value in x.tolist()]
    if None in expected:
        with pytest.raises(OverflowError, match=f"but {dtype} holds"):
            identity(x, dtype=dtype, overflow=overflow)
        return
    result = identity(x, dtype=dtype, overflow=overflow)
    assert result.dtype == dtype
    assert result.tolist() == expected


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (300, f"a sum is 300.0, but int8 holds -128 to 127: ask for a wider dtype, or for overflow='saturate' {LINE}"),
        (np.nan, f"a sum is nan, but int8 holds -128 to 127: ask for a wider dtype, or for overflow='saturate' {LINE}"),
    ],
)
def test_a_sum_that_does_not_fit_is_told(value, text):
    with pytest.raises(OverflowError) as caught:
        nc.conv1d(
            np.array([[[1, value, -1]]], np.float32), np.ones((1, 1, 1), np.float32), dtype=np.int8, overflow="raise"
        )
    assert str(caught.value) == text


def test_integers_that_do_not_fit_may_also_wrap():
    with pytest.raises(OverflowError, match=r"overflow='wrap' or 'saturate' \[int64 .* dtype int8 overflow raise\]"):
        identity(np.array([200]), dtype=np.int8)


@pytest.mark.parametrize("dtype", ["int64", "float32"])
@pytest.mark.parametrize("into", ["new", "contiguous", "strided"])
def test_narrow_results_go_wherever_they_should(rng, dtype, into):
    x, weight = rng.integers(0, 99, (2, 3, 8, 9)).astype(dtype), rng.integers(0, 9, (4, 3, 3, 3)).astype(dtype)
    expected = np.clip(nc.conv2d(x, weight), 0, 255).astype(np.uint8)
    around = np.full((*expected.shape[:-1], 2 * expected.shape[-1]), 77, np.uint8)
    out = {"new": None, "contiguous": np.empty_like(expected), "strided": around[..., ::2]}[into]
    for function in (nc.conv2d, nc.plan(x.shape, weight, dtype="uint8", overflow="saturate")):
        options = {"weight": weight, "dtype": "uint8", "overflow": "saturate"} if function is nc.conv2d else {}
        result = function(x, out=out, **options)
        assert out is None or result is out
        np.testing.assert_array_equal(result, expected)
    assert (around[..., 1::2] == 77).all()


def test_nothing_is_narrowed_to_nothing():
    for dtype in ("int64", "float32"):
        x, weight = np.ones((0, 1, 3), dtype), np.ones((1, 1, 1), dtype)
        assert nc.conv1d(x, weight, dtype=np.int8, overflow="raise").shape == (0, 1, 3)


def test_dtypes_that_hold_the_sums_do_not_overflow(rng):
    x = rng.integers(-9, 9, 5)
    for dtype in ("int64", "float32", None):
        assert identity(x, dtype=dtype, overflow="raise").tolist() == x.tolist()


# Images of bytes with kernels of floats.


# The copy into a window is compiled for each dtype, and is the same for all methods.
@pytest.mark.parametrize(
    ("dtype", "method", "x_shape", "weight_shape", "options"),
    [
        ("uint8", "depthwise", (1, 2, 20, 70), (2, 1, 3, 3), {"groups": 2}),
        ("uint8", "depthwise", (1, 2, 20, 70), (2, 1, 5, 5), {"groups": 2, "padding": 2, "stride": 2}),
        ("int16", "tiled", (1, 5, 20, 40), (7, 5, 3, 3), {"padding": 1}),
        ("bool", "tiled", (1, 5, 20, 40), (7, 5, 3, 3), {"padding": 2, "padding_mode": "circular", "stride": 3}),
    ],
)
def test_integer_images_and_float_kernels_have_the_bits_of_a_float_image(
    rng, dtype, method, x_shape, weight_shape, options
):
    x, weight = rng.integers(0, 256, x_shape).astype(dtype), rng.standard_normal(weight_shape, dtype=np.float32)
    result = nc.conv2d(x, weight, method=method, **options)
    assert result.dtype == np.result_type(dtype, np.float32)
    np.testing.assert_array_equal(result, nc.conv2d(x.astype(result.dtype), weight, method=method, **options))


@pytest.mark.parametrize("padding", [0, 2])
def test_a_large_byte_image_is_not_copied_as_floats(rng, set_threads, padding):
    set_threads(min(2, numba.get_num_threads()))
    x, weight = rng.integers(0, 256, (1, 1, 2048, 2048), np.uint8), rng.standard_normal((1, 1, 5, 5), np.float32)
    layer = nc.plan(x.shape, weight, x_dtype=x.dtype, padding=padding)
    assert layer.method == "depthwise"
    out = np.empty(layer.problem.out_shape, np.float32)
    layer(x, out=out)
    tracemalloc.start()
    layer(x, out=out)
    nc.conv2d(x, weight, padding=padding, out=out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Windows of some rows, where the image as floats would be 16 MiB.
    assert peak < 2 << 20


# Complex weights.


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "float32"])
def test_conjugate_is_np_correlates(rng, dtype):
    x, weight = (rng.integers(-9, 9, n) + 1j * rng.integers(-9, 9, n) for n in (20, 5))
    x, weight = (array.astype(dtype) if "complex" in dtype else array.real.astype(dtype) for array in (x, weight))
    expected = np.correlate(x, weight)
    np.testing.assert_array_equal(nc.conv1d(x[None], weight[None, None], conjugate=True)[0], expected)
    planned = nc.plan((1, 20), weight[None, None], conjugate=True)
    np.testing.assert_array_equal(planned(x[None])[0], expected)
    plain = nc.conv1d(x[None], weight[None, None])[0]
    np.testing.assert_array_equal(plain, np.correlate(x, weight.conj()))


def test_unsigned_sums_go_below_zero_by_their_bias():
    x, weight = np.array([[5, 90]], np.uint8), np.ones((1, 1, 1), np.uint8)
    assert nc.conv1d(x, weight, [-20]).tolist() == [[-15, 70]]
    assert nc.conv1d(x, weight, [-20], activation="relu").tolist() == [[0, 70]]
    assert nc.conv1d(x, weight, [-20], dtype=np.uint8, overflow="saturate").tolist() == [[0, 70]]
