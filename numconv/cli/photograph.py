"""A real photograph through a bank of filters, and through a 1x1 layer: checked against scipy, and timed beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.signal
import skimage.data

from .. import Plan, conv2d, plan
from ..method import Array
from ..testing import tolerance
from . import timing
from .filters import SIZE, YCBCR, Filter, bank

ROUNDS = 3
PADDING = SIZE // 2


@dataclass(frozen=True)
class Result:
    """What one contender did on one layer. error: its largest difference from scipy in float64."""

    layer: str
    method: str
    flops: int
    seconds: float
    error: float
    allowed: float


@dataclass(frozen=True)
class Filtered:
    """The photograph (3, h, w), its filters, their responses (1 or 3, h, w), and the results."""

    photo: Array
    filters: Sequence[Filter]
    responses: Sequence[Array]
    results: Sequence[Result]


def load() -> Array:
    """The cat Chelsea, by Stefan van der Walt (CC0), which scikit-image ships: float32 (3, 300, 451) from 0 to 1."""
    return np.ascontiguousarray(skimage.data.chelsea().transpose(2, 0, 1), np.float32) / 255


def measure(advance: Callable[[str], None]) -> Filtered:
    """Filter, check and time. `advance` is told what begins."""
    photo, filters = load(), bank()
    weight = np.concatenate([kind.weight for kind in filters]).astype(np.float32)
    advance("correlating the photograph; the first run ever compiles the kernels")
    responses = conv2d(photo, weight, padding="same", padding_mode="reflect")
    framed = np.pad(photo, ((0, 0), (PADDING, PADDING), (PADDING, PADDING)), "reflect")
    advance("checking and timing the filters")
    filters_name = f"{len(weight)} filters {SIZE}x{SIZE} on 3 colours, one call"
    results = compare(filters_name, photo, framed, weight, ("loops", "tiled"), responses)
    advance("checking and timing the 1x1 layer")
    mixing = YCBCR.astype(np.float32)[:, :, None, None]
    results += compare("1x1 layer, RGB to YCbCr", photo, photo, mixing, ("loops", "tiled", "matmul"))
    ends = np.cumsum([len(kind.weight) for kind in filters])[:-1]
    return Filtered(photo, filters, np.split(responses, ends), results)


def compare(
    layer: str, photo: Array, framed: Array, weight: Array, methods: Sequence[str], given: Array | None = None
) -> list[Result]:
    """Each method and scipy on one layer; framed is the photograph with its padding, which scipy gets for free."""
    layers = [plan(photo.shape, weight, padding="same", padding_mode="reflect", method=method) for method in methods]
    contenders = {planned.method: filler(planned, photo) for planned in layers}
    contenders["scipy"] = lambda: by_scipy(framed, weight)
    exact = by_scipy(framed.astype(np.float64), weight.astype(np.float64))
    problem = layers[0].problem
    allowed = tolerance(problem, max(planned.error_bound for planned in layers), photo, weight, None)
    errors = {name: float(np.abs(run() - exact).max()) for name, run in contenders.items()}
    if given is not None:
        errors[methods[0]] = max(errors[methods[0]], float(np.abs(given - exact).max()))
    times = timing.medians(contenders, ROUNDS)
    return [Result(layer, name, problem.flops, times[name], errors[name], allowed) for name in contenders]


def filler(planned: Plan, photo: Array) -> Callable[[], Array]:
    """A call of a plan that writes to the same array each time."""
    out = planned(photo)
    return lambda: planned(photo, out=out)


def by_scipy(image: Array, weight: Array) -> Array:
    """scipy.signal.correlate, once for each output channel; over three axes it adds up the colours by itself."""
    return np.concatenate([scipy.signal.correlate(image, kernel, "valid") for kernel in weight])
