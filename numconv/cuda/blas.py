"""The 1x1 correlation by cuBLAS, where that is installed.

The idea: with a kernel of one tap, an image is one product of (out_channels, in_channels) by (in_channels, pixels)
[1]_, and all images are one call of cuBLAS, on the arrays as they lie. It leaves the order of summation to cuBLAS, so
`reproducible=True` excludes it; `matmul` is ours, and keeps it. float32 stays float32: TF32 is off unless the
environment asks cuBLAS for it.

It wins on 1x1 layers of many channels.

.. [1] A. Zhang et al., "Dive into Deep Learning", section 7.4.3.
"""

from __future__ import annotations

from typing import Any

from ..accuracy import any_order_bound, any_order_expected
from ..machine import Machine
from ..method import Work
from ..problem import Problem
from . import pack, products
from .cublas import FULL

NAME = "blas"
REPRODUCIBLE = False
NEEDS_RTOL = False
STRIDED_OUT = False
GROUPS_APART = False

# Of the peak at the driver's clock, measured on an H100 with the 1x1 layers of a ResNet.
EFFICIENCY = 0.45

error_bound, expected_error = any_order_bound, any_order_expected


def why_not(problem: Problem, machine: Machine) -> str | None:
    return products.why_not(problem)


def work(problem: Problem, machine: Machine) -> Work:
    rate = EFFICIENCY * machine.flop_rate(problem.accumulator)
    return products.work(problem, machine, rate)


def scratch_bytes(problem: Problem, machine: Machine) -> int:
    return 0


def prepare(problem: Problem, machine: Machine, weight: Any, bias: Any) -> pack.Prepared:
    return products.prepare(problem, weight, bias)


def run(
    problem: Problem, machine: Machine, prepared: pack.Prepared, x: Any, out: Any, scratch: Any, stream: Any = None
) -> None:
    products.multiply(problem, prepared, x, out, stream, FULL)
