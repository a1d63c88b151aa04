"""What the planner thought, and what a correlation costs: `explain` and `cost`, which run nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import jit
from .dialect import described
from .machine import Gpu, typical_gpu
from .planner import Candidate, candidates, chosen
from .problem import Problem


@dataclass(frozen=True)
class Explanation:
    """Every method with its predicted time or its refusal; `str()` is a table.

    Attributes
    ----------
    problem : Problem
    threads : int
    candidates : tuple of Candidate
        name, seconds, prepare_seconds, error_bound, expected_error, flops, bytes, scratch_bytes, refusal.
    chosen : str
        The name of the method that a call would take.
    gpu : Gpu or None
        The GPU that was asked about. Its times are predictions of a model that was fitted on an H100, not measured.

    """

    problem: Problem
    threads: int
    candidates: tuple[Candidate, ...]
    chosen: str
    gpu: Gpu | None = None

    def __str__(self) -> str:
        head = ("", "method", "predicted", "Gflop", "MB moved", "scratch KB", "expected error", "bound", "why not")
        rows = [head] + [self._row(candidate) for candidate in self.candidates]
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([f"{self.problem}, {self._where()}", *lines])

    def _where(self) -> str:
        if self.gpu is None:
            return f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        major, minor = self.gpu.cc
        where = f"{self.gpu.name} (compute capability {major}.{minor})"
        return f"{where}: predicted by a model fitted on an H100, not measured"

    def _row(self, candidate: Candidate) -> tuple[str, ...]:
        mark = "->" if candidate.name == self.chosen else ""
        errors = (f"{candidate.expected_error:.1e}", f"{candidate.error_bound:.1e}")
        if candidate.seconds is None or candidate.flops is None or candidate.bytes is None:
            return (mark, candidate.name, "-", "-", "-", "-", *errors, candidate.refusal or "")
        return (
            mark,
            candidate.name,
            _time(candidate.seconds),
            f"{candidate.flops / 1e9:.4g}",
            f"{candidate.bytes / 1e6:.4g}",
            f"{(candidate.scratch_bytes or 0) / 1e3:.4g}",
            *errors,
            candidate.refusal or "",
        )


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} us"


@dataclass(frozen=True)
class Cost:
    """Operations and bytes of a correlation and of its backward pass; `str()` is a table.

    Products with the padding's zeros are counted, as the textbook counts them. Forward reads input, weights and bias
    and writes the output. Backward, given the output's gradient, computes those of input, weights and bias: it reads
    the three arrays that its products need and writes the gradients.
    """

    problem: Problem
    forward_multiplications: int
    forward_additions: int
    forward_bytes: int
    backward_multiplications: int
    backward_additions: int
    backward_bytes: int

    def __str__(self) -> str:
        lines = [str(self.problem), f"{'':16}{'forward':>20}{'backward':>20}"]
        for name in ("multiplications", "additions", "bytes"):
            forward, backward = (getattr(self, f"{way}_{name}") for way in ("forward", "backward"))
            lines.append(f"{name:16}{forward:20,}{backward:20,}")
        return "\n".join(lines)


def explain(
    function: Callable[..., Any], /, *args: Any, cc: tuple[int, int] | None = None, **kwargs: Any
) -> Explanation:
    """What the planner thinks of a call, without running it: every method with its predicted time or its refusal.

    Parameters
    ----------
    function : callable
        A correlation of numconv, such as `numconv.conv2d`.
    *args, **kwargs
        Its arguments. A tuple of integers where an array is due stands for a float32 array of that shape.
    cc : (int, int), optional
        With device="cuda": ask about a typical GPU of that compute capability; no GPU, driver or numba-cuda is needed.

    Returns
    -------
    Explanation
        Times in seconds by the roofline model, for the number of threads that numba has now.

    Raises
    ------
    ValueError, TypeError
        As the call itself would; TypeError also for a function that is no correlation of numconv.

    Examples
    --------
    >>> import numconv as nc
    >>> thoughts = nc.explain(nc.conv2d, (1, 64, 56, 56), (64, 64, 3, 3), padding=1)
    >>> thoughts.chosen
    'tiled'
    >>> thoughts.candidates[0].refusal
    'the kernel has 9 taps, but a matrix product takes 1x1'
    >>> nc.explain(nc.conv2d, (64, 64, 56, 56), (64, 64, 3, 3), padding=1, device="cuda", cc=(9, 0)).gpu.name
    'H100'

    """
    call = described(function, args, kwargs)
    gpu = None
    if call.device is not None:
        if cc is None:
            from .cuda.launch import gpu_of

        gpu = typical_gpu(cc) if cc is not None else gpu_of(call.x, call.device)
    elif cc is not None:
        raise ValueError(f"cc is {cc!r}, but the call is one on the CPU: pass device='cuda' with it")
    threads = 1 if gpu else jit.threads()
    problem, on, method, _ = chosen(call, threads, prepared=False, gpu=gpu)
    return Explanation(problem, threads, candidates(problem, on, call.wish), method.NAME, gpu)


def cost(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Cost:
    """The textbook's exercise: multiplications, additions and bytes of a call, forward and backward, by definition.

    Parameters
    ----------
    function : callable
        A correlation of numconv, such as `numconv.conv2d`.
    *args, **kwargs
        Its arguments. A tuple of integers where an array is due stands for a float32 array of that shape.

    Raises
    ------
    ValueError, TypeError
        As the call itself would; TypeError also for a function that is no correlation of numconv.

    References
    ----------
    "Dive into Deep Learning", section 7.4.5, exercise 2.

    Examples
    --------
    >>> import numconv as nc
    >>> print(nc.cost(nc.conv2d, (1, 3, 32, 32), (8, 3, 3, 3), padding=1))
    float32 1x3x32x32 * 8x3x3x3 padding 1
                                 forward            backward
    multiplications              221,184             442,368
    additions                    212,992             439,080
    bytes                         45,920              59,072

    """
    call = described(function, args, kwargs)
    # What is counted depends on no device, but the mistakes in a call do.
    gpu = typical_gpu((9, 0)) if call.device is not None else None
    problem = chosen(call, jit.threads(), prepared=False, gpu=gpu)[0]
    products = problem.products
    inputs, weights, outputs = (math.prod(s) for s in (problem.x_shape, problem.weight_shape, problem.out_shape))
    biases = problem.out_channels * problem.has_bias
    forward = products - problem.sums + outputs * problem.has_bias
    # Each product is added into the gradient of one input and one weight; the first into each is no addition.
    backward = max(0, products - inputs) + max(0, products - weights) + max(0, outputs - biases) * problem.has_bias
    inputs_bytes, weights_bytes = inputs * problem.x_dtype.itemsize, weights * problem.weight_dtype.itemsize
    outputs_bytes, biases_bytes = outputs * problem.output.itemsize, biases * problem.weight_dtype.itemsize
    return Cost(
        problem=problem,
        forward_multiplications=products,
        forward_additions=forward,
        forward_bytes=inputs_bytes + weights_bytes + biases_bytes + outputs_bytes,
        backward_multiplications=2 * products,
        backward_additions=backward,
        backward_bytes=outputs_bytes + 2 * (inputs_bytes + weights_bytes) + biases_bytes,
    )
