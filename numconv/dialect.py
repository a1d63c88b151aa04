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

from .method import Array
from .planner import Call, Options, Wish
from .plans import as_array, execute
from .validate import canonical, integer

P = ParamSpec("P")
RTOL_KINDS = ("expected", "bound")


def correlation(describe: Callable[P, Call | Array]) -> Callable[P, Array]:
    """Make a public function of one that describes its Call, or gives the result where there is nothing to plan."""

    @functools.wraps(describe)
    def function(*args: P.args, **kwargs: P.kwargs) -> Array:
        call = describe(*args, **kwargs)
        return execute(call) if isinstance(call, Call) else call

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
    out: Array | None = None,
    conjugate: bool = False,
) -> Call:
    """The Call of a convolution in torch's sense."""
    x, weight = as_array("input", input), as_array("weight", weight)
    if boolean("conjugate", conjugate) and weight.dtype.kind == "c":
        weight = weight.conj()
    return Call(rank, x, weight, None if bias is None else as_array("bias", bias), options, wish, out)


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
    )


def wish(method: Any, rtol: Any, rtol_kind: Any, reproducible: Any, workspace: Any = None) -> Wish:
    """What the caller asks of the method."""
    if rtol is not None:
        rtol = _number("rtol", rtol)
    if rtol_kind not in RTOL_KINDS:
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
    except (TypeError, ValueError):
        raise mistake from None
    if not number >= 0:
        raise ValueError(f"{name} is {value!r}, but it must be zero or more, or None for direct summation or BLAS")
    return number
