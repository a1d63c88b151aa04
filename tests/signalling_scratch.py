"""Calls whose scratch is full of signalling NaNs, which trap where one is added or multiplied; in a process each.

``python signalling_scratch.py METHOD [read]`` prints each call's name before it and "done" at the end; a trap ends the
process at the name of the call to blame. With "read", an input holds one: that must trap.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import itertools
import sys

import numpy as np
from bits import METHODS, only
from guard_pages import problems

from numconv.cpu import tiled
from numconv.machine import machine
from numconv.testing import CASES, EDGES, Case, arrays

# <fenv.h>, as glibc has it on x86-64.
FE_INVALID = 1
LIBM = ctypes.CDLL(ctypes.util.find_library("m"))
SIGNALLING = np.uint32(0x7FA00000)
LAYERS = ("3x3 64 at 56", "3x3 256 at 14", "1x1 256->64 at 56", "1x1 512->2048 at 7")


def call(name, method, problem, read):
    """Run a call on this thread: once as it is, so that all is compiled, and once with traps."""
    on = machine(1)
    x, weight, bias = arrays(problem)
    x = np.ascontiguousarray(x if problem.layout == "NCHW" else np.moveaxis(x, 1, -1))
    prepared, out = method.prepare(problem, on, weight, bias), np.empty(problem.laid_out(problem.out_shape), np.float32)
    there = problem.channels_first(x, problem.x_shape), problem.channels_first(out, problem.out_shape)
    size = method.scratch_bytes(problem, on)
    scratch = np.zeros(-(-size // 4) * 4, np.uint8)
    method.run(problem, on, prepared, *there, scratch[:size])
    scratch.view(np.uint32)[:] = SIGNALLING
    if read:
        x.view(np.uint32)[...] = SIGNALLING
    print(f"{name} [{problem}]", flush=True)
    LIBM.feclearexcept(FE_INVALID)
    LIBM.feenableexcept(FE_INVALID)
    method.run(problem, on, prepared, *there, scratch[:size])
    LIBM.fedisableexcept(FE_INVALID)


if __name__ == "__main__":
    name, flags = sys.argv[1], sys.argv[2:]
    some = [CASES[layer].problem(np.float32) for layer in LAYERS]
    # Several segments, and channels that fill no vector.
    some.append(Case("", (1, 2, 75, 75), (2, 2, 74, 73)).problem(np.float32))
    some += [problem for _, problem in itertools.islice(problems(np.float32), len(EDGES), None, 5)]
    for problem in some:
        for shape in tiled.SHAPES if name == "tiled" else ("",):
            with only(shape) if shape else contextlib.nullcontext():
                if METHODS[name].why_not(problem, machine(1)) is None:
                    call(f"{name} {shape}".strip(), METHODS[name], problem, "read" in flags)
    print("done")
