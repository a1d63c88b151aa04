"""The policy of jit.py: which twin runs, with how many threads, under which compiler options, from which cache."""

from __future__ import annotations

import shutil
import threading

import numba
import numpy as np
import pytest
from conftest import PACKAGE
from numba import prange

from numconv import jit
from numconv.cpu import direct


@jit.njit(parallel=True)
def double(x, out):
    """Each element twice."""
    for i in prange(len(x)):
        out[i] = 2 * x[i]


@pytest.fixture
def twins(monkeypatch):
    """A kernel whose twins only tell that they were called."""
    kernel = jit.Kernel(double.py_func)
    calls = []
    monkeypatch.setattr(kernel, "parallel", lambda *args: calls.append("parallel"))
    monkeypatch.setitem(vars(kernel), "serial", lambda *args: calls.append("serial"))
    return kernel, calls


@pytest.fixture
def on_layer(monkeypatch):
    return lambda name: monkeypatch.setattr(jit, "layer", lambda: name)


def taken_elsewhere():
    """Hold the lock from another thread until the returned function is called."""
    ready, done = threading.Event(), threading.Event()

    def hold():
        with jit._WORKQUEUE:
            ready.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    ready.wait()
    return lambda: (done.set(), thread.join())


def free():
    """Whether another thread could take the lock now."""
    found = []

    def look():
        found.append(jit._WORKQUEUE.acquire(blocking=False))
        if found[0]:
            jit._WORKQUEUE.release()

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.parametrize("layer", ["omp", "tbb"])
def test_under_a_threadsafe_layer_every_caller_runs_parallel(twins, on_layer, layer):
    kernel, calls = twins
    on_layer(layer)
    let_go = taken_elsewhere()
    kernel()
    let_go()
    assert calls == ["parallel"]


def test_under_workqueue_one_caller_runs_parallel_and_the_others_serial(twins, on_layer):
    kernel, calls = twins
    on_layer("workqueue")
    let_go = taken_elsewhere()
    kernel()
    let_go()
    kernel()
    assert calls == ["serial", "parallel"]
    assert free()


@pytest.mark.parametrize("layer", ["omp", "workqueue"])
def test_a_forked_child_runs_serial(twins, on_layer, monkeypatch, layer):
    kernel, calls = twins
    on_layer(layer)
    monkeypatch.setattr(jit, "_PROCESS", -1)
    kernel()
    assert calls == ["serial"]
    assert jit.threads() == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_exception_frees_the_lock(on_layer, monkeypatch, error):
    def fail(*_):
        raise error

    kernel = jit.Kernel(double.py_func)
    monkeypatch.setattr(kernel, "parallel", fail)
    on_layer("workqueue")
    with pytest.raises(error):
        kernel()
    assert free()


def test_an_interrupt_right_after_the_lock_is_taken_frees_it(twins, on_layer, monkeypatch):
    # Python delivers Ctrl-C between two steps: also between taking the lock and whatever comes next.
    lock = jit._WORKQUEUE

    class Interrupted:
        def acquire(self, blocking=True):
            lock.acquire(blocking=blocking)
            raise KeyboardInterrupt

        release = lock.release

    monkeypatch.setattr(jit, "_WORKQUEUE", Interrupted())
    on_layer("workqueue")
    with pytest.raises(KeyboardInterrupt):
        twins[0]()
    monkeypatch.undo()
    assert free()


def test_both_twins_give_the_same():
    x = np.arange(100.0)
    for twin in (double, double.parallel, double.serial):
        out = np.zeros(100)
        twin(x, out)
        np.testing.assert_array_equal(out, 2 * x)


def test_twins_have_names_of_their_own_and_the_same_source():
    # numba's cache keys do not hold `parallel`.
    assert double.parallel.py_func.__qualname__ != double.serial.py_func.__qualname__
    assert double.parallel.py_func.__code__ is double.serial.py_func.__code__
    assert (double.__name__, double.__doc__) == ("double", "Each element twice.")


@pytest.mark.parametrize("kernel", [direct.correlate.parallel, direct.correlate.serial, direct.fill], ids=str)
def test_kernels_release_the_gil_and_keep_to_ieee_arithmetic(kernel):
    options = kernel.targetoptions
    assert options["nogil"]
    assert not options["fastmath"]
    assert options["error_model"] == "numpy"


def test_only_the_parallel_twin_is_parallel():
    assert direct.correlate.parallel.targetoptions["parallel"]
    assert not direct.correlate.serial.targetoptions["parallel"]
    assert not direct.fill.targetoptions["parallel"]


def test_threads_are_asked_of_numba_at_each_call(set_threads):
    most = numba.get_num_threads()
    for count in (1, most, 1):
        set_threads(count)
        assert jit.threads() == count


def test_the_layer_is_one_that_numba_has():
    assert jit.layer() in ("omp", "tbb", "workqueue")


def test_an_edit_or_a_new_file_anywhere_changes_the_stamp(monkeypatch, tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "numconv", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(jit, "__file__", str(tmp_path / "numconv" / "jit.py"))
    stamp = jit.package_stamp.__wrapped__
    stamps = {jit.package_stamp(), stamp()}
    assert len(stamps) == 1, "the stamp is of the contents, not of where and when they were written"
    for name in ("problem.py", "cpu/simd/ir.py", "cpu/loops.py"):
        path = tmp_path / "numconv" / name
        path.write_text(path.read_text() + "\n")
        stamps.add(stamp())
    (tmp_path / "numconv" / "cpu" / "new.py").write_text("X = 1\n")
    stamps.add(stamp())
    assert len(stamps) == 5


def test_where_nothing_can_be_cached_the_kernel_still_compiles(monkeypatch):
    def fail(function):
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr(jit, "_PackageCache", fail)
    out = np.zeros(3)
    jit.Kernel(double.py_func).serial(np.arange(3.0), out)
    assert out.tolist() == [0, 2, 4]


def test_kernels_of_the_package_carry_the_stamp():
    locator = direct.correlate.parallel._cache._impl.locator
    assert locator.get_source_stamp() == jit.package_stamp()
