"""The console of the commands."""

from __future__ import annotations

from rich.console import Console

# Where there is no terminal to fit into: wide enough that no table wraps.
WIDTH = 118


def console() -> Console:
    """Standard output."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=WIDTH)
