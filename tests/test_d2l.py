"""The textbook's functions give the textbook's values, on anything that np.asarray takes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import numconv as nc

X = [[[0, 1, 2], [3, 4, 5], [6, 7, 8]], [[1, 2, 3], [4, 5, 6], [7, 8, 9]]]
K = [[[0, 1], [2, 3]], [[1, 2], [3, 4]]]
STACK = np.stack([np.array(K), np.array(K) + 1, np.array(K) + 2])
ONE_OUT = [[56, 72], [104, 120]]
THREE_OUT = [ONE_OUT, [[76, 100], [148, 172]], [[96, 128], [192, 224]]]


def textbook(X, K):
    """The book's corr2d, line by line: section 7.2.1."""
    h, w = K.shape
    Y = np.zeros((X.shape[0] - h + 1, X.shape[1] - w + 1), np.result_type(X, K))
    for i in range(Y.shape[0]):
        for j in range(Y.shape[1]):
            Y[i, j] = (X[i : i + h, j : j + w] * K).sum()
    return Y


# Sections 7.2 to 7.4, the book's own numbers.


def test_corr2d_of_section_7_2():
    result = nc.corr2d(np.arange(9).reshape(3, 3), [[0, 1], [2, 3]])
    assert result.tolist() == [[19, 25], [37, 43]]
    assert result.dtype == np.int64


def test_corr2d_finds_the_edges_of_section_7_2():
    image = np.ones((6, 8))
    image[:, 2:6] = 0
    edges = nc.corr2d(image, np.array([[1.0, -1.0]]))
    assert edges.tolist() == [[0, 1, 0, 0, 0, -1, 0]] * 6
    assert not nc.corr2d(image.T.tolist(), np.array([[1.0, -1.0]])).any()


def test_the_kernel_of_section_7_2_is_learned_from_its_output():
    image = np.ones((6, 8))
    image[:, 2:6] = 0
    target, kernel = nc.corr2d(image, [[1.0, -1.0]]), np.array([[0.3, 0.2]])
    losses = []
    for _ in range(50):
        error = nc.corr2d(image, kernel) - target
        losses.append((error**2).sum())
        kernel = kernel - 3e-2 * nc.corr2d(image, 2 * error)
    assert losses == sorted(losses, reverse=True)
    np.testing.assert_allclose(kernel, [[1, -1]], atol=1e-2)


def test_padding_and_stride_of_section_7_3(rng):
    image = rng.random((1, 1, 8, 8))
    for kernel, options, shape in (
        ((3, 3), {"padding": 1}, (8, 8)),
        ((5, 3), {"padding": (2, 1)}, (8, 8)),
        ((3, 3), {"padding": 1, "stride": 2}, (4, 4)),
        ((3, 5), {"padding": (0, 1), "stride": (3, 4)}, (2, 2)),
    ):
        assert nc.conv2d(image, rng.random((1, 1, *kernel)), **options).shape[2:] == shape


def test_the_padded_example_of_section_7_3():
    image, kernel = np.arange(9.0).reshape(1, 1, 3, 3), np.arange(4.0).reshape(1, 1, 2, 2)
    padded = [[0, 3, 8, 4], [9, 19, 25, 10], [21, 37, 43, 16], [6, 7, 8, 0]]
    assert nc.conv2d(image, kernel, padding=1)[0, 0].tolist() == padded
    assert nc.conv2d(image, kernel, padding=1, stride=(3, 2))[0, 0].tolist() == [[0, 8], [6, 8]]


def test_corr2d_multi_in_of_section_7_4():
    assert nc.corr2d_multi_in(X, K).tolist() == ONE_OUT


def test_corr2d_multi_in_out_of_section_7_4():
    assert nc.corr2d_multi_in_out(X, STACK).tolist() == THREE_OUT


def test_the_1x1_function_of_section_7_4_is_the_correlation(rng):
    image, kernel = rng.normal(0, 1, (3, 3, 3)), rng.normal(0, 1, (2, 3, 1, 1))
    product, correlated = nc.corr2d_multi_in_out_1x1(image, kernel), nc.corr2d_multi_in_out(image, kernel)
    assert product.shape == correlated.shape == (2, 3, 3)
    assert np.abs(product - correlated).sum() < 1e-6


def test_the_1x1_function_asks_for_the_matrix_product_by_name_and_for_exact_loops_in_integers():
    explained = nc.explain(nc.corr2d_multi_in_out_1x1, (3, 5, 5), (4, 3, 1, 1))
    refusals = {candidate.name: candidate.refusal for candidate in explained.candidates}
    assert refusals.pop("matmul") is None
    assert refusals.pop("depthwise") == "each output channel sums 3 input channels, but it takes one"
    assert {refusals[name] for name in ("tiled", "loops")} == {"method='matmul' was asked for"}
    assert None not in refusals.values()
    integers = np.ones((3, 5, 5), int), np.ones((4, 3, 1, 1), int)
    assert nc.explain(nc.corr2d_multi_in_out_1x1, *integers).chosen == "loops"


@pytest.mark.parametrize("dtype", ["int8", "uint64", "bool", "float16", "float32", "complex64"])
def test_the_1x1_function_takes_every_dtype(dtype):
    image, kernel = np.array(X).astype(dtype), np.array([[2, 1], [0, 1]]).reshape(2, 2, 1, 1).astype(dtype)
    result = nc.corr2d_multi_in_out_1x1(image, kernel)
    wide = image.astype(result.dtype)
    np.testing.assert_array_equal(result, np.stack([kernel[0, 0, 0, 0] * wide[0] + wide[1], wide[1]]))


@pytest.mark.parametrize("values", [(X, K), (np.array(X), np.array(K))], ids=["lists", "arrays"])
@pytest.mark.parametrize("dtype", ["int64", "float32", "float64", "complex64", "complex128"])
def test_the_values_are_exact_in_every_dtype(values, dtype):
    image, kernel = (np.array(value, dtype) for value in values)
    result = nc.corr2d_multi_in(image, kernel)
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, ONE_OUT)


def read_only(array):
    array.flags.writeable = False
    return array


# What np.asarray takes, made of a nested list.
FORMS = {
    "list": lambda values: values,
    "tuple": lambda values: tuple(map(tuple, values)),
    "list of arrays": lambda values: [np.array(value) for value in values],
    "ranges": lambda values: [[range(row[0], row[-1] + 1) for row in plane] for plane in values],
    "float64": lambda values: np.array(values, float),
    "float16": lambda values: np.array(values, np.float16),
    "complex": lambda values: np.array(values, complex),
    "uint8": lambda values: np.array(values, np.uint8),
    "read-only": lambda values: read_only(np.array(values, np.float32)),
    "columns first": lambda values: np.asfortranarray(np.array(values, np.float32)),
    "negative strides": lambda values: np.array(values, np.float32)[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1],
    "every other": lambda values: np.repeat(np.array(values, np.float32), 2, axis=2)[..., ::2],
    "big-endian integers": lambda values: np.array(values, ">i4"),
    "big-endian floats": lambda values: np.array(values, ">f8"),
    "a subclass of array": lambda values: np.array(values).view(np.memmap),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_array_gives_the_same_values(form):
    result = nc.corr2d_multi_in(FORMS[form](X), FORMS[form](K))
    assert type(result) is np.ndarray
    assert result.dtype.isnative
    np.testing.assert_array_equal(result, ONE_OUT)


def test_an_object_that_offers_an_array_is_taken():
    class Image:
        def __array__(self, dtype=None, copy=None):
            return np.array(X)

    assert nc.corr2d_multi_in(Image(), K).tolist() == ONE_OUT


def test_booleans_are_counted():
    result = nc.corr2d(np.ones((2, 3), bool), np.ones((2, 2), bool))
    assert result.dtype == np.int64
    assert result.tolist() == [[4, 4]]


@pytest.mark.parametrize("shapes", [((3, 3), (3, 3)), ((5, 4), (1, 4)), ((1, 1), (1, 1)), ((20, 30), (4, 7))])
def test_corr2d_is_the_books_loop(rng, shapes):
    image, kernel = (rng.integers(-9, 9, shape) for shape in shapes)
    np.testing.assert_array_equal(nc.corr2d(image, kernel), textbook(image, kernel))


def test_channels_are_correlated_and_added(rng):
    image, kernel = rng.integers(-9, 9, (4, 7, 8)), rng.integers(-9, 9, (5, 4, 3, 2))
    expected = [sum(textbook(x, k) for x, k in zip(image, one, strict=True)) for one in kernel]
    np.testing.assert_array_equal(nc.corr2d_multi_in_out(image, kernel), expected)
    np.testing.assert_array_equal(nc.corr2d_multi_in(image, kernel[0]), expected[0])


@pytest.mark.parametrize(("shape", "result"), [((0, 3, 3), (2, 2)), ((0, 3, 2), (2, 1))])
def test_no_channels_add_up_to_zero(shape, result):
    assert nc.corr2d_multi_in(np.ones(shape), np.ones((0, 2, 2))).tolist() == np.zeros(result).tolist()
    assert nc.corr2d_multi_in_out(np.ones(shape), np.ones((3, 0, 2, 2))).shape == (3, *result)
    assert nc.corr2d_multi_in_out(np.ones((2, 3, 3)), np.ones((0, 2, 2, 2))).shape == (0, 2, 2)
    product = nc.corr2d_multi_in_out_1x1(np.ones(shape), np.ones((2, 0, 1, 1)))
    np.testing.assert_array_equal(product, np.zeros((2, *shape[1:])))


# Sections 7.5 and 14.10.


def test_pool2d_of_section_7_5():
    image = np.arange(9.0).reshape(3, 3)
    assert nc.pool2d(image, (2, 2)).tolist() == [[4, 5], [7, 8]]
    assert nc.pool2d(image, (2, 2), "avg").tolist() == [[2, 3], [5, 6]]


@pytest.mark.parametrize("mode", ["max", "avg"])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 1), (5, 6)])
@pytest.mark.parametrize("dtype", ["int32", "uint8", "float32", "float64", "bool"])
def test_pool2d_takes_the_maximum_or_the_mean_of_each_window(rng, mode, size, dtype):
    image = rng.integers(0, 100, (5, 6)).astype(dtype)
    result = nc.pool2d(image, size, mode)
    function = np.max if mode == "max" else np.mean
    assert result.dtype == function(image).dtype
    for i, j in itertools.product(*map(range, result.shape)):
        np.testing.assert_allclose(result[i, j], function(image[i : i + size[0], j : j + size[1]]), rtol=1e-6)
    assert result.shape == (6 - size[0], 7 - size[1])


def test_pool2d_keeps_nan_where_it_is():
    image = np.arange(16.0).reshape(4, 4)
    image[0, 0] = np.nan
    for mode in ("max", "avg"):
        assert np.isnan(nc.pool2d(image, (2, 2), mode)).sum() == 1


def test_trans_conv_of_section_14_10():
    image = [[0.0, 1.0], [2.0, 3.0]]
    assert nc.trans_conv(image, image).tolist() == [[0, 0, 1], [0, 4, 6], [4, 12, 9]]


def test_trans_conv_is_the_books_loop(rng):
    image, kernel = rng.integers(-9, 9, (4, 5)), rng.integers(-9, 9, (3, 2))
    expected = np.zeros((6, 6), int)
    for i, j in np.ndindex(4, 5):
        expected[i : i + 3, j : j + 2] += image[i, j] * kernel
    np.testing.assert_array_equal(nc.trans_conv(image, kernel), expected)


def test_trans_conv_is_the_transpose_of_corr2d(rng):
    # 14.10.4: <corr2d(x, k), y> = <x, trans_conv(y, k)>.
    image, kernel, other = (rng.integers(-9, 9, shape) for shape in ((6, 7), (3, 2), (4, 6)))
    assert (nc.corr2d(image, kernel) * other).sum() == (image * nc.trans_conv(other, kernel)).sum()
