"""The one import point of CUDA: `from .driver import cuda`. A successor of numba-cuda is a change of this file.

Where the extra is not installed, `cuda` is a stand-in that every use turns into the one sentence saying so: a method
can then still be asked what it would do (`explain`), since kernels are compiled by the first call that needs them.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
from collections.abc import Callable
from typing import Any, NoReturn

from ..jit import INLINED

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
AS_IT_IS = contextlib.nullcontext()


@functools.cache
def simulated() -> bool:
    """Whether numba runs kernels in Python, under NUMBA_ENABLE_CUDASIM=1."""
    return not isinstance(cuda, Missing) and "simulator" in cuda.jit.__module__


def current() -> int:
    """The driver's handle of this thread's current context; 0 is none."""
    return int(_bindings().cuCtxGetCurrent()[1])


@functools.cache
def _bindings() -> Any:
    """NVIDIA's package that numba-cuda itself asks the driver by."""
    from cuda.bindings import driver

    return driver


def using(device: int) -> Any:
    """A context manager within which a device is the current one: nothing to do where it is already."""
    if not simulated() and current() == _handle(device):
        return AS_IT_IS
    return cuda.gpus[device]


def device_here() -> int:
    """The number of the current device, which numba takes long to find."""
    return 0 if simulated() else _number(current())


@functools.lru_cache(maxsize=16)
def _number(context: int) -> int:
    return int(cuda.get_current_device().id)


@functools.cache
def _handle(device: int) -> int:
    """Of the context that libraries share on a device."""
    return int(cuda.gpus[device].get_primary_context().handle)


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
