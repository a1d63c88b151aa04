"""What a command is, and how one fails."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import NoReturn, Protocol

# The modules that come with the extra `demo`.
EXTRAS = ("rich", "matplotlib", "PIL", "skimage")


class UsageError(Exception):
    """What the user can put right: its sentence goes to stderr, and the exit code is 2."""


class Command(Protocol):
    """A module of this folder. It imports extras where it uses them, so that --help needs none."""

    NAME: str
    SUMMARY: str
    EXAMPLE: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare its options."""

    def run(self, args: argparse.Namespace) -> int:
        """Do it and return the exit code."""


class Parser(argparse.ArgumentParser):
    """An argument parser that answers a mistake with one sentence."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def missing(error: ModuleNotFoundError) -> str | None:
    """The sentence for an extra that is not installed, or None for another module."""
    name = (error.name or "").partition(".")[0]
    if name not in EXTRAS:
        return None
    return f"this needs {name}, which is not installed: pip install 'numconv-numba[demo]'"


def output_file(text: str) -> Path:
    """A file to write, as an argument: refused at once, and not after the work."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder, but it takes a file's name")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"the folder {path.parent} does not exist: make it first")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text} cannot be written: choose another place")
    return path


def picture_file(text: str) -> Path:
    """A picture to write, as an argument."""
    path = output_file(text)
    if path.suffix.lower() not in (".png", ".jpg", ".svg", ".pdf"):
        raise argparse.ArgumentTypeError(f"{text} is no picture's name, but it takes .png, .jpg, .svg or .pdf")
    return path
