"""Calls whose arrays end, or begin, at a page that nobody may touch; test_guard_pages.py runs it in a process each.

``python guard_pages.py METHOD DTYPE [short]`` prints each call's name before it and "done" at the end; a fault ends
the process at the name of the call to blame. With "short", one output lacks its last element: that must fault.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import mmap
import sys
from dataclasses import replace

import numpy as np
from bits import METHODS, only

from numconv.cpu import tiled
from numconv.cpu.phased_tiles import phased
from numconv.machine import machine
from numconv.phased import summing
from numconv.testing import EDGES, Case, arrays

PAGE = mmap.PAGESIZE
# Wider than any overreach of a few vectors or rows.
WALL = 16 * PAGE
PROT_NONE = 0
SIDES = ("end", "start")
LIBC = ctypes.CDLL(None)


def guarded(array, side):
    """A copy in memory with a forbidden wall right behind its last byte, or right before its first."""
    room = -(-max(array.nbytes, 1) // PAGE) * PAGE
    whole = np.frombuffer(mmap.mmap(-1, room + WALL), np.uint8)
    wall = whole.ctypes.data + (room if side == "end" else 0)
    assert LIBC.mprotect(ctypes.c_void_p(wall), ctypes.c_size_t(WALL), PROT_NONE) == 0
    first = room - array.nbytes if side == "end" else WALL
    copy = whole[first : first + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def every_second(array, side):
    """The same numbers with a gap after each, but not after the last."""
    wide = np.zeros(2 * array.size - 1 if array.size else 0, array.dtype)
    wide[::2] = array.ravel()
    strides = tuple(2 * stride for stride in array.strides)
    return np.lib.stride_tricks.as_strided(guarded(wide, side), array.shape, strides)


def call(name, method, problem, place=guarded, short=0):
    """Run a call at both sides, on one thread so that all scratch is its own, and compare with one in plain memory."""
    on = machine(1)
    x, weight, bias = arrays(problem)
    x = x.reshape(problem.x_shape)
    x = x if problem.layout == "NCHW" else np.ascontiguousarray(np.moveaxis(x, 1, -1))
    prepared = method.prepare(problem, on, weight, bias)
    plain, out = (np.empty(problem.laid_out(problem.out_shape), problem.accumulator) for _ in range(2))
    scratch = np.full(method.scratch_bytes(problem, on), 0xFF, np.uint8)

    def run(prepared, x, out, scratch):
        x, out = problem.channels_first(x, problem.x_shape), problem.channels_first(out, problem.out_shape)
        method.run(problem, on, prepared, x, out, scratch)

    run(prepared, x, plain, scratch.copy())
    for side in SIDES:
        print(f"{name}, at the {side} [{problem}]", flush=True)
        parts = {
            field: guarded(value, side) for field, value in prepared._asdict().items() if isinstance(value, np.ndarray)
        }
        result = guarded(out.ravel()[: max(out.size and 1, out.size - short)], side)
        result = np.lib.stride_tricks.as_strided(result, out.shape, out.strides)
        run(prepared._replace(**parts), place(x, side), result, guarded(scratch, side))
        np.testing.assert_array_equal(result, plain)


def problems(dtype):
    """The named cases; maps of every width; strides and paddings on odd sizes; kernels of each kind of tile."""
    for case in EDGES:
        yield case.name, case.problem(dtype)
    for width in (*range(3, 20), 31, 32, 33, 47, 63, 64, 65, 97, 131, 193):
        for options in ({}, {"padding": 1}, {"stride": 2}, {"stride": 2, "padding": (0, 2)}):
            for groups, ci, co in ((1, 2, 19), (3, 3, 3)):
                shapes = (1, ci, 5, width), (co, ci // groups, 3, 3)
                yield f"width {width}", Case("", *shapes, {"groups": groups, **options}).problem(dtype)
    for size in (7, 8, 14, 15, 16):
        for options in ({}, {"padding": 1}):
            yield f"one tap at {size}", Case("", (2, 17, size, size), (33, 17, 1, 1), options).problem(dtype)
    for kernel in ((1, 1), (1, 5), (5, 5), (7, 7), (9, 2)):
        for size in (13, 22, 75):
            yield f"kernel {kernel} of planes", Case("", (2, 1, size, size), (2, 1, *kernel)).problem(dtype)
            for stride in (1, 2):
                options = {"padding": (kernel[0] // 2, kernel[1] // 2), "stride": stride}
                planes = Case("", (2, 3, size, size), (3, 1, *kernel), {"groups": 3, **options})
                yield f"kernel {kernel} of padded planes", planes.problem(dtype)
                for channels in (3, 19) if kernel[0] % 2 else ():
                    planes = Case("", (2, channels, 13, size), (channels, 1, *kernel), {"groups": channels, **options})
                    yield f"kernel {kernel} of channels last", replace(planes.problem(dtype), layout="NHWC")
                spread = {"groups": 5, "padding": 1, "dilation": stride}
                planes = Case("", (1, 10, size, size), (10, 2, (size - 1) // stride, (size - 2) // stride), spread)
                yield f"kernel of planes of {size}", planes.problem(dtype)
            deep = Case("", (1, 17, size, size), (33, 17, *kernel), options)
            yield f"kernel {kernel} deep", deep.problem(dtype)


def main(name, dtype, *flags):
    """All calls of a method."""
    method = METHODS[name]
    for shape in tiled.SHAPES if name == "tiled" else ("",):
        with only(shape) if shape else contextlib.nullcontext():
            for label, problem in problems(dtype):
                if method.why_not(problem, machine(1)) is None:
                    call(f"{name} {shape} {label}", method, problem, short=int("short" in flags))
            strided = Case("", (1, 4, 9, 37), (4, 4, 3, 3), {"padding": 1})
            if name == "depthwise":
                strided = Case("", (1, 4, 9, 97), (4, 1, 3, 3), {"groups": 4})
            if name == "tiled":
                for stride, width in ((1, 75), (2, 75), (2, 131)):
                    rgb = Case("", (2, 3, 9, width), (17, 3, 3, 3), {"padding": 1, "stride": stride}).problem(dtype)
                    call(f"{name} {shape} of RGB", method, replace(rgb, layout="NHWC"))
                for size, kernel in itertools.product((4, 7, 30), (2, 3, 5)):
                    spread = Case(
                        "", (2, 3, size, size + 1), (35, 3, kernel, kernel), {"input_dilation": 2, "padding": 2}
                    )
                    problem = spread.problem(dtype)
                    serving = phased(problem, (method,) * len(summing(problem)))
                    call(f"{name} {shape} spread", serving, problem)
            if name == "planar":
                strided = Case("", (1, 17, 9, 37), (17, 1, 8, 36), {"groups": 17})
            if name in ("tiled", "depthwise", "planar"):
                call(f"{name} {shape} of every second element", method, strided.problem(dtype), every_second)
    print("done")


if __name__ == "__main__":
    main(*sys.argv[1:])
