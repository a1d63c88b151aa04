"""conv1d, conv2d and conv3d: torch's arguments, every option against the oracle, every pair of `dtype` and `out`."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import scipy.signal

import numconv as nc
from numconv import reference
from numconv.cpu import packing, tiled
from numconv.testing import EDGES, arrays
from numconv.validate import canonical, describe

FUNCTIONS = {1: nc.conv1d, 2: nc.conv2d, 3: nc.conv3d}


def oracle(x, weight, bias=None, **options):
    """The exact result, rounded to the result's dtype, without batch if the input has none."""
    wanted = options.pop("dtype", None)
    options = {name: canonical(name, value) for name, value in options.items()}
    bias_like = () if bias is None else (bias.shape, bias.dtype)
    problem = describe(
        weight.ndim - 2, x.shape, x.dtype, weight.shape, weight.dtype, *bias_like, **options,
        dtype=None if wanted is None else np.dtype(wanted),
    )  # fmt: skip
    result = reference.correlate(problem, x, weight, bias).astype(problem.output)
    return result if x.ndim == weight.ndim else result[0]


def integers(rng, shape, dtype=np.int64):
    return rng.integers(-9, 9, shape).astype(dtype)


# The signature is torch's, and more by keyword.


@pytest.mark.parametrize("rank", FUNCTIONS)
def test_names_order_and_defaults_are_torchs(rank):
    parameters = inspect.signature(FUNCTIONS[rank]).parameters
    positional = {name: p.default for name, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD}
    empty = inspect.Parameter.empty
    torchs = {"input": empty, "weight": empty, "bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    assert list(positional.items()) == list(torchs.items())
    assert all(p.kind is p.KEYWORD_ONLY for name, p in parameters.items() if name not in positional)


def test_the_three_functions_take_the_same_and_plan_all_but_what_each_call_has():
    one, two, three = (inspect.signature(function).parameters for function in FUNCTIONS.values())
    assert list(one.items()) == list(two.items()) == list(three.items())
    planned = inspect.signature(nc.plan).parameters
    assert set(two) - set(planned) == {"input", "out", "stream"}
    assert all(planned[name].default == two[name].default for name in set(two) & set(planned))


def test_arguments_may_be_given_by_position(rng):
    x, weight, bias = integers(rng, (2, 4, 9, 9)), integers(rng, (6, 2, 3, 3)), integers(rng, 6)
    np.testing.assert_array_equal(
        nc.conv2d(x, weight, bias, 2, 1, 2, 2),
        oracle(x, weight, bias, stride=2, padding=1, dilation=2, groups=2),
    )


# Results.


@pytest.mark.parametrize("case", EDGES, ids=lambda case: case.name)
def test_every_named_case_is_exact_in_integers(case):
    problem = case.problem(np.int64)
    x, weight, bias = arrays(problem)
    x = x.reshape(case.x_shape)
    result = FUNCTIONS[case.rank](x, weight, bias, **case.options)
    expected = oracle(x, weight, bias, **case.options)
    assert result.dtype == np.int64
    np.testing.assert_array_equal(result, expected)


def test_one_channel_in_one_dimension_is_np_correlate(rng):
    x, weight = integers(rng, 30), integers(rng, 7)
    for mode, padding in (("valid", "valid"), ("full", "full"), ("same", "same")):
        result = nc.conv1d(x[None], weight[None, None], padding=padding)[0]
        np.testing.assert_array_equal(result, np.correlate(x, weight, mode))


def test_volumes_are_scipys(rng):
    x, weight = integers(rng, (3, 6, 7, 8)), integers(rng, (1, 3, 2, 3, 4))
    np.testing.assert_array_equal(nc.conv3d(x, weight), scipy.signal.correlate(x, weight[0], "valid", "direct"))


@pytest.mark.parametrize("activation", [None, "relu"])
def test_one_image_without_batch_is_a_batch_of_one(rng, activation):
    x, weight, bias = integers(rng, (3, 8, 9)), integers(rng, (4, 3, 3, 3)), integers(rng, 4)
    batched = nc.conv2d(x[None], weight, bias, activation=activation)
    assert batched.shape == (1, 4, 6, 7)
    np.testing.assert_array_equal(nc.conv2d(x, weight, bias, activation=activation), batched[0])


def test_integers_wrap_modulo_2_to_the_64():
    x = np.array([[2**63 - 1, 2**62 + 1, -(2**63)]])
    assert nc.conv1d(x, [[[3]]]).tolist() == [[(v * 3 + 2**63) % 2**64 - 2**63 for v in x[0].tolist()]]
    unsigned = np.array([[2**64 - 1, 2**63 + 1]], np.uint64)
    result = nc.conv1d(unsigned, np.array([[[3]]], np.uint64), padding=1)
    assert result.tolist() == [[0, *((v * 3) % 2**64 for v in unsigned[0].tolist()), 0]]


def test_the_smallest_and_largest_integers_are_exact():
    for dtype in (np.int8, np.int16, np.int32, np.uint8, np.uint16, np.uint32):
        info = np.iinfo(dtype)
        x = np.array([[info.min, info.max]], dtype)
        assert nc.conv1d(x, x[None]).tolist() == [[int(info.min) ** 2 + int(info.max) ** 2]]


def test_padding_zeros_are_terms():
    # An infinite or undefined weight meets the zeros of the padding: 0 * inf and 0 * nan are nan.
    x = np.ones((1, 1, 3), np.float32)
    for value in (np.inf, np.nan):
        result = nc.conv1d(x, np.array([[[1, 0, value]]], np.float32), padding=1)
        np.testing.assert_array_equal(np.isnan(result), np.isnan(oracle(x, np.array([[[1, 0, value]]]), padding=1)))
        assert np.isnan(result[0, 0, 2])


def test_nan_stays_where_its_windows_are():
    x = np.ones((1, 1, 9, 9), np.float32)
    x[0, 0, 4, 5] = np.nan
    result = nc.conv2d(x, np.ones((2, 1, 3, 3), np.float32))
    assert np.isnan(result).sum() == 2 * 9
    assert np.isnan(result[0, :, 2:5, 3:6]).all()


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_relu_gives_zero_for_negative_numbers_and_keeps_the_rest(dtype):
    x = np.array([[-3, -1, 0, 2]], dtype)
    result = nc.conv1d(x, np.ones((1, 1, 1), dtype), activation="relu")
    assert result.tolist() == [[0, 0, 0, 2]]
    assert not np.signbit(result).any()


def test_relu_comes_after_the_bias():
    assert nc.conv1d([[-3, 3]], [[[1]], [[1]]], [1, -4], activation="relu").tolist() == [[0, 4], [0, 0]]


def test_relu_keeps_nan_and_takes_minus_infinity_to_zero():
    x = np.array([[np.nan, -np.inf, np.inf]], np.float32)
    result = nc.conv1d(x, np.ones((1, 1, 1), np.float32), activation="relu")
    np.testing.assert_array_equal(result, [[np.nan, 0, np.inf]])


@pytest.mark.parametrize(("batch", "ci", "co"), [(0, 3, 4), (2, 0, 4), (2, 3, 0), (0, 0, 0)])
@pytest.mark.parametrize("size", [1, 3], ids=["1x1", "3x3"])
@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_nothing_gives_what_einsum_gives(batch, ci, co, size, dtype):
    x, weight = np.ones((batch, ci, 8, 9), dtype), np.ones((co, ci, size, size), dtype)
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], (2, 3))
    expected = np.einsum("nchwij,ocij->nohw", windows, weight)
    result = nc.conv2d(x, weight)
    assert (result.shape, result.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(nc.plan(x.shape, weight)(x), expected)


def test_an_empty_input_may_be_padded():
    assert nc.conv1d(np.ones((1, 0)), np.ones((1, 1, 2)), padding=1).tolist() == [[0.0]]


def test_steps_larger_than_the_input_leave_one_output(rng):
    x, weight = integers(rng, (1, 5, 5)), integers(rng, (1, 1, 3, 3))
    for stride in (100, 2**62, (2**63 - 1, 4)):
        assert nc.conv2d(x, weight, stride=stride).tolist() == nc.conv2d(x, weight)[:, :1, :1].tolist()


# dtype and out.


@pytest.mark.parametrize(("x_dtype", "wanted"), [
    ("float32", None), ("float32", "float64"), ("float32", "float16"), ("float16", None), ("float16", "float32"),
    ("float64", "float32"), ("float32", "complex64"), ("int8", None), ("int8", "int16"), ("int8", "float32"),
    ("uint64", "int64"), ("uint64", "float64"), ("complex128", "complex64"), ("float32", ">f4"),
])  # fmt: skip
@pytest.mark.parametrize("into", ["new", "contiguous", "strided", "reversed"])
@pytest.mark.parametrize("size", [1, 3], ids=["1x1", "3x3"])
def test_the_result_has_the_dtype_that_was_asked_for_wherever_it_goes(rng, x_dtype, wanted, into, size):
    x, weight = rng.integers(0, 9, (2, 3, 6, 7)).astype(x_dtype), rng.integers(0, 9, (4, 3, size, size)).astype(x_dtype)
    expected = oracle(x, weight, dtype=None if wanted is None else np.dtype(wanted).newbyteorder("="))
    shape = expected.shape
    out = {
        "new": lambda: None,
        "contiguous": lambda: np.full(shape, 77, expected.dtype),
        "strided": lambda: np.full((*shape[:-1], 2 * shape[-1]), 77, expected.dtype)[..., ::2],
        "reversed": lambda: np.full(shape, 77, expected.dtype)[:, ::-1, ::-1],
    }[into]()
    result = nc.conv2d(x, weight, dtype=wanted, out=out)
    assert result.dtype == expected.dtype
    np.testing.assert_array_equal(result, expected)
    assert out is None or result is out


def test_a_strided_output_leaves_what_lies_between():
    around = np.full((1, 1, 4, 8), 77.0)
    nc.conv2d(np.ones((1, 1, 4, 4)), np.ones((1, 1, 1, 1)), out=around[..., ::2])
    assert (around[..., 1::2] == 77).all()
    assert (around[..., ::2] == 1).all()


def test_integer_inputs_wider_than_a_float_stay_exact_when_integers_are_asked_for():
    x = np.array([[2**63 + 1, 2**53 + 1]], np.uint64)
    wrapped = nc.conv1d(x, np.ones((1, 1, 1), np.uint64), dtype=np.int64, overflow="wrap")
    assert wrapped.tolist() == [[1 - 2**63, 2**53 + 1]]


def test_float16_is_rounded_once(rng):
    x, weight = (rng.standard_normal(shape).astype(np.float16) for shape in ((1, 50, 9, 9), (3, 50, 3, 3)))
    result = nc.conv2d(x, weight)
    assert result.dtype == np.float16
    wide = nc.conv2d(x.astype(np.float32), weight.astype(np.float32))
    np.testing.assert_array_equal(result, wide.astype(np.float16))


@pytest.mark.parametrize(
    ("x_dtype", "weight_dtype"),
    [("int8", "float32"), ("float32", "float64"), ("float32", "complex64"), ("int8", "int64"), ("uint64", "float64")],
)
def test_mixed_dtypes_give_numpys_common_dtype(rng, x_dtype, weight_dtype):
    x, weight = rng.integers(0, 9, (1, 2, 5, 5)).astype(x_dtype), rng.integers(0, 9, (3, 2, 2, 2)).astype(weight_dtype)
    result = nc.conv2d(x, weight)
    assert result.dtype == np.result_type(x, weight)
    np.testing.assert_array_equal(result, oracle(x, weight))


def test_a_bias_of_a_narrower_dtype_is_added_exactly(rng):
    x, weight = integers(rng, (1, 2, 5), np.float64), integers(rng, (3, 2, 2), np.float64)
    for bias in ([1, 2, 3], np.array([1, 2, 3], np.float16), np.array([True, False, True])):
        np.testing.assert_array_equal(nc.conv1d(x, weight, bias), oracle(x, weight, np.asarray(bias)))


def test_a_call_leaves_its_arguments_alone(rng):
    x, weight, bias = (rng.standard_normal(shape) for shape in ((2, 3, 8, 9), (4, 3, 3, 3), (4,)))
    copies = [array.copy() for array in (x, weight, bias)]
    nc.conv2d(x, weight, bias, padding=1, activation="relu")
    for array, copy in zip((x, weight, bias), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_what_is_read_only_stays_so_and_has_nothing_compiled_for_it(rng):
    x, weight = rng.standard_normal((1, 3, 8, 9)), rng.standard_normal((4, 3, 3, 3))
    kernels = tiled.correlate.compiled, packing.pack.compiled
    expected = nc.conv2d(x, weight, padding=1, method="tiled")
    before = [kernel.signatures for kernel in kernels]
    x.flags.writeable = weight.flags.writeable = False
    np.testing.assert_array_equal(nc.conv2d(x, weight, padding=1, method="tiled"), expected)
    np.testing.assert_array_equal(nc.plan(x.shape, weight, padding=1, method="tiled")(x), expected)
    assert [kernel.signatures for kernel in kernels] == before
    assert not x.flags.writeable
    assert not weight.flags.writeable


def test_a_result_is_a_new_array_that_may_be_written(rng):
    x = rng.standard_normal((1, 1, 3, 3))
    result = nc.conv2d(x, np.ones((1, 1, 1, 1)))
    assert result.flags.c_contiguous
    assert result.flags.writeable
    assert not np.shares_memory(result, x)
