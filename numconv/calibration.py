"""Calibration: what the planner's roofline needs to know of this machine, measured in seconds.

The peaks of one thread and of all, what a call costs without arithmetic, and of each method the share of the peak that
its own count of operations runs at. Every method of the table is measured on those of a few small layers that it takes,
so a new one needs no line here, unless it is for layers of another kind.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterable

import numpy as np

from . import aligned, jit, peaks
from .machine import Machine, machine, profile_key
from .method import Method
from .methods import methods
from .problem import Problem
from .profile import Profile, kind_of
from .testing import Case, arrays

# What methods are for: dense layers, products, depthwise layers by strips and by rows, a kernel as large as
# the map, kernels of rank 1.
LAYERS = (
    Case("3x3", (1, 64, 28, 28), (64, 64, 3, 3), {"padding": 1}),
    Case("3x3 small map", (1, 128, 14, 14), (128, 128, 3, 3), {"padding": 1}),
    Case("1x1", (1, 128, 28, 28), (128, 128, 1, 1)),
    Case("1x1 small map", (1, 256, 14, 14), (128, 256, 1, 1)),
    Case("depthwise 3x3", (1, 64, 56, 56), (64, 1, 3, 3), {"padding": 1, "groups": 64}),
    Case("depthwise 5x5", (1, 64, 28, 28), (64, 1, 5, 5), {"padding": 2, "groups": 64}),
    Case("depthwise 11x11", (1, 16, 56, 56), (16, 1, 11, 11), {"padding": 5, "groups": 16}),
    Case("as large as the map", (1, 64, 30, 30), (64, 1, 28, 28), {"groups": 64}),
    Case("31x31", (1, 4, 64, 64), (4, 4, 31, 31), {"padding": 15}),
    Case("rank 1", (1, 4, 128, 128), (4, 1, 15, 15), {"padding": 7, "groups": 4}, rank_one=True),
)
NOTHING = Case("no arithmetic", (1, 1, 1, 1), (1, 1, 1, 1))
# One dtype of each kind, and how many of the layers it is measured on: integers and complex numbers have loops alone.
DTYPES = {"float32": len(LAYERS), "float64": len(LAYERS), "int64": 3, "complex64": 3}
# A method takes so long in a round, and so many calls at least; rounds, since a machine has slow moments.
TURN_SECONDS, TURN_CALLS, ROUNDS = 0.01, 3, 3
# Of a time at least so much is computing, however long the moving is reckoned.
LEAST_COMPUTING = 0.25


def calibrate(layers: Iterable[Case] = LAYERS, rounds: int = ROUNDS) -> Profile:
    """The profile of this machine with the threads that numba has now, in some ten seconds."""
    one, every = peaks.measure(threads=1), peaks.measure()
    bare = Profile(
        profile_key(),
        flops=(one.flops, every.flops),
        bandwidth=(one.bandwidth, every.bandwidth),
        cache_bandwidth=(one.cache_bandwidth, every.cache_bandwidth),
        launch=1e-6,
        efficiencies=_ones(),
    )
    on = dataclasses.replace(machine(jit.threads()), profile=bare)
    calls = {method.NAME: _call(method, NOTHING.problem(), on) for method in _serving(NOTHING.problem(), on)}
    launch = statistics.median(_times(calls, rounds).values())
    bare = dataclasses.replace(bare, launch=launch)
    on = dataclasses.replace(on, profile=bare)
    found: dict[tuple[str, str], list[float]] = {}
    for dtype, count in DTYPES.items():
        for case in itertools.islice(layers, count):
            problem = case.problem(dtype)
            serving = {method.NAME: method for method in _serving(problem, on)}
            times = _times({name: _call(method, problem, on) for name, method in serving.items()}, rounds)
            for name, method in serving.items():
                share = _share(method, problem, on, times[name])
                found.setdefault((name, kind_of(problem.accumulator)), []).append(share)
    efficiencies = tuple((*where, statistics.median(shares)) for where, shares in found.items())
    return dataclasses.replace(bare, efficiencies=efficiencies)


def _ones() -> tuple[tuple[str, str, float], ...]:
    """Efficiencies of 1: a method's work then tells the time that it would take at the peak."""
    kinds = dict.fromkeys(kind_of(NOTHING.problem(dtype).accumulator) for dtype in DTYPES)
    return tuple((method.NAME, kind, 1.0) for method in methods() for kind in kinds)


def _serving(problem: Problem, on: Machine) -> list[Method]:
    return [method for method in methods() if method.why_not(problem, on) is None]


def _share(method: Method, problem: Problem, on: Machine, seconds: float) -> float:
    """The time at the peak over the time of computing."""
    work = method.work(problem, on)
    computing = seconds - work.overhead - on.moving(work.bytes)
    return work.flops / work.rate / max(computing, LEAST_COMPUTING * seconds)


def _call(method: Method, problem: Problem, on: Machine) -> Callable[[], None]:
    """A call of a method with its weights prepared, as a plan makes it."""
    x, weight, bias = arrays(problem)
    prepared = method.prepare(problem, on, weight, bias)
    out = aligned.empty(problem.out_shape, problem.accumulator)
    scratch = aligned.empty((method.scratch_bytes(problem, on),), np.uint8)
    return lambda: method.run(problem, on, prepared, x, out, scratch)


def _times(calls: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """The best time of each call; they take turns, and the first, which may compile, is not counted."""
    best = dict.fromkeys(calls, math.inf)
    for _, (name, call) in itertools.product(range(rounds), calls.items()):
        call()
        end, count = time.perf_counter() + TURN_SECONDS, 0
        while count < TURN_CALLS or time.perf_counter() < end:
            start = time.perf_counter()
            call()
            best[name] = min(best[name], time.perf_counter() - start)
            count += 1
    return best
