"""One multiply-add has one rounding, in every accumulator's dtype; and the exact reference of the tests does too."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numba
import numpy as np
import pytest
from exact import fused32, step

from numconv.cpu.simd.scalar import multiply_add


@numba.njit
def multiply_add_all(x, weight, total, out):
    for i in range(len(out)):
        out[i] = multiply_add(x[i], weight[i], total[i])


def ours(x, weight, total):
    out = np.empty_like(total)
    multiply_add_all(x, weight, total, out)
    return out


def nearest32(value):
    """A Fraction rounded to float32, ties to even, by comparing it with its neighbours."""
    guess = np.float32(float(value))
    candidates = [guess, np.nextafter(guess, np.float32(np.inf)), np.nextafter(guess, np.float32(-np.inf))]
    return min(candidates, key=lambda c: (abs(Fraction(float(c)) - value), c.view(np.uint32) % 2))


def hard_operands(rng, dtype, count):
    """Triples in which the product and the total nearly cancel, or lie close to a tie, over many exponents."""
    x, weight = (rng.standard_normal(count) * 2.0 ** rng.integers(-20, 20, count) for _ in range(2))
    x, weight = x.astype(dtype), weight.astype(dtype)
    product = x * weight
    total = np.where(rng.random(count) < 0.5, -product, product * 2.0 ** rng.integers(-30, 30, count)).astype(dtype)
    return x, weight, total


def test_the_reference_rounds_once(rng):
    x, weight, total = hard_operands(rng, np.float32, 3000)
    expected = [
        nearest32(Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c)))
        for a, b, c in zip(x, weight, total, strict=True)
    ]
    np.testing.assert_array_equal(fused32(x, weight, total), np.array(expected, np.float32))


def test_the_reference_breaks_ties_by_what_float64_loses():
    # 1 + 2**-24 is a tie between two float32; 2**-80 more decides it, and float64 does not hold that.
    x, weight = np.array([1 + 2.0**-12] * 2, np.float32), np.array([1 - 2.0**-12] * 2, np.float32)
    above, below = (np.array([2.0**-24 + 2.0**-24 * sign * 2.0**-20] * 2, np.float32) for sign in (1, -1))
    for total in (above, below):
        exact = Fraction(float(x[0])) * Fraction(float(weight[0])) + Fraction(float(total[0]))
        assert fused32(x, weight, total)[0] == nearest32(exact)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_a_multiply_add_rounds_once(rng, dtype):
    kind = np.dtype(dtype)
    real = np.empty(0, kind).real.dtype
    operands = hard_operands(rng, real, 2000)
    if kind.kind == "c":
        operands = [(part + 1j * rng.permutation(part)).astype(kind) for part in operands]
    np.testing.assert_array_equal(ours(*operands), step(*operands))


def test_a_multiply_add_keeps_subnormal_numbers():
    tiny = np.array([2.0**-100], np.float32)
    assert ours(tiny, np.array([2.0**-49], np.float32), np.array([0], np.float32)) == np.float32(2.0**-149)


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_integers_wrap_modulo_2_to_the_64(dtype):
    info = np.iinfo(dtype)
    values = np.array(list(itertools.product([info.min, -1 % 2**63, 3, info.max], repeat=3)), dtype).T.copy()
    result = ours(*values)
    exact = [(int(a) * int(b) + int(c)) % 2**64 for a, b, c in values.T]
    np.testing.assert_array_equal(result.view(np.uint64), np.array(exact, np.uint64))


def test_nan_and_inf_are_data():
    x = np.array([np.nan, np.inf, np.inf, 0, 1], np.float32)
    weight = np.array([1, 0, 1, np.nan, 1], np.float32)
    total = np.array([0, 0, -np.inf, 0, -np.inf], np.float32)
    np.testing.assert_array_equal(ours(x, weight, total), np.array([np.nan, np.nan, np.nan, np.nan, -np.inf]))
