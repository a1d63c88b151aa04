"""How a public function becomes a Problem: the functions of every dialect only describe a `Call`.

A function decorated with `correlation` returns a Call; calling the public name runs it. `explain` and `cost` take
the same function and look at its Call instead.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec

import numpy as np

from .foreign import lies_on_gpu
from .method import Array
from .planner import Call, Options, Wish
from .plans import execute, refuse_stream
from .validate import as_array, canonical, cuda_number, integer, is_word

P = ParamSpec("P")
RTOL_KINDS = ("expected", "bound")


def correlation(describe: Callable[P, Call | Array]) -> Callable[P, Array]:
    """Make a public function of one that describes its Call, or gives the result where there is nothing to plan."""

    @functools.wraps(describe)
    def function(*args: P.args, **kwargs: P.kwargs) -> Array:
        call = describe(*args, **kwargs)
        result: Array = execute(call) if isinstance(call, Call) else call
        return result

    signature = inspect.signature(describe).replace(return_annotation="np.ndarray")
    vars(function)["__signature__"] = signature
    return function


def described(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    """The Call behind a public function's call; a tuple of integers may stand for a float32 array of that shape."""
    describe = getattr(function, "__wrapped__", None)
    if describe is None or "__signature__" not in vars(function):
        name = getattr(function, "__name__", repr(function))
        raise TypeError(
            f"{name} is no correlation of numconv, so there is nothing to plan: pass conv2d, say, and its arguments"
        )
    signature = inspect.signature(describe)
    bound = signature.bind(*args, **kwargs)
    for name, value in bound.arguments.items():
        takes_array = signature.parameters[name].default is inspect.Parameter.empty or name == "bias"
        takes_array &= not name.endswith("_size")
        if takes_array and isinstance(value, tuple) and value and all(isinstance(entry, int) for entry in value):
            bound.arguments[name] = stand_in(value, np.dtype(np.float32))
    call = describe(*bound.args, **bound.kwargs)
    if not isinstance(call, Call):
        raise ValueError(
            f"{describe.__name__} answers this call without a correlation, so there is nothing to plan: pass arrays"
            f" that are not empty"
        )
    return call


def stand_in(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An array of that shape and dtype which takes no memory."""
    if any(size < 0 for size in shape):
        raise ValueError(f"the shape is {shape}, but no side of an array can be negative")
    return np.broadcast_to(np.zeros((), dtype), shape)


def convolution(
    rank: int,
    input: Any,
    weight: Any,
    bias: Any,
    options: Options,
    wish: Wish,
    out: Any = None,
    conjugate: bool = False,
    device: str | None = None,
    stream: Any = None,
) -> Call:
    """The Call of a convolution in torch's sense."""
    if device is not None or (type(input) is not np.ndarray and lies_on_gpu(input)):
        return _on_gpu(rank, input, weight, bias, options, wish, out, conjugate, device, stream)
    refuse_stream(stream)
    x, weight = as_array("input", input), as_array("weight", weight)
    if boolean("conjugate", conjugate):
        weight = conjugated(weight)
    return Call(rank, x, weight, None if bias is None else as_array("bias", bias), options, wish, out)


def operand(name: str, value: Any) -> Any:
    """An array as np.ndarray, or described where it lies on a CUDA device."""
    if isinstance(value, np.ndarray) or not (lies_on_gpu(value) or hasattr(value, "pointer")):
        return as_array(name, value)
    from .cuda.arrays import DeviceArray, device_array

    return value if isinstance(value, DeviceArray) else device_array(name, value)


def conjugated(array: Any) -> Any:
    """The complex conjugate, where the array lies; real numbers are theirs."""
    if array.dtype.kind != "c" or isinstance(array, np.ndarray):
        return array.conj() if array.dtype.kind == "c" else array
    from .cuda.place import copied

    return copied(array, conjugate=True)


def where_they_lie(weight: Any, bias: Any, device: str | None) -> tuple[Any, Any, str | None]:
    """The weights of a plan, and the device that they lie on unless one is given."""
    if type(weight) is np.ndarray or not lies_on_gpu(weight):
        return as_array("weight", weight), bias, device
    from .cuda.arrays import device_array

    there = device_array("weight", weight)
    bias = device_array("bias", bias) if bias is not None and lies_on_gpu(bias) else bias
    return there, bias, f"cuda:{there.device}" if device is None else device


def _on_gpu(
    rank: int,
    input: Any,
    weight: Any,
    bias: Any,
    options: Options,
    wish: Wish,
    out: Any,
    conjugate: bool,
    device: Any,
    stream: Any,
) -> Call:
    """The Call of a convolution with device arrays, or with NumPy arrays and device="cuda"."""
    if is_word(device, ("cpu",)):
        if lies_on_gpu(input):
            raise TypeError("the input lies on a CUDA device, but device is 'cpu': copy it to the host first")
        return convolution(rank, input, weight, bias, options, wish, out, conjugate)
    if device is not None:
        cuda_number(device)
    from .cuda.arrays import DeviceArray, described

    lying = described("input", input)
    there = lying is not None
    x: Any = lying if there else as_array("input", input)
    arrays: list[Any] = []
    for name, value in (("weight", weight), ("bias", bias)):
        array = None if value is None else described(name, value)
        if value is not None and not isinstance(value, DeviceArray) and (array is not None) != there:
            here, other = ("a CUDA device", "the host") if there else ("the host", "a CUDA device")
            raise TypeError(f"the input lies on {here}, but the {name} on {other}: copy one of them first")
        arrays.append(as_array(name, value) if array is None and value is not None else array)
    weight, bias = arrays
    for name, array in (("weight", weight), ("bias", bias)):
        if there and array is not None and array.device != x.device:
            raise ValueError(
                f"the input lies on CUDA device {x.device}, but the {name} on device {array.device}: copy one of them"
                f" first"
            )
    if boolean("conjugate", conjugate):
        weight = conjugated(weight)
    return Call(rank, x, weight, bias, options, wish, out, device=device or "cuda", stream=stream)


def options(
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    padding_mode: Any,
    activation: Any,
    dtype: Any,
    padding_value: Any = 0,
    overflow: Any = None,
    layout: Any = "NCHW",
) -> Options:
    """The options in canonical form; most calls pass plain integers, which are that already."""
    return Options(
        stride if type(stride) is int else canonical("stride", stride),
        padding if type(padding) is int else canonical("padding", padding),
        dilation if type(dilation) is int else canonical("dilation", dilation),
        groups if type(groups) is int else integer("groups", groups),
        _word("padding_mode", padding_mode),
        activation if activation is None else _word("activation", activation),
        None if dtype is None else data_type("dtype", dtype),
        padding_value if type(padding_value) is int else scalar("padding_value", padding_value),
        overflow if overflow is None else _word("overflow", overflow),
        layout=_word("layout", layout),
    )


def wish(method: Any, rtol: Any, rtol_kind: Any, reproducible: Any, workspace: Any = None) -> Wish:
    """What the caller asks of the method."""
    if rtol is not None:
        rtol = _number("rtol", rtol)
    if not is_word(rtol_kind, RTOL_KINDS):
        raise ValueError(f"rtol_kind is {rtol_kind!r}, but it must be one of {', '.join(RTOL_KINDS)}")
    if workspace is not None:
        workspace = integer("workspace", workspace)
        if workspace < 0:
            raise ValueError(f"workspace is {workspace}, but it must be zero bytes or more, or None for no wish")
    return Wish(_word("method", method), rtol, rtol_kind, boolean("reproducible", reproducible), workspace)


def boolean(name: str, value: Any) -> bool:
    """The value as a bool: 1 and "no" are mistakes."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} is {value!r}, but it takes True or False")
    return bool(value)


def data_type(name: str, value: Any) -> np.dtype[Any]:
    """The value as a dtype in native byte order."""
    try:
        native: np.dtype[Any] = np.dtype(value).newbyteorder("=")
    except (TypeError, ValueError):
        raise TypeError(f"{name} is {value!r}, but it takes a dtype, such as np.float32 or 'float32'") from None
    return native


def scalar(name: str, value: Any) -> complex:
    """The value as a Python number; an array of one element is one."""
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.empty(0)
    if array.size != 1 or array.dtype.kind not in "biufc":
        raise TypeError(f"{name} is {value!r}, but it takes one number")
    number: complex = array.item()
    return number


def _word(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} is {value!r}, but it takes a word: see help(numconv.conv2d) for those it knows")
    return value


def _number(name: str, value: Any) -> float:
    mistake = TypeError(f"{name} is {value!r}, but it takes a number or None")
    if isinstance(value, (str, bytes, bool, np.bool_)):  # float() would take them
        raise mistake
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise mistake from None
    if not number >= 0:
        raise ValueError(f"{name} is {value!r}, but it must be zero or more, or None for direct summation or BLAS")
    return number
