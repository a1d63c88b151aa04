"""No method touches a byte outside its arrays: they lie against pages that fault, in a process of its own."""

from __future__ import annotations

import os
import signal

import guard_pages
import pytest
from conftest import run_alone

pytestmark = pytest.mark.skipif(os.name != "posix", reason="pages are forbidden by mprotect")


@pytest.mark.parametrize("method", guard_pages.METHODS)
def test_no_byte_outside_the_arrays_is_touched(method):
    code, last, errors = run_alone(guard_pages.__file__, method, "float32")
    assert code == 0, f"{method} left with {code} at: {last}\n{errors[-2000:]}"
    assert last == "done"


def test_an_access_outside_ends_at_the_name_of_its_call():
    code, last, _ = run_alone(guard_pages.__file__, "loops", "float32", "short")
    assert code == -signal.SIGSEGV
    assert last == "loops  plain, at the end [float32 1x3x8x9 * 4x3x3x3]"
