"""A 1x1 correlation as products of cuBLAS, on the arrays as they lie, for the methods that differ in their digits."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ..machine import Machine
from ..method import Work
from ..problem import Problem
from . import pack, tiling
from .arrays import DeviceArray
from .cublas import AS_IT_LIES, TURNED, library, products
from .driver import cuda
from .kernels import Memory, kernel
from .tiling import THREADS

# The largest step that the library's numbers of 32 bits hold.
MOST = 2**31 - 1


def why_not(problem: Problem) -> str | None:
    """What the library cannot do, or that it is not there."""
    if reason := tiling.no_product(problem) or tiling.floats_alone(problem):
        return reason
    if not problem.in_channels:
        return "there are no input channels, and so no product"
    if library() is None:
        return "cuBLAS is not installed: pip install 'cuda-toolkit[cublas]'; torch and CuPy bring it along"
    return None


def work(problem: Problem, machine: Machine, rate: float) -> Work:
    """The products at so many flop/s, and what comes after them."""
    launches = 1 + _finishes(problem)
    return Work(problem.flops, rate, problem.bytes * launches, launches * machine.launch, 0.0)


def prepare(problem: Problem, weight: Any, bias: Any) -> pack.Prepared:
    """The weights as a matrix."""
    places = (problem.out_channels, problem.pixels, int(problem.activation == "relu"))
    return pack.prepare(problem, weight, bias, 1, 1, places)


def multiply(problem: Problem, prepared: pack.Prepared, x: Any, out: Any, stream: Any, mode: int) -> None:
    """The products of all images, in full or in TF32, and what comes after them."""
    pixels, groups, batch = problem.pixels, problem.groups, problem.batch
    inputs, channels = problem.in_channels // groups, problem.out_channels // groups
    row = pack.in_a_row(problem, x, stream)
    if (found := _matrix(row)) is None:
        row = pack.in_a_row(problem, pack.contiguous(problem, x, stream), stream)
        found = AS_IT_LIES, pixels
    turned, step = found
    (image, channel), itemsize = row.strides[:2], problem.accumulator.itemsize
    result, weights = Memory.of(out).pointer, prepared.weight.pointer
    handle, library_products = int(stream.handle) if stream else 0, products(mode)
    # In the library's terms, an image is (pixels, channels), the weights (inputs, outputs), for all images alike.
    for group in range(groups):
        library_products.multiply(
            problem.accumulator,
            (pixels, channels, inputs),
            turned,
            (row.pointer + group * inputs * channel * itemsize, step, image),
            (weights + group * channels * inputs * itemsize, inputs, 0),
            (result + group * channels * pixels * itemsize, pixels, problem.out_channels * pixels),
            batch,
            handle,
        )
    if _finishes(problem):
        blocks = -(-pixels // THREADS) * batch * problem.out_channels
        build()[blocks, THREADS, stream or 0](out, prepared.bias, prepared.places)


def _matrix(row: DeviceArray) -> tuple[int, int] | None:
    """(whether the library takes an image of (channels, pixels) turned over, elements from one of its columns to the
    next), or None where neither axis lies together.
    """
    (channels, pixels), (channel, pixel) = row.shape[1:], row.strides[1:]
    if pixel == 1 or pixels == 1:
        step = pixels if channels == 1 else channel
        return (AS_IT_LIES, step) if pixels <= step <= MOST else None
    return (TURNED, pixel) if channel == 1 and channels <= pixel <= MOST else None


def _finishes(problem: Problem) -> bool:
    """Whether a bias or an activation comes after the products."""
    return problem.has_bias or problem.activation is not None


@functools.cache
def build() -> Any:
    """The kernel."""

    def finish(out, bias, places):  # type: ignore[no-untyped-def]
        """out[n, co, pixel] += bias[co], then at least 0 if places (out_channels, pixels, relu) say so."""
        channels, pixels = np.uint32(places[0]), np.uint32(places[1])
        parts = np.uint32((pixels + np.uint32(THREADS - 1)) // np.uint32(THREADS))
        block = np.uint32(cuda.blockIdx.x)
        plane = np.uint32(block // parts)
        pixel = np.uint32(np.uint32(block - plane * parts) * np.uint32(THREADS) + np.uint32(cuda.threadIdx.x))
        if pixel < pixels:
            at = np.int64(plane) * np.int64(pixels) + np.int64(pixel)
            total = out[at] + bias[np.uint32(plane % channels)]
            if places[2] != 0 and total < out.dtype.type(0):
                total = out.dtype.type(0)
            out[at] = total

    return kernel(finish, THREADS, 1)
