"""The matrices of minimal filtering F(m, 3), by which m outputs of three taps take m + 2 products [1]_ [2]_.

The input is a polynomial's values: B^T d evaluates what meets them at m + 1 points and at infinity, G g does so for the
taps, and A^T interpolates the products::

    y = A^T ((G g) * (B^T d)),    in two dimensions  Y = A^T ((G g G^T) * (B^T d B)) A.

Any distinct points give an exact formula; what they change is how much roundings grow. For m = 4 the usual 0, 1, -1, 2,
-2 multiply the worst case by 860 and the rounding errors of random data by 4.3 against direct summation. Here they
are 0, +-5/8, +-3/2: 175 and 2.0, the least of all pairs of eighths from 3/8 to 19/8 [3]_. Pairs of opposite points
share their even and odd parts, and fractions of a power of two leave B and A without rounding.

.. [1] S. Winograd, "Arithmetic Complexity of Computations", SIAM, 1980.
.. [2] A. Lavin and S. Gray, "Fast algorithms for convolutional neural networks", CVPR 2016.
.. [3] B. Barabasz, A. Anderson, K. Soodhalter and D. Gregg, "Error analysis and improving the accuracy of Winograd
   convolution for deep neural networks", ACM TOMS 46, 2020: the bound, and why the points matter.
"""

from __future__ import annotations

import functools
import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from ..method import Array

TAPS = 3
POINTS = {
    2: (Fraction(0), Fraction(1), Fraction(-1)),
    4: (Fraction(0), Fraction(5, 8), Fraction(-5, 8), Fraction(3, 2), Fraction(-3, 2)),
}
Matrix = tuple[tuple[Fraction, ...], ...]


class Transforms(NamedTuple):
    """B^T (m + 2, m + 2), G (m + 2, 3) and A^T (m, m + 2)."""

    data: Matrix
    kernel: Matrix
    result: Matrix


@functools.cache
def transforms(outputs: int) -> Transforms:
    """The matrices of F(outputs, 3)."""
    points = POINTS[outputs]
    others = [[other for other in points if other != point] for point in points]
    data = [(*_with_roots(roots), Fraction(0)) for roots in others]
    kernel = [
        tuple(point**k / math.prod(point - root for root in roots) for k in range(TAPS))
        for point, roots in zip(points, others, strict=True)
    ]
    result = [(*(point**k for point in points), Fraction(k == outputs - 1)) for k in range(outputs)]
    infinity = tuple(Fraction(k == TAPS - 1) for k in range(TAPS))
    return Transforms((*data, _with_roots(points)), (*kernel, infinity), tuple(result))


def _with_roots(roots: tuple[Fraction, ...] | list[Fraction]) -> tuple[Fraction, ...]:
    """The coefficients of the product of (x - root), lowest power first."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted, scaled = [Fraction(0), *coefficients], [root * c for c in coefficients] + [Fraction(0)]
        coefficients = [a - b for a, b in zip(shifted, scaled, strict=True)]
    return tuple(coefficients)


def as_floats(matrix: Matrix) -> Array:
    """The matrix in float64."""
    return np.array([[float(value) for value in row] for row in matrix])


@functools.cache
def growth(outputs: int) -> float:
    """How much larger than the sum of |g| |d| the terms of Y can be: their roundings are relative to this."""
    data, kernel, result = (np.abs(as_floats(matrix)) for matrix in transforms(outputs))
    # |A^T| |B^T| 1 |G|: for each output and each tap.
    return float(np.einsum("kf,f,ft->kt", result, data.sum(axis=1), kernel).max() ** 2)
