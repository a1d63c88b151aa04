"""Many Python threads call at once, under every threading layer of numba: the bits are right and the process lives."""

from __future__ import annotations

import threading

import numba
import numpy as np
import pytest

import numconv as nc
from numconv import jit
from numconv.cpu import matmul, tiled

# The same arrays and results in every script and here.
SETTING = """
import hashlib, sys, threading
from concurrent.futures import ThreadPoolExecutor
import numpy as np
import numconv as nc
from numconv import jit

rng = np.random.default_rng(0)
x = rng.standard_normal((2, 16, 20, 20), dtype=np.float32)
weight = rng.standard_normal((16, 16, 3, 3), dtype=np.float32)
point = rng.standard_normal((48, 16, 1, 1), dtype=np.float32)
planned = nc.plan(x.shape, weight, padding=1, activation="relu")
ORDERED = (
    lambda: nc.conv2d(x, weight, padding=1, activation="relu"),
    lambda: planned(x),
    lambda: nc.conv2d(x, point, method="tiled"),
    lambda: planned(x, out=np.empty((2, 16, 20, 20), np.float32)),
)
# A BLAS sums in an order of its own, which may change with the columns that a thread is given: its bits are compared
# within a process, never between numbers of threads.
CALLS = (*ORDERED, lambda: nc.conv2d(x, point, method="matmul"))

def digest():
    return hashlib.sha256(b"".join(np.ascontiguousarray(call()).tobytes() for call in ORDERED)).hexdigest()
"""


def here(script):
    """Run a script's setting in this process."""
    names = {}
    exec(script, names)
    return names


def test_many_threads_at_once_give_the_right_bits(run_python, layer_environment):
    printed = run_python(
        SETTING
        + """
expected = [call() for call in CALLS]

def work(i):
    return np.array_equal(CALLS[i % len(CALLS)](), expected[i % len(CALLS)])

with ThreadPoolExecutor(8) as pool:
    assert all(pool.map(work, range(800)))
print(jit.layer(), jit.threads(), digest())
""",
        environment=layer_environment,
    ).split()
    # Four threads under this layer give the bits of however many under the layer of this process.
    assert printed == [layer_environment["NUMBA_THREADING_LAYER"], "4", here(SETTING)["digest"]()]


def test_the_first_calls_of_a_process_may_come_at_once(run_python, layer_environment):
    # Compiling or loading, and starting numba's threads, happen in the midst of it.
    run_python(
        SETTING
        + """
barrier = threading.Barrier(8)

def work(i):
    barrier.wait()
    return CALLS[i % len(CALLS)]()

with ThreadPoolExecutor(8) as pool:
    results = list(pool.map(work, range(8)))
for i, result in enumerate(results):
    assert np.array_equal(result, CALLS[i % len(CALLS)]())
""",
        environment=layer_environment,
    )


def test_the_gil_is_released(run_python, layer_environment):
    # A thread that holds the GIL gives it up after an hour at the earliest. So whoever sees the output half done
    # runs Python beside the kernel, which had let go of the GIL.
    run_python(
        SETTING
        + """
import time
sys.setswitchinterval(3600)
large = rng.standard_normal((1, 64, 200, 200), dtype=np.float32)
kernels = rng.standard_normal((64, 64, 5, 5), dtype=np.float32)
out = np.zeros((1, 64, 196, 196), np.float32)
nc.conv2d(large, kernels, out=out)
out[:] = np.nan
thread = threading.Thread(target=lambda: nc.conv2d(large, kernels, out=out))
thread.start()
seen = False
while not seen and thread.is_alive():
    time.sleep(0)
    seen = np.isnan(out[0, -1, -1, -1]) and not np.isnan(out[0, 0, 0, 0])
thread.join()
assert seen
assert not np.isnan(out).any()
""",
        environment=layer_environment,
    )


@pytest.mark.parametrize(("size", "module", "kernel"), [(3, tiled, "correlate"), (1, matmul, "multiply")])
def test_the_number_of_threads_is_numbas_at_each_call(monkeypatch, set_threads, size, module, kernel):
    shares = []
    monkeypatch.setattr(module, kernel, lambda count, *args: shares.append(count))
    planned = nc.plan((1, 8, 30, 30), np.ones((8, 8, size, size)), method=module.NAME)
    most = jit.threads()
    for threads in (most, 1, most):
        set_threads(threads)
        planned(np.ones((1, 8, 30, 30)))
        nc.conv2d(np.ones((1, 8, 30, 30)), np.ones((8, 8, size, size)), method=module.NAME)
    assert shares == [most, most, 1, 1, most, most]


def test_numbas_mask_of_one_python_thread_leaves_the_others_alone():
    if jit.threads() == 1:
        pytest.skip("one thread is all that numba has here")
    seen = []

    def work():
        numba.set_num_threads(1)
        seen.append(jit.threads())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [1]
    assert jit.threads() > 1


def test_threads_beyond_the_work_are_no_matter(run_python):
    printed = run_python(SETTING + "print(digest())\n", environment={"NUMBA_NUM_THREADS": "16"})
    assert printed.strip() == here(SETTING)["digest"]()


def test_the_digest_tells_a_difference():
    # Else the comparisons above would prove nothing.
    names = here(SETTING)
    before = names["digest"]()
    names["x"][0, 0, 0, 0] *= 1 + 2.0**-10
    assert names["digest"]() != before
