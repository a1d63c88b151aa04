"""TF32: float32 with ten bits behind the first, which tensor cores multiply; their error, and who has them.

The products of two are exact, and their sums truncated to 23 bits at least [1]_.

.. [1] M. Fasi, N. J. Higham, M. Mikaitis, S. Pranesh, "Numerical behavior of NVIDIA tensor cores", PeerJ Computer
   Science 7, 2021.
"""

from __future__ import annotations

import math

import numpy as np

from ..machine import Machine
from ..problem import Problem
from .tiling import floats_alone

# What a factor loses that is rounded, and one that is cut off; and a sum.
ROUNDED, CUT_OFF, ADDED = 2.0**-11, 2.0**-10, 2.0**-22


def bound(factor: float, count: int) -> float:
    """The error of a sum of products by so many additions, relative to that of their absolute values."""
    lost = count * ADDED
    return (1 + factor) ** 2 * (1 + lost / (1 - lost)) - 1 if lost < 1 else math.inf


def why_not(problem: Problem, machine: Machine) -> str | None:
    """Why tensor cores do not multiply in TF32."""
    if machine.gpu is not None and not machine.gpu.tensor_lanes:
        return f"{machine.gpu.name} multiplies no TF32: that takes compute capability 8.0"
    if reason := floats_alone(problem):
        return reason
    if problem.accumulator != np.float32:
        return f"the sums are {problem.accumulator.name}, but TF32 has ten bits"
    return None
