"""torch.nn.functional's unfold and fold: the patches that a kernel meets, as columns, and columns added up."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .method import Array
from .problem import cross
from .validate import as_array, canonical, per_axis, refuse

__all__ = ["fold", "unfold"]

PerAxis = int | tuple[int, ...] | list[int]


class Grid(NamedTuple):
    """Where the patches of an image lie: two integers each, counts of patches last."""

    kernel: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[int, ...]
    stride: tuple[int, ...]
    counts: tuple[int, ...]

    def taps(self) -> Iterator[tuple[int, int, tuple[Any, ...]]]:
        """Each kernel element, and what it meets of the padded image: strided slices of the last two axes."""
        for a, b in np.ndindex(*self.kernel):
            starts = a * self.dilation[0], b * self.dilation[1]
            met = [
                slice(start, start + (count - 1) * step + 1, step)
                for start, step, count in zip(starts, self.stride, self.counts, strict=True)
            ]
            yield a, b, (..., *met)


def unfold(
    input: ArrayLike, kernel_size: PerAxis, dilation: PerAxis = 1, padding: PerAxis = 0, stride: PerAxis = 1
) -> Array:
    """The patches of an image as columns (im2col)::

        columns[n, (c, a, b), (i, j)] = x[n, c, i*stride + a*dilation - padding, j*stride + b*dilation - padding]

    Parameters
    ----------
    input : array_like, shape (batch, channels, height, width) or (channels, height, width)
    kernel_size, dilation, padding, stride : int or one per axis
        Padding is of zeros.

    Returns
    -------
    np.ndarray, shape (batch, channels * kernel_height * kernel_width, patches), without batch if the input has none
        A new array of the input's dtype; patches in row-major order.

    Raises
    ------
    ValueError
        A shape or size that does not fit.
    TypeError
        A dtype that is not numeric, or a size that is no integer.

    Notes
    -----
    Names, order and defaults are those of `torch.nn.functional.unfold`. The columns take kernel_height * kernel_width
    times the memory of the image: `conv2d` does without them. Columns have the channels first, so there is no `layout`:
    of an image with the channels last, pass the view ``np.moveaxis(x, -1, 1)``, which costs no more than another input.

    References
    ----------
    K. Chellapilla, S. Puri, P. Simard, "High performance convolutional neural networks for document processing", 2006.

    Examples
    --------
    >>> import numpy as np
    >>> import numconv as nc
    >>> x = np.arange(9).reshape(1, 3, 3)
    >>> nc.unfold(x, 2)
    array([[0, 1, 3, 4],
           [1, 2, 4, 5],
           [3, 4, 6, 7],
           [4, 5, 7, 8]])

    """
    x = as_array("input", input)
    line = f"{x.dtype.name} {cross(x.shape)}"
    if x.ndim not in (3, 4):
        refuse(
            ValueError,
            f"the input has {x.ndim} axes, but it takes (channels, height, width) or (batch, channels, height, width):"
            f" add the missing axes with x[None]",
            line,
        )
    grid = _grid(x.shape[-2:], kernel_size, dilation, padding, stride, line)
    padded = np.pad(x, ((0, 0),) * (x.ndim - 2) + tuple((pad, pad) for pad in grid.padding))
    columns = np.empty((*x.shape[:-2], *grid.kernel, *grid.counts), x.dtype)
    for a, b, met in grid.taps():
        columns[..., a, b, :, :] = padded[met]
    return columns.reshape(*x.shape[:-3], x.shape[-3] * math.prod(grid.kernel), math.prod(grid.counts))


def fold(
    input: ArrayLike,
    output_size: PerAxis,
    kernel_size: PerAxis,
    dilation: PerAxis = 1,
    padding: PerAxis = 0,
    stride: PerAxis = 1,
) -> Array:
    """Columns added up as the patches of an image (col2im): the transpose of `unfold`.

    Every element of the image is the sum of those of the columns that `unfold` would have copied it to, added up by
    kernel row, then by kernel column.

    Parameters
    ----------
    input : array_like, shape (batch, channels * kernel_height * kernel_width, patches), or without batch
    output_size : int or (height, width)
        Of the image.
    kernel_size, dilation, padding, stride : int or one per axis

    Returns
    -------
    np.ndarray, shape (batch, channels, height, width), without batch if the input has none
        Of the input's dtype, in which it is added up.

    Raises
    ------
    ValueError
        A shape or size that does not fit.
    TypeError
        A dtype that is not numeric, or a size that is no integer.

    Notes
    -----
    Names, order and defaults are those of `torch.nn.functional.fold`.

    References
    ----------
    K. Chellapilla, S. Puri, P. Simard, "High performance convolutional neural networks for document processing", 2006.

    Examples
    --------
    >>> import numpy as np
    >>> import numconv as nc
    >>> nc.fold(nc.unfold(np.ones((1, 3, 3)), 2), (3, 3), 2)
    array([[[1., 2., 1.],
            [2., 4., 2.],
            [1., 2., 1.]]])

    """
    columns = as_array("input", input)
    line = f"{columns.dtype.name} {cross(columns.shape)}"
    if columns.ndim not in (2, 3):
        refuse(
            ValueError,
            f"the input has {columns.ndim} axes, but it takes (channels * kernel elements, patches) or (batch, channels"
            f" * kernel elements, patches): unfold gives it",
            line,
        )
    size = per_axis("output_size", canonical("output_size", output_size), 2, 1, line)
    grid = _grid(size, kernel_size, dilation, padding, stride, line)
    elements = math.prod(grid.kernel)
    if columns.shape[-2] % elements:
        refuse(
            ValueError,
            f"the input has {columns.shape[-2]} rows, but they must be channels times the {elements} kernel elements",
            line,
        )
    if columns.shape[-1] != math.prod(grid.counts):
        refuse(
            ValueError,
            f"the input has {columns.shape[-1]} patches, but an image of {cross(size)} has {cross(grid.counts)}",
            line,
        )
    shape = (*columns.shape[:-2], columns.shape[-2] // elements)
    columns = columns.reshape(*shape, *grid.kernel, *grid.counts)
    (top, left), (height, width) = grid.padding, size
    padded = np.zeros((*shape, height + 2 * top, width + 2 * left), columns.dtype)
    for a, b, met in grid.taps():
        padded[met] += columns[..., a, b, :, :]
    return np.ascontiguousarray(padded[..., top : top + height, left : left + width])


def _grid(size: tuple[int, ...], kernel: Any, dilation: Any, padding: Any, stride: Any, line: str) -> Grid:
    """The Grid of a call on an image of that size, or its one-sentence error."""
    kernel, dilation, padding, stride = (
        per_axis(name, canonical(name, value), 2, least, line)
        for name, value, least in (
            ("kernel_size", kernel, 1),
            ("dilation", dilation, 1),
            ("padding", padding, 0),
            ("stride", stride, 1),
        )
    )
    counts = []
    for n, k, d, p, s in zip(size, kernel, dilation, padding, stride, strict=True):
        reach = d * (k - 1) + 1
        if n + 2 * p < reach:
            refuse(
                ValueError,
                f"the kernel spans {reach} with its dilation, but the padded image has only {n + 2 * p}: pad more or"
                f" take a smaller kernel",
                line,
            )
        counts.append((n + 2 * p - reach) // s + 1)
    return Grid(kernel, dilation, padding, stride, tuple(counts))
