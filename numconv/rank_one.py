"""Kernels of rank 1: a kernel as a product of one vector for each axis, and how far it is from that.

The factors are those of the higher-order power method [1]_, which for two axes is the power iteration for the largest
singular value. A kernel of rank 1 but for roundings needs one step.

.. [1] L. De Lathauwer, B. De Moor, J. Vandewalle, "On the best rank-1 and rank-(R1, R2, ..., RN) approximation of
   higher-order tensors", SIAM J. Matrix Anal. Appl. 21, 2000, algorithm 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .method import Array
from .problem import Problem

# Smaller kernels are not looked at: two passes would not pay.
LEAST_TAPS = 25
# Beyond this residual a kernel is not of rank 1: float16 rounds a Gaussian to a quarter of it.
LARGEST_RESIDUAL = 2.0**-10
STEPS = 1


def kernels(problem: Problem, weight: Array) -> Array:
    """The kernel of each output channel, (out_channels, rows, columns), its planes, if several, as one axis more."""
    planes = problem.rank == 3 and problem.kernel[0] > 1
    lengths = problem.kernel if planes else problem.kernel[-2:]
    found = weight.reshape(problem.out_channels, *lengths)
    return np.moveaxis(found, 1, -1) if planes else found


def factors(kernels: Array, dtype: np.dtype[Any]) -> tuple[Array, ...]:
    """One array (channels, length) of a dtype for each axis, whose products are the kernels' best of rank 1.

    All but the last are at most 1 in magnitude; the last has the kernel's scale.
    """
    names = "abc"[: kernels.ndim - 1]
    values = kernels.astype(np.float64)
    flat = np.abs(values).reshape(len(kernels), -1)
    _, exponents = np.frexp(flat.max(axis=1))
    values = np.ldexp(values, -exponents.reshape(-1, *(1,) * len(names)))
    # First the lines through each kernel's largest element.
    pivot = np.unravel_index(flat.argmax(axis=1), kernels.shape[1:])
    found = {}
    for axis, name in enumerate(names):
        place = pivot[:axis] + pivot[axis + 1 :]
        found[name] = np.moveaxis(values, axis + 1, -1)[np.arange(len(kernels)), *place]
    for _ in range(STEPS):
        for name in names:
            others = [other for other in names if other != name]
            terms = ",".join([f"z{names}", *(f"z{other}" for other in others)])
            sums = np.einsum(f"{terms}->z{name}", values, *(found[other] for other in others))
            norms = np.prod([(found[other] ** 2).sum(axis=1) for other in others], axis=0)
            found[name] = sums / np.where(norms > 0, norms, 1)[:, None]
    for name in names[:-1]:
        _, own = np.frexp(np.abs(found[name]).max(axis=1))
        found[name] = np.ldexp(found[name], -own[:, None])
        exponents = exponents + own
    found[names[-1]] = np.ldexp(found[names[-1]], exponents[:, None])
    return tuple(np.ascontiguousarray(found[name], dtype) for name in names)


def product(vectors: Sequence[Array]) -> Array:
    """The kernels (channels, *lengths) that are products of vectors (channels, length), one for each axis."""
    names = "abc"[: len(vectors)]
    operands: list[Any] = list(vectors)
    result: Array = np.einsum(f"{','.join(f'z{name}' for name in names)}->z{names}", *operands)
    return result


def residual(problem: Problem, weight: Array) -> float | None:
    """How far the kernels are from rank 1 at most: sum|w - product of factors| / sum|w| of the worst, rounded up to a
    power of two. None where that is too far, or nobody would ask: then they are not known to be of rank 1.
    """
    lengths = problem.kernel[-2:] if problem.kernel[0] == 1 else problem.kernel
    if problem.in_channels != problem.groups or not problem.plain or problem.accumulator.kind != "f":
        return None
    if math.prod(lengths) < LEAST_TAPS or math.prod(lengths) == max(lengths):
        return None
    found = kernels(problem, weight)
    if not found.size or not np.isfinite(found).all() or not found.any():
        return None
    inside = tuple(range(1, found.ndim))
    # More digits than the factors have.
    wide = np.float64 if problem.accumulator == np.float32 else np.longdouble
    vectors = [vector.astype(wide) for vector in factors(found, problem.accumulator)]
    sums = np.abs(found.astype(wide)).sum(axis=inside)
    worst = (np.abs(found - product(vectors)).sum(axis=inside) / np.where(sums > 0, sums, 1)).max()
    # And the roundings of this reckoning itself, which matter where long doubles are doubles.
    figure = 2.0 ** math.ceil(math.log2(float(worst) + 8 * float(np.finfo(wide).eps)))
    return figure if figure <= LARGEST_RESIDUAL else None
