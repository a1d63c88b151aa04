"""`demo`: the textbook's examples with their values, and a photograph through a bank of filters."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .command import picture_file

if TYPE_CHECKING:
    from rich.table import Table

    from .photograph import Result
    from .textbook import Example

NAME = "demo"
SUMMARY = "run the textbook's examples and a photograph through a bank of filters, check both, write a picture"
EXAMPLE = "python -m numconv demo --out demo.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the picture goes."""
    parser.add_argument("--out", type=picture_file, default="demo.png", metavar="FILE", help="the picture (demo.png)")


def run(args: argparse.Namespace) -> int:
    """Print two tables, write the picture; 1 where a value is wrong."""
    from . import photograph, picture
    from .console import console
    from .textbook import examples

    screen = console()
    with screen.status("the textbook's examples; the first run ever compiles the kernels"):
        worked = examples()
    screen.print(textbook_table(worked))
    with screen.status("the photograph") as status:
        filtered = photograph.measure(status.update)
        picture.draw(filtered.photo, filtered.filters, filtered.responses, args.out)
    screen.print(photograph_table(filtered.results))
    screen.print(f"The picture: {args.out}", soft_wrap=True)
    good = all(example.agrees for example in worked)
    close = all(result.error <= result.allowed for result in filtered.results)
    if good and close:
        screen.print("Every value is the book's; every response is scipy's, within the proved error bound.")
        return 0
    screen.print("WRONG: a value differs from the book's or from scipy's; see the tables.", style="bold red")
    return 1


def textbook_table(worked: Sequence[Example]) -> Table:
    """One example a row."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="Dive into Deep Learning, by numconv", title_justify="left")
    for head in ("section", "example", "numconv gives", "so does the book"):
        table.add_column(head)
    for example in worked:
        mark = "yes" if example.agrees else "[bold red]NO"
        table.add_row(example.section, escape(example.call), escape(example.value), mark)
    return table


def photograph_table(results: Sequence[Result]) -> Table:
    """One contender a row, a section for each layer."""
    from rich.table import Table

    from .units import rate, seconds

    scipy = {result.layer: result.seconds for result in results if result.method == "scipy"}
    table = Table(title="A photograph, 3x300x451, float32", title_justify="left")
    table.add_column("layer")
    table.add_column("method")
    for head in ("time", "GFLOP/s", "times scipy's speed", "largest difference"):
        table.add_column(head, justify="right")
    layer = ""
    for result in results:
        if layer not in ("", result.layer):
            table.add_section()
        table.add_row(
            result.layer if result.layer != layer else "",
            result.method,
            seconds(result.seconds),
            rate(result.flops, result.seconds),
            f"{scipy[result.layer] / result.seconds:.1f}",
            f"{result.error:.1e}" if result.error <= result.allowed else f"[bold red]{result.error:.1e}",
        )
        layer = result.layer
    table.caption = "Differences are from scipy.signal.correlate in float64."
    return table
