"""The one validator: a call's shapes and options become a `Problem`, or one sentence that says what came, what is
accepted and the way out.
"""

from __future__ import annotations

import functools
import math
import operator
import sys
from collections.abc import Collection
from typing import Any, NoReturn

import numpy as np

from .foreign import lies_on_gpu
from .problem import ACTIVATIONS, LAYOUTS, OVERFLOWS, PADDING_MODES, Array, Pairs, Problem, cross, shapes

Dtype = np.dtype[Any]
AXES = {1: "width", 2: "height, width", 3: "depth, height, width"}
PADDING_NAMES = ("valid", "same", "same_lower", "full")
# Numbers of a kind can be added to those of the same or a later kind.
KINDS = {"b": 0, "u": 0, "i": 0, "f": 1, "c": 2}


def refuse(kind: type[Exception], sentence: str, line: object) -> NoReturn:
    """Raise the one-sentence error, ended by the problem's line."""
    raise kind(f"{sentence} [{line}]")


def integer(name: str, value: object) -> int:
    """The value as an int, or a TypeError: 2.0 and True are mistakes, np.int64(2) is not."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} is {value!r}, but it takes an integer: pass {int(value)} if that is meant")
    try:
        return operator.index(value)  # type: ignore[arg-type]  # whether it has an index is the question
    except TypeError:
        raise TypeError(
            f"{name} is {value!r} of type {type(value).__name__}, but it takes an integer: round it first"
        ) from None


def cuda_number(device: object) -> int | None:
    """The number of a CUDA device: of "cuda:1" 1, of "cuda" None, for that is the current one."""
    accepted = "'cuda', 'cuda:1' (a device's number), 'cpu' or None"
    if not isinstance(device, str):
        raise TypeError(f"device is {device!r}, but it takes {accepted}")
    kind, colon, index = device.partition(":")
    if kind != "cuda" or (colon and not index.isdecimal()):
        raise ValueError(f"device is {device!r}, but it must be {accepted}")
    return int(index) if colon else None


def is_word(value: object, words: Collection[str]) -> bool:
    """Whether it is one of the words: an array, of which == makes another array, is none."""
    return isinstance(value, str) and value in words


def canonical(name: str, value: Any) -> Any:
    """An option as a hashable value of ints and strings, so that it can key a cache."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, np.ndarray) and value.ndim:
        value = value.tolist()
    if isinstance(value, (tuple, list)):
        return tuple(canonical(name, entry) for entry in value)
    return integer(name, value)


def shape_of(name: str, value: Any, what: str = "a shape") -> tuple[int, ...]:
    """The value as a tuple of integers, or a TypeError that says of what."""
    shape = canonical(name, value)
    if not isinstance(shape, tuple) or not all(isinstance(side, int) for side in shape):
        raise TypeError(f"{name} is {value!r}, but it takes {what}, a tuple of integers")
    return shape


def with_batch(rank: int, x_shape: tuple[int, ...], layout: str, line: str) -> tuple[int, ...]:
    """The input's shape, given in the layout's order of axes, as (batch, channels, ...): one image is a batch of 1."""
    if not is_word(layout, LAYOUTS):
        refuse(
            ValueError,
            f"layout is {layout!r}, but it must be 'NCHW' or 'NHWC', where HW stands for all spatial axes",
            line,
        )
    if len(x_shape) not in (rank + 1, rank + 2):
        axes = f"channels, {AXES[rank]}" if layout == "NCHW" else f"{AXES[rank]}, channels"
        refuse(
            ValueError,
            f"the input has {len(x_shape)} axes, but it takes ({axes}) or (batch, {axes}): add the missing axes with"
            f" x[None]",
            line,
        )
    batch, *rest = x_shape if len(x_shape) == rank + 2 else (1, *x_shape)
    return (batch, *rest) if layout == "NCHW" else (batch, rest[-1], *rest[:-1])


def per_axis(name: str, value: Any, rank: int, minimum: int, line: str) -> tuple[int, ...]:
    values = value if isinstance(value, tuple) else (value,) * rank
    if len(values) != rank or not all(isinstance(entry, int) for entry in values):
        sentence = f"{name} is {value!r}, but it takes one integer or one for each of the {rank} spatial axes"
        refuse(ValueError, sentence, line)
    if min(values) < minimum:
        refuse(ValueError, f"{name} is {value!r}, but every {name} must be at least {minimum}", line)
    if max(values) >= 2**63:
        refuse(ValueError, f"{name} is {value!r}, but every {name} must be below 2**63", line)
    return values


def padding_pairs(
    value: Any,
    spatial: tuple[int, ...],
    reach: tuple[int, ...],
    stride: tuple[int, ...],
    line: str,
    crops: bool = False,
) -> Pairs:
    """Padding in any accepted form as one (before, after) pair per axis; reach = dilation * (kernel - 1)."""
    rank = len(spatial)
    if isinstance(value, str):
        if value == "valid":
            return ((0, 0),) * rank
        if value == "full":
            return tuple((r, r) for r in reach)
        if value in ("same", "same_lower"):
            # ceil(size / stride) outputs; an odd total puts its extra element after, for "same_lower" before.
            totals = [
                max(0, (-(-size // s) - 1) * s + r + 1 - size)
                for size, r, s in zip(spatial, reach, stride, strict=True)
            ]
            small = [(total // 2, total - total // 2) for total in totals]
            return tuple(small) if value == "same" else tuple((b, a) for a, b in small)
        refuse(ValueError, f"padding is {value!r}, but as a word it must be one of {', '.join(PADDING_NAMES)}", line)
    entries = value if isinstance(value, tuple) else (value,) * rank
    pairs = tuple((entry, entry) if isinstance(entry, int) else entry for entry in entries)
    if len(pairs) != rank or not all(
        isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(side, int) for side in pair) for pair in pairs
    ):
        refuse(
            ValueError,
            f"padding is {value!r}, but it takes one integer, one for each of the {rank} spatial axes, one"
            f" (before, after) pair for each, or one of {', '.join(PADDING_NAMES)}",
            line,
        )
    if min(map(min, pairs)) < 0 and not crops:
        refuse(ValueError, f"padding is {value!r}, but it cannot be negative: slice the input instead", line)
    if max(map(max, pairs)) >= 2**40:
        refuse(ValueError, f"padding is {value!r}, but each side must be below 2**40, which no memory holds", line)
    return pairs


def _padding_value(value: complex, mode: str, accumulator: Dtype, line: str) -> complex:
    """The padding's value as the sums hold it: an int, a float or a complex number."""
    if mode != "constant":
        if value != 0:
            refuse(
                ValueError,
                f"padding_value is {value!r}, but padding_mode is {mode!r}: pass padding_mode='constant'",
                line,
            )
        return 0
    if accumulator.kind in "iu":
        limits = np.iinfo(accumulator)
        if isinstance(value, complex) or value != value // 1 or not limits.min <= value <= limits.max:
            refuse(
                TypeError,
                f"padding_value is {value!r}, but the sums are {accumulator.name}, which cannot hold it: convert the"
                f" input",
                line,
            )
        return int(value)
    if isinstance(value, complex) and accumulator.kind != "c":
        refuse(
            TypeError,
            f"padding_value is {value!r}, but the sums are {accumulator.name}, which cannot hold it: convert the input",
            line,
        )
    held: complex = accumulator.type(value).item()
    # One NaN for all, so that Problems that are alike are equal.
    return math.nan if held != held and not isinstance(held, complex) else held


def as_array(name: str, value: Any) -> Array:
    """What np.asarray makes of an argument, in native byte order; a MaskedArray or an object array is a TypeError."""
    if type(value) is not np.ndarray:
        if isinstance(value, np.ma.MaskedArray):
            raise TypeError(
                f"the {name} is a MaskedArray, but its mask would be lost: fill it first with its filled(0)"
            )
        if lies_on_gpu(value):
            raise TypeError(
                f"the {name} lies on a CUDA device, but this is computed on the CPU: copy it to the host first, or see"
                f" conv2d, conv_transpose2d and their gradients, which run there"
            )
        try:
            value = np.asarray(value)
        except ValueError as error:
            raise ValueError(f"the {name} is a {type(value).__name__} that is no array: {error}") from None
    if value.dtype.kind not in "biufc":
        raise TypeError(
            f"the {name} has dtype {value.dtype}, but numconv takes bool, integers, floats and complex numbers:"
            f" convert it with astype"
        )
    array: Array = value if value.dtype.isnative else value.astype(value.dtype.newbyteorder("="))
    return array


def accumulator_dtype(x: Dtype, weight: Dtype, line: object = "") -> Dtype:
    """The dtype in which products are added up: 64 bits for integers, at least float32 for floats."""
    for name, dtype in (("input", x), ("weight", weight)):
        if dtype.kind not in "biufc" or dtype.itemsize > (16 if dtype.kind == "c" else 8):
            refuse(
                TypeError,
                f"the {name} has dtype {dtype.name}, but numconv takes bool, integers, float16 to float64, complex64"
                f" and complex128: convert it with astype",
                line,
            )
    common = np.result_type(x, weight)
    if x.kind in "biu" and weight.kind in "biu":
        if common.kind == "f":
            refuse(
                TypeError,
                f"the input is {x.name} and the weight {weight.name}, but no integer dtype holds the sums of both:"
                f" convert one so that both are signed or both unsigned",
                line,
            )
        return np.dtype(np.uint64 if "u" in (x.kind, weight.kind) and common.kind == "u" else np.int64)
    return np.result_type(common, np.float32)


def _dtypes(x: Dtype, weight: Dtype, bias: Dtype | None, wanted: Dtype | None, line: str) -> tuple[Dtype, Dtype]:
    """(accumulator, output) for the inputs and the dtype asked for."""
    accumulator = accumulator_dtype(x, weight, line)
    if accumulator.kind == "u" and bias is not None and bias.kind == "i":
        # Below zero, unsigned sums would wrap around.
        if accumulator in (x, weight):
            refuse(
                TypeError,
                f"the bias is {bias.name} and the sums are uint64, but no integer dtype holds both: convert the bias to"
                f" uint64, or the input and the weight to smaller integers",
                line,
            )
        accumulator = np.dtype(np.int64)
    natural = accumulator if accumulator.kind in "iu" else np.result_type(x, weight)
    if wanted is None:
        return accumulator, natural
    known = wanted.kind in "iufc" and wanted.itemsize <= (16 if wanted.kind == "c" else 8)
    narrows = wanted.kind in "iu" and natural.kind in "iuf"
    if not known or not (narrows or np.can_cast(natural, wanted, "same_kind")):
        refuse(
            TypeError,
            f"dtype is {wanted.name}, but a result of {natural.name} cannot become that: ask for an integer, float16 to"
            f" float64, complex64 or complex128 of the same kind or wider, or convert the result with astype",
            line,
        )
    # Modulo 2**64, int64 and uint64 hold the same sums, while np.result_type of the two is float64.
    return accumulator if wanted.kind in "iu" else accumulator_dtype(np.result_type(x, wanted), weight, line), wanted


def _overflow(value: Any, accumulator: Dtype, output: Dtype, line: str) -> str | None:
    """What becomes of sums that do not fit the output, None where it is not of other integers than the sums."""
    if value not in OVERFLOWS:
        refuse(ValueError, f"overflow is {value!r}, but it must be None, 'raise', 'wrap' or 'saturate'", line)
    if output.kind not in "iu" or output == accumulator:
        return None
    if accumulator.kind in "iu":
        return value or "raise"
    if value == "wrap":
        refuse(
            ValueError,
            f"overflow is 'wrap', but the sums are {accumulator.name}, and only integers wrap around: 'raise' and"
            f" 'saturate' serve floats",
            line,
        )
    return value or "saturate"


@functools.lru_cache(maxsize=4096)
def describe(
    rank: int,
    x_shape: tuple[int, ...],
    x_dtype: Dtype,
    weight_shape: tuple[int, ...],
    weight_dtype: Dtype,
    bias_shape: tuple[int, ...] | None = None,
    bias_dtype: Dtype | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    activation: str | None = None,
    dtype: Dtype | None = None,
    padding_value: complex = 0,
    overflow: str | None = None,
    input_dilation: Any = 1,
    fold: Any = 0,
    layout: str = "NCHW",
) -> Problem:
    """The Problem of a call, or its one-sentence ValueError or TypeError. Options are in `canonical` form.

    The adjoints give one input dilation for each axis: then padding may be negative, and crops.
    """
    line = f"{x_dtype.name} {shapes(x_shape, weight_shape)}"
    batch, in_channels, *spatial_list = with_batch(rank, x_shape, layout, line)
    if len(weight_shape) != rank + 2:
        refuse(
            ValueError,
            f"the weight has {len(weight_shape)} axes, but it takes {rank + 2}: (output channels, input channels"
            f" per group, {AXES[rank]})",
            line,
        )
    out_channels, group_channels, *kernel_list = weight_shape
    spatial, kernel = tuple(spatial_list), tuple(kernel_list)
    if groups < 1:
        refuse(ValueError, f"groups is {groups}, but it must be at least 1", line)
    if in_channels % groups or out_channels % groups:
        refuse(
            ValueError,
            f"groups is {groups}, but it must divide both the {in_channels} input channels and the {out_channels}"
            f" output channels",
            line,
        )
    if group_channels * groups != in_channels:
        refuse(
            ValueError,
            f"the input has {in_channels} channels, but the weight takes {group_channels} per group and groups is"
            f" {groups}: the input's channels must be groups * weight.shape[1] = {group_channels * groups}",
            line,
        )
    if min(kernel) < 1:
        refuse(ValueError, f"the kernel is {cross(kernel)}, but every side of it must be at least 1", line)
    if bias_shape is not None and bias_shape != (out_channels,):
        refuse(
            ValueError, f"the bias has shape {bias_shape}, but it takes ({out_channels},): one per output channel", line
        )
    stride = per_axis("stride", stride, rank, 1, line)
    dilation = per_axis("dilation", dilation, rank, 1, line)
    reach = tuple(d * (k - 1) for d, k in zip(dilation, kernel, strict=True))
    pairs = padding_pairs(padding, spatial, reach, stride, line, crops=input_dilation != 1)
    spread = per_axis("input_dilation", input_dilation, rank, 1, line)
    if padding_mode not in PADDING_MODES:
        refuse(ValueError, f"padding_mode is {padding_mode!r}, but it must be one of {', '.join(PADDING_MODES)}", line)
    if activation not in ACTIVATIONS:
        refuse(ValueError, f"activation is {activation!r}, but it must be None or 'relu'", line)
    for size, pad, r, s in zip(spatial, pairs, reach, spread, strict=True):
        padded = (size - 1) * s + 1 + sum(pad)
        if padded < r + 1:
            refuse(
                ValueError,
                f"the kernel spans {r + 1} with its dilation, but the padded input has only {padded}:"
                f" pad more or take a smaller kernel",
                line,
            )
        if size == 0 and padding_mode not in ("zeros", "constant"):
            sentence = f"the input is empty, so padding_mode {padding_mode!r} has nothing to repeat: use 'zeros'"
            refuse(ValueError, sentence, line)
    accumulator, output = _dtypes(x_dtype, weight_dtype, bias_dtype, dtype, line)
    padding_value = _padding_value(padding_value, padding_mode, accumulator, line)
    if padding_mode == "constant" and padding_value == 0:
        # A constant of zero is what the kernels know best.
        padding_mode = "zeros"
    if bias_dtype is not None and KINDS[bias_dtype.kind] > KINDS[accumulator.kind]:
        refuse(
            TypeError,
            f"the bias has dtype {bias_dtype.name}, but the sums are {accumulator.name}, which cannot hold it: convert"
            f" the bias, or the input",
            line,
        )
    if activation == "relu" and accumulator.kind == "c":
        refuse(TypeError, "activation is 'relu', but complex numbers have no order: apply it to a real result", line)
    problem = Problem(
        batch=batch,
        groups=groups,
        in_channels=in_channels,
        out_channels=out_channels,
        spatial=spatial,
        kernel=kernel,
        stride=stride,
        padding=pairs,
        padding_mode=padding_mode,
        padding_value=padding_value,
        dilation=dilation,
        x_dtype=x_dtype,
        weight_dtype=weight_dtype,
        accumulator=accumulator,
        output=output,
        has_bias=bias_shape is not None,
        activation=activation,
        overflow=_overflow(overflow, accumulator, output, line),
        input_dilation=spread,
        fold=padding_pairs(fold, spatial, reach, stride, line),
        layout=layout,
    )
    if (size := math.prod(problem.out_shape) * output.itemsize) > sys.maxsize:
        refuse(ValueError, f"the result would take {size} bytes, more than there are addresses: pad less", problem)
    return problem
