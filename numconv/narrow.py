"""From the sums to the integers that a call asks for: a sum that they do not hold is refused, wrapped or saturated."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import jit
from .method import Array
from .problem import Problem
from .validate import refuse


def narrowed(problem: Problem, sums: Array, out: Array | None) -> Array:
    """The sums, contiguous and ours to change, in the Problem's output dtype; floats are rounded half to even."""
    if problem.overflow == "raise":
        check(problem, sums)
    if sums.dtype.kind == "f":
        result = out if out is not None and out.flags.c_contiguous else np.empty(sums.shape, problem.output)
        _saturate(sums, result)
    elif problem.overflow == "saturate":
        result = np.clip(sums, *limits(problem.output, sums.dtype), out=sums)
    else:
        result = sums
    if out is None:
        return result.astype(problem.output, copy=False)
    if result is not out:
        np.copyto(out, result, casting="unsafe")
    return out


def limits(output: np.dtype[Any], sums: np.dtype[Any]) -> tuple[int, int]:
    """The smallest and the largest integer that both hold."""
    known = np.iinfo(output), np.iinfo(output if sums.kind == "f" else sums)
    return max(int(one.min) for one in known), min(int(one.max) for one in known)


def check(problem: Problem, sums: Array) -> None:
    """Raise unless the output holds every sum."""
    if not sums.size:
        return
    held = np.iinfo(problem.output)
    for extreme in (sums.min(), sums.max()):
        # NaN is no integer; min and max find it.
        value = np.rint(extreme) if sums.dtype.kind == "f" else extreme
        if not (np.isfinite(value) and held.min <= int(value) <= held.max):
            ways = "" if sums.dtype.kind == "f" else "'wrap' or "
            refuse(
                OverflowError,
                f"a sum is {extreme}, but {problem.output.name} holds {held.min} to {held.max}: ask for a wider"
                f" dtype, or for overflow={ways}'saturate'",
                problem,
            )


def _saturate(sums: Array, out: Array) -> None:
    # Imported late: numba takes a while to set up a kernel, and `import numconv` should not.
    from .cpu.rounding import saturate

    held = np.iinfo(out.dtype)
    ends = np.array([held.min, held.max], out.dtype)
    saturate(jit.threads(), sums.reshape(-1), out.reshape(-1), ends.astype(sums.dtype), ends)
