"""The one import point of CUDA: `from .driver import cuda`. A successor of numba-cuda is a change of this file.

Where the extra is not installed, `cuda` is a stand-in that every use turns into the one sentence saying so: a method
can then still be asked what it would do (`explain`), since kernels are compiled by the first call that needs them.
"""

from __future__ import annotations

import functools
import importlib.util
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

from ..cache import package_stamp
from ..jit import INLINED, cuda_options

EXTRA = "pip install 'numconv-numba[cuda]', or [cuda12] for a driver of CUDA 12"


class Missing:
    """What stands for the library where it is not installed."""

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ImportError(f"a CUDA array or device was asked for, but numba-cuda is not installed: {EXTRA}")


def _library() -> Any:
    if importlib.util.find_spec("numba_cuda") is None:
        return Missing()
    from numba import cuda

    return cuda


cuda: Any = _library()


def simulated() -> bool:
    """Whether numba runs kernels in Python, under NUMBA_ENABLE_CUDASIM=1."""
    return not isinstance(cuda, Missing) and "simulator" in cuda.jit.__module__


def kernel(function: Callable[..., Any], threads: int, resident: int) -> Any:
    """The function as a kernel for blocks of so many threads, of which so many should fit on a multiprocessor."""
    if simulated():
        return cuda.jit(function)
    try:
        # In one call: as a decorator with arguments, cuda.jit forgets lto=False.
        found = cuda.jit(function, **cuda_options(threads, resident))
        # Constants come from several files, as on the CPU: an edit anywhere makes the cache stale.
        found._cache._cache_file._source_stamp = package_stamp()
    except RuntimeError:
        # Nowhere to write: compile in every process.
        found = cuda.jit(function, **{**cuda_options(threads, resident), "cache": False})
    found.configure = _quietly(found.configure)
    return found


def _quietly(configure: Callable[..., Any]) -> Callable[..., Any]:
    """Numba's configurations of a launch without its advice on small grids: the size of an image is not ours to change.

    It comes when a configuration is made, and numba keeps them, as this does: a repeated launch asks nothing.
    """

    @functools.lru_cache(maxsize=128)
    def configured(*launch: Any) -> Any:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Grid size")
            return configure(*launch)

    return configured


def inlined(function: Callable[..., Any]) -> Any:
    """A function for kernels to call, inlined into each."""
    if isinstance(cuda, Missing):
        return function
    return cuda.jit(function, device=True, **({} if simulated() else INLINED))


def extension(function: Callable[..., Any]) -> Any:
    """An instruction that numba has no name for, for kernels to call, by what `function` says of types and code."""
    if isinstance(cuda, Missing) or simulated():
        return function
    from numba.cuda.extending import intrinsic

    return intrinsic(function)


def types() -> Any:
    """Numba's types, for extensions."""
    from numba.cuda import types as known

    return known
