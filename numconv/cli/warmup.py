"""`warmup`: compile ahead, so that the first calls of later processes find their kernels on disk."""

from __future__ import annotations

import argparse
import time

import numpy as np

from .. import cache, jit
from ..machine import machine
from ..method import Array, Method
from ..methods import methods
from ..problem import Problem
from ..testing import Case, arrays
from .info import kernel_cache

NAME = "warmup"
SUMMARY = "compile the kernels ahead, so that no later process has to"
EXAMPLE = "python -m numconv warmup --method tiled --dtype float32"

DTYPES = ("float32", "float64")


def _planes(kernel: int, size: int, **options: int) -> Case:
    return Case("planes", (1, 2, size, size), (2, 1, kernel, kernel), {"groups": 2, **options})


def _last(kernel: int, size: int, channels: int, co: int, **options: int) -> Case:
    """A layer with the channels last, which keeps the map's size unless told."""
    weight = (co, channels // options.get("groups", 1), kernel, kernel)
    settings = {"layout": "NHWC", "padding": kernel // 2, **options}
    return Case("channels last", (1, size, size, channels), weight, settings)


# Sizes of maps whose rows need tiles of every height and width.
ROWS = (16, 20, 30, 46, 140)
# And those of strips, side by side.
STRIPS = (20, 32, 40, 64, 72, 100)
# Small layers that need, together, every register tile. 48 and 24 channels are one vector and a half of each width.
LAYERS = (
    *(
        Case("dense", (1, 8, size + unpadded, size + unpadded), (co, 8, 3, 3), {"padding": 1 - unpadded // 2})
        for size in (28, 14, 13, 12, 10, 9, 8, 7, 5, 4, 3, 2, 1)
        for co in (48, 24, 12)
        for unpadded in (0, 2)
    ),
    Case("wide", (1, 8, 60, 60), (11, 8, 3, 3), {"padding": 1, "padding_mode": "reflect"}),
    Case("1x1", (1, 8, 16, 16), (11, 8, 1, 1)),
    *(_planes(kernel, 20, padding=kernel // 2, stride=2) for kernel in (3, 5, 7)),
    *(_planes(kernel, size, padding=kernel // 2) for kernel in (3, 5, 7) for size in STRIPS),
    Case("rank 1", (1, 1, 20, 20), (1, 1, 5, 5), rank_one=True),
    *(_planes(9, size) for size in ROWS),
    *(Case("volume", (1, 1, 2, size, size), (1, 1, 2, 9, 9)) for size in ROWS),
    *(
        _last(3, size + unpadded, 3, co, padding=1 - unpadded // 2)
        for size in (28, 21, 13, 12, 10, 9, 8)
        for co in (48, 24)
        for unpadded in (0, 2)
    ),
    *(_last(k, size, 20, 20, groups=20, stride=s) for k in (3, 5, 7) for size in (20, 28) for s in (1, 2)),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to compile; everything unless told."""
    names = [method.NAME for method in methods()]
    parser.add_argument("--method", action="append", choices=names, help="may be given again; all methods unless given")
    parser.add_argument("--dtype", action="append", choices=DTYPES, help="may be given again; both unless given")


def run(args: argparse.Namespace) -> int:
    """One method and dtype a row, with what was compiled and the seconds; 1 where nothing can be kept."""
    from rich.table import Table

    from .console import console

    screen = console()
    table = Table("method", "dtype", "compiled", "seconds", title="Kernels for later processes", title_justify="left")
    wanted = [method for method in methods() if not args.method or method.NAME in args.method]
    with screen.status("compiling") as status:
        for method in wanted:
            for dtype in args.dtype or DTYPES:
                status.update(f"compiling {method.NAME} for {dtype}")
                names, seconds = warm(method, dtype)
                told = f"{len(names)} functions" if names else "nothing: all were there"
                table.add_row(method.NAME, dtype, told, f"{seconds:.1f}")
    screen.print(table)
    folder = kernel_cache()
    screen.print(f"kept in {folder}", soft_wrap=True)
    return 1 if folder.startswith("none") else 0


def warm(method: Method, dtype: str) -> tuple[list[str], float]:
    """Run a method on every layer that it takes; the names of the functions it compiled, and the seconds."""
    start, on = time.perf_counter(), machine(jit.threads())
    with cache.compiled() as names:
        for case in LAYERS:
            problem = case.problem(dtype)
            if method.why_not(problem, on) is None:
                _, weight, bias = arrays(problem)
                x, out = (_laid_out(problem, shape) for shape in (problem.x_shape, problem.out_shape))
                scratch = np.empty(method.scratch_bytes(problem, on), np.uint8)
                method.run(problem, on, method.prepare(problem, on, weight, bias), x, out, scratch)
    return names, time.perf_counter() - start


def _laid_out(problem: Problem, shape: tuple[int, ...]) -> Array:
    """An array of that shape in the Problem's layout."""
    return problem.channels_first(np.zeros(problem.laid_out(shape), problem.accumulator), shape)
