"""NVIDIA's BLAS by its C interface: the library comes with CUDA, torch and CuPy, and needs none of them."""

from __future__ import annotations

import ctypes
import functools
from collections import deque
from typing import Any

import numpy as np

from .driver import current

# The C interface's numbers of a matrix as it lies in memory, column after column, and of one turned over; and of how
# float32 are multiplied: as they are, or as TF32.
AS_IT_LIES, TURNED = 0, 1
FULL, TF32 = 0, 3
FUNCTIONS = {"f": ("cublasSgemmStridedBatched", ctypes.c_float), "d": ("cublasDgemmStridedBatched", ctypes.c_double)}
INT, STEP, POINTER = ctypes.c_int, ctypes.c_longlong, ctypes.c_void_p
MATRIX = (POINTER, INT, STEP)


@functools.cache
def library() -> Any:
    """The library, or None where it is not installed."""
    try:
        from cuda.pathfinder import DynamicLibNotFoundError, load_nvidia_dynamic_lib
    except ImportError:
        return None
    try:
        found = load_nvidia_dynamic_lib("cublas")
    except DynamicLibNotFoundError:
        return None
    return ctypes.CDLL(found.abs_path)


class Products:
    """Products on one context of the driver's, in full or in TF32. Each call has a handle of the library's for itself
    while it lasts: as many are made as there are threads at once.
    """

    def __init__(self, functions: Any, mode: int) -> None:
        self._library, self._mode, self._handles = functions, mode, deque[Any]()
        functions.cublasSetStream_v2.argtypes = (POINTER, POINTER)
        # The function of each kind with the two factors that it takes by their addresses.
        self._functions = {}
        for kind, (name, real) in FUNCTIONS.items():
            scale = ctypes.POINTER(real)
            function = getattr(functions, name)
            function.argtypes = (POINTER, INT, INT, INT, INT, INT, scale, *MATRIX, *MATRIX, scale, *MATRIX, INT)
            self._functions[kind] = function, real(1), real(0)

    def _handle(self) -> Any:
        try:
            return self._handles.pop()
        except IndexError:
            handle = POINTER()
            _check(self._library.cublasCreate_v2(ctypes.byref(handle)))
            _check(self._library.cublasSetMathMode(handle, self._mode))
            return handle

    def multiply(
        self,
        kind: np.dtype[Any],
        sizes: tuple[int, int, int],
        turned: int,
        left: tuple[int, int, int],
        right: tuple[int, int, int],
        result: tuple[int, int, int],
        count: int,
        stream: int,
    ) -> None:
        """result[i] = left[i] @ right[i] for so many i: (m, k) by (k, n) for sizes (m, n, k), column after column,
        `left` perhaps turned over. A matrix: its address, elements from one column to the next, and to the next matrix.
        """
        function, one, zero = self._functions[kind.char]
        handle = self._handle()
        try:
            _check(self._library.cublasSetStream_v2(handle, stream))
            _check(function(handle, turned, AS_IT_LIES, *sizes, one, *left, *right, zero, *result, count))
        finally:
            self._handles.append(handle)


@functools.lru_cache(maxsize=16)
def _products(context: int, mode: int) -> Products:
    return Products(library(), mode)


def products(mode: int) -> Products:
    """Those of the current context."""
    return _products(current(), mode)


def _check(status: int) -> None:
    if status:
        raise RuntimeError(
            f"cuBLAS answered with status {status}: leave it out by method='matmul', which needs no library"
        )
