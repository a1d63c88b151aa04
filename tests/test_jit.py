"""The policy of jit.py: who runs the shares, on how many threads, under which compiler options, from which cache."""

from __future__ import annotations

import shutil
import threading

import numba
import numpy as np
import pytest
from conftest import PACKAGE

from numconv import cache, jit
from numconv.cpu import direct
from numconv.cpu.simd.shares import njit


@njit(parallel=True)
def double(share, x, out, threads):
    """Each element twice, and the number of the thread that came to it."""
    double_one(share.number, x, out, threads)


@njit()
def double_one(i, x, out, threads):
    out[i] = 2 * x[i]
    threads[i] = numba.get_thread_id()


@pytest.fixture
def told():
    """A kernel that does nothing, and what it was told each time: to run its shares alone or on numba's threads."""
    tell = njit(parallel=True)(double.compiled.py_func)
    calls = []
    tell.compiled = lambda shares: calls.append({7: "threads", -7: "alone"}[shares])
    return tell, calls


@pytest.fixture
def on_layer(monkeypatch):
    jit.layer()  # starts the threads, which the name alone does not
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
def test_under_a_threadsafe_layer_every_caller_has_the_threads(told, on_layer, layer):
    tell, calls = told
    on_layer(layer)
    let_go = taken_elsewhere()
    tell(7)
    let_go()
    assert calls == ["threads"]


def test_under_workqueue_one_caller_has_the_threads_and_the_others_run_alone(told, on_layer):
    tell, calls = told
    on_layer("workqueue")
    let_go = taken_elsewhere()
    tell(7)
    let_go()
    tell(7)
    assert calls == ["alone", "threads"]
    assert free()


@pytest.mark.parametrize("layer", ["omp", "workqueue"])
def test_a_forked_child_runs_alone(told, on_layer, monkeypatch, layer):
    tell, calls = told
    on_layer(layer)
    monkeypatch.setattr(jit, "_PROCESS", -1)
    tell(7)
    assert calls == ["alone"]
    assert jit.threads() == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_exception_frees_the_lock(told, on_layer, error):
    def fail(*_):
        raise error

    tell, _ = told
    tell.compiled = fail
    on_layer("workqueue")
    with pytest.raises(error):
        tell(7)
    assert free()


def test_an_interrupt_right_after_the_lock_is_taken_frees_it(told, on_layer, monkeypatch):
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
        told[0](7)
    monkeypatch.undo()
    assert free()


@pytest.mark.parametrize("shares", [0, 1, 2, 7, 100])
def test_each_share_is_run_once_by_every_thread_or_by_the_caller(shares):
    x = np.arange(100.0)[:shares]
    for call, number, threads in ((double, shares, jit.threads()), (double.compiled, -shares, 1)):
        out, runners = np.full(100, -1.0), np.zeros(100, np.int64)
        call(number, x, out, runners)
        np.testing.assert_array_equal(out[:shares], 2 * x)
        assert (out[shares:] == -1).all()
        if jit.layer() != "tbb":
            # Neighbours together, as even as can be; tbb gives them to whoever is idle.
            assert len(set(runners[:shares])) == min(threads, shares)


@jit.TypeTest
def is_float(array):
    """Whether an array's numbers are."""
    return array.dtype.name.startswith("float")


@njit()
def halved(x):
    if is_float(x):
        return x[0] / 2
    return x[0] >> 1


def test_what_an_arrays_type_rules_out_is_not_compiled():
    # Neither could be: no shift of a float has a type, and the results of both have two.
    assert halved(np.array([3.0])) == 1.5
    found = halved(np.array([3]))
    assert (found, type(found)) == (1, int)
    assert (is_float(np.zeros(1)), is_float(np.zeros(1, int))) == (True, False)


def test_a_kernel_keeps_its_name_and_doc():
    assert double.__name__ == "double"
    assert double.__doc__.startswith("Each element twice")


def test_python_can_call_a_part_all_the_same():
    out = np.zeros(3)
    double_one(1, np.arange(3.0), out, np.zeros(3, np.int64))
    assert out.tolist() == [0, 2, 0]


@pytest.mark.parametrize("kernel", [direct.correlate.compiled, direct.fill], ids=["kernel", "part"])
def test_kernels_release_the_gil_and_keep_to_ieee_arithmetic(kernel):
    options = kernel.targetoptions
    assert options["nogil"]
    assert not options["fastmath"]
    assert options["error_model"] == "numpy"


def test_threads_are_asked_of_numba_at_each_call(set_threads):
    most = numba.get_num_threads()
    for count in (1, most, 1):
        set_threads(count)
        assert jit.threads() == count


def test_the_layer_is_one_that_numba_has():
    assert jit.layer() in ("omp", "tbb", "workqueue")


def test_an_edit_or_a_new_file_anywhere_changes_the_stamp(monkeypatch, tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "numconv", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(cache, "__file__", str(tmp_path / "numconv" / "cache.py"))
    stamp = cache.package_stamp.__wrapped__
    stamps = {cache.package_stamp(), stamp()}
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

    monkeypatch.setattr(cache, "_PackageCache", fail)
    out = np.zeros(3)
    njit(parallel=True)(double.compiled.py_func)(3, np.arange(3.0), out, np.zeros(3, np.int64))
    assert out.tolist() == [0, 2, 4]
    # What it calls has become machine code within it, and has none of its own.
    (part,) = double_one.overloads.values()
    assert part.library.get_pointer_to_function(part.fndesc.mangled_name) == 0


def test_kernels_of_the_package_carry_the_stamp():
    locator = direct.correlate.compiled._cache._impl.locator
    assert locator.get_source_stamp() == cache.package_stamp()
