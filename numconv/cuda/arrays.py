"""Arrays on a CUDA device: whatever has `__cuda_array_interface__`, or `__dlpack__` and lies there."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..foreign import library_of, lies_on_gpu
from ..problem import Problem
from .driver import cuda
from .kernels import Memory

# How a caller's library takes the memory of an array by its interface.
MAKERS = {"cupy": "asarray", "torch": "as_tensor"}


# Elements of the input, so that 32-bit positions hold all of them; a position in the padding lies below -LIMIT.
LIMIT = 1 << 30


class DeviceArray:
    """An array on a device, described, not copied; made anew for another view, never changed.

    Strides in elements; pointer is that of element [0, ..., 0]; span: (elements from the lowest address to the highest,
    where element [0, ..., 0] lies among them); pooled: all that it is used for is in the order of its library's own
    stream, whose pool may lend memory to that.
    """

    # Plain attributes: with a frozen dataclass and cached properties an array took 3.7 us, not 1.
    __slots__ = (
        "contiguous", "device", "dtype", "ndim", "pointer", "pooled", "shape", "size", "source", "span", "stream",
        "strides",
    )  # fmt: skip

    def __init__(
        self,
        source: Any,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        strides: tuple[int, ...],
        pointer: int,
        device: int,
        stream: int | None,
        pooled: bool = False,
    ) -> None:
        self.source, self.shape, self.dtype, self.strides = source, shape, dtype, strides
        self.pointer, self.device, self.stream, self.pooled = pointer, device, stream, pooled
        self.ndim = len(shape)
        self.size, self.contiguous, self.span = _lying(shape, strides)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """What tells everybody that it lies on a device."""
        steps = tuple(step * self.dtype.itemsize for step in self.strides)
        place = {"shape": self.shape, "typestr": self.dtype.str, "data": (self.pointer, False)}
        return {**place, "strides": steps, "stream": self.stream, "version": 3}

    def __getitem__(self, parts: tuple[slice | None, ...]) -> DeviceArray:
        """The view of these slices of the first axes; None is a new axis."""
        left, first = list(zip(self.shape, self.strides, strict=True)), 0
        found: list[tuple[int, int]] = []
        for part in parts:
            if part is None:
                found.append((1, 0))
                continue
            size, stride = left.pop(0)
            places = range(size)[part]
            first += places.start * stride if places else 0
            found.append((len(places), places.step * stride))
        pointer = self.pointer + first * self.dtype.itemsize
        return self._seen([*found, *left], pointer)

    def swapaxes(self, a: int, b: int) -> DeviceArray:
        """The view with two axes exchanged."""
        axes = list(zip(self.shape, self.strides, strict=True))
        axes[a], axes[b] = axes[b], axes[a]
        return self._seen(axes, self.pointer)

    def split(self, axis: int, parts: int) -> DeviceArray:
        """The view with an axis as two: so many parts, and what each holds."""
        axes = list(zip(self.shape, self.strides, strict=True))
        size, stride = axes[axis]
        axes[axis : axis + 1] = [(parts, size // parts * stride), (size // parts, stride)]
        return self._seen(axes, self.pointer)

    def channels_first(self, rank: int, layout: str) -> DeviceArray:
        """The view (batch, channels, ...) of an array in the layout's order of axes, batch or none."""
        if self.ndim == rank + 2 and layout == "NCHW":
            return self
        axes = list(zip(self.shape, self.strides, strict=True))
        if self.ndim == rank + 1:
            axes.insert(0, (1, 0))
        if layout != "NCHW":
            axes.insert(1, axes.pop())
        return self._seen(axes, self.pointer)

    def _seen(self, axes: list[tuple[int, int]], pointer: int) -> DeviceArray:
        """The view with other axes, (size, stride) each."""
        return self.seen(tuple(size for size, _ in axes), tuple(stride for _, stride in axes), pointer)

    def seen(self, shape: tuple[int, ...], strides: tuple[int, ...], pointer: int | None = None) -> DeviceArray:
        """The view of that shape and those strides."""
        place = self.pointer if pointer is None else pointer
        return DeviceArray(self.source, shape, self.dtype, strides, place, self.device, self.stream, self.pooled)

    def view(self, dtype: Any) -> DeviceArray:
        """The same bytes as other elements of their size."""
        kind = np.dtype(dtype)
        return DeviceArray(self.source, self.shape, kind, self.strides, self.pointer, self.device, self.stream)

    def lent(self) -> DeviceArray:
        """The same, pooled."""
        return DeviceArray(
            self.source, self.shape, self.dtype, self.strides, self.pointer, self.device, self.stream, True
        )

    def flat(self) -> Memory:
        """All memory between its lowest and highest address."""
        elements, start = self.span
        return Memory(self.source, elements, self.dtype, self.pointer - start * self.dtype.itemsize)


def too_long(problem: Problem) -> str | None:
    """Why kernels of 32-bit positions refuse a Problem, or None."""
    size = math.prod(problem.x_shape)
    return f"the input has {size} elements, but its positions hold {LIMIT} at most" if size >= LIMIT else None


@functools.lru_cache(maxsize=1024)
def _lying(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, bool, tuple[int, int]]:
    """(number of elements, whether they lie in memory as a new array's would, the span)."""
    size = math.prod(shape)
    axes = zip(shape, strides, row_major(shape), strict=True)
    if not size or all(count == 1 or stride == step for count, stride, step in axes):
        return size, True, (size, 0)
    steps = [(count - 1) * stride for count, stride in zip(shape, strides, strict=True)]
    return size, False, (sum(map(abs, steps)) + 1, -sum(min(0, step) for step in steps))


@functools.lru_cache(maxsize=1024)
def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a new array, in elements."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def device_array(name: str, value: Any) -> DeviceArray:
    """The description of a value for which `lies_on_gpu` holds."""
    found = described(name, value)
    assert found is not None
    return found


def described(name: str, value: Any) -> DeviceArray | None:
    """The description of an array on a device, None of any other value."""
    if isinstance(value, DeviceArray):
        return value
    if library_of(value) == "torch" and (found := _of_plain_tensor(value)):
        return found
    interface = getattr(value, "__cuda_array_interface__", None)
    if interface is None:
        if not lies_on_gpu(value):
            return None
        from cuda.core.utils import StridedMemoryView  # what numba-cuda itself is built on

        view = StridedMemoryView.from_dlpack(value, stream_ptr=-1)
        shape, dtype, pointer = tuple(view.shape), np.dtype(view.dtype), int(view.ptr)
        strides, stream = tuple(view.strides or row_major(shape)), None
    else:
        shape, dtype = tuple(interface["shape"]), np.dtype(interface["typestr"])
        pointer, stream = int(interface["data"][0]), interface.get("stream")
        steps = interface.get("strides")
        if steps is not None and any(step % dtype.itemsize for step in steps):
            raise ValueError(
                f"the {name} has strides of {tuple(steps)} bytes, but elements of {dtype.itemsize} bytes must lie a"
                f" multiple of that apart: make it contiguous first"
            )
        strides = row_major(shape) if steps is None else tuple(step // dtype.itemsize for step in steps)
    if dtype.kind not in "biufc" or not dtype.isnative:
        raise TypeError(
            f"the {name} has dtype {dtype}, but numconv takes bool, integers, floats and complex numbers in native"
            f" byte order: convert it with astype"
        )
    device = _device_of(value)
    if stream is None and library_of(value) == "torch":
        # Its interface is of a version that names none.
        stream = _torch(sys.modules["torch"]).stream(device)
    return DeviceArray(value, shape, dtype, strides, pointer, device, stream)


def _of_plain_tensor(tensor: Any) -> DeviceArray | None:
    """What torch says of a tensor, in a tenth of the time that its interface takes; None where that must be asked."""
    torch = _torch(sys.modules["torch"])
    kind = torch.dtypes.get(tensor.dtype)
    if (
        kind is None
        or not tensor.is_cuda
        or tensor.layout is not torch.strided
        or tensor.requires_grad
        or tensor.is_conj()
        or tensor.is_neg()
    ):
        return None
    device = tensor.get_device()
    return DeviceArray(
        tensor, tuple(tensor.shape), kind, tensor.stride(), tensor.data_ptr(), device, torch.stream(device)
    )


class Torch(NamedTuple):
    """What is asked of torch in every call: NumPy's dtypes for its own, and back; its words for an array of plain
    strides and for a new one; and the handle of a device's current stream.
    """

    dtypes: dict[Any, np.dtype[Any]]
    names: dict[np.dtype[Any], Any]
    strided: Any
    empty: Any
    stream: Callable[[int], int]


@functools.lru_cache(maxsize=1)
def _torch(torch: Any) -> Torch:
    names = {np.dtype(name): getattr(torch, name) for name in DTYPES if hasattr(torch, name)}
    dtypes = {theirs: ours for ours, theirs in names.items()}
    # The handle alone, as the code that torch compiles asks for it: around it, torch makes an object in Python.
    raw = getattr(torch._C, "_cuda_getCurrentRawStream", None)
    stream = raw or (lambda device: int(torch.cuda.current_stream(device).cuda_stream))
    return Torch(dtypes, names, torch.strided, torch.empty_strided, stream)


def _device_of(value: Any) -> int:
    """The number of the device that an array lies on."""
    place = getattr(value, "__dlpack_device__", None)
    if place is not None:
        return int(place()[1])
    # Numba's arrays know their context; of others without DLPack, the current device is all that can be meant.
    memory = getattr(value, "gpu_data", None)
    return int(cuda.get_current_device().id if memory is None else memory.context.device.id)


@functools.lru_cache(maxsize=512)
def integers(numbers: tuple[int, ...], device: int) -> Memory:
    """Numbers of 64 bits on a device, the current one: sent once."""
    return Memory.of(cuda.to_device(np.array(numbers, np.int64)))


def as_callers(like: Any, result: Any) -> Any:
    """The result in the type of the caller's array where its library takes foreign memory, else numba's."""
    library = library_of(like)
    maker = MAKERS.get(library)
    return result if maker is None else getattr(sys.modules[library], maker)(result)


def new_like(like: DeviceArray, shape: tuple[int, ...], dtype: np.dtype[Any], stream: Any, own: bool) -> DeviceArray:
    """A new array for work on the stream; its source is of the library of the caller's array.

    Where the stream is the library's `own`, its pool has memory at once, which the driver takes 0.1 ms to find.
    """
    library = library_of(like.source)
    if own and library in ALLOCATORS:
        array, pointer = ALLOCATORS[library](sys.modules[library], like.source, shape, dtype)
    else:
        found = cuda.device_array(shape, dtype, stream=stream or 0)
        array, pointer = as_callers(like.source, found), Memory.of(found).pointer
    return DeviceArray(array, shape, dtype, row_major(shape), pointer, like.device, None)


def _of_cupy(cupy: Any, like: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[Any, int]:
    array = cupy.empty(shape, dtype)
    return array, array.data.ptr


def _of_torch(torch: Any, like: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[Any, int]:
    known = _torch(torch)
    # With strides it is made sooner than without: in 1.3 us, not 1.8.
    array = known.empty(shape, row_major(shape), dtype=known.names[dtype], device=like.device)
    return array, array.data_ptr()


ALLOCATORS = {"cupy": _of_cupy, "torch": _of_torch}
# What NumPy and torch call alike.
DTYPES = (
    "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64",
    "float16", "float32", "float64", "complex64", "complex128",
)  # fmt: skip
