"""Arrays on a CUDA device: whatever has `__cuda_array_interface__`, or `__dlpack__` and lies there."""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
from typing import Any

import numpy as np

from ..foreign import library_of
from ..problem import Problem
from .driver import cuda
from .kernels import Memory

# How a caller's library takes the memory of an array by its interface.
MAKERS = {"cupy": "asarray", "torch": "as_tensor"}


# Elements of the input, so that 32-bit positions hold all of them; a position in the padding lies below -LIMIT.
LIMIT = 1 << 30


@dataclasses.dataclass(frozen=True)
class DeviceArray:
    """An array on a device, described, not copied. Strides in elements; pointer is that of element [0, ..., 0]. pooled:
    all that it is used for is in the order of its library's own stream, whose pool may lend memory to that.
    """

    source: Any
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    strides: tuple[int, ...]
    pointer: int
    device: int
    stream: int | None
    pooled: bool = False

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @functools.cached_property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @functools.cached_property
    def span(self) -> tuple[int, int]:
        """(elements from the lowest address to the highest, where element [0, ..., 0] lies among them)."""
        if self.contiguous:
            return self.size, 0
        steps = [(size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True)]
        return sum(map(abs, steps)) + 1, -sum(min(0, step) for step in steps)

    @functools.cached_property
    def contiguous(self) -> bool:
        """Whether it lies in memory as a new array would."""
        if self.strides == row_major(self.shape):
            return True
        return not self.size or all(
            size == 1 or stride == step
            for size, stride, step in zip(self.shape, self.strides, row_major(self.shape), strict=True)
        )

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
        shape, strides = tuple(size for size, _ in axes), tuple(stride for _, stride in axes)
        return dataclasses.replace(self, shape=shape, strides=strides, pointer=pointer)

    def flat(self) -> Memory:
        """All memory between its lowest and highest address."""
        elements, start = self.span
        return Memory(self.source, elements, self.dtype, self.pointer - start * self.dtype.itemsize)


def too_long(problem: Problem) -> str | None:
    """Why kernels of 32-bit positions refuse a Problem, or None."""
    size = math.prod(problem.x_shape)
    return f"the input has {size} elements, but its positions hold {LIMIT} at most" if size >= LIMIT else None


@functools.lru_cache(maxsize=1024)
def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a new array, in elements."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def device_array(name: str, value: Any) -> DeviceArray:
    """The description of a value for which `lies_on_gpu` holds."""
    if isinstance(value, DeviceArray):
        return value
    if library_of(value) == "torch" and (found := _of_plain_tensor(value)):
        return found
    interface = getattr(value, "__cuda_array_interface__", None)
    if interface is None:
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
        stream = _torch_stream(device)
    return DeviceArray(value, shape, dtype, strides, pointer, device, stream)


def _of_plain_tensor(tensor: Any) -> DeviceArray | None:
    """What torch says of a tensor, in a tenth of the time that its interface takes; None where that must be asked."""
    torch = sys.modules["torch"]
    kind = DTYPES.get(str(tensor.dtype))
    if (
        kind is None
        or tensor.layout is not torch.strided
        or tensor.requires_grad
        or tensor.is_conj()
        or tensor.is_neg()
    ):
        return None
    device = tensor.device.index
    return DeviceArray(
        tensor, tuple(tensor.shape), kind, tensor.stride(), tensor.data_ptr(), device, _torch_stream(device)
    )


def _torch_stream(device: int) -> int:
    return int(sys.modules["torch"].cuda.current_stream(device).cuda_stream)


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
    array = torch.empty(shape, dtype=getattr(torch, dtype.name), device=like.device)
    return array, array.data_ptr()


ALLOCATORS = {"cupy": _of_cupy, "torch": _of_torch}
# Torch's names of NumPy's dtypes.
DTYPES = {
    f"torch.{name}": np.dtype(name)
    for name in (
        "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64",
        "float16", "float32", "float64", "complex64", "complex128",
    )
}  # fmt: skip
