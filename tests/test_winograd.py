"""Winograd's methods beyond the contract: exact matrices, whole layers, the same bits for any split, the choice."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import numba
import numpy as np
import pytest
from golden import run

import numconv as nc
from numconv.cpu.toom_cook import POINTS, TAPS, growth, transforms
from numconv.machine import machine
from numconv.methods import methods
from numconv.testing import Case, arrays, assert_matches

NAMES = ("winograd", "winograd2")
BY_NAME = {method.NAME: method for method in methods()}
each = pytest.mark.parametrize("name", NAMES)


@pytest.mark.parametrize("outputs", POINTS)
def test_the_matrices_give_every_correlation_exactly(outputs):
    data, kernel, result = transforms(outputs)
    for output in range(outputs):
        for tap in range(TAPS):
            for place in range(outputs + TAPS - 1):
                # What place of the input and tap contribute to the output.
                terms = (result[output][f] * kernel[f][tap] * data[f][place] for f in range(len(data)))
                assert sum(terms) == (place == output + tap)


@pytest.mark.parametrize("outputs", POINTS)
def test_only_the_transform_of_weights_has_elements_that_are_rounded(outputs):
    data, _, result = transforms(outputs)
    for value in (element for matrix in (data, result) for row in matrix for element in row):
        assert Fraction(float(np.float32(float(value)))) == value


def test_roundings_grow_as_the_docstrings_say():
    assert growth(2) == 16
    assert round(growth(4)) == 175


SHAPES = (
    # Several blocks in both directions, rows of tiles that no vector divides, channels that no unit divides.
    Case("odd map", (1, 19, 61, 75), (13, 19, 3, 3), {"padding": 1}, bias=True),
    Case("wide map", (1, 3, 9, 300), (5, 3, 3, 3)),
    Case("short rows", (2, 24, 14, 14), (16, 24, 3, 3), {"padding": 1, "activation": "relu"}, bias=True),
    Case("seven tiles a row", (1, 16, 28, 28), (8, 16, 3, 3), {"padding": 1}),
    Case("three tiles a row", (3, 8, 5, 11), (9, 8, 3, 3), {"padding": (0, 1)}),
    Case("groups and padding by side", (2, 12, 17, 18), (30, 4, 3, 3), {"padding": ((3, 0), (1, 2)), "groups": 3}),
    Case("reflect", (1, 4, 23, 22), (8, 4, 3, 3), {"padding": 2, "padding_mode": "reflect"}),
    Case("3-D", (1, 3, 5, 13, 14), (4, 3, 3, 3, 3), {"padding": 1, "stride": (2, 1, 1), "dilation": (2, 1, 1)}),
)  # fmt: skip


@each
@pytest.mark.parametrize("case", SHAPES, ids=lambda case: case.name)
def test_layers_match_the_oracle_whatever_the_threads(case, name):
    problem, options = case.problem(np.float32), case.options
    x, weight, bias = arrays(problem)
    results = []
    for threads in (1, 2):
        if threads <= numba.config.NUMBA_NUM_THREADS:
            numba.set_num_threads(threads)
            results.append(nc.plan(x.shape, weight, bias, method=name, **options)(x))
    numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)
    assert_matches(problem, results[0], BY_NAME[name].error_bound(problem), x, weight, bias)
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@each
def test_an_image_of_a_batch_has_the_bits_that_it_has_alone(name):
    x, weight, _ = arrays(Case("batch", (3, 5, 20, 21), (8, 5, 3, 3)).problem(np.float32))
    whole = nc.conv2d(x, weight, method=name)
    for image, result in zip(x, whole, strict=True):
        np.testing.assert_array_equal(nc.conv2d(image, weight, method=name), result)


@each
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, np.float32(3e38)])
def test_what_a_transform_would_spread_is_summed_directly(name, value):
    case = Case("nan", (2, 6, 21, 30), (9, 6, 3, 3), {"padding": 1, "activation": "relu"}, bias=True)
    x, weight, bias = arrays(case.problem(np.float32))
    clean = nc.conv2d(x, weight, bias, method=name, **case.options)
    x[1, 2, 8, 17] = value
    result = nc.conv2d(x, weight, bias, method=name, **case.options)
    direct = nc.conv2d(x, weight, bias, method="loops", **case.options)
    np.testing.assert_array_equal(np.isfinite(result), np.isfinite(direct))
    touched = np.zeros(result.shape, bool)
    touched[1, :, 7:10, 16:19] = True
    np.testing.assert_array_equal(result[touched], direct[touched])
    np.testing.assert_array_equal(result[0], clean[0])
    np.testing.assert_allclose(result[~touched], direct[~touched], atol=1e-4)


@each
def test_weights_that_are_not_finite_are_summed_directly(name):
    x, weight, _ = arrays(Case("nan", (1, 4, 9, 9), (3, 4, 3, 3)).problem(np.float32))
    weight[1, 2, 0, 0] = np.inf
    np.testing.assert_array_equal(nc.conv2d(x, weight, method=name)[:, 1], nc.conv2d(x, weight, method="loops")[:, 1])


REFUSED = (
    ("float32 and float64", {"dtype": np.int32}, (1, 2, 9, 9), (2, 2, 3, 3)),
    ("3x3 taps", {}, (1, 2, 9, 9), (2, 2, 3, 5)),
    ("stride", {"stride": 2}, (1, 2, 9, 9), (2, 2, 3, 3)),
    ("dilation", {"dilation": (1, 2)}, (1, 2, 9, 9), (2, 2, 3, 3)),
    ("one order of summation", {"reproducible": True}, (1, 2, 9, 9), (2, 2, 3, 3)),
    ("over rtol=1e-07", {"rtol": 1e-7}, (1, 2, 9, 9), (2, 2, 3, 3)),
)  # fmt: skip


@each
@pytest.mark.parametrize(("sentence", "options", "x_shape", "weight_shape"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_it_does_not_take_is_refused_with_the_reason(name, sentence, options, x_shape, weight_shape):
    dtype = options.get("dtype", np.float32)
    options = {key: value for key, value in options.items() if key != "dtype"}
    with pytest.raises(ValueError, match=sentence):
        nc.conv2d(np.ones(x_shape, dtype), np.ones(weight_shape, dtype), method=name, **options)


@pytest.mark.parametrize("case", [(64, 56), (128, 28), (256, 14)], ids=str)
def test_an_rtol_lets_it_in_and_without_one_it_is_never_taken(case):
    channels, size = case
    weight = np.zeros((channels, channels, 3, 3), np.float32)
    shape, options = (1, channels, size, size), {"padding": 1}
    assert nc.plan(shape, weight, **options).method not in NAMES
    assert nc.plan(shape, weight, rtol=1e-3, **options).method == "winograd"
    assert nc.plan(shape, weight, rtol=1e-3, reproducible=True, **options).method not in NAMES
    between = BY_NAME["winograd"].expected_error(nc.plan(shape, weight, **options).problem) * 0.99
    assert nc.plan(shape, weight, rtol=between, **options).method == "winograd2"


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("size", [(19, 14), (30, 50), (40, 70)])
@pytest.mark.parametrize(("channels", "groups"), [(8, 1), (44, 1), (75, 1), (80, 2), (102, 2)])
def test_channels_in_bands_and_units_of_every_number(channels, groups, size, layout):
    """By maps with one vector of tiles, and with more than whole tiles take."""
    case = Case("", (2, 6, *size), (channels, 6 // groups, 3, 3), {"padding": 1, "groups": groups})
    problem = dataclasses.replace(case.problem(np.float32), layout=layout)
    given, weight, bias = arrays(problem)
    x, out = (
        problem.channels_first(np.zeros(problem.laid_out(shape), np.float32), shape)
        for shape in (problem.x_shape, problem.out_shape)
    )
    x[...] = given
    results, method = [], BY_NAME["winograd"]
    for threads in (1, 2, 16):
        on = machine(threads)
        scratch = np.full(method.scratch_bytes(problem, on), 0xFF, np.uint8)
        method.run(problem, on, method.prepare(problem, on, weight, bias), x, out, scratch)
        results.append(out.copy())
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])
    direct = run(BY_NAME["loops"], case.problem(np.float32), on, given, weight, bias)
    np.testing.assert_allclose(results[0], direct, atol=1e-4 * np.abs(direct).max())
