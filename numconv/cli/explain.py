"""`explain`: what the planner thinks of a correlation, and what it costs, without running it."""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np

from .. import conv1d, conv2d, conv3d, cost
from .. import explain as thoughts_on
from ..dialect import RTOL_KINDS, stand_in
from ..explain import Explanation
from ..problem import PADDING_MODES
from ..validate import PADDING_NAMES
from .command import UsageError
from .units import seconds

NAME = "explain"
SUMMARY = "tell which method a correlation would take, how long each is predicted to take, and why one is refused"
EXAMPLE = "python -m numconv explain 1x64x56x56 64x64x3x3 --padding 1 --cost"

# The dialect's function by the number of axes of the weight.
FUNCTIONS = {3: conv1d, 4: conv2d, 5: conv3d}


def sides(text: str) -> tuple[int, ...]:
    """A shape or one value per axis: 1x64x56x56."""
    try:
        return tuple(int(side) for side in text.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no shape: write it as 1x64x56x56") from None


def per_axis(text: str) -> int | tuple[int, ...]:
    """An integer, or one for each axis: 2 or 2x1."""
    try:
        values = tuple(int(side) for side in text.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither an integer nor one for each axis: 2 or 2x1") from None
    return values[0] if len(values) == 1 else values


def padding(text: str) -> Any:
    """A word, an integer, one for each axis, or one pair of before and after for each axis: same, 1, 2x1, 0+1x2+2."""
    if text in PADDING_NAMES:
        return text
    try:
        pairs = tuple(tuple(int(end) for end in side.split("+")) for side in text.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no padding: write one of {', '.join(PADDING_NAMES)}, or 1, 2x1 or 0+1x2+2"
        ) from None
    values = tuple(pair[0] if len(pair) == 1 else pair for pair in pairs)
    return values[0] if len(values) == 1 and isinstance(values[0], int) else values


def dtype(text: str) -> np.dtype[Any]:
    """A dtype by its name."""
    try:
        return np.dtype(text)
    except TypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is no dtype: write float32, say") from None


def capability(text: str) -> tuple[int, int]:
    """A compute capability: 9.0."""
    major, dot, minor = text.partition(".")
    if not (dot and major.isdecimal() and minor.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is no compute capability: write it as 9.0")
    return int(major), int(minor)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The shapes and the options of conv1d, conv2d and conv3d."""
    parser.add_argument("input", type=sides, help="shape of the input: batch x channels x one to three axes")
    parser.add_argument("weight", type=sides, help="shape of the weight, which says how many axes are spatial")
    parser.add_argument("--stride", type=per_axis, default=1)
    parser.add_argument("--padding", type=padding, default=0, help="1, 2x1, 0+1x2+2, same, same_lower, full or valid")
    parser.add_argument("--dilation", type=per_axis, default=1)
    parser.add_argument("--groups", type=int, default=1)
    parser.add_argument("--padding-mode", choices=PADDING_MODES, default="zeros")
    parser.add_argument("--padding-value", type=float, default=0, help="what constant padding holds")
    parser.add_argument("--dtype", type=dtype, default=np.dtype(np.float32), help="of input and weight")
    parser.add_argument("--bias", action="store_true", help="with a bias")
    parser.add_argument("--activation", choices=("relu",))
    parser.add_argument("--method", default="auto", help="ask for one method")
    parser.add_argument("--rtol", type=float, help="admit methods of that expected error")
    parser.add_argument("--rtol-kind", choices=RTOL_KINDS, default="expected")
    parser.add_argument("--reproducible", action="store_true", help="the one order of summation alone")
    parser.add_argument("--device", help="cuda: the methods of a GPU")
    parser.add_argument("--cc", type=capability, help="a GPU's compute capability, such as 9.0: needs no GPU")
    parser.add_argument("--cost", action="store_true", help="also multiplications, additions and bytes, both ways")


OPTIONS = (
    "stride", "padding", "dilation", "groups", "padding_mode", "padding_value", "activation", "method", "rtol",
    "rtol_kind", "reproducible", "device",
)  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Print the planner's table."""
    function = FUNCTIONS.get(len(args.weight))
    if function is None:
        raise UsageError(
            f"the weight has {len(args.weight)} axes, but it takes 3 to 5: output channels x input channels per group"
            f" x one to three axes"
        )
    options = {name: getattr(args, name) for name in OPTIONS}
    try:
        arrays = [stand_in(shape, args.dtype) for shape in (args.input, args.weight)]
        options["bias"] = stand_in(args.weight[:1], args.dtype) if args.bias else None
        thoughts = thoughts_on(function, *arrays, cc=args.cc, **options)
        price = cost(function, *arrays, **options) if args.cost else None
    except (TypeError, ValueError, RuntimeError, ImportError) as error:
        raise UsageError(str(error)) from None
    if not (sys.stdout.isatty() and show(thoughts)):
        print(thoughts)
    if price is not None:
        print(f"\n{price}")
    return 0


def show(thoughts: Explanation) -> bool:
    """The table for a terminal of 80 columns, refusals below it; False where rich is not installed."""
    try:
        from rich.table import Table

        from .console import console
    except ModuleNotFoundError:
        return False
    table = Table(title=str(thoughts).partition("\n")[0], title_justify="left")
    for head in ("method", "predicted", "Gflop", "MB\nmoved", "scratch\nKB", "expected\nerror", "bound"):
        table.add_column(head, justify="left" if head == "method" else "right", no_wrap=True)
    for candidate in thoughts.candidates:
        taken = candidate.name == thoughts.chosen
        amounts = ((candidate.flops, 1e9), (candidate.bytes, 1e6), (candidate.scratch_bytes, 1e3))
        table.add_row(
            f"{'→' if taken else ' '} {candidate.name}",
            seconds(candidate.seconds),
            *("-" if amount is None else f"{amount / unit:.4g}" for amount, unit in amounts),
            f"{candidate.expected_error:.1e}",
            f"{candidate.error_bound:.1e}",
            style="bold" if taken else "dim",
        )
    screen = console()
    screen.print(table)
    for candidate in thoughts.candidates:
        if candidate.refusal:
            screen.print(f"{candidate.name}: {candidate.refusal}", markup=False)
    return True
