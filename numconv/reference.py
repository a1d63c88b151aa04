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
    mode: Any = PADDING_MODES[problem.padding_mode]
    value = {"constant_values": problem.padding_value} if mode == "constant" else {}
    padded = np.pad(x, ((0, 0), (0, 0), *problem.padding), mode, **value)
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
    result = result.reshape(problem.out_shape)
    if bias is not None:
        result = result + bias.astype(kind).reshape(-1, *(1,) * problem.rank)
    if problem.activation == "relu":
        result = np.maximum(result, 0)
    return result
