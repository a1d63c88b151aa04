"""The adjoints of a correlation, as Calls: how a transposed correlation and the gradients become Problems.

Transposed, and the gradient by the input, which is the same: the weights are turned round and their channels
exchanged, the stride becomes an input dilation, and the padding becomes what the kernel reaches over it. The gradient
by the weights: batch and channels are exchanged, the output's gradient is the kernel, and stride and dilation are
exchanged. All are views of the arrays, but for the factor that is no gradient where it is to be conjugated.

The adjoint of a padding other than zeros folds the result's frame back onto the border (`Problem.fold`).
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from .dialect import boolean, conjugated, convolution, operand
from .method import Array
from .planner import Call, Options, Wish
from .plans import Plan, check_out
from .problem import Problem, cross, shapes
from .validate import AXES, canonical, describe, padding_pairs, per_axis, refuse, shape_of, with_batch


def transposed(
    rank: int,
    input: Any,
    weight: Any,
    bias: Any,
    options: Options,
    extra: Any,
    wish: Wish,
    out: Any = None,
    conjugate: bool = False,
    device: str | None = None,
    stream: Any = None,
) -> Call:
    """The Call of a transposed correlation; extra is torch's output_padding."""
    x, weight = operand("input", input), operand("weight", weight)
    found = _transposed(rank, x.shape, weight.shape, x.dtype, options, canonical("output_padding", extra))
    turned = _exchanged(weight, options.groups)
    return convolution(rank, input, turned, bias, found, wish, out, conjugate, device, stream)


def by_input(
    rank: int,
    size: Any,
    weight: Any,
    grad: Any,
    options: Options,
    wish: Wish,
    out: Any = None,
    conjugate: bool = False,
    device: str | None = None,
    stream: Any = None,
) -> Call:
    """The Call of the gradient by the input, which has that size."""
    weight, y = operand("weight", weight), operand("grad_output", grad)
    found = _by_input(rank, shape_of("input_size", size), weight.shape, y.shape, y.dtype, weight.dtype, options)
    turned = _exchanged(weight, options.groups)
    return convolution(rank, grad, turned, None, found, wish, out, conjugate, device, stream)


def by_weight(
    rank: int,
    input: Any,
    size: Any,
    grad: Any,
    options: Options,
    wish: Wish,
    out: Any = None,
    conjugate: bool = False,
    device: str | None = None,
    stream: Any = None,
) -> Call:
    """The Call of the gradient by the weights, which have that size."""
    x, grad = operand("input", input), operand("grad_output", grad)
    size = shape_of("weight_size", size)
    found, exact = _by_weight(rank, x.shape, size, grad.shape, x.dtype, grad.dtype, options)
    kernel = _channels_first(grad, rank, options).swapaxes(0, 1)
    apart = _lie_apart(x, rank, options, device)
    inside = _inside(x, rank, size, options, boolean("conjugate", conjugate), apart)
    trim = tuple(slice(side) for side in size[2:])
    if _as_batch(rank, size):
        call = convolution(rank, inside, kernel, None, found, wish, out, device=device, stream=stream)
        return call._replace(view=functools.partial(_exchange_and_trim, trim=trim), groups_apart=apart)
    kernel = kernel[:, :, None]
    call = convolution(rank + 1, inside, kernel, None, found, wish, out, device=device, stream=stream)
    view = None if exact else functools.partial(_trim, trim=trim)
    return call._replace(shape=_no_batch, view=view, groups_apart=apart)


class WeightPlan(Plan):
    """A plan of the gradient by the weights: called with the input, again and again, for one gradient of the output."""

    def __init__(
        self,
        rank: int,
        x: Array,
        size: tuple[int, ...],
        grad: Any,
        options: Options,
        wish: Wish,
        conjugate: bool = False,
        device: str | None = None,
    ) -> None:
        # A stand-in for the inputs to come takes no memory, but its conjugate would.
        call = by_weight(rank, x, size, grad, options, wish, device=device)
        super().__init__(call)
        self._shape = x.shape
        self._inside = functools.partial(
            _inside, rank=rank, size=size, options=options, conjugate=conjugate, apart=call.groups_apart
        )
        self._view, self._size = call.view, size

    def __call__(self, x: Any, *, out: Any = None, stream: object = None) -> Any:
        """The gradient for an input of the shape and dtype that were planned for; errors as `Plan` has them."""
        x = operand("input", x)
        if x.shape != self._shape:
            refuse(
                ValueError,
                f"the input has shape {x.shape}, but this plan takes {self._shape}: make a plan for each shape",
                self.problem,
            )
        if self.device is not None:
            return super().__call__(self._inside(x), out=out, stream=stream)
        check_out(out, self._size, self.problem, (x,))
        if self._view is None:
            into = None if out is None else out[None]
            result = super().__call__(self._inside(x), out=into, stream=stream)[0]
            return result if out is None else out
        result = super().__call__(self._inside(x), stream=stream)
        result = self._view(result if _as_batch(len(self._size) - 2, self._size) else result[0])
        if out is None:
            return result
        np.copyto(out, result)
        return out


def _channels_first(array: Any, rank: int, options: Options) -> Any:
    """(batch, channels, ...), a view of an array in the layout asked for."""
    if not isinstance(array, np.ndarray):
        return array.channels_first(rank, options.layout)
    whole = array if array.ndim == rank + 2 else array[None]
    return whole if options.layout == "NCHW" else np.moveaxis(whole, -1, 1)


def _lie_apart(x: Any, rank: int, options: Options, device: str | None) -> bool:
    """Whether a group's channels of the Problem, the images of a batch on the CPU, lie apart in the input."""
    on_host = isinstance(x, np.ndarray) and device in (None, "cpu")
    return on_host and x.ndim == rank + 2 and len(x) > 1 and options.groups > 1


def _inside(x: Any, rank: int, size: tuple[int, ...], options: Options, conjugate: bool, apart: bool) -> Any:
    """The input as the Problem of the gradient by the weights takes it, or a view of it with its groups apart."""
    inside = _channels_first(x, rank, options)
    if conjugate:
        inside = conjugated(inside)
    if apart:
        images, channels, *sides = inside.shape
        parts = inside.reshape(images, options.groups, channels // options.groups, *sides)
        order = (2, 1, 0) if _as_batch(rank, size) else (1, 0, 2)
        parts = parts.transpose(*order, *range(3, parts.ndim))
        return parts if _as_batch(rank, size) else parts[None]
    inside = _regrouped(inside, 1, options.groups)
    return inside.swapaxes(0, 1) if _as_batch(rank, size) else inside[None,]


def _as_batch(rank: int, size: tuple[int, ...]) -> bool:
    """Whether a gradient by the weights takes the input's channels as the batch: no axis is left, or there are none."""
    return rank == 3 or size[1] == 0


def _regrouped(array: Any, axis: int, groups: int) -> Any:
    """(a, groups * b, ...), or, of axis 0, (groups * b, a, ...), as (groups * a, b, ...): a copy where it must be."""
    exchanged = 1 - axis, 2 - axis
    if not isinstance(array, np.ndarray):
        from .cuda.place import joined

        return joined(array.split(axis, groups).swapaxes(*exchanged))
    shape = array.shape
    parts = array.reshape(*shape[:axis], groups, shape[axis] // groups, *shape[axis + 1 :]).swapaxes(*exchanged)
    return parts.reshape(groups * parts.shape[1], *parts.shape[2:])


def _exchanged(weight: Any, groups: int) -> Any:
    """(groups * a, b, ...) as (groups * b, a, ...), turned round in space."""
    return _regrouped(weight[:, :, *(slice(None, None, -1),) * (len(weight.shape) - 2)], 0, groups)


def _exchange_and_trim(result: Array, trim: tuple[slice, ...]) -> Array:
    return result.swapaxes(0, 1)[:, :, *trim]


def _trim(result: Array, trim: tuple[slice, ...]) -> Array:
    return result[:, :, *trim]


def _no_batch(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[1:]


@functools.lru_cache(maxsize=1024)
def _transposed(
    rank: int,
    x_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    dtype: np.dtype[Any],
    options: Options,
    extra: Any,
) -> Options:
    """The options of the Problem that a transposed correlation is."""
    line = f"{dtype.name} {shapes(x_shape, weight_shape)} transposed"
    batch, channels, *sides = with_batch(rank, x_shape, options.layout, line)
    if len(weight_shape) != rank + 2:
        refuse(
            ValueError,
            f"the weight has {len(weight_shape)} axes, but it takes {rank + 2}: (input channels, output channels per"
            f" group, {AXES[rank]})",
            line,
        )
    groups, spatial, kernel = options.groups, tuple(sides), weight_shape[2:]
    if groups < 1 or channels % groups:
        refuse(ValueError, f"groups is {groups}, but it must divide the {channels} input channels", line)
    if weight_shape[0] != channels:
        refuse(
            ValueError,
            f"the input has {channels} channels, but the weight takes {weight_shape[0]}: transposed, the weight is"
            f" (input channels, output channels per group, {AXES[rank]})",
            line,
        )
    if min(spatial) < 1 or min(kernel) < 1:
        refuse(
            ValueError,
            f"the input is {cross(spatial)} and the kernel {cross(kernel)}, but every side must be at least 1",
            line,
        )
    stride = per_axis("stride", options.stride, rank, 1, line)
    dilation = per_axis("dilation", options.dilation, rank, 1, line)
    extra = per_axis("output_padding", extra, rank, 0, line)
    if any(more >= max(s, d) for more, s, d in zip(extra, stride, dilation, strict=True)):
        refuse(
            ValueError,
            f"output_padding is {cross(extra)}, but it must be less than the stride, {cross(stride)}, or the dilation,"
            f" {cross(dilation)}: a larger result is padded with np.pad",
            line,
        )
    reach = tuple(d * (k - 1) for d, k in zip(dilation, kernel, strict=True))
    whole = tuple(n * s for n, s in zip(spatial, stride, strict=True))
    pairs = padding_pairs(options.padding, whole, reach, stride, line)
    if options.padding in ("same", "same_lower"):
        size = whole
        if any(extra):
            refuse(
                ValueError,
                f"output_padding is {cross(extra)}, but with padding {options.padding!r} the result is {cross(whole)},"
                f" input times stride: leave one of them out",
                line,
            )
    else:
        size = tuple(
            (n - 1) * s + r + 1 - sum(pair) + more
            for n, s, r, pair, more in zip(spatial, stride, reach, pairs, extra, strict=True)
        )
    if min(size) < 1:
        refuse(ValueError, f"the result would be {cross(size)}, but every side must be at least 1: pad less", line)
    # The correlation that it is the adjoint of.
    forward = describe(
        rank,
        (batch, groups * weight_shape[1], *size),
        dtype,
        weight_shape,
        dtype,
        stride=stride,
        padding=pairs,
        dilation=dilation,
        groups=groups,
        padding_mode=options.padding_mode,
        padding_value=options.padding_value,
    )
    return _adjoint(forward, spatial, options)


@functools.lru_cache(maxsize=1024)
def _by_input(
    rank: int,
    size: tuple[int, ...],
    weight_shape: tuple[int, ...],
    grad_shape: tuple[int, ...],
    grad_dtype: np.dtype[Any],
    weight_dtype: np.dtype[Any],
    options: Options,
) -> Options:
    """The options of the Problem that the gradient by the input is."""
    forward = _forward(rank, size, grad_dtype, weight_shape, weight_dtype, grad_shape, options)
    return _adjoint(forward, forward.out_spatial, options)


def _forward(
    rank: int,
    x_shape: tuple[int, ...],
    x_dtype: np.dtype[Any],
    weight_shape: tuple[int, ...],
    weight_dtype: np.dtype[Any],
    grad_shape: tuple[int, ...],
    options: Options,
) -> Problem:
    """The correlation of which a gradient is asked for, after a look at the shape of the output's gradient."""
    forward = describe(rank, x_shape, x_dtype, weight_shape, weight_dtype, None, None, *options)
    wanted = forward.laid_out(forward.out_shape)[rank + 2 - len(x_shape) :]
    if grad_shape != wanted:
        refuse(
            ValueError,
            f"grad_output has shape {grad_shape}, but the correlation's output has shape {wanted}: check the sizes,"
            f" stride, padding and dilation",
            forward,
        )
    return forward


def _adjoint(forward: Problem, spatial: tuple[int, ...], options: Options) -> Options:
    """The options of the adjoint of a correlation, by its input; the output has those sides."""
    folds = forward.padding_mode not in ("zeros", "constant") and any(map(any, forward.padding))
    padding = []
    for size, (before, after), kernel, stride, dilation, n in zip(
        forward.spatial, forward.padding, forward.kernel, forward.stride, forward.dilation, spatial, strict=True
    ):
        # The adjoint's result is the padded input, or, where the frame is dropped, what starts behind it.
        first, last = (0, size + before + after) if folds else (before, before + size)
        padding.append((dilation * (kernel - 1) - first, last - 1 - (n - 1) * stride))
    return options._replace(
        stride=1,
        padding=tuple(padding),
        dilation=forward.dilation,
        padding_mode=forward.padding_mode if folds else "zeros",
        padding_value=0,
        input_dilation=forward.stride,
        fold=forward.padding if folds else 0,
    )


@functools.lru_cache(maxsize=1024)
def _by_weight(
    rank: int,
    x_shape: tuple[int, ...],
    size: tuple[int, ...],
    grad_shape: tuple[int, ...],
    x_dtype: np.dtype[Any],
    grad_dtype: np.dtype[Any],
    options: Options,
) -> tuple[Options, bool]:
    """The options of the Problem that the gradient by the weights is, and whether its result has their size at once."""
    forward = _forward(rank, x_shape, x_dtype, size, grad_dtype, grad_shape, options)
    padding, exact = list(forward.padding), True
    for axis, (before, after) in enumerate(forward.padding):
        stride, dilation = forward.stride[axis], forward.dilation[axis]
        # The last rows that no window reached would give outputs behind the kernel's.
        met = stride * (forward.out_spatial[axis] - 1) + dilation * (forward.kernel[axis] - 1) + 1
        least = met - before - forward.spatial[axis]
        if forward.padding_mode == "zeros":
            padding[axis] = (before, least)
        else:
            exact &= after - least < dilation
    missing = not _as_batch(rank, size)
    crops = min(map(min, padding)) < 0
    found = options._replace(
        stride=(1,) * missing + forward.dilation,
        padding=((0, 0),) * missing + tuple(padding),
        dilation=(1,) * missing + forward.stride,
        input_dilation=(1,) * (rank + missing) if crops else 1,
        layout="NCHW",
    )
    return found, exact
