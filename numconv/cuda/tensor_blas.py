"""The 1x1 correlation by cuBLAS on tensor cores, in TF32, where that is installed.

The idea: `blas`, which says how an image is one product, with factors of ten bits. That cuBLAS rounds them is not
promised, so the bound allows for cutting them off.

It wins on 1x1 layers where an `rtol` of some thousandths is asked for.
"""

from __future__ import annotations

from typing import Any

from ..machine import Machine
from ..method import Work
from ..problem import Problem
from . import pack, products, tf32
from .cublas import TF32

NAME = "tensor_blas"
REPRODUCIBLE = False
NEEDS_RTOL = True
STRIDED_OUT = False
GROUPS_APART = False

# Of the tensor cores' peak at the driver's clock, measured on an H100 with the 1x1 layers of a ResNet.
EFFICIENCY = 0.3


def error_bound(problem: Problem) -> float:
    """Both factors are cut off once, and each sum is truncated."""
    return tf32.bound(tf32.CUT_OFF, problem.taps + problem.has_bias)


# Cutting off errs to one side, and one large product may be all there is.
expected_error = error_bound


def why_not(problem: Problem, machine: Machine) -> str | None:
    return tf32.why_not(problem, machine) or products.why_not(problem)


def work(problem: Problem, machine: Machine) -> Work:
    gpu = machine.gpu
    assert gpu is not None
    rate = EFFICIENCY * 2.0 * gpu.multiprocessors * gpu.clock * gpu.tensor_lanes
    return products.work(problem, machine, rate)


def scratch_bytes(problem: Problem, machine: Machine) -> int:
    return 0


def prepare(problem: Problem, machine: Machine, weight: Any, bias: Any) -> pack.Prepared:
    return products.prepare(problem, weight, bias)


def run(
    problem: Problem, machine: Machine, prepared: pack.Prepared, x: Any, out: Any, scratch: Any, stream: Any = None
) -> None:
    products.multiply(problem, prepared, x, out, stream, TF32)
