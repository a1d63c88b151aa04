"""`bench`: every layer, explicit loops against BLAS against scipy, as a table, as JSON and as a roofline."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .. import conv2d, explain, peaks
from ..testing import FILTERS, RESNET50, Case
from . import info, timing
from .command import output_file, picture_file
from .contenders import check, contenders, names
from .units import digits

if TYPE_CHECKING:
    from rich.table import Table

NAME = "bench"
SUMMARY = "time the layers of ResNet-50 and image filters: loops against BLAS against scipy, every result checked"
EXAMPLE = "python -m numconv bench --json bench.json --plot roofline.png"

LAYERS = (*RESNET50, *FILTERS)
# A layer of each kind.
QUICK = tuple(LAYERS[index] for index in (2, 7, 9, 13, 15))
ROUNDS, QUICK_ROUNDS = 7, 1

Row = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to write, and how long to take."""
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write the figures")
    parser.add_argument("--plot", type=picture_file, metavar="FILE", help="draw the layers under the measured peaks")
    parser.add_argument("--quick", action="store_true", help="one round of a few layers, to try it out")


def run(args: argparse.Namespace) -> int:
    """Measure, print the table, write the files."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from .console import console

    if args.plot:
        # Matplotlib missing is told now, not after the measuring.
        from . import roofline
    warning = timing.busy()
    cases, count = (QUICK, QUICK_ROUNDS) if args.quick else (LAYERS, ROUNDS)
    screen = console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        task = progress.add_task("the peaks", total=sum(count * len(names(case)) for case in cases))
        measured = peaks.measure()
        rows = []
        for case in cases:
            progress.update(task, description=case.name)
            try:
                rows.append(measure(case, count, lambda: progress.advance(task)))
            except AssertionError as wrong:
                print(f"numconv: {wrong}", file=sys.stderr)
                return 1
    screen.print(table(rows))
    if warning:
        screen.print(warning, style="yellow")
    report = {
        # But for the cache's folder, which is nobody's business and no speed's.
        "machine": {name: value for name, value in info.facts(measured).items() if name != "kernel cache"},
        "peaks": {"flops": measured.flops, "bytes_per_second": measured.bandwidth},
        "rounds": count,
        "layers": rows,
    }
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")
        screen.print(f"The figures: {args.json}", soft_wrap=True)
    if args.plot:
        roofline.draw(report, args.plot)
        screen.print(f"The roofline: {args.plot}", soft_wrap=True)
    return 0


def measure(case: Case, count: int, advance: Callable[[], object]) -> Row:
    """One layer: every contender checked, then timed in turns."""
    problem = case.problem()
    runs = contenders(case)
    errors = check(case, runs)
    seconds = timing.medians(runs, count, advance)
    blas = seconds.get("np.matmul")
    return {
        "name": case.name,
        "problem": str(problem),
        "flops": problem.flops,
        "bytes": problem.bytes,
        "auto": explain(conv2d, case.x_shape, case.weight_shape, **case.options).chosen,
        "seconds": seconds,
        "gflops": {name: problem.flops / time / 1e9 for name, time in seconds.items()},
        "errors": errors,
        # Above 1, the loops are faster than the bare matrix product.
        "loops_to_blas": blas / seconds["loops"] if blas else None,
    }


# The contenders that the tables show, in columns.
COLUMNS = ("loops", "tiled", "depthwise", "matmul", "np.matmul", "scipy")


def table(rows: Sequence[Row]) -> Table:
    """One layer a row."""
    from rich.table import Table

    found = Table(title="float32, GFLOP/s", title_justify="left", caption=CAPTION, caption_justify="left")
    found.add_column("layer", no_wrap=True)
    for head in (*COLUMNS, "loops / np.matmul", "auto takes"):
        found.add_column(head, justify="right")
    for row in rows:
        found.add_row(*cells(row))
    return found


def cells(row: Row) -> list[str]:
    """A row of the table, in words."""
    rates = [digits(row["gflops"][name]) if name in row["gflops"] else "-" for name in COLUMNS]
    ratio = "-" if row["loops_to_blas"] is None else f"{row['loops_to_blas']:.2f}"
    return [row["name"], *rates, ratio, row["auto"]]


CAPTION = (
    "loops, tiled, depthwise and matmul: numconv's plans. np.matmul: the bare product on the same data, for kernels"
    " larger than 1x1 on patches that were unrolled outside the time. scipy: signal.correlate, one call an output"
    " channel."
)
