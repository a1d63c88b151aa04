"""`calibrate`: measure this machine, for the planner's choices on it."""

from __future__ import annotations

import argparse
import time

from .. import calibration, profile
from ..machine import PROFILE, profile_path
from . import timing
from .command import UsageError
from .info import rates

NAME = "calibrate"
SUMMARY = "measure this machine in some seconds, so that the planner chooses by its rates and not by typical ones"
EXAMPLE = "python -m numconv calibrate"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There is nothing to choose."""


def run(args: argparse.Namespace) -> int:
    """Measure, print one figure a line, and keep the profile for later processes."""
    path = profile_path()
    if path is None:
        raise UsageError(f"{PROFILE} is 'off', so no profile is kept or read: unset it, or have it name a file")
    if warning := timing.busy():
        print(warning)
    start = time.perf_counter()
    found = calibration.calibrate()
    for name, value in rates(found).items():
        print(f"{name:16}{value}")
    if not profile.plausible(found):
        raise UsageError("a method seems to beat the peak, so something else kept the machine busy: run it again alone")
    try:
        profile.write(path, found)
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"the profile cannot be kept in {path} ({reason}): have {PROFILE} name another file") from None
    print(f"measured in {time.perf_counter() - start:.0f} s and kept in {path}")
    return 0
