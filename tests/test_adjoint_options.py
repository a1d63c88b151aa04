"""`overflow` and `conjugate` of transposed convolutions and gradients, as calls and as plans."""

from __future__ import annotations

import numpy as np
import pytest

import numconv as nc

SIZES = (2, 4, 7, 6), (6, 2, 3, 3)
OPTIONS = {"stride": 2, "padding": 1, "groups": 2}


def complex_numbers(rng, shape):
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def test_conjugated_gradients_are_adjoints_in_the_complex_inner_product(rng):
    x, weight = (complex_numbers(rng, size) for size in SIZES)
    y = nc.conv2d(x, weight, **OPTIONS)
    grad = complex_numbers(rng, y.shape)
    by_input = nc.conv2d_input(x.shape, weight, grad, **OPTIONS, conjugate=True)
    by_weight = nc.conv2d_weight(x, weight.shape, grad, **OPTIONS, conjugate=True)
    transposed = nc.conv_transpose2d(grad, weight, **OPTIONS, output_padding=(0, 1), conjugate=True)
    # np.vdot conjugates its first argument.
    for one, other in ((x, by_input), (weight, by_weight), (x, transposed)):
        np.testing.assert_allclose(np.vdot(one, other), np.vdot(y, grad), rtol=1e-12)
    for planned, argument, expected in (
        (nc.plan(grad.shape, weight, op="input", size=x.shape, **OPTIONS, conjugate=True), grad, by_input),
        (nc.plan(x.shape, grad, op="weight", size=weight.shape, **OPTIONS, conjugate=True), x, by_weight),
        (nc.plan(grad.shape, weight, op="transpose", output_padding=(0, 1), **OPTIONS, conjugate=True), grad, by_input),
    ):
        np.testing.assert_array_equal(planned(argument), expected)


@pytest.mark.parametrize(("overflow", "largest"), [("saturate", 127), ("wrap", 144 - 256)])
def test_sums_that_bytes_do_not_hold(overflow, largest):
    ones, weight = np.full((1, 2, 6, 6), 4, np.int8), np.full((2, 2, 3, 3), 2, np.int8)
    settings = {"dtype": np.int8, "overflow": overflow}
    layers = {"op": "transpose", "padding": 1}, {"op": "input", "size": ones.shape, "padding": 1}
    for result in (
        nc.conv_transpose2d(ones, weight, padding=1, **settings),
        nc.conv2d_input(ones.shape, weight, ones, padding=1, **settings),
        *(nc.plan(ones.shape, weight, **layer, **settings)(ones) for layer in layers),
    ):
        assert (result.dtype, result[0, 0, 2, 2]) == (np.int8, largest)
    gradient = nc.conv2d_weight(ones, weight.shape, np.full((1, 2, 4, 4), -4, np.int8), **settings)
    assert (gradient.dtype, gradient.min()) == (np.int8, -128 if overflow == "saturate" else 0)


def test_a_sum_that_does_not_fit_is_an_error_unless_it_is_said_what_becomes_of_it():
    ones, weight = np.full((1, 2, 6, 6), 4, np.int8), np.full((2, 2, 3, 3), 2, np.int8)
    with pytest.raises(OverflowError, match="a sum is 144, but int8 holds -128 to 127"):
        nc.conv_transpose2d(ones, weight, padding=1, dtype=np.int8)


@pytest.mark.parametrize("shape", [(1, 2, 1, 7), (3, 2, 250, 333), (40, 3, 16, 8)])
def test_the_gradient_by_the_bias_is_as_exact_as_it_says(rng, shape):
    # Of one sign and spread over ten binary orders, addends are rounded at every step.
    grad = np.exp2(rng.uniform(-10, 0, shape)).astype(np.float32)
    exact = grad.astype(np.longdouble).sum(axis=(0, 2, 3))
    steps = shape[0] + 26 + np.log2(shape[2] * shape[3])
    assert (abs(nc.conv2d_bias(grad) - exact) <= steps * 2.0**-24 * exact).all()
    np.testing.assert_array_equal(nc.conv2d_bias(np.asfortranarray(grad)), nc.conv2d_bias(grad))


def test_conjugate_is_true_or_false():
    x, weight, grad = np.ones(SIZES[0]), np.ones(SIZES[1]), np.ones((2, 6, 4, 3))
    for call in (
        lambda: nc.conv_transpose2d(grad, weight, groups=2, conjugate=1),
        lambda: nc.conv2d_input(x.shape, weight, grad, **OPTIONS, conjugate=1),
        lambda: nc.conv2d_weight(x, weight.shape, grad, **OPTIONS, conjugate=1),
    ):
        with pytest.raises(TypeError, match="conjugate is 1, but it takes True or False"):
            call()
