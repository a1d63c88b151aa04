"""Kernels and what they are given: compiled for each types of arguments, then handed to the driver as they lie.

Numba finds the types of a launch's arguments and takes them apart in Python, each time anew: 0.4 ms for the eight
arrays of a tile on an H100's host, where the tile itself takes 0.2. So an array is a `Memory` here, taken apart once.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from ..cache import package_stamp
from ..jit import cuda_options
from .driver import cuda, current, simulated, types


class Memory:
    """Elements side by side on a device. Keeps their owner alive."""

    __slots__ = ("dtype", "owner", "pointer", "size", "words")

    def __init__(self, owner: Any, size: int, dtype: np.dtype[Any], pointer: int) -> None:
        self.owner, self.size, self.dtype, self.pointer = owner, size, dtype, pointer
        itemsize = dtype.itemsize
        # A 1-D array as numba's kernels take it: no object and no parent of the host, then size, itemsize, pointer,
        # shape and strides.
        self.words = (0, 0, size, itemsize, pointer, size, itemsize)

    @staticmethod
    def of(array: Any) -> Memory:
        """Of a contiguous array that has the CUDA array interface."""
        if isinstance(array, Memory):
            return array
        interface = array.__cuda_array_interface__
        return Memory(array, math.prod(interface["shape"]), np.dtype(interface["typestr"]), interface["data"][0] or 0)

    @property
    def nbytes(self) -> int:
        """What it takes."""
        return self.size * self.dtype.itemsize

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """What other libraries read to take it as an array."""
        place = {"shape": (self.size,), "typestr": self.dtype.str, "data": (self.pointer, False)}
        return {**place, "strides": None, "version": 3}

    def view(self, dtype: Any) -> Memory:
        """The same bytes as other elements."""
        kind = np.dtype(dtype)
        return Memory(self.owner, self.nbytes // kind.itemsize, kind, self.pointer)


def allocate(size: int, dtype: Any, stream: Any) -> Memory:
    """Memory for work on a stream, until nobody holds it: of the driver's pool, which has it in microseconds, where
    another allocation takes 0.1 ms or more, and waits for the device when it is freed.
    """
    kind = np.dtype(dtype)
    if simulated():
        return Memory.of(cuda.device_array(max(1, size), kind))
    owner = _core_device(current()).allocate(max(1, size * kind.itemsize), stream=_core_stream(stream or 0))
    return Memory(owner, size, kind, int(owner.handle))


class Kernel:
    """A function for blocks of so many threads: kernel[grid, threads, stream](arguments), as numba has it.

    Arguments are integers, tuples of integers, and arrays of one axis. A launch takes neither lock nor dispatcher: the
    driver's handle of the compiled kernel is kept by context and types.
    """

    def __init__(self, function: Callable[..., Any], threads: int, resident: int) -> None:
        self.py_func = function
        self._options = cuda_options(threads, resident)
        self._handles: dict[tuple[Any, ...], Any] = {}

    def __getitem__(self, launch: tuple[Any, int, Any]) -> Callable[..., None]:
        return functools.partial(self._launch, *launch)

    def _launch(self, grid: Any, threads: int, stream: Any, *arguments: Any) -> None:
        kinds: list[Any] = []
        words: list[int] = []
        for argument in arguments:
            if type(argument) is Memory:
                kinds.append(argument.dtype)
                words += argument.words
            elif isinstance(argument, int):
                kinds.append(int)
                words.append(argument)
            elif isinstance(argument, tuple):
                kinds.append(len(argument))
                words += argument
            else:
                memory = Memory.of(argument)
                kinds.append(memory.dtype)
                words += memory.words
        key = current(), *kinds
        handle = self._handles.get(key)
        if handle is None:
            handle = self._handles[key] = self._compiled(kinds)
        _core().launch(_core_stream(stream), _configuration(grid, threads), handle, *words)

    def _compiled(self, kinds: list[Any]) -> Any:
        """The driver's kernel of the current context."""
        definition = self._numbas.compile(tuple(map(_numba_type, kinds)))
        definition.bind()
        return definition._codelibrary.get_cufunc().kernel

    @functools.cached_property
    def _numbas(self) -> Any:
        try:
            # In one call: as a decorator with arguments, cuda.jit forgets lto=False.
            found = cuda.jit(self.py_func, **self._options)
            # Constants come from several files, as on the CPU: an edit anywhere makes the cache stale.
            found._cache._cache_file._source_stamp = package_stamp()
        except RuntimeError:
            # Nowhere to write: compile in every process.
            found = cuda.jit(self.py_func, **{**self._options, "cache": False})
        return found


class Simulated:
    """The same where numba runs kernels in Python."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._numbas = cuda.jit(function)

    def __getitem__(self, launch: tuple[Any, int, Any]) -> Callable[..., None]:
        def run(*arguments: Any) -> None:
            taken = [cuda.as_cuda_array(one, sync=False) if isinstance(one, Memory) else one for one in arguments]
            with warnings.catch_warnings():
                # The size of an image is not ours to change.
                warnings.filterwarnings("ignore", "Grid size")
                self._numbas[launch](*taken)

        return run


def kernel(function: Callable[..., Any], threads: int, resident: int) -> Kernel | Simulated:
    """The function as a kernel for blocks of so many threads, of which so many should fit on a multiprocessor."""
    return Simulated(function) if simulated() else Kernel(function, threads, resident)


def _numba_type(kind: Any) -> Any:
    known = types()
    if isinstance(kind, int):
        return known.UniTuple(known.int64, kind)
    return known.int64 if kind is int else known.Array(numba.from_dtype(kind), 1, "C")


@functools.cache
def _core() -> Any:
    """NVIDIA's package that numba-cuda itself launches by."""
    import cuda.core

    return cuda.core


@functools.lru_cache(maxsize=16)
def _core_device(context: int) -> Any:
    """Its device of the current context."""
    device = _core().Device()
    device.set_current()
    return device


@functools.lru_cache(maxsize=256)
def _core_stream(stream: Any) -> Any:
    """Its stream for numba's, or for 0."""
    return _core().Stream.from_handle(int(stream.handle) if stream else 0)


@functools.lru_cache(maxsize=1024)
def _configuration(grid: Any, threads: int) -> Any:
    return _core().LaunchConfig(grid=grid, block=threads)
