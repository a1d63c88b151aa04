"""np.matmul for kernels: its compiled loop by address, and the hold on its BLAS's own threads.

A BLAS keeps a pool of threads that spin for milliseconds after a product, and numba's do after a kernel. Two pools
that spin against each other on the same cores cost a layer two to three times its time: alternating a 3x3 and a 1x1
layer on 2 cores took 2.4 times the sum of both. So there is one pool, numba's. Each of its threads computes a part of
the product through the loop that np.matmul itself runs, which needs no GIL, while the BLAS is held to one thread.

A product's parts are all the BLAS sees, so the result is np.matmul's for the same parts.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import os
from typing import Any, NamedTuple

import numpy as np

from ..method import Array
from .simd.native import call_get, call_set, exchange
from .simd.shares import njit

# (before, after) the name of an OpenBLAS function: numpy's wheels, other 64-bit builds, plain builds.
OPENBLAS_NAMES = (("scipy_openblas_", "64_"), ("scipy_openblas_", ""), ("openblas_", "64_"), ("openblas_", ""))
PTHREADS = 1

# [lock, shares of kernels that hold the BLAS, its threads before the first hold]. Native code alone changes it, between
# two points where Python cannot be interrupted, so that Ctrl-C never leaves the BLAS with one thread.
_HELD = np.zeros(3, np.int64)
os.register_at_fork(after_in_child=lambda: _HELD.fill(0))


class Blas(NamedTuple):
    """Addresses of an OpenBLAS's functions that get and set its number of threads."""

    get_threads: int
    set_threads: int


class _Ufunc(ctypes.Structure):
    """The head of PyUFuncObject, as NumPy's C API documents it."""

    _fields_ = (
        ("head", ctypes.c_byte * object.__basicsize__),
        ("counts", ctypes.c_int * 4),
        ("functions", ctypes.POINTER(ctypes.c_void_p)),
    )


def _library() -> ctypes.CDLL:
    """A handle whose symbols include those of the BLAS that NumPy is linked to."""
    return ctypes.CDLL(importlib.import_module("numpy._core._multiarray_umath").__file__)


def _function(verb: str) -> Any:
    library = _library()
    names = (before + verb + after for before, after in OPENBLAS_NAMES)
    return next((getattr(library, name) for name in names if hasattr(library, name)), None)


@functools.lru_cache(maxsize=1)
def find_blas() -> Blas | None:
    """NumPy's BLAS if its threads can be held: an OpenBLAS with threads of its own; else None."""
    try:
        get, set_, parallel = map(_function, ("get_num_threads", "set_num_threads", "get_parallel"))
    except (ImportError, OSError):
        return None
    if not (get and set_ and parallel) or parallel() != PTHREADS:
        return None
    addresses = (ctypes.cast(function, ctypes.c_void_p).value for function in (get, set_))
    return Blas(*(address or 0 for address in addresses))


@functools.lru_cache(maxsize=1)
def blas_name() -> str:
    """The BLAS behind NumPy with its kernel, as well as it can be told."""
    try:
        config = _function("get_config")
    except (ImportError, OSError):
        config = None
    if config is None:
        build: Any = np.show_config(mode="dicts")
        return str(build["Build Dependencies"]["blas"]["name"])
    config.restype = ctypes.c_char_p
    return str(config().decode())


@functools.lru_cache(maxsize=8)
def matmul_loop(dtype: np.dtype[Any]) -> int:
    """The address of np.matmul's loop for a dtype: ``void f(char **, intp *dimensions, intp *steps, void *)``."""
    index = np.matmul.types.index(f"{dtype.char * 2}->{dtype.char}")
    return int(_Ufunc.from_address(id(np.matmul)).functions[index] or 0)


def held() -> Array:
    """The state that `hold` and `release` share."""
    return _HELD


@njit()
def hold(blas: Any, state: Array) -> None:
    """Give the BLAS one thread, until the last hold is released; `blas` has the fields of a Blas."""
    lock = state.ctypes.data
    while exchange(lock, 1):
        pass
    if state[1] == 0:
        state[2] = call_get(blas.get_threads)
        call_set(blas.set_threads, 1)
    state[1] += 1
    exchange(lock, 0)


@njit()
def release(blas: Any, state: Array, holds: int) -> None:
    """Take so many holds back, and give the BLAS its threads back if there are no others."""
    lock = state.ctypes.data
    while exchange(lock, 1):
        pass
    state[1] -= holds
    if state[1] == 0:
        call_set(blas.set_threads, state[2])
    exchange(lock, 0)
