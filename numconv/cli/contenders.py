"""Who runs in a benchmark: for a named case, each method and each peer on the same arrays, every result checked."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .. import conv2d, explain, plan, reference
from ..accuracy import any_order_bound
from ..method import Array
from ..problem import Problem
from ..testing import Case, arrays, tolerance

Run = Callable[[], Array]
# Loops against BLAS: the methods of sums.
METHODS = ("loops", "tiled", "depthwise", "matmul")


def contenders(case: Case) -> dict[str, Run]:
    """What computes a case in float32, by name; each call gives the whole result.

    loops, tiled, depthwise, matmul
        A plan of that method, written to the same array at each call.
    np.matmul
        The bare product on the same data, written to the same array at each call. For kernels larger than 1x1 the
        input is unrolled into patches beforehand, outside the time. One output channel leaves a BLAS nothing to do.
    scipy
        `scipy.signal.correlate`, one call an output channel: it adds up the input channels by itself. Padding is done
        beforehand; of a stride, the full result is computed and one in so many is kept.
    """
    return {name: contender(case, name) for name in names(case)}


def contender(case: Case, name: str) -> Run:
    """One of them."""
    problem = case.problem()
    x, weight, _ = arrays(problem)
    return PEERS[name](problem, x, weight) if name in PEERS else planned(case, name, x, weight)


def names(case: Case) -> list[str]:
    """The contenders of a case: the methods that serve it, then the peers."""
    thoughts = explain(conv2d, case.x_shape, case.weight_shape, **case.options)
    served = sorted(one.name for one in thoughts.candidates if one.refusal is None and one.name in METHODS)
    return [*served, *(name for name in PEERS if name != "np.matmul" or case.weight_shape[0] > 1)]


def check(case: Case, runs: dict[str, Run]) -> dict[str, float]:
    """The largest error of each contender; an AssertionError for one beyond what its bound allows."""
    problem = case.problem()
    x, weight, bias = arrays(problem)
    expected = reference.correlate(problem, x, weight, bias)
    allowed = tolerance(problem, any_order_bound(problem), x, weight, bias)
    errors = {name: float(np.abs(run() - expected).max()) for name, run in runs.items()}
    for name, error in errors.items():
        if not error <= allowed:
            raise AssertionError(f"{name} is wrong by {error:.3g}, over {allowed:.3g} [{problem}]")
    return errors


def planned(case: Case, method: str, x: Array, weight: Array) -> Run:
    """A plan of one method."""
    layer = plan(case.x_shape, weight, method=method, **case.options)
    out = np.empty(layer.problem.out_shape, layer.problem.output)
    return lambda: layer(x, out=out)


def bare_product(problem: Problem, x: Array, weight: Array) -> Run:
    """np.matmul on views for 1x1, else on patches unrolled beforehand."""
    columns = patches(problem, x)
    rows = weight.reshape(len(weight), -1)
    out = np.empty((problem.batch, problem.out_channels, problem.pixels), np.float32)
    shaped = out.reshape(problem.out_shape)

    def run() -> Array:
        np.matmul(rows, columns, out=out)
        return shaped

    return run


def patches(problem: Problem, x: Array) -> Array:
    """The input as (batch, taps, pixels): what each output pixel is the product of. A view where the kernel is 1x1."""
    if problem.taps == problem.in_channels and problem.pixels == np.prod(problem.spatial):
        return x.reshape(problem.batch, problem.taps, problem.pixels)
    windows = np.lib.stride_tricks.sliding_window_view(padded(problem, x), problem.kernel, (2, 3))
    kept = windows[:, :, :: problem.stride[0], :: problem.stride[1]]
    return np.ascontiguousarray(kept.transpose(0, 1, 4, 5, 2, 3)).reshape(problem.batch, problem.taps, problem.pixels)


def padded(problem: Problem, x: Array) -> Array:
    """The input with its zeros around it."""
    return np.pad(x, ((0, 0), (0, 0), *problem.padding))


def by_scipy(problem: Problem, x: Array, weight: Array) -> Run:
    """scipy.signal.correlate of one image with each output channel's kernel."""
    from scipy.signal import correlate

    image = padded(problem, x)[0]
    down, across = problem.stride

    def run() -> Array:
        planes = [correlate(image, kernel, "valid")[0, ::down, ::across] for kernel in weight]
        return np.stack(planes)[None]

    return run


PEERS: dict[str, Callable[[Problem, Array, Array], Run]] = {"np.matmul": bare_product, "scipy": by_scipy}
