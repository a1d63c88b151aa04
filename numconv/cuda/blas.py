"""The 1x1 correlation by cuBLAS, where CuPy brings it.

The idea: with a kernel of one tap, an image is one product of (out_channels, in_channels) by (in_channels, pixels)
[1]_, which CuPy's matmul hands to cuBLAS on views of our arrays. It leaves the order of summation to cuBLAS, so
`reproducible=True` excludes it; `matmul` is ours, and keeps it. float32 stays float32: TF32 is off unless the
environment asks CuPy for it.

It wins on 1x1 layers of many channels.

.. [1] A. Zhang et al., "Dive into Deep Learning", section 7.4.3.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from typing import Any, NamedTuple

from ..accuracy import any_order_bound, any_order_expected
from ..machine import Machine
from ..method import Work
from ..problem import Problem
from . import pack, tiling
from .arrays import DeviceArray

NAME = "blas"
REPRODUCIBLE = False
NEEDS_RTOL = False
STRIDED_OUT = False
GROUPS_APART = False

# Of the peak at the driver's clock, measured on an H100 with the 1x1 layers of a ResNet.
EFFICIENCY = 0.45
# Kernels of a launch: the product, the bias, the activation.
KERNELS = 3

error_bound, expected_error = any_order_bound, any_order_expected


class Prepared(NamedTuple):
    """CuPy's arrays: weight (groups, output channels, input channels per group); bias (out_channels, 1) or None."""

    weight: Any
    bias: Any

    @property
    def nbytes(self) -> int:
        """What it takes on the device."""
        return int(self.weight.nbytes) + (0 if self.bias is None else int(self.bias.nbytes))


def why_not(problem: Problem, machine: Machine) -> str | None:
    if reason := tiling.no_product(problem) or tiling.floats_alone(problem):
        return reason
    if not problem.in_channels:
        return "there are no input channels, and so no product"
    if importlib.util.find_spec("cupy") is None:
        return "CuPy, which leads to cuBLAS, is not installed: pip install cupy-cuda13x (or cupy-cuda12x)"
    return None


def work(problem: Problem, machine: Machine) -> Work:
    rate = EFFICIENCY * machine.flop_rate(problem.accumulator)
    return Work(problem.flops, rate, problem.bytes, KERNELS * machine.launch, 0.0)


def scratch_bytes(problem: Problem, machine: Machine) -> int:
    return 0


def prepare(problem: Problem, machine: Machine, weight: Any, bias: Any) -> Prepared:
    import cupy

    kind, groups = problem.accumulator, problem.groups
    held = cupy.array(_there(cupy, weight), kind).reshape(groups, problem.out_channels // groups, problem.taps)
    return Prepared(held, None if bias is None else cupy.array(_there(cupy, bias), kind).reshape(-1, 1))


def run(
    problem: Problem, machine: Machine, prepared: Prepared, x: Any, out: Any, scratch: Any, stream: Any = None
) -> None:
    import cupy

    groups, pixels = problem.groups, problem.pixels
    row = pack.in_a_row(problem, x, stream)
    with _stream(cupy, stream):
        result = cupy.asarray(out).reshape(problem.batch, problem.out_channels, pixels)
        if groups == 1:
            # Of two axes and three: CuPy's matmul goes through others for more.
            cupy.matmul(prepared.weight[0], _there(cupy, row), out=result)
        else:
            products = result.reshape(problem.batch, groups, problem.out_channels // groups, pixels)
            cupy.matmul(prepared.weight, _there(cupy, row.split(1, groups)), out=products)
        if prepared.bias is not None:
            result += prepared.bias
        if problem.activation == "relu":
            cupy.maximum(result, 0, out=result)


def _there(cupy: Any, array: DeviceArray) -> Any:
    """CuPy's view of an array, which waits for no stream: what it must wait for is done, or on the same one."""
    return cupy.asarray(dataclasses.replace(array, stream=None))


def _stream(cupy: Any, stream: Any) -> Any:
    """CuPy's stream for numba's, or for 0."""
    if not stream:
        return cupy.cuda.Stream.null
    # Versions before 14 know streams by their handles alone.
    from_external = getattr(cupy.cuda.Stream, "from_external", None)
    return cupy.cuda.ExternalStream(int(stream)) if from_external is None else from_external(stream)
