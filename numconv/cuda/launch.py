"""From a call to a launch: devices, streams, and what moves between host and device.

A device array is computed where it lies and the result stays there; nothing is copied to or from the host. A NumPy
array with device="cuda" goes to the device and back in chunks of images that fit its memory, on two streams through
pinned buffers, so that one chunk is on its way while another is computed.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np

from ..machine import GPUS, Gpu, Machine
from ..method import Array
from ..problem import Problem
from ..validate import cuda_number, refuse
from .arrays import DeviceArray, described, device_array, new_like, row_major
from .driver import EXTRA, cuda, using
from .narrow import narrowed
from .place import new, place
from .sums import total

# Of the device's free memory: two chunks in flight. Their pinned memory on the host takes long to come by, and chunks
# as large as this are sent no slower than larger ones.
SHARE = 0.4
STREAMS = 2
# What arrays and callers name the default stream by.
DEFAULT_STREAMS = (None, 0, 1)
CHUNK_BYTES = 64 << 20


def number(device: object) -> int:
    """The device's number: of "cuda" the current one, of "cuda:1" 1."""
    index = cuda_number(device)
    if index is None:
        return int(_current().id)
    count = _driver(lambda: len(cuda.gpus))
    if index >= count:
        raise ValueError(f"device is {device!r}, but this machine has {count} CUDA devices: count from 0")
    return index


def _driver(ask: Any) -> Any:
    """What a question to the driver answers, or the one sentence that there is none."""
    try:
        return ask()
    except Exception as error:
        # Of numba's own modules, whichever class it is in this version.
        if not type(error).__module__.startswith("numba.cuda"):
            raise
        raise RuntimeError(
            "a CUDA device was asked for, but no NVIDIA driver answers here: install the driver, or leave out"
            f" device= to compute on the CPU; numba-cuda itself comes with {EXTRA}"
        ) from None


def _current() -> Any:
    return _driver(lambda: cuda.get_current_device())


@functools.lru_cache(maxsize=16)
def gpu(index: int) -> Gpu:
    """What the driver tells of a device, and the rest from one of its compute capability."""
    with _driver(lambda: cuda.gpus[index]):
        device = cuda.get_current_device()
        cc = tuple(device.compute_capability)
        near = max((known for known in GPUS if known <= cc), default=min(GPUS))
        typical = GPUS[near]
        name = device.name.decode() if isinstance(device.name, bytes) else str(device.name)
        return dataclasses.replace(
            typical,
            name=name,
            cc=(int(cc[0]), int(cc[1])),
            multiprocessors=int(device.MULTIPROCESSOR_COUNT),
            # Virtual devices may tell none.
            clock=1e3 * getattr(device, "CLOCK_RATE", 0) or typical.clock,
        )


def gpu_of(x: Any, device: object) -> Gpu:
    """The device that a call is computed on."""
    return gpu(device_of(x, device))


def stream_of(stream: Any, x: DeviceArray) -> Any:
    """The stream that a call runs on, as numba's or 0: the caller's, of whatever library or a handle, else the input's
    own, else the default.
    """
    found: Any = x.stream if stream is None else stream
    if hasattr(found, "__cuda_stream__"):
        found = int(found.__cuda_stream__()[1])
    return _of_handle(found) if isinstance(found, int) and found else found or 0


@functools.lru_cache(maxsize=64)
def _of_handle(handle: int) -> Any:
    """Numba's stream of a handle: the same each time, since what is made of it for launches is kept by it."""
    # The interface's numbers of the two default streams.
    named = {1: cuda.legacy_default_stream, 2: cuda.per_thread_default_stream}.get(handle)
    return cuda.external_stream(handle) if named is None else named()


def upload(array: Any) -> DeviceArray | None:
    """An array on the current device: itself where it is on one already."""
    if array is None or isinstance(array, DeviceArray):
        return array
    return device_array("weight", cuda.to_device(np.ascontiguousarray(array)))


def _by_default(array: Any) -> bool:
    """Whether an array is what the work on the default stream left there."""
    return isinstance(array, DeviceArray) and array.stream in DEFAULT_STREAMS


class Held:
    """A method with its weights on a device, ready for every stream."""

    def __init__(
        self,
        method: Any,
        problem: Problem,
        on: Machine,
        call: Any,
        shape: tuple[int, ...],
        wanted: tuple[int, ...],
        once: bool = False,
    ) -> None:
        """Of a planner's Call; shape: of the whole result, wanted: of the view of it that the caller gets; once: it
        will run this call alone.
        """
        self._method, self._problem, self._machine = method, problem, on
        self._view, self._shape, self._wanted = call.view, shape, wanted
        # Phases add up what a shorter float would round, and integers are made of the sums.
        sums = problem.overflow is not None or (not problem.plain and problem.output != problem.accumulator)
        self._result = problem.accumulator if sums else problem.output
        self._direct = problem.layout == "NCHW" and not sums
        self._device = device_of(call.x, call.device)
        with using(self._device):
            given = [upload(call.weight), upload(call.bias)]
            arrays = [call.x, *(one for one in given if one is not None)]
            ordered = once and all(_by_default(one) for one in arrays) and call.stream in DEFAULT_STREAMS
            if ordered:
                # The calls of one stream wait for one another.
                given = [one and one.lent() for one in given]
                self._prepared = method.prepare(problem, on, *given)
                return
            # Weights there may still be written on a stream of their own, and the plan may be called on another.
            cuda.synchronize()
            self._prepared = method.prepare(problem, on, *given)
            cuda.synchronize()

    @property
    def nbytes(self) -> int:
        """What it holds there."""
        return int(self._prepared.nbytes)

    @staticmethod
    def described(x: Any) -> DeviceArray | None:
        """A device array as `run` takes it; None for any other input."""
        return None if type(x) is np.ndarray else described("input", x)

    def run(self, x: Any, out: Any, stream: Any) -> Any:
        """The result of one call, in the type of the input: one launch for a device array."""
        with using(self._device):
            if not isinstance(x, DeviceArray):
                return self._through(x, out)
            if x.device != self._device:
                sentence = f"the input lies on CUDA device {x.device}, but this plan is on device {self._device}"
                refuse(ValueError, f"{sentence}: make a plan for each device", self._problem)
            launched_on = stream_of(stream, x)
            if out is None:
                target = new_like(x, self._wanted, self._problem.output, launched_on, own=stream is None)
            else:
                target = check_out(out, x, self._wanted, self._problem)
            self._launch(self._problem, x, target, launched_on, self._view)
            return target.source

    def _launch(self, problem: Problem, x: DeviceArray, out: DeviceArray, stream: Any, view: Any = None) -> None:
        """The view of the result, in the layout's order of axes, to `out`: at once where it is all in that order."""
        if not out.size:
            return
        x = x.channels_first(problem.rank, problem.layout)
        direct = self._direct and view is None
        result = out if direct else new(problem.out_shape, self._result, stream)
        self._method.run(problem, self._machine, self._prepared, x, result.flat(), None, stream)
        if direct:
            return
        if problem.overflow is not None:
            result = narrowed(problem, result, stream)
        if view is not None:
            place(view(result.seen(self._shape, row_major(self._shape))), out, stream=stream)
        else:
            place(result, out.channels_first(problem.rank, problem.layout), stream=stream)

    def _through(self, x: Array, out: Array | None) -> Array:
        """A NumPy array to the device and back."""
        problem = self._problem
        result = np.empty(self._shape, problem.output)
        if result.size:
            sent, back = problem.laid_out(problem.x_shape), problem.laid_out(problem.out_shape)
            self._chunks(x.reshape(sent), result.reshape(back), _images(problem))
        if self._view is not None:
            result = self._view(result)
        if out is None:
            return result
        out[...] = result
        return out

    def _chunks(self, images: Array, results: Array, count: int) -> None:
        """So many images at a time, one chunk on its way while another is computed."""
        problem = self._problem
        slots = [
            (
                cuda.stream(),
                *(make((count, *images.shape[1:]), problem.x_dtype) for make in (_pinned, cuda.device_array)),
                *(make((count, *results.shape[1:]), problem.output) for make in (_pinned, cuda.device_array)),
            )
            for _ in range(min(STREAMS, -(-problem.batch // count)))
        ]
        waiting: dict[int, slice] = {}

        def collect(turn: int) -> None:
            stream, _, _, back, _ = slots[turn]
            if turn in waiting:
                part = waiting.pop(turn)
                stream.synchronize()
                results[part] = back[: part.stop - part.start]

        for chunk, first in enumerate(range(0, problem.batch, count)):
            turn, part = chunk % len(slots), slice(first, min(problem.batch, first + count))
            collect(turn)
            stream, sent, source, back, target = slots[turn]
            size = part.stop - part.start
            there, out = (device_array("array", whole)[slice(size),] for whole in (source, target))
            if there.size:
                sent[:size] = images[part]
                source[:size].copy_to_device(sent[:size], stream=stream)
            self._launch(dataclasses.replace(problem, batch=size), there, out, stream)
            target[:size].copy_to_host(back[:size], stream=stream)
            waiting[turn] = part
        for turn in list(waiting):
            collect(turn)


def _pinned(shape: tuple[int, ...], dtype: Any) -> Array:
    """An array of the host that is sent without waiting: of no elements there is none."""
    found: Array = cuda.pinned_array(shape, dtype) if math.prod(shape) else np.empty(shape, dtype)
    return found


def check_out(out: Any, x: DeviceArray, shape: tuple[int, ...], problem: Problem) -> DeviceArray:
    """The description of `out`, if it can take the result."""
    found = described("out", out)
    if found is None:
        refuse(
            TypeError, f"out is a {type(out).__name__}, but the input lies on a CUDA device: pass one there", problem
        )
    if found.shape != shape:
        refuse(ValueError, f"out has shape {found.shape}, but the result has shape {shape}", problem)
    if found.dtype != problem.output:
        refuse(TypeError, f"out has dtype {found.dtype}, but the result is {problem.output}", problem)
    if not found.contiguous:
        refuse(ValueError, "out is not C-contiguous, but kernels write in that order: pass a new array", problem)
    if found.device != x.device:
        refuse(ValueError, f"out is on device {found.device}, but the input is on {x.device}", problem)
    low, high = x.pointer - x.span[1] * x.dtype.itemsize, x.pointer + (x.span[0] - x.span[1]) * x.dtype.itemsize
    if low < found.pointer + found.size * found.dtype.itemsize and found.pointer < high:
        sentence = "out shares memory with an input, but the inputs are read while it is written: pass a copy"
        refuse(ValueError, sentence, problem)
    return found


def _images(problem: Problem) -> int:
    """How many images go to the device at a time."""
    free = cuda.current_context().get_memory_info()[0]
    moved = problem.x_dtype.itemsize * math.prod(problem.x_shape[1:])
    moved += problem.output.itemsize * math.prod(problem.out_shape[1:])
    room = CHUNK_BYTES if math.isinf(free) else min(CHUNK_BYTES, int(SHARE * free) // STREAMS)
    return max(1, min(room // max(1, moved), -(-problem.batch // STREAMS)))


def added_up(grad: DeviceArray, accumulator: Any, result: Any) -> Any:
    """The gradient by the bias, in the type of the gradient by the output and where that lies."""
    with _driver(lambda: using(grad.device)):
        ordered = _by_default(grad)
        if not ordered:
            cuda.synchronize()
        out = new_like(grad, grad.shape[1:2], result, 0, own=ordered)
        total(grad, accumulator, out)
        if not ordered:
            cuda.synchronize()
        return out.source


def device_of(x: Any, device: object) -> int:
    """The number of the device that a call is computed on."""
    if not isinstance(x, DeviceArray):
        return number(device)
    if device is not None and cuda_number(device) not in (None, x.device):
        raise ValueError(
            f"device is {device!r}, but the input lies on CUDA device {x.device}: leave out device, or copy the input"
        )
    return x.device
