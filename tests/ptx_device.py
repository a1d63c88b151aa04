"""A CUDA device that is not there: numba compiles each launch to PTX, and the interpreter runs it.

`install` puts it under numba's API, so that the package's own code allocates, packs, launches and collects. Nothing of
numba's compiler is replaced but the question for the compute capability of the current device.
"""

from __future__ import annotations

import functools
import types

import numba
import numba.cuda.dispatcher
import numpy as np
from numba import cuda
from numba.cuda.np import numpy_support
from ptx import Kernel
from ptx_memory import Counts

from numconv.cuda.kernels import Memory

CC = (9, 0)


class DeviceArray:
    """Memory of the device, as numba's and everybody's array."""

    def __init__(self, array, stream=None):
        self.array, self.stream = array, stream
        self.shape, self.dtype, self.nbytes, self.size = array.shape, array.dtype, array.nbytes, array.size

    @property
    def __cuda_array_interface__(self):
        return {**self.array.__array_interface__, "stream": self.stream, "version": 3}

    def view(self, dtype):
        return DeviceArray(self.array.view(dtype))

    def __getitem__(self, part):
        return DeviceArray(self.array[part])

    def copy_to_device(self, array, stream=0):
        self.array[...] = array

    def copy_to_host(self, array=None, stream=0):
        if array is None:
            return self.array.copy()
        array[...] = self.array
        return array


def there(array):
    """An array on the device."""
    return None if array is None else DeviceArray(array)


def normal(*shape, dtype=np.float32):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def assert_same_bits(found, expected):
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    assert found.tobytes() == expected.tobytes(), np.abs(found - expected).max()


def device(array):
    """An array of the host as the package's methods take one on the device."""
    from numconv.cuda.arrays import device_array

    return None if array is None else device_array("array", DeviceArray(array))


def signature(arguments):
    """The types, in numba's words, of a launch's arguments."""
    found = []
    for argument in arguments:
        if isinstance(argument, DeviceArray):
            found.append(numba.types.Array(numpy_support.from_dtype(argument.dtype), 1, "C"))
        else:
            found.append(
                numba.types.UniTuple(numba.int64, len(argument)) if isinstance(argument, tuple) else numba.int64
            )
    return numba.types.void(*found)


def compile_ptx(function, arguments, threads, resident, cc=CC):
    """The PTX that numba emits for a kernel."""
    before = numba.cuda.dispatcher.get_current_device
    numba.cuda.dispatcher.get_current_device = lambda: types.SimpleNamespace(compute_capability=cc)
    try:
        return cuda.compile(
            function, arguments, device=False, abi="numba", cc=cc, output="ptx", launch_bounds=(threads, resident)
        )[0]
    finally:
        numba.cuda.dispatcher.get_current_device = before


class Launcher:
    """What stands for a kernel: compiled once for each signature, run by the interpreter."""

    def __init__(self, function, threads, resident):
        self.function, self.bounds = function, (threads, resident)
        self.compiled = functools.cache(lambda arguments: Kernel(compile_ptx(function, arguments, *self.bounds)))
        self.counts = None

    def __getitem__(self, configuration):
        grid, threads, _ = configuration
        return functools.partial(self.launch, grid if isinstance(grid, tuple) else (grid,), threads)

    def launch(self, grid, threads, *arguments):
        arguments = [cuda.as_cuda_array(one) if isinstance(one, Memory) else one for one in arguments]
        kernel = self.compiled(signature(arguments))
        flat = []
        for argument in arguments:
            if isinstance(argument, DeviceArray):
                flat.append(argument.array.view(np.uint8) if argument.dtype == bool else argument.array)
            else:
                flat.extend(map(int, argument) if isinstance(argument, tuple) else [int(argument)])
        self.counts = kernel.launch(grid, threads, flat, Counts())


class Context:
    """The device as the current one."""

    id, name, compute_capability, MULTIPROCESSOR_COUNT, CLOCK_RATE = 0, "interpreter", CC, 132, 1_830_000

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def get_memory_info(self):
        return (1 << 30, 1 << 30)


class Stream:
    """A stream, on which all is done at once."""

    def __init__(self, handle=0):
        self.handle = handle

    def __int__(self):
        return self.handle

    def synchronize(self):
        return None


LAUNCHERS = {}


def launcher(function, threads, resident):
    """One for each kernel of the process, so that tests share what is compiled: as numba's cache tells them apart."""
    constants = tuple(cell.cell_contents for cell in function.__closure__ or ())
    return LAUNCHERS.setdefault((function.__code__, constants), Launcher(function, threads, resident))


def install(monkeypatch):
    """Put the device under numba's API, and the interpreter under the package's kernels."""
    from numconv.cuda import (
        launch,
        loops,
        narrow,
        pack,
        place,
        products,
        records,
        strip,
        sums,
        tensor,
        tensor_tile,
        tile,
        wide,
        wide_tile,
    )  # fmt: skip

    monkeypatch.setattr(launch, "using", lambda device: Context())
    monkeypatch.setattr(place, "device_here", lambda: 0)
    for module in (pack, place, tensor, wide):
        # Filled, since memory of a pool holds anything.
        monkeypatch.setattr(
            module,
            "allocate",
            lambda size, dtype, stream: Memory.of(DeviceArray(np.full(max(1, size), 77, np.dtype(dtype)))),
        )

    for module in (loops, narrow, pack, place, products, records, strip, sums, tensor_tile, tile, wide_tile):
        monkeypatch.setattr(module, "kernel", launcher)
        for name in [name for name in vars(module) if name.startswith("build")]:
            # What was built before belongs to a GPU, and what is built now to nobody afterwards.
            monkeypatch.setattr(module, name, functools.cache(getattr(module, name).__wrapped__))

    def as_cuda_array(holder, sync=True):
        found = types.SimpleNamespace(__array_interface__=dict(holder.__cuda_array_interface__), keep=holder)
        return DeviceArray(np.asarray(found))

    replaced = {
        "device_array": lambda shape, dtype, stream=0: DeviceArray(np.full(shape, 77, dtype)),
        "to_device": lambda array, stream=0: DeviceArray(np.array(array)),
        "as_cuda_array": as_cuda_array,
        "get_current_device": Context,
        "current_context": Context,
        "gpus": [Context()],
        "synchronize": lambda: None,
        "stream": Stream,
        "pinned_array": np.empty,
    }
    for name, value in replaced.items():
        monkeypatch.setattr(cuda, name, value)
