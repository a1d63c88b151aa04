"""No method touches a byte outside its arrays: they lie against pages that fault, in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import guard_pages
import pytest
from conftest import PACKAGE

pytestmark = pytest.mark.skipif(os.name != "posix", reason="pages are forbidden by mprotect")


def guarded(*arguments):
    """The exit code, the last line printed and the errors."""
    done = subprocess.run(
        [sys.executable, guard_pages.__file__, *arguments],
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent), "NUMBA_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, (done.stdout.splitlines() or [""])[-1], done.stderr


@pytest.mark.parametrize("method", guard_pages.METHODS)
def test_no_byte_outside_the_arrays_is_touched(method):
    code, last, errors = guarded(method, "float32")
    assert code == 0, f"{method} left with {code} at: {last}\n{errors[-2000:]}"
    assert last == "done"


def test_an_access_outside_ends_at_the_name_of_its_call():
    code, last, _ = guarded("loops", "float32", "short")
    assert code == -signal.SIGSEGV
    assert last == "loops  plain, at the end [float32 1x3x8x9 * 4x3x3x3]"
