"""The worked examples of "Dive into Deep Learning", 7.2 to 7.5 and 14.10, held against the book's values."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .. import (
    conv2d,
    corr2d,
    corr2d_multi_in,
    corr2d_multi_in_out,
    corr2d_multi_in_out_1x1,
    pool2d,
    trans_conv,
)
from ..method import Array

SMALL = np.arange(9).reshape(3, 3)
SMALL_KERNEL = np.array([[0, 1], [2, 3]])
# 7.4.1: two channels, and a kernel for each.
X = np.stack([SMALL, SMALL + 1])
K = np.stack([SMALL_KERNEL, SMALL_KERNEL + 1])
EDGE = np.array([[1, -1]], np.float32)
# 7.2.4: as in the book.
STEPS, RATE = 10, 3e-2


class Example(NamedTuple):
    """One example: what numconv gives, in words, and whether that is what the book says."""

    section: str
    call: str
    value: str
    agrees: bool


def examples() -> list[Example]:
    """All of them, in the book's order."""
    return [
        exact("7.2.1", "corr2d(X, K), X 3x3, K 2x2", corr2d(SMALL, SMALL_KERNEL), [[19, 25], [37, 43]]),
        *edges(),
        learned_kernel(),
        shape("7.3.1", (3, 3), (8, 8), padding=1),
        shape("7.3.1", (5, 3), (8, 8), padding=(2, 1)),
        shape("7.3.2", (3, 3), (4, 4), padding=1, stride=2),
        shape("7.3.2", (3, 5), (2, 2), padding=(0, 1), stride=(3, 4)),
        exact("7.4.1", "corr2d_multi_in(X, K), 2 channels", corr2d_multi_in(X, K), [[56, 72], [104, 120]]),
        exact(
            "7.4.2",
            "corr2d_multi_in_out(X, [K, K+1, K+2])",
            corr2d_multi_in_out(X, np.stack([K, K + 1, K + 2])),
            [[[56, 72], [104, 120]], [[76, 100], [148, 172]], [[96, 128], [192, 224]]],
        ),
        one_by_one(),
        exact("7.5.1", 'pool2d(X, (2, 2), "max")', pool2d(SMALL, (2, 2)), [[4, 5], [7, 8]]),
        exact("7.5.1", 'pool2d(X, (2, 2), "avg")', pool2d(SMALL, (2, 2), "avg"), [[2, 3], [5, 6]]),
        exact(
            "14.10.1",
            "trans_conv(X, K), both 2x2",
            trans_conv(SMALL_KERNEL, SMALL_KERNEL),
            [[0, 0, 1], [0, 4, 6], [4, 12, 9]],
        ),
    ]


def exact(section: str, call: str, value: Array, book: list[object]) -> Example:
    """An example whose values the book prints."""
    return Example(section, call, str(value.tolist()), value.tolist() == book)


def shape(section: str, kernel: tuple[int, int], book: tuple[int, int], **options: object) -> Example:
    """An example of padding and stride: the shape that an 8x8 input comes out in."""
    y = conv2d(np.ones((1, 8, 8), np.float32), np.ones((1, 1, *kernel), np.float32), **options)  # type: ignore[arg-type]
    words = ", ".join(f"{name} {value}" for name, value in options.items())
    call = f"8x8, kernel {kernel[0]}x{kernel[1]}, {words}"
    return Example(section, call, "x".join(map(str, y.shape[1:])), y.shape[1:] == book)


def stripes() -> Array:
    """The 6x8 image of 7.2.3: white, with four black columns in the middle."""
    image = np.ones((6, 8), np.float32)
    image[:, 2:6] = 0
    return image


def edges() -> list[Example]:
    """Object edge detection: 1 where white turns black, -1 where black turns white."""
    found = corr2d(stripes(), EDGE).astype(int)
    turned = corr2d(stripes().T, EDGE)
    agrees = found.tolist() == [[0, 1, 0, 0, 0, -1, 0]] * 6
    return [
        Example("7.2.3", "edges: corr2d(X, [[1, -1]]), X 6x8", f"each of 6 rows {found[0].tolist()}", agrees),
        Example("7.2.3", "corr2d(X.T, [[1, -1]])", "something" if turned.any() else "all zero", not turned.any()),
    ]


def learned_kernel() -> Example:
    """Learning a kernel: gradient descent on the squared error finds [[1, -1]] from the image and its edges alone.

    The gradient by the kernel is itself a correlation, of the image with the errors.
    """
    x = stripes()
    y = corr2d(x, EDGE)
    kernel = np.random.default_rng(0).normal(size=(1, 2)).astype(np.float32)
    losses = []
    for _ in range(STEPS):
        errors = corr2d(x, kernel) - y
        losses.append(float((errors**2).sum()))
        kernel -= RATE * corr2d(x, 2 * errors)
    value = f"[[{kernel[0, 0]:.3f}, {kernel[0, 1]:.3f}]], loss {losses[0]:.3g} to {losses[-1]:.3g}"
    return Example("7.2.4", f"the kernel learned in {STEPS} steps", value, bool(np.abs(kernel - EDGE).max() < 0.1))


def one_by_one() -> Example:
    """1x1 as a matrix product: equal to the loops but for rounding."""
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(3, 3, 3)).astype(np.float32), rng.normal(size=(2, 3, 1, 1)).astype(np.float32)
    difference = float(np.abs(corr2d_multi_in_out_1x1(x, kernel) - corr2d_multi_in_out(x, kernel)).sum())
    return Example("7.4.3", "1x1 by a matrix product, less by loops", f"{difference:.1e} in sum", difference < 1e-6)
