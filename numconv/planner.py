"""The planner: a Problem in, the method that serves it out.

Each method of methods.py is asked "why not?", "how exact?" and "how long?"; the fastest that is admitted wins.
A single call minimises preparing and running, a `Plan` (plans.py) running alone.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .machine import Gpu, Machine, gpu_machine, machine
from .method import Array, Method, Work
from .methods import cuda_methods, methods
from .phased import Phased, summing
from .problem import Problem
from .rank_one import residual
from .validate import describe, refuse

# Looking for factors of the weights takes about as long as so many products.
LEAST_PRODUCTS = 1 << 25


class Options(NamedTuple):
    """What a call asks of its correlation, in the `canonical` hashable form; see `numconv.conv2d` for the meaning."""

    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    groups: int = 1
    padding_mode: str = "zeros"
    activation: str | None = None
    dtype: np.dtype[Any] | None = None
    padding_value: complex = 0
    overflow: str | None = None
    input_dilation: Any = 1
    fold: Any = 0
    layout: str = "NCHW"


class Wish(NamedTuple):
    """What a call asks of the method."""

    method: str = "auto"
    rtol: float | None = None
    rtol_kind: str = "expected"
    reproducible: bool = False
    workspace: int | None = None


class Call(NamedTuple):
    """One correlation that a dialect asks for: arrays and options; the result's shape, where it is not the input's; the
    view of the result to return, and to copy to `out`, where that is not all of it or in another order of axes; and
    what makes of the result, written to `out` as it is, what the caller gets. The channels of x may be on two axes.
    """

    rank: int
    x: Array
    weight: Array
    bias: Array | None = None
    options: Options = Options()
    wish: Wish = Wish()
    out: Array | None = None
    shape: Callable[[tuple[int, ...]], tuple[int, ...]] | None = None
    view: Callable[[Array], Array] | None = None
    finish: Callable[[Array], Array] | None = None
    # "cuda" or "cuda:1", where the arrays may lie on a device; None is the CPU.
    device: str | None = None
    stream: Any = None
    # Whether x is (n, groups, channels of a group, ...).
    groups_apart: bool = False

    @property
    def x_shape(self) -> tuple[int, ...]:
        """The shape of x, with its channels on one axis."""
        shape: tuple[int, ...] = self.x.shape
        return (shape[0], shape[1] * shape[2], *shape[3:]) if self.groups_apart else shape


@dataclasses.dataclass(frozen=True, slots=True)
class Candidate:
    """What the planner thought of one method. Seconds and bytes are None for one that was refused."""

    name: str
    seconds: float | None
    prepare_seconds: float | None
    error_bound: float
    expected_error: float
    flops: float | None
    bytes: float | None
    scratch_bytes: int | None
    refusal: str | None


def seconds(work: Work, on: Machine) -> tuple[float, float]:
    """The one roofline: (preparing, running) in seconds.

    A GPU moves bytes for some threads while it computes for others. A thread of the CPU copies a block, then computes
    it: the sum was nearer to 1,200 measured times than the larger of the two, and tells methods that are bound by
    memory apart.
    """
    computing, moving = work.flops / work.rate, on.moving(work.bytes)
    running = work.overhead + (computing + moving if on.gpu is None else max(computing, moving))
    return work.prepare_bytes / on.bandwidth, running


def _methods(on: Machine) -> tuple[Method, ...]:
    """The table of a machine."""
    return methods() if on.gpu is None else cuda_methods()


def _refusal(method: Method, problem: Problem, on: Machine, wish: Wish) -> str | None:
    """Why a method does not serve, or None: the method's own reason, then the caller's wishes."""
    reason = method.why_not(problem, on)
    if reason is None and (barred := _barred(method, wish)):
        reason = barred.format(error=method.expected_error(problem))
    if reason is None and wish.rtol is not None and not method.REPRODUCIBLE:
        kind = "proved error bound" if wish.rtol_kind == "bound" else "expected error"
        error = (method.error_bound if wish.rtol_kind == "bound" else method.expected_error)(problem)
        if error > wish.rtol:
            reason = f"its {kind} is {error:.2g}, over rtol={wish.rtol:g}"
    if reason is None and wish.method not in ("auto", method.NAME):
        reason = f"method={wish.method!r} was asked for"
    if reason is None and wish.workspace is not None:
        scratch = method.scratch_bytes(problem, on)
        if scratch > wish.workspace:
            reason = f"it takes {scratch} bytes of scratch at least, over workspace={wish.workspace}"
    return reason


def _barred(method: Method, wish: Wish) -> str | None:
    """Why the caller's wishes exclude a method for any Problem, which `error`, the expected one, completes; or None."""
    if wish.reproducible and not method.REPRODUCIBLE:
        return "it leaves the one order of summation, and reproducible=True excludes that"
    if wish.rtol is None and wish.method == "auto" and method.NEEDS_RTOL:
        return "it spends digits: rtol={error:.1e} or more, or its name, lets it in"
    return None


def candidates(problem: Problem, on: Machine, wish: Wish) -> tuple[Candidate, ...]:
    """What the planner thinks of each method."""
    found = []
    for method in _offers(problem, on, wish, prepared=False):
        refusal = _refusal(method, problem, on, wish)
        served = method.why_not(problem, on) is None
        work = method.work(problem, on) if served else None
        preparing, running = seconds(work, on) if work else (None, None)
        found.append(
            Candidate(
                name=method.NAME,
                seconds=running,
                prepare_seconds=preparing,
                error_bound=method.error_bound(problem),
                expected_error=method.expected_error(problem),
                flops=work.flops if work else None,
                bytes=work.bytes if work else None,
                scratch_bytes=method.scratch_bytes(problem, on) if served else None,
                refusal=refusal,
            )
        )
    return tuple(found)


def _offers(problem: Problem, on: Machine, wish: Wish, prepared: bool) -> tuple[Method, ...]:
    """The methods; for a Problem in phases, the best of each phase and each method for all of them."""
    if problem.plain:
        return _methods(on)
    phases = summing(problem)
    phased = phased_on(on)
    alone = tuple(phased(problem, (method,) * len(phases), method.NAME) for method in _methods(on))
    if wish.method != "auto":
        return alone
    best = tuple(choose(phase.problem, on, wish, prepared) for phase in phases)
    return (phased(problem, best), *alone) if len({method.NAME for method in best}) > 1 else alone


def phased_on(on: Machine) -> Callable[..., Phased]:
    """What makes of a Problem and a method for each of its phases what serves it."""
    # Imported late, as the tables of methods are.
    if on.gpu is None:
        from .cpu.phased_tiles import phased

        return phased
    from .cuda.phased import PhasedOnGpu

    return PhasedOnGpu


def choose(problem: Problem, on: Machine, wish: Wish, prepared: bool) -> Method:
    """The fastest method that is admitted; `prepared` leaves the preparing out of the reckoning."""
    names = [method.NAME for method in _methods(on)]
    if wish.method not in ("auto", *names):
        refuse(ValueError, f"method is {wish.method!r}, but it must be one of auto, {', '.join(names)}", problem)
    best: tuple[float, Method] | None = None
    refusal = ""
    for method in _offers(problem, on, wish, prepared):
        # To ask a method for its own reason can take longer than a call.
        if wish.method != method.NAME and (wish.method != "auto" or _barred(method, wish)):
            continue
        reason = _refusal(method, problem, on, wish)
        if reason is None:
            preparing, running = seconds(method.work(problem, on), on)
            cost = running if prepared else preparing + running
            if best is None or cost < best[0]:
                best = (cost, method)
        elif wish.method == method.NAME:
            refusal = reason
    if best is None and wish.method != "auto":
        refuse(ValueError, f"method={wish.method!r} does not serve: {refusal}; 'auto' finds one that does", problem)
    if best is None:
        # `loops` refuses nothing else.
        least = min(method.scratch_bytes(problem, on) for method in _methods(on) if method.why_not(problem, on) is None)
        sentence = f"workspace is {wish.workspace}, but every method needs scratch: allow {least} bytes at least"
        refuse(ValueError, sentence, problem)
    return best[1]


@functools.lru_cache(maxsize=4096)
def _chosen(
    rank: int,
    x_shape: tuple[int, ...],
    x_dtype: np.dtype[Any],
    weight_shape: tuple[int, ...],
    weight_dtype: np.dtype[Any],
    bias_shape: tuple[int, ...] | None,
    bias_dtype: np.dtype[Any] | None,
    options: Options,
    wish: Wish,
    threads: int,
    prepared: bool,
    gpu: Gpu | None = None,
    rank_one: float | None = None,
) -> tuple[Problem, Machine, Method, int]:
    """Everything about a call that its arrays' contents do not matter to: (problem, machine, method, scratch bytes)."""
    problem = describe(rank, x_shape, x_dtype, weight_shape, weight_dtype, bias_shape, bias_dtype, *options)
    if rank_one is not None:
        problem = dataclasses.replace(problem, rank_one=rank_one)
    on = machine(threads, wish.workspace) if gpu is None else gpu_machine(gpu, wish.workspace)
    method = choose(problem, on, wish, prepared)
    return problem, on, method, method.scratch_bytes(problem, on)


def chosen(call: Call, threads: int, prepared: bool, gpu: Gpu | None = None) -> tuple[Problem, Machine, Method, int]:
    """The Problem of a call and what serves it."""
    x, weight, bias = call.x, call.weight, call.bias
    arrays = (
        call.rank,
        call.x_shape,
        x.dtype,
        weight.shape,
        weight.dtype,
        None if bias is None else bias.shape,
        None if bias is None else bias.dtype,
    )
    rank_one = None
    # The weights' values are looked at for those alone who may give up the one order of summation for speed.
    if (call.wish.rtol is not None or call.wish.method == "separable") and gpu is None and not call.wish.reproducible:
        problem = describe(*arrays, *call.options)
        if problem.products >= LEAST_PRODUCTS or call.wish.method != "auto":
            rank_one = residual(problem, weight)
    return _chosen(*arrays, call.options, call.wish, threads, prepared, gpu, rank_one)
