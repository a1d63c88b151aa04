"""Forked children and spawned workers compute the same bits, under every threading layer; plans travel to them."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest

from numconv.cpu import blas

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")

SETTING = """
import multiprocessing, os, sys
import numpy as np
import numconv as nc
from numconv import jit

rng = np.random.default_rng(0)
x = rng.standard_normal((2, 8, 20, 20), dtype=np.float32)
weight = rng.standard_normal((8, 8, 3, 3), dtype=np.float32)
point = rng.standard_normal((24, 8, 1, 1), dtype=np.float32)

def results(planned):
    return [nc.conv2d(x, weight, padding=1), nc.conv2d(x, point, method="matmul"), planned(x)]

def right(planned, expected):
    return all(np.allclose(a, b, rtol=0, atol=1e-5) if i == 1 else np.array_equal(a, b)
               for i, (a, b) in enumerate(zip(results(planned), expected)))

def in_a_child(planned, expected):
    # A BLAS may cut its product otherwise with one thread; the rest has the same bits.
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if jit.forked() and jit.threads() == 1 and right(planned, expected) else 3)
        finally:
            os._exit(4)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""


def test_a_child_forked_after_use_computes(run_python, layer_environment):
    run_python(
        SETTING
        + """
planned = nc.plan(x.shape, weight)
expected = results(planned)
assert not jit.forked()
for _ in range(3):
    assert in_a_child(planned, expected) == 0
assert right(planned, expected), "and so does the parent, as before"
assert not jit.forked() and jit.threads() == 4
""",
        environment=layer_environment,
    )


def test_a_child_forked_before_use_computes(run_python, layer_environment):
    run_python(
        SETTING
        + """
planned = nc.plan(x.shape, weight)
read, write = os.pipe()
child = os.fork()
if child == 0:
    os.write(write, b"".join(result.tobytes() for result in (results(planned)[0], results(planned)[2])))
    os._exit(0)
os.close(write)
with os.fdopen(read, "rb") as pipe:
    sent = pipe.read()
assert os.waitpid(child, 0)[1] == 0
expected = results(planned)
assert sent == expected[0].tobytes() + expected[2].tobytes()
assert in_a_child(planned, expected) == 0
""",
        environment=layer_environment,
    )


def test_a_child_that_imports_numconv_after_its_parent_used_numba_computes(run_python, layer_environment):
    # numconv was not there to see the fork.
    run_python(
        """
        import os
        import numba
        import numpy as np

        @numba.njit(parallel=True)
        def count(x):
            for i in numba.prange(len(x)):
                x[i] += 1

        count(np.zeros(1000))
        child = os.fork()
        if child == 0:
            import numconv as nc
            os._exit(int(nc.conv1d([[1, 2, 3]], [[[1, 1]]]).tolist() != [[3, 5]]))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

        import numconv as nc
        from numconv import jit
        assert nc.conv1d([[1, 2, 3]], [[[1, 1]]]).tolist() == [[3, 5]]
        assert not jit.forked(), "the parent keeps its threads"
        """,
        environment=layer_environment,
    )


def test_a_forked_pool_computes_while_the_parent_does(run_python, layer_environment):
    run_python(
        SETTING
        + """
planned = nc.plan(x.shape, weight)
expected = results(planned)

def check(_):
    return jit.forked() and right(planned, expected)

with multiprocessing.get_context("fork").Pool(2) as pool:
    answers = pool.map_async(check, range(8))
    while not answers.ready():
        assert right(planned, expected)
    assert all(answers.get())
""",
        environment=layer_environment,
    )


def test_a_grandchild_computes(run_python, layer_environment):
    run_python(
        SETTING
        + """
planned = nc.plan(x.shape, weight)
expected = results(planned)
child = os.fork()
if child == 0:
    os._exit(in_a_child(planned, expected))
assert os.waitpid(child, 0)[1] == 0
""",
        environment=layer_environment,
    )


def test_spawned_workers_take_pickled_plans(run_python, layer_environment):
    run_python(
        SETTING
        + """
def check(task):
    planned, expected = task
    return not jit.forked() and jit.threads() == 4 and right(planned, expected)

if __name__ == "__main__":
    planned = nc.plan(x.shape, weight)
    expected = results(planned)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert all(pool.map(check, [(planned, expected)] * 4))
""",
        environment=layer_environment,
    )


def test_a_child_does_not_inherit_a_hold_on_the_blas():
    # Forked while a kernel of another thread holds the BLAS, which in the child will never release it.
    state = blas.held()
    before = state.copy()
    state[:] = 0, 1, 2
    try:
        child = os.fork()
        if child == 0:
            os._exit(int(np.any(blas.held())))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert state.tolist() == [0, 1, 2]
    finally:
        state[:] = before


def test_the_parent_of_the_tests_was_not_forked(run_python):
    printed = run_python("from numconv import jit\nprint(jit.forked())")
    assert printed == "False\n"
    assert sys.platform != "win32"
