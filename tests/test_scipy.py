"""scipy.signal, summed over channels, gives the same: for every dtype, and in correlate2d's modes and boundaries."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal

import numconv as nc
from numconv.accuracy import direct_bound
from numconv.testing import tolerance
from numconv.validate import describe

DTYPES = [
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
]


def draw(rng, shape, dtype):
    """Numbers over the dtype's whole range for integers, else normal."""
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return rng.random(shape) < 0.5
    if kind.kind in "iu":
        info = np.iinfo(kind)
        return rng.integers(info.min, info.max, shape, dtype=kind, endpoint=True)
    values = rng.standard_normal(shape)
    return (values + 1j * rng.standard_normal(shape) if kind.kind == "c" else values).astype(kind)


def summed(x, weight):
    """scipy.signal.correlate for each pair of channels, in the dtype of the sums; it conjugates its second input."""
    kind = {"b": np.int64, "i": np.int64, "u": np.uint64}.get(x.dtype.kind, np.result_type(x, np.float32))
    wide, kernels = x.astype(kind), np.conj(weight).astype(kind)

    def one(image, kernel):
        return sum(scipy.signal.correlate(c, k, "valid", "direct") for c, k in zip(image, kernel, strict=True))

    return np.array([[one(image, kernel) for kernel in kernels] for image in wide])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(3, 3), (1, 1), (4, 2)], ids=["3x3", "1x1", "4x2"])
def test_conv2d_is_correlate_summed_over_channels(rng, dtype, size):
    x, weight = draw(rng, (2, 5, 12, 13), dtype), draw(rng, (4, 5, *size), dtype)
    result, expected = nc.conv2d(x, weight), summed(x, weight)
    if expected.dtype.kind in "iu":
        assert result.dtype == expected.dtype
        np.testing.assert_array_equal(result, expected)
        return
    problem = describe(2, x.shape, x.dtype, weight.shape, weight.dtype)
    # Both have errors of their own.
    allowed = 2 * tolerance(problem, direct_bound(problem), x, weight, None)
    assert result.dtype == dtype
    np.testing.assert_allclose(result, expected.astype(dtype), rtol=0, atol=allowed)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_every_rank_is_correlates(rng, rank):
    function = {1: nc.conv1d, 2: nc.conv2d, 3: nc.conv3d}[rank]
    x, weight = (rng.integers(-99, 99, shape) for shape in ((2, *(9, 8, 7)[:rank]), (1, 2, *(3, 2, 4)[:rank])))
    expected = sum(scipy.signal.correlate(x[c], weight[0, c], "valid", "direct") for c in range(2))
    np.testing.assert_array_equal(function(x, weight)[0], expected)


@pytest.mark.parametrize("kernel", [(3, 3), (1, 5), (5, 1), (4, 4), (2, 3)], ids=str)
@pytest.mark.parametrize(("mode", "padding"), [("valid", "valid"), ("full", "full"), ("same", "same")])
def test_correlate2d_in_its_modes(rng, kernel, mode, padding):
    x, weight = rng.integers(-99, 99, (9, 11)), rng.integers(-99, 99, kernel)
    expected = scipy.signal.correlate2d(x, weight, mode)
    np.testing.assert_array_equal(nc.conv2d(x[None], weight[None, None], padding=padding)[0], expected)


@pytest.mark.parametrize("kernel", [(3, 3), (1, 5), (4, 4), (2, 3)], ids=str)
def test_correlates_same_has_the_odd_element_before(rng, kernel):
    # correlate and correlate2d differ by one index where the kernel is even.
    x, weight = rng.integers(-99, 99, (9, 11)), rng.integers(-99, 99, kernel)
    expected = scipy.signal.correlate(x, weight, "same", "direct")
    np.testing.assert_array_equal(nc.conv2d(x[None], weight[None, None], padding="same_lower")[0], expected)


@pytest.mark.parametrize(("boundary", "padding_mode"), [("fill", "zeros"), ("wrap", "circular"), ("symm", "symmetric")])
@pytest.mark.parametrize(("mode", "padding"), [("full", "full"), ("same", "same")])
def test_correlate2d_with_its_boundaries(rng, boundary, padding_mode, mode, padding):
    x, weight = rng.integers(-99, 99, (9, 11)), rng.integers(-99, 99, (5, 3))
    expected = scipy.signal.correlate2d(x, weight, mode, boundary)
    result = nc.conv2d(x[None], weight[None, None], padding=padding, padding_mode=padding_mode)[0]
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    ("mode", "padding_mode"),
    [
        ("constant", "zeros"),
        ("nearest", "replicate"),
        ("wrap", "circular"),
        ("mirror", "reflect"),
        ("reflect", "symmetric"),
    ],
)
def test_ndimages_boundaries_by_our_names(rng, mode, padding_mode):
    x, weight = rng.integers(-99, 99, (9, 11)), rng.integers(-99, 99, (5, 3))
    expected = scipy.ndimage.correlate(x, weight, mode=mode)
    result = nc.conv2d(x[None], weight[None, None], padding="same", padding_mode=padding_mode)[0]
    np.testing.assert_array_equal(result, expected)


def test_trans_conv_is_convolve2d(rng):
    x, weight = rng.integers(-99, 99, (6, 7)), rng.integers(-99, 99, (3, 2))
    np.testing.assert_array_equal(nc.trans_conv(x, weight), scipy.signal.convolve2d(x, weight))


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_weights_are_not_conjugated(dtype):
    x, weight = np.array([[1j, 2]], dtype), np.array([[[1j, 1]]], dtype)
    assert nc.conv1d(x, weight).tolist() == [[1]]
    assert scipy.signal.correlate(x[0], weight[0, 0], "valid").tolist() == [3]
