"""A bank of image filters as one weight array: 3 colours in, 16 channels out, kernels of 15x15.

Smaller kernels sit in the middle of zeros, so that the whole bank is one multi-channel correlation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..method import Array

SIZE = 15
# The luminance of linear RGB: ITU-R BT.709.
LUMA = np.array([0.2126, 0.7152, 0.0722])
# RGB to luminance, blue-yellow and red-green: ITU-R BT.601, the 1x1 layer of the demo.
YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])


@dataclass(frozen=True)
class Filter:
    """One filter: weight (output channels, 3, 15, 15). look: how its response is painted, a key of picture.PAINTERS."""

    name: str
    weight: Array
    look: str


def bank() -> tuple[Filter, ...]:
    """The twelve filters of the demo, in the order in which it shows them."""
    blur, wide = gaussian(2.0), gaussian(6.0)
    sobel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
    emboss = np.array([[-2, -1, 0], [-1, 0, 1], [0, 1, 2]]) / 2
    red, green, blue = np.eye(3)
    return (
        Filter("Gaussian blur", each_colour(blur), "colour"),
        Filter("sharpen", each_colour(3 * delta() - 2 * gaussian(1.5)), "colour"),
        Filter("emboss", of_colour(LUMA, middle(emboss)), "grey"),
        Filter("Laplacian of Gaussian", of_colour(LUMA, laplacian(1.5)), "signed"),
        Filter("Sobel x", of_colour(LUMA, middle(sobel)), "signed"),
        Filter("Sobel y", of_colour(LUMA, middle(sobel.T)), "signed"),
        Filter("red against green", of_colour(red - green, blur - wide), "red-green"),
        Filter("blue against yellow", of_colour(blue - (red + green) / 2, blur - wide), "blue-yellow"),
        *(Filter(f"Gabor {angle}°", of_colour(LUMA, gabor(angle)), "signed") for angle in (0, 45, 90, 135)),
    )


def each_colour(kernel: Array) -> Array:
    """The same kernel on red, green and blue, each to its own output channel."""
    return np.eye(3)[:, :, None, None] * kernel


def of_colour(mix: Array, kernel: Array) -> Array:
    """One output channel: the kernel on a mixture of the colours."""
    return mix[None, :, None, None] * kernel


def middle(kernel: Array) -> Array:
    """A small kernel in the middle of zeros."""
    before = (SIZE - len(kernel)) // 2
    return np.pad(kernel, (before, SIZE - len(kernel) - before))


def delta() -> Array:
    """The kernel that changes nothing."""
    return middle(np.ones((1, 1)))


def grid() -> tuple[Array, Array]:
    """Row and column, counted from the middle."""
    steps = np.arange(SIZE) - SIZE // 2
    return steps[:, None], steps[None, :]


def gaussian(sigma: float) -> Array:
    """A Gaussian of that width with sum 1."""
    y, x = grid()
    values: Array = np.exp(-(x**2 + y**2) / (2 * sigma**2))
    values /= values.sum()
    return values


def laplacian(sigma: float) -> Array:
    """The Laplacian of a Gaussian, with sum 0."""
    y, x = grid()
    values: Array = gaussian(sigma) * (x**2 + y**2 - 2 * sigma**2) / sigma**4
    values -= values.mean()
    return values


def gabor(degrees: float, sigma: float = 2.8, wavelength: float = 8.0) -> Array:
    """A wave under a Gaussian, with sum 0: it answers to stripes at that angle to the vertical."""
    y, x = grid()
    along = x * np.cos(np.radians(degrees)) + y * np.sin(np.radians(degrees))
    envelope = gaussian(sigma)
    wave: Array = np.cos(2 * np.pi * along / wavelength)
    # Subtracted under the envelope, so that an even grey gives zero without a frame around the kernel.
    wave -= (envelope * wave).sum()
    return np.multiply(envelope, wave)
