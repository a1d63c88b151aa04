"""scipy.ndimage's names and semantics: filters whose result has the input's shape, with a choice of what lies around.

As scipy does, they add up in float64 (complex128) and convert the sums to the output's dtype; `accumulator` says
otherwise. Unlike scipy, they leave out no weight: one of zero times NaN is NaN.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index
from numpy.typing import ArrayLike, DTypeLike

from .axes import NATIVE, Frame, reverse
from .axes import correlate as correlate_axes
from .dialect import correlation, data_type, scalar, wish
from .method import Array
from .planner import Call, Wish
from .validate import as_array, integer, is_word

__all__ = ["convolve", "convolve1d", "correlate", "correlate1d"]

Output = Array | DTypeLike | None
MODES = {
    "reflect": "symmetric",
    "grid-mirror": "symmetric",
    "constant": "constant",
    "grid-constant": "constant",
    "nearest": "replicate",
    "mirror": "reflect",
    "wrap": "circular",
    "grid-wrap": "circular",
}
# Dtypes of an input that a kernel converts on the way; of others a converted copy is made.
READ = (np.dtype(np.uint8), np.dtype(np.float32), np.dtype(np.float64))


@correlation
def correlate(
    input: ArrayLike,
    weights: ArrayLike,
    output: Output = None,
    mode: str = "reflect",
    cval: complex = 0.0,
    origin: int | Sequence[int] = 0,
    *,
    axes: int | Sequence[int] | None = None,
    accumulator: DTypeLike | None = None,
    method: str = "auto",
    rtol: float | None = None,
    reproducible: bool = False,
) -> Call | Array:
    """Correlation of an image of any number of axes: y[i] = sum over j of x[i + j - size // 2 - origin] * conj(w[j]).

    Parameters
    ----------
    input : array_like
    weights : array_like
        One axis for each of the input's, or of `axes`; size is its shape.
    output : dtype or np.ndarray, optional
        The result's dtype, the input's unless given, or where it goes: of the input's shape. It may be the input.
    mode : {"reflect", "constant", "nearest", "mirror", "wrap", "grid-mirror", "grid-constant", "grid-wrap"}
        What lies around the input: its mirror image with the edge repeated, `cval`, the edge, the mirror image
        without, or the input again. "grid-" changes nothing, but that "grid-mirror" is "reflect".
    cval : number
        With "constant"; as float64 holds it.
    origin : int or one per axis
        Moves the weights to the left, or to the right where negative.
    axes : int or sequence of int, optional
        Those to filter along; all unless given.
    accumulator : {np.float64, np.float32}, optional
        Of the sums. float32 is about twice as fast, for results in float32 of its precision.
    method, rtol, reproducible
        As in `numconv.conv2d`.

    Returns
    -------
    np.ndarray, of the input's shape
        Complex where input or weights are. Sums that become integers lose their fraction; those below zero become
        unsigned modulo the dtype's range.

    Raises
    ------
    RuntimeError
        Weights, an origin, a mode or an output that does not fit.
    ValueError
        An origin that leaves the weights, an axis that the input lacks or twice the same.
    TypeError
        A complex cval around a real input; a dtype beyond 64 bits, or 128 for complex numbers; a MaskedArray.

    References
    ----------
    scipy.ndimage.correlate.

    Examples
    --------
    >>> import numpy as np
    >>> import numconv as nc
    >>> nc.ndimage.correlate(np.arange(9).reshape(3, 3), [[0, 1, 0], [1, 1, 1], [0, 1, 0]])
    array([[ 4,  8, 12],
           [16, 20, 24],
           [28, 32, 36]])

    """
    image, kernel, value = _read(input, weights, cval)
    kernel = np.conj(kernel) if kernel.dtype.kind == "c" else kernel
    kernel, origins = _spread(image, kernel, axes, origin)
    return _filter(
        image, kernel, origins, output, mode, value, accumulator, wish(method, rtol, "expected", reproducible)
    )


@correlation
def convolve(
    input: ArrayLike,
    weights: ArrayLike,
    output: Output = None,
    mode: str = "reflect",
    cval: complex = 0.0,
    origin: int | Sequence[int] = 0,
    *,
    axes: int | Sequence[int] | None = None,
    accumulator: DTypeLike | None = None,
    method: str = "auto",
    rtol: float | None = None,
    reproducible: bool = False,
) -> Call | Array:
    """Convolution of an image of any number of axes: y[i] = sum over j of x[i - j + size // 2 + origin] * w[j].

    Parameters, dtypes and errors are those of `numconv.ndimage.correlate`; names and defaults those of
    scipy.ndimage.convolve. Of an even size, the middle is the same element as there.

    Examples
    --------
    >>> import numconv as nc
    >>> nc.ndimage.convolve([1, 2, 3], [1, 0, -1], mode="nearest")
    array([1, 2, 1])

    """
    image, kernel, value = _read(input, weights, cval)
    kernel, origins = _turned(*_spread(image, kernel, axes, origin))
    return _filter(
        image, kernel, origins, output, mode, value, accumulator, wish(method, rtol, "expected", reproducible)
    )


@correlation
def correlate1d(
    input: ArrayLike,
    weights: ArrayLike,
    axis: int = -1,
    output: Output = None,
    mode: str = "reflect",
    cval: complex = 0.0,
    origin: int = 0,
    *,
    accumulator: DTypeLike | None = None,
    method: str = "auto",
    rtol: float | None = None,
    reproducible: bool = False,
) -> Call | Array:
    """Correlation along one axis: y[i] = sum over j of x[i + j - size // 2 - origin] * conj(w[j]), for each line.

    Parameters, dtypes and errors are those of `numconv.ndimage.correlate`; names and defaults those of
    scipy.ndimage.correlate1d.

    Examples
    --------
    >>> import numconv as nc
    >>> nc.ndimage.correlate1d([2, 8, 0, 4, 1, 9, 9, 0], weights=[1, 3])
    array([ 8, 26,  8, 12,  7, 28, 36,  9])

    """
    image, kernel, value = _read(input, weights, cval)
    kernel = np.conj(kernel) if kernel.dtype.kind == "c" else kernel
    kernel, origins = _spread_one(image, kernel, axis, origin)
    return _filter(
        image, kernel, origins, output, mode, value, accumulator, wish(method, rtol, "expected", reproducible)
    )


@correlation
def convolve1d(
    input: ArrayLike,
    weights: ArrayLike,
    axis: int = -1,
    output: Output = None,
    mode: str = "reflect",
    cval: complex = 0.0,
    origin: int = 0,
    *,
    accumulator: DTypeLike | None = None,
    method: str = "auto",
    rtol: float | None = None,
    reproducible: bool = False,
) -> Call | Array:
    """Convolution along one axis: y[i] = sum over j of x[i - j + size // 2 + origin] * w[j], for each line.

    Parameters, dtypes and errors are those of `numconv.ndimage.correlate`; names and defaults those of
    scipy.ndimage.convolve1d.

    Examples
    --------
    >>> import numconv as nc
    >>> nc.ndimage.convolve1d([2, 8, 0, 4, 1, 9, 9, 0], weights=[1, 3])
    array([14, 24,  4, 13, 12, 36, 27,  0])

    """
    image, kernel, value = _read(input, weights, cval)
    kernel, origins = _turned(*_spread_one(image, kernel, axis, origin))
    return _filter(
        image, kernel, origins, output, mode, value, accumulator, wish(method, rtol, "expected", reproducible)
    )


def _read(input: Any, weights: Any, cval: Any) -> tuple[Array, Array, complex]:
    """The arrays, and the value around the input."""
    image, kernel, value = as_array("input", input), as_array("weights", weights), scalar("cval", cval)
    if isinstance(value, complex) and image.dtype.kind != "c":
        raise TypeError(f"cval is {cval!r}, but the input is real: convert it to complex with astype")
    return image, kernel, value


def _turned(kernel: Array, origins: list[int]) -> tuple[Array, list[int]]:
    """The weights turned round. Of an even size, the middle moves by one."""
    shifts = zip(origins, kernel.shape, strict=True)
    return reverse(kernel, range(kernel.ndim)), [-origin - (size % 2 == 0) for origin, size in shifts]


def _spread_one(image: Array, kernel: Array, axis: Any, origin: Any) -> tuple[Array, list[int]]:
    """The weights along one axis of many, and an origin for each."""
    if kernel.ndim != 1 or not kernel.size:
        raise RuntimeError(
            f"no filter weights given: their shape is {kernel.shape}, but it takes one axis that has some"
        )
    along = normalize_axis_index(integer("axis", axis), image.ndim)
    shape, origins = [1] * image.ndim, [0] * image.ndim
    shape[along], origins[along] = kernel.size, integer("origin", origin)
    return kernel.reshape(shape), origins


def _spread(image: Array, kernel: Array, axes: Any, origin: Any) -> tuple[Array, list[int]]:
    """The weights with as many axes as the image, and an origin for each."""
    along = _axes(axes, image.ndim)
    if kernel.ndim != len(along) or not kernel.size:
        raise RuntimeError(
            f"weights.ndim ({sum(size > 0 for size in kernel.shape)}) must match len(axes) ({len(along)}): the weights"
            f" have shape {kernel.shape} and the input {image.shape}"
        )
    entries = list(origin) if np.ndim(origin) else [origin] * len(along)
    if len(entries) != len(along):
        raise RuntimeError(
            f"origin is {origin!r}, but a sequence argument must have length equal to input rank, or to axes:"
            f" {len(along)}"
        )
    if len(along) == image.ndim:
        along = tuple(range(image.ndim))  # as scipy has it
    origins = [0] * image.ndim
    for axis, entry in zip(along, entries, strict=True):
        origins[axis] = integer("origin", entry)
    return np.expand_dims(kernel, tuple(axis for axis in range(image.ndim) if axis not in along)), origins


def _axes(axes: Any, ndim: int) -> tuple[int, ...]:
    """The axes as integers from 0 on."""
    if axes is None:
        return tuple(range(ndim))
    try:
        found = [operator.index(axis) for axis in ((axes,) if np.ndim(axes) == 0 else axes)]
    except TypeError:
        raise TypeError(
            f"axes is {axes!r}, but it cannot be interpreted as an integer or several: round it first"
        ) from None
    for axis in found:
        if not -ndim <= axis < ndim:
            raise ValueError(f"specified axis: {axis} is out of range for an input of {ndim} axes")
    along = tuple(axis % ndim for axis in found)
    if len(set(along)) < len(along):
        raise ValueError(f"axes must be unique, but they are {axes!r}")
    return along


def _filter(
    image: Array,
    kernel: Array,
    origins: list[int],
    output: Any,
    mode: Any,
    cval: complex,
    accumulator: Any,
    wish: Wish,
) -> Call | Array:
    """The Call of the image with weights in correlation form."""
    halves = [size // 2 + origin for size, origin in zip(kernel.shape, origins, strict=True)]
    if not all(0 <= half < size for half, size in zip(halves, kernel.shape, strict=True)):
        raise ValueError(
            f"Invalid origin; origin must satisfy -(weights.shape[k] // 2) <= origin[k] <= (weights.shape[k]-1) // 2,"
            f" but it is {origins} for weights of shape {kernel.shape} in correlation form"
        )
    if not is_word(mode, MODES):
        raise RuntimeError(f"boundary mode not supported: it is {mode!r}, but must be one of {', '.join(MODES)}")
    is_complex = "c" in (image.dtype.kind, kernel.dtype.kind)
    held = np.result_type(_accumulator(accumulator), np.complex64 if is_complex else np.float32)
    result = _output(output, image, is_complex)
    if not image.size:
        return result
    frame = Frame(
        [(half, size - 1 - half) for half, size in zip(halves, kernel.shape, strict=True)],
        (1,) * image.ndim,
        (1,) * image.ndim,
        MODES[mode],
        cval if MODES[mode] == "constant" else 0,
    )
    # A kernel converts some dtypes on the way; but padding of one's own, for axes that fold, must hold cval.
    kept = image.dtype in READ and not is_complex and image.ndim <= NATIVE and image.dtype.itemsize <= held.itemsize
    x = image if kept else image.astype(held, copy=False)
    shape = image.shape or (1,)
    same = result.dtype.char in "fdFD" and result.dtype.kind == held.kind and result.dtype.itemsize <= held.itemsize
    wanted = result.dtype.newbyteorder("=") if same else held
    direct = result.dtype == wanted and result.flags.c_contiguous and image.ndim <= NATIVE
    direct = direct and not np.may_share_memory(result, image)

    def finish(y: Array) -> Array:
        if not direct:
            _convert(y.reshape(image.shape), result)
        return result

    return correlate_axes(
        x.reshape(1, *shape),
        kernel.astype(held, copy=False).reshape(1, *(kernel.shape or (1,))),
        frame if image.ndim else Frame([(0, 0)], (1,), (1,)),
        finish,
        wish=wish,
        dtype=wanted,
        out=result.reshape(1, *shape) if direct else None,
    )


def _accumulator(value: Any) -> np.dtype[Any]:
    dtype = np.dtype(np.float64) if value is None else data_type("accumulator", value)
    if dtype.char not in "fd":
        raise ValueError(f"accumulator is {value!r}, but it takes np.float32 or np.float64, also for complex numbers")
    return dtype


def _output(output: Any, image: Array, is_complex: bool) -> Array:
    """The array that the result goes to; scipy's rules for what makes one."""
    if output is None:
        return np.empty(image.shape, np.promote_types(image.dtype, np.complex64) if is_complex else image.dtype)
    if isinstance(output, (str, type, np.dtype)):
        dtype = np.dtype(output)
        if is_complex and dtype.kind != "c":
            if isinstance(output, str):
                raise RuntimeError(f"output must have complex dtype, for input or weights are, but it is {dtype}")
            warnings.warn("promoting specified output dtype to complex", stacklevel=5)
            dtype = np.promote_types(dtype, np.complex64)
        if dtype.kind not in "biufc" or (isinstance(output, str) and dtype.kind == "b"):
            raise RuntimeError(f"output must have numeric dtype, but it is {dtype}")
        return np.empty(image.shape, dtype)
    if not isinstance(output, np.ndarray) or output.shape != image.shape:
        raise RuntimeError(f"output shape not correct: it is {np.shape(output)}, but the input's is {image.shape}")
    if is_complex and output.dtype.kind != "c":
        raise RuntimeError(f"output must have complex dtype, for input or weights are, but it is {output.dtype}")
    return output


def _convert(y: Array, result: Array) -> None:
    """The sums in the result's dtype, as a C compiler converts them: integers lose the fraction."""
    with np.errstate(invalid="ignore", over="ignore"):
        if result.dtype.kind in "bu":
            # Below zero, to unsigned is only defined by way of a signed integer.
            signed = y.astype(np.int64)
            whole = signed.astype(result.dtype)
            y = np.where(y < 2.0**63, whole, y.astype(np.uint64)) if result.dtype.itemsize == 8 else whole
        np.copyto(result, y, casting="unsafe")
