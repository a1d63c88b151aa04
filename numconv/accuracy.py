"""How exact a direct sum is: the proved bound and the expected error, in the problem's accumulator.

Both are relative to ``max|x| * max over outputs of sum|w| + max|b|``, and leave aside under- and overflow.

A product of a segmented sum goes through at most ``s`` additions (`Problem.longest_sum`), each with one rounding of
relative size at most u, since the multiplication is fused. So the error is at most gamma(s) = s*u / (1 - s*u) times
the sum of absolute products [1]_, and by the probabilistic analysis, which takes roundings for independent and of
mean zero, below exp(lambda*sqrt(s)*u + s*u**2 / (1 - u)) - 1 with probability 1 - 2*exp(-lambda**2 * (1-u)**2 / 2)
for each element [2]_: lambda = 8 leaves 2.5e-14. A complex sum goes through two fused steps a tap, and each part of
it adds up products of both parts: the bound is that of 2s steps times sqrt(2).

.. [1] N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd edition, 2002, section 3.1.
.. [2] N. J. Higham and T. Mary, "A new approach to probabilistic rounding error analysis", SIAM J. Sci. Comput. 41,
   2019, theorem 2.4.
"""

from __future__ import annotations

import math

import numpy as np

from .problem import Problem

LAMBDA = 8.0


def direct_bound(problem: Problem) -> float:
    """The proved bound of a sum in the one order of summation."""
    return summed_bound(problem, problem.longest_sum)


def direct_expected(problem: Problem) -> float:
    """The expected error of a sum in the one order of summation."""
    return summed_expected(problem, problem.longest_sum)


def any_order_bound(problem: Problem) -> float:
    """The proved bound of a sum in whatever order, each product rounded: a BLAS."""
    return summed_bound(problem, problem.taps + problem.has_bias)


def any_order_expected(problem: Problem) -> float:
    """The expected error of a sum in whatever order, each product rounded: a BLAS."""
    return summed_expected(problem, problem.taps + problem.has_bias)


def _unit_roundoff(problem: Problem) -> float:
    return float(np.finfo(problem.accumulator).eps) / 2


def summed_bound(problem: Problem, steps: int) -> float:
    """The proved bound of sums whose terms go through so many roundings at most."""
    if problem.accumulator.kind in "iu":
        return 0.0
    size, factor = (2 * steps, math.sqrt(2)) if problem.accumulator.kind == "c" else (steps, 1.0)
    product = size * _unit_roundoff(problem)
    return factor * product / (1 - product) if product < 1 else math.inf


def summed_expected(problem: Problem, steps: int) -> float:
    """The expected error of sums whose terms go through so many roundings at most."""
    if problem.accumulator.kind in "iu":
        return 0.0
    size, factor = (2 * steps, math.sqrt(2)) if problem.accumulator.kind == "c" else (steps, 1.0)
    unit = _unit_roundoff(problem)
    return min(
        summed_bound(problem, steps),
        factor * math.expm1(LAMBDA * math.sqrt(size) * unit + size * unit**2 / (1 - unit)),
    )
