"""``python -m numconv demo | bench | explain | info | warmup | calibrate``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .cli import bench, calibrate, demo, explain, info, warmup
from .cli.command import Command, Parser, UsageError, missing

COMMANDS: tuple[Command, ...] = (demo, bench, explain, info, warmup, calibrate)


def parser() -> argparse.ArgumentParser:
    """The command line of all commands."""
    top = Parser(prog="numconv", description="Multi-channel cross-correlation for NumPy, compiled by Numba.")
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        sub = commands.add_parser(
            command.NAME,
            help=command.SUMMARY,
            description=command.SUMMARY,
            epilog=f"example:\n  {command.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(sub)
        sub.set_defaults(run=command.run)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, 1 where a check failed, 2 for a mistake in the call."""
    try:
        args = parser().parse_args(arguments)
        code: int = args.run(args)
        return code
    except UsageError as error:
        print(f"numconv: {error}", file=sys.stderr)
    except ModuleNotFoundError as error:
        sentence = missing(error)
        if sentence is None:
            raise
        print(f"numconv: {sentence}", file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    return 2


if __name__ == "__main__":
    sys.exit(main())
