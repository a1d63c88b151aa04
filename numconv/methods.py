"""Every method, in the order in which ties are settled: the one place that lists them.

To add one, write a module to the contract of method.py and put it in its device's table. The modules are imported by
the first call that plans, since numba takes a while to set up their kernels and `import numconv` should not.
"""

from __future__ import annotations

import functools

from .method import Method


@functools.cache
def methods() -> tuple[Method, ...]:
    """The table of the CPU."""
    from .cpu import depthwise, fft, fft32, loops, matmul, planar, separable, tiled, winograd, winograd2

    return (matmul, separable, depthwise, planar, winograd, winograd2, tiled, fft, fft32, loops)


@functools.cache
def cuda_methods() -> tuple[Method, ...]:
    """The table of a GPU."""
    from .cuda import blas, depthwise, loops, matmul, tensor, tensor_blas, tiled, wide

    return (matmul, blas, tensor_blas, depthwise, tensor, tiled, wide, loops)
