"""`plan`: a correlation whose weights are prepared once, of `conv2d`, `conv_transpose2d` or a gradient."""

from __future__ import annotations

from collections.abc import Callable

from numpy.typing import ArrayLike, DTypeLike

from .adjoint import WeightPlan, by_input, transposed
from .dialect import boolean, convolution, data_type, options, stand_in, where_they_lie, wish
from .plans import Plan
from .problem import Padding, PerAxis
from .validate import canonical, is_word, shape_of

OPS = ("conv", "transpose", "input", "weight")


def plan(
    x_shape: tuple[int, ...],
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    op: str = "conv",
    size: tuple[int, ...] | None = None,
    output_padding: PerAxis = 0,
    x_dtype: DTypeLike | None = None,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    padding_value: complex = 0,
    method: str = "auto",
    rtol: float | None = None,
    rtol_kind: str = "expected",
    reproducible: bool = False,
    activation: str | None = None,
    dtype: DTypeLike | None = None,
    overflow: str | None = None,
    conjugate: bool = False,
    layout: str = "NCHW",
    workspace: int | None = None,
    device: str | None = None,
) -> Plan:
    """Prepare a correlation once, to run it again and again.

    Parameters
    ----------
    x_shape : tuple of int
        Shape of the inputs to come: (batch, channels, ...) or (channels, ...), where ... is one to three axes.
    weight : array_like
        Copied, so that later edits have no effect. Its number of axes says how many are spatial.
    op : {"conv", "transpose", "input", "weight"}
        What ``plan(x)`` is: "conv", `conv2d` of x; "transpose", `conv_transpose2d` of x; "input", `conv2d_input` with x
        as grad_output; "weight", `conv2d_weight` with x as input, where `weight` is grad_output.
    size : tuple of int, optional
        For "input" and "weight": the gradient's shape, their input_size and weight_size.
    output_padding : int or one per axis
        For "transpose", as in `conv_transpose2d`.
    x_dtype : dtype, optional
        Of the inputs to come; the weight's unless given.
    bias, stride, padding, dilation, groups, padding_mode, padding_value : as in `conv2d`
    method, rtol, rtol_kind, reproducible, activation, dtype, overflow, conjugate, layout, workspace : as in `conv2d`
        The gradients take neither bias nor activation.
    device : {None, "cpu", "cuda", "cuda:1", ...}, optional
        Where the plan keeps its weights and runs, on inputs there or on NumPy arrays; None: where the weights lie.

    Returns
    -------
    Plan
        ``plan(x, out=None)`` gives the result of `conv2d` (`conv1d`, `conv3d`) or of `op`; see `numconv.Plan`.

    Examples
    --------
    >>> import numpy as np
    >>> import numconv as nc
    >>> layer = nc.plan((1, 3, 5, 5), np.ones((2, 3, 3, 3), np.float32), padding=1, activation="relu")
    >>> layer(np.ones((1, 3, 5, 5), np.float32))[0, 0, 0]
    array([12., 18., 18., 18., 12.], dtype=float32)
    >>> nc.plan((1, 2, 5, 5), np.ones((2, 3, 4, 4)), op="transpose", stride=2)(np.ones((1, 2, 5, 5))).shape
    (1, 3, 12, 12)

    """
    kept, bias, device = where_they_lie(weight, bias, device)
    _check_op(op, bias, size, output_padding, activation)
    kernel = shape_of("size", size) if op == "weight" else kept.shape
    rank = len(kernel) - 2
    if rank not in (1, 2, 3):
        raise ValueError(
            f"the weight has {len(kernel)} axes, but it takes 3 to 5: (output channels, input channels per group, and"
            f" one to three spatial axes)"
        )
    shape = shape_of("x_shape", x_shape, "the shape of the inputs to come")
    x = stand_in(shape, kept.dtype if x_dtype is None else data_type("x_dtype", x_dtype))
    wanted = options(
        stride, padding, dilation, groups, padding_mode, activation, dtype, padding_value, overflow, layout
    )
    asked = wish(method, rtol, rtol_kind, reproducible, workspace)
    plans: dict[str, Callable[[], Plan]] = {
        "conv": lambda: Plan(convolution(rank, x, kept, bias, wanted, asked, conjugate=conjugate, device=device)),
        "transpose": lambda: Plan(
            transposed(rank, x, kept, bias, wanted, output_padding, asked, conjugate=conjugate, device=device)
        ),
        "input": lambda: Plan(by_input(rank, size, kept, x, wanted, asked, conjugate=conjugate, device=device)),
        "weight": lambda: WeightPlan(rank, x, kernel, kept, wanted, asked, boolean("conjugate", conjugate), device),
    }
    return plans[op]()


def _check_op(op: object, bias: object, size: object, output_padding: object, activation: object) -> None:
    """Raise unless an operation is one of those that plans know, and takes what was given."""
    if not is_word(op, OPS):
        raise ValueError(f"op is {op!r}, but it must be one of {', '.join(OPS)}")
    gradient = op in ("input", "weight")
    if gradient and size is None:
        raise TypeError(f"op={op!r} needs the gradient's shape: pass it as size")
    if not gradient and size is not None:
        raise TypeError(f"op={op!r} takes no size: its result's shape follows from x_shape and the weight's")
    if gradient and (bias is not None or activation is not None):
        raise TypeError(f"op={op!r} takes neither bias nor activation: a gradient has none")
    if op != "transpose" and canonical("output_padding", output_padding) != 0:
        raise TypeError(f"op={op!r} takes no output_padding: it is for op='transpose'")
