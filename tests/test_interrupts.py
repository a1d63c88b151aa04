"""Ctrl-C at any moment leaves no half state: later calls are right, and every lock, hold and scratch is given back."""

from __future__ import annotations

import signal

import pytest

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this platform has no interval timer")

STORM = """
import signal, threading
import numpy as np
import numconv as nc
from numconv import jit
from numconv.cpu import blas

rng = np.random.default_rng(0)
x = rng.standard_normal((1, 8, 16, 16), dtype=np.float32)
weight = rng.standard_normal((8, 8, 3, 3), dtype=np.float32)
point = rng.standard_normal((24, 8, 1, 1), dtype=np.float32)
planned = nc.plan(x.shape, weight)
out = np.empty((1, 8, 14, 14), np.float32)
CALLS = (
    lambda: nc.conv2d(x, weight),
    lambda: planned(x),
    lambda: planned(x, out=out),
    lambda: nc.conv2d(x, point, method="matmul"),
)
# A job started in the background of a shell ignores Ctrl-C, and its children do.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))

def storm(function, count):
    '''Call again and again until Ctrl-C, so many times, each after another delay.'''
    for delay in rng.uniform(2e-6, 500e-6, count):
        try:
            signal.setitimer(signal.ITIMER_REAL, delay)
            while True:
                function()
        except KeyboardInterrupt:
            pass

def lock_is_free():
    found = []
    def look():
        found.append(jit._WORKQUEUE.acquire(blocking=False))
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return found[0]
"""


def test_a_storm_of_interrupts_leaves_everything_as_it_was(run_python, layer_environment):
    run_python(
        STORM
        + """
from ctypes import CFUNCTYPE, c_int
found = blas.find_blas()
count = CFUNCTYPE(c_int)(found.get_threads) if found else lambda: 1
threads = count()
expected = [call().copy() for call in CALLS]
for call in CALLS:
    storm(call, 400)
for call, result in zip(CALLS, expected):
    assert np.array_equal(call(), result)
assert blas.held().tolist()[:2] == [0, 0]
assert count() == threads
assert lock_is_free()
""",
        environment=layer_environment,
    )


WHILE_COMPILING = (
    STORM
    + """
from numconv.cpu import loops
import numba
# numba fills its own tables as it first compiles, and an interrupt then leaves them half full.
numba.njit(lambda: None)()
small = np.arange(12, dtype=np.int64).reshape(1, 1, 12)
interrupted = 0
for delay in (0.02, 0.1, 0.3):
    try:
        signal.setitimer(signal.ITIMER_REAL, delay)
        nc.conv1d(small, small[..., :2])
    except KeyboardInterrupt:
        interrupted += 1
signal.setitimer(signal.ITIMER_REAL, 0)
assert interrupted >= 1
assert nc.conv1d(small, small[..., :2])[0, 0].tolist() == list(range(1, 12))
assert len(loops.correlate.compiled.signatures) == 1
"""
)
# What numba says ever after of an interrupt that hit one of the generators by which each compilation, for a moment,
# looks for more for its tables. No package that compiles can mend it, so such a process says nothing of numconv.
NUMBAS_OWN = "RuntimeError: generator raised StopIteration"


def test_an_interrupt_while_compiling_leaves_the_kernel_compilable(run_python, tmp_path):
    for attempt in range(4):
        try:
            run_python(WHILE_COMPILING, environment={"NUMBA_CACHE_DIR": str(tmp_path / str(attempt))})
        except AssertionError as failure:
            if NUMBAS_OWN not in str(failure) or attempt == 3:
                raise
        else:
            break


def test_an_interrupt_reaches_the_caller_and_names_itself(run_python):
    printed = run_python(
        STORM
        + """
planned(x)  # Ctrl-C within a call that LLVM makes of Python, as it compiles and loads, is lost
signal.setitimer(signal.ITIMER_REAL, 0.01)
try:
    while True:
        planned(x)
except KeyboardInterrupt as error:
    print(type(error).__name__)
"""
    )
    assert printed == "KeyboardInterrupt\n"
