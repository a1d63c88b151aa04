"""The oracle: a correlation by definition, short enough to check by eye, slow, and independent of every kernel.

Floating-point problems are computed in NumPy's longest float, integers modulo 2**64 as in the contract.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .method import Array
from .problem import PADDING_MODES, Problem


def correlate(problem: Problem, x: Array, weight: Array, bias: Array | None) -> Array:
    """The exact result, up to the rounding of np.longdouble, in the Problem's out_shape."""
    kind = {"c": np.clongdouble, "f": np.longdouble}.get(problem.accumulator.kind, problem.accumulator.type)
    x = x.reshape(problem.x_shape).astype(kind)
    weight = weight.astype(kind)
    padded = _pad(problem, x)
    axes = tuple(range(2, 2 + problem.rank))
    reach = [d * (k - 1) + 1 for d, k in zip(problem.dilation, problem.kernel, strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axes)
    steps = [slice(None, None, s) for s in problem.stride]
    taps = [slice(None, None, d) for d in problem.dilation]
    windows = windows[:, :, *steps, *taps]
    split = (problem.batch, problem.groups, problem.in_channels // problem.groups)
    windows = windows.reshape(*split, *windows.shape[2:])
    weight = weight.reshape(problem.groups, problem.out_channels // problem.groups, *weight.shape[1:])
    out, inside = "xyz"[: problem.rank], "abc"[: problem.rank]
    result: Array = np.einsum(f"ngi{out}{inside},goi{inside}->ngo{out}", windows, weight)
    result = _fold(problem, result.reshape(*problem.out_shape[:2], *windows.shape[3 : 3 + problem.rank]))
    if bias is not None:
        result = result + bias.astype(kind).reshape(-1, *(1,) * problem.rank)
    if problem.activation == "relu":
        result = np.maximum(result, 0)
    return result


def _pad(problem: Problem, x: Array) -> Array:
    """Zeros between inputs, then padding around them; below zero, it takes away."""
    sides = ((n - 1) * s + 1 for n, s in zip(x.shape[2:], problem.input_dilation, strict=True))
    wide = np.zeros((*x.shape[:2], *sides), x.dtype)
    wide[:, :, *(slice(None, None, s) for s in problem.input_dilation)] = x
    mode: Any = "constant" if any(map(any, problem.fold)) else PADDING_MODES[problem.padding_mode]
    value = {"constant_values": problem.padding_value} if mode == "constant" else {}
    frame = ((0, 0), (0, 0), *((max(0, before), max(0, after)) for before, after in problem.padding))
    padded: Array = np.pad(wide, frame, mode, **value)
    return padded[:, :, *(slice(max(0, -b), min(0, a) or None) for b, a in problem.padding)]


def _fold(problem: Problem, result: Array) -> Array:
    """The adjoint of np.pad: each element goes where np.pad would have taken it from."""
    for axis, (frame, size) in enumerate(zip(problem.fold, problem.out_spatial, strict=True)):
        mode: Any = PADDING_MODES[problem.padding_mode]
        sources = np.pad(np.arange(size), frame, mode) if any(frame) else np.arange(size)
        folded = np.zeros((size, *np.moveaxis(result, 2 + axis, 0).shape[1:]), result.dtype)
        np.add.at(folded, sources, np.moveaxis(result, 2 + axis, 0))
        result = np.moveaxis(folded, 0, 2 + axis)
    return result
