"""scipy.signal's modes: a part of the full correlation of two arrays, along some of their axes, as a Call.

Element f of the full correlation of x (n) with a kernel (k) is the sum over j of x[f - (k - 1) + j] * kernel[j], for
0 <= f < n + k - 1: "full" asks for all, "valid" for those that lie in x, "same" for n of them from the middle. The
kernel is the smaller array: where that is x, the two change places, both turned round, which is the same sum.
"""

from __future__ import annotations

import math
import operator
from typing import Any, NamedTuple

import numpy as np

from . import jit
from .axes import Frame, correlate, reverse
from .dialect import scalar, wish
from .method import Array
from .planner import Call, Wish, chosen
from .validate import as_array, canonical, is_word

MODES = ("valid", "same", "full")
# How scipy calls the ways to add up.
WAYS = ("direct", "fft")
BOUNDARIES = {
    "fill": "constant",
    "pad": "constant",
    "wrap": "circular",
    "circular": "circular",
    "symm": "symmetric",
    "symmetric": "symmetric",
}


class Part(NamedTuple):
    """What is asked for: the mode; the axes, and for each its steps between outputs and between the kernel's elements;
    what lies around x; and whether "same" takes the later of two middles.
    """

    mode: str
    axes: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding_mode: str = "zeros"
    padding_value: complex = 0
    late: bool = False


def pair(in1: Any, in2: Any, names: str = "in1 and in2") -> tuple[Array, Array]:
    x, kernel = as_array("in1", in1), as_array("in2", in2)
    if x.ndim != kernel.ndim:
        raise ValueError(
            f"{names} should have the same dimensionality, but their shapes are {x.shape} and {kernel.shape}: insert"
            f" axes with np.expand_dims"
        )
    return x, kernel


def images(in1: Any, in2: Any, name: str) -> tuple[Array, Array]:
    x, kernel = as_array("in1", in1), as_array("in2", in2)
    if not x.ndim == kernel.ndim == 2:
        raise ValueError(
            f"{name} inputs must both be 2-D arrays, but their shapes are {x.shape} and {kernel.shape}: any number of"
            f" axes goes into numconv.signal.correlate and convolve"
        )
    return x, kernel


def part_of(x: Array, mode: Any, axes: Any, stride: Any, dilation: Any) -> Part:
    """What a call asks for, with its words and numbers checked."""
    if not is_word(mode, MODES):
        raise ValueError(f"mode is {mode!r}, but acceptable mode flags are 'valid', 'same', or 'full'")
    along = _axes(axes, x.ndim)
    steps = (_steps(name, value, len(along)) for name, value in (("stride", stride), ("dilation", dilation)))
    # In ascending order, which is no question of the correlation's.
    found, strides, dilations = zip(*sorted(zip(along, *steps, strict=True)), strict=True)
    return Part(mode, found, strides, dilations)


def _axes(axes: Any, ndim: int) -> list[int]:
    if axes is None:
        return list(range(ndim))
    try:
        found = [operator.index(axis) for axis in ((axes,) if np.ndim(axes) == 0 else axes)]
    except TypeError:
        raise ValueError(f"axes is {axes!r}, but axes must be a scalar or iterable of integers") from None
    if not found:
        raise ValueError("when provided, axes cannot be empty: leave them out to take all")
    if not all(-ndim <= axis < ndim for axis in found):
        raise ValueError(f"axes is {axes!r}, but axes exceeds dimensionality of input, which is {ndim}")
    found = [axis % ndim for axis in found]
    if len(set(found)) < len(found):
        raise ValueError(f"axes is {axes!r}, but all axes must be unique")
    return found


def _steps(name: str, value: Any, count: int) -> tuple[int, ...]:
    """A stride or dilation for each axis."""
    value = canonical(name, value)
    steps = value if isinstance(value, tuple) else (value,) * count
    if len(steps) != count or not all(isinstance(step, int) and step >= 1 for step in steps):
        raise ValueError(f"{name} is {value!r}, but it takes one integer, or one for each of {count} axes, from 1 on")
    return steps


def conjugate(array: Array) -> Array:
    return np.conj(array) if array.dtype.kind == "c" else array


def bounded(part: Part, boundary: Any, fillvalue: Any, x: Array, kernel: Array) -> Part:
    """The part with what lies around the first image."""
    if not is_word(boundary, BOUNDARIES):
        raise ValueError(
            f"boundary is {boundary!r}, but acceptable boundary flags are 'fill', 'circular' (or 'wrap'), and"
            f" 'symmetric' (or 'symm')"
        )
    fill = np.asarray(fillvalue)
    if fill.size != 1:
        what = "`fillvalue` must be scalar or an array with one element" if fill.size else "`fillvalue` cannot be empty"
        raise ValueError(f"{what}: it has shape {fill.shape}")
    result = np.result_type(x, kernel)
    value = scalar("fillvalue", fillvalue)
    limits = np.iinfo(result) if result.kind in "iu" else None
    if (isinstance(value, complex) and result.kind != "c") or (
        limits and not (math.isfinite(value.real) and limits.min <= int(value.real) <= limits.max)
    ):
        raise ValueError(
            f"could not cast `fillvalue` directly to the output dtype: it is {fillvalue!r} and the result"
            f" {result.name}; convert an input"
        )
    if BOUNDARIES[boundary] != "constant" or value == 0:
        return part._replace(padding_mode="zeros" if BOUNDARIES[boundary] == "constant" else BOUNDARIES[boundary])
    return part._replace(padding_mode="constant", padding_value=fill.astype(result).astype(_held(result)).item())


def broadcast_convolution(in1: Any, in2: Any, mode: Any, axes: Any, wish: Wish) -> Call | Array:
    """What fftconvolve asks for: axes of length 1 broadcast, and "same" has in1's shape along them too."""
    x, kernel = pair(in1, in2)
    if not x.ndim:
        return np.multiply(x, kernel)
    if not x.size or not kernel.size:
        return np.array([])
    part = part_of(x, mode, axes, 1, 1)
    along = tuple(axis for axis in part.axes if 1 not in (x.shape[axis], kernel.shape[axis]))
    _beside(x, kernel, along)
    if mode == "same":
        for axis, (n, k) in enumerate(zip(x.shape, kernel.shape, strict=True)):
            if n == 1 and axis not in along:
                kernel = kernel.take([(k - 1) // 2], axis)
    if not along:
        return np.multiply(x, kernel)
    ones = (1,) * len(along)
    part = part._replace(axes=along, stride=ones, dilation=ones)
    return part_call(_transformable(x), reverse(_transformable(kernel), along), part, wish)


def _transformable(array: Array) -> Array:
    """In the dtype that a Fourier transform would convert it to, each array by itself."""
    return array.astype(np.float64 if array.dtype.kind in "biu" else np.result_type(array, np.float32), copy=False)


def _held(result: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype of sums: integers of all kinds in int64, for modulo 2**64 it holds uint64's too."""
    return np.dtype(np.int64) if result.kind in "biu" else np.result_type(result, np.float32)


def _beside(x: Array, kernel: Array, along: tuple[int, ...]) -> tuple[int, ...]:
    """The other axes, which must broadcast."""
    beside = tuple(axis for axis in range(x.ndim) if axis not in along)
    if any(x.shape[axis] != kernel.shape[axis] and 1 not in (x.shape[axis], kernel.shape[axis]) for axis in beside):
        raise ValueError(
            f"incompatible shapes for in1 and in2: {x.shape} and {kernel.shape}; except along axes {along} they must be"
            f" equal or 1"
        )
    return beside


def part_call(x: Array, kernel: Array, part: Part, wish: Wish) -> Call:
    """The Call of a part. Axes that are not part.axes broadcast."""
    result = np.result_type(x, kernel)
    held = _held(result)
    beside = _beside(x, kernel, part.axes)
    shapes = f"in1 and in2: {x.shape} and {kernel.shape}"
    if not x.size or not kernel.size:
        raise ValueError(f"there is nothing to correlate in {shapes}; neither can be empty")
    sizes = [x.shape[axis] for axis in part.axes]
    reaches = [d * (kernel.shape[axis] - 1) + 1 for axis, d in zip(part.axes, part.dilation, strict=True)]
    turned = _turned(part, x, kernel, shapes)
    spans = [span(part.mode, n, k, part.late) for n, k in zip(sizes, reaches, strict=True)]
    if turned:
        x, kernel, sizes, reaches = reverse(kernel, part.axes), reverse(x, part.axes), reaches, sizes
    padding = [(k - 1 - low, high - n) for n, k, (low, high) in zip(sizes, reaches, spans, strict=True)]
    x, kernel = x.astype(held, copy=False), kernel.astype(held, copy=False)
    steps = list(zip(padding, part.stride, part.dilation, strict=True))
    if all(kernel.shape[axis] == 1 for axis in beside):
        # One kernel for all. The other axes are axes too, along which it has one element: nothing moves.
        found = dict(zip(part.axes, steps, strict=True))
        steps = [found.get(axis, ((0, 0), 1, 1)) for axis in range(x.ndim)]
        lead: tuple[int, ...] = ()
        x, kernel, beside = x[None], kernel[None], ()
    else:
        lead = np.broadcast_shapes(*([array.shape[axis] for axis in beside] for array in (x, kernel)))
        x, kernel = (np.moveaxis(array, beside, range(len(beside))) for array in (x, kernel))
        alone = all(size == 1 for size in x.shape[: len(beside)])
        x, kernel = _listed(x, () if alone else lead, len(beside)), _listed(kernel, lead, len(beside))

    def finish(y: Array) -> Array:
        y = np.moveaxis(y.reshape(*lead, *y.shape[1:]), range(len(beside)), beside) if beside else y[0]
        return np.ascontiguousarray(y, result)

    pads, strides, dilations = zip(*steps, strict=True)
    frame = Frame(pads, strides, dilations, part.padding_mode, part.padding_value)
    return correlate(x, kernel, frame, finish, wish=wish)


def _listed(array: Array, lead: tuple[int, ...], count: int) -> Array:
    """The leading axes, broadcast, as one."""
    rest = array.shape[count:]
    return np.broadcast_to(array, (*lead, *rest) if lead else array.shape).reshape(math.prod(lead), *rest)


def span(mode: str, n: int, k: int, late: bool = False) -> tuple[int, int]:
    """The first element of the full correlation, and the one behind the last; `late` as in Part."""
    middle = k // 2 if late else (k - 1) // 2
    return {"full": (0, n + k - 1), "same": (middle, middle + n), "valid": (min(n, k) - 1, max(n, k))}[mode]


def _turned(part: Part, x: Array, kernel: Array, shapes: str) -> bool:
    """Whether x and the kernel change places."""
    sizes = [(x.shape[axis], kernel.shape[axis]) for axis in part.axes]
    plain = all(dilation == 1 for dilation in part.dilation)
    if part.mode != "valid":
        return plain and part.padding_mode == "zeros" and kernel.size > x.size
    if all(n > d * (k - 1) for (n, k), d in zip(sizes, part.dilation, strict=True)):
        return False
    if not plain:
        raise ValueError(
            f"For 'valid' mode, the dilated in2 must fit into in1, for {shapes} and dilation={part.dilation}"
        )
    if not all(n <= k for n, k in sizes):
        raise ValueError(
            f"For 'valid' mode, one must be at least as large as the other in every dimension, for {shapes}"
        )
    return True


def worded_call(x: Array, kernel: Array, part: Part, method: Any, rtol: Any, reproducible: Any) -> Call:
    """The Call of a part, by scipy's words for the method or ours. "fft" is that method where it serves."""
    asked = wish("auto" if is_word(method, WAYS) else method, rtol, "expected", reproducible)
    call = part_call(x, kernel, part, asked._replace(reproducible=True) if method == "direct" else asked)
    if method != "fft":
        return call
    transform = call._replace(wish=asked._replace(method="fft"))
    try:
        chosen(transform, jit.threads(), prepared=False)
    except (TypeError, ValueError):
        return call  # which knows another way, or raises what is wrong with it
    return transform
