"""The speeds that numconv promises, measured in one run: ``python bench/bars.py``; exits with 1 on a miss.

Contenders of one bar take turns, round after round, with pauses in which the threads of the last one go to sleep (see
`numconv.cli.timing`). A figure is the median over the rounds of what each round's best times give.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import statistics
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import scipy.ndimage
import scipy.signal
from rich.table import Table
from scipy.signal import correlate, fftconvolve, oaconvolve

import numconv as nc
from numconv import ndimage, peaks, signal
from numconv.cli import timing
from numconv.cli.console import console
from numconv.cli.contenders import bare_product, check, padded, planned
from numconv.cli.units import seconds
from numconv.testing import CASES, RESNET50, Case, arrays

PRODUCTS = tuple(case for case in RESNET50 if case.name.startswith("1x1"))
TINY = Case("3x3 16 at 8", (1, 16, 8, 8), (16, 16, 3, 3))
# One bottleneck of each stage: its widest product and its 3x3.
STAGES = (
    ("1x1 256->64 at 56", "3x3 64 at 56"),
    ("1x1 512->128 at 28", "3x3 128 at 28"),
    ("1x1 1024->256 at 14", "3x3 256 at 14"),
    ("1x1 2048->512 at 7", "3x3 512 at 7"),
)
LOOPS = CASES["3x3 64 at 56"]
LARGE_KERNELS = (31, 63)
SQUARES = tuple(case for case in RESNET50 if case.name.startswith("3x3"))
PHOTOGRAPH, FILTERS = (2048, 2048), (5, 15)
VOLUME, CUBES = (128, 128, 128), (3, 5)
SAMPLES, TAPS = 480_000, 48_000


class Bar(NamedTuple):
    """One promise: what was compared, the figure, the limit, whether it holds."""

    promise: str
    layer: str
    figure: str
    limit: str
    holds: bool


def main() -> int:
    """Measure every bar and print the table."""
    parser = argparse.ArgumentParser(description="Measure the speeds that numconv promises; exit with 1 on a miss.")
    parser.add_argument("--rounds", type=int, default=9, help="odd, so that the median is one of them (9)")
    rounds = parser.parse_args().rounds
    screen = console()
    if warning := timing.busy():
        screen.print(warning, style="yellow")
    table = Table(title="What numconv promises", title_justify="left")
    for head in ("promise", "layer", "figure", "limit", "holds"):
        table.add_column(head, justify="right" if head in ("figure", "limit") else "left")
    missed = 0
    with screen.status("measuring") as status:
        for measure in (products, tiny, alternation, loops, transforms, adjoints, scipys_names, volumes, long_filter):
            for bar in measure(rounds):
                status.update(f"{bar.promise}: {bar.layer}")
                missed += not bar.holds
                table.add_row(bar.promise, bar.layer, bar.figure, bar.limit, "yes" if bar.holds else "[bold red]NO")
            table.add_section()
    screen.print(table)
    screen.print("All hold." if not missed else f"{missed} missed.")
    return int(missed > 0)


def products(rounds: int) -> Iterator[Bar]:
    """1x1 layers against the bare product: a plan that fills `out` against np.matmul with `out`, conv2d, which makes
    a new array, against np.matmul that makes one.
    """
    for case in PRODUCTS:
        problem = case.problem()
        x, weight, _ = arrays(problem)
        rows, columns = weight.reshape(len(weight), -1), x.reshape(problem.batch, problem.taps, problem.pixels)
        runs: dict[str, Callable[[], np.ndarray]] = {
            "plan": planned(case, "auto", x, weight),
            "bare out": bare_product(problem, x, weight),
            "conv2d": lambda x=x, weight=weight: nc.conv2d(x, weight),
            "bare": lambda rows=rows, columns=columns, shape=problem.out_shape: np.matmul(rows, columns).reshape(shape),
        }
        check(case, runs)
        found = list(timing.rounds(runs, rounds))
        yield over("plan / np.matmul, both with out", case.name, found, "plan", "bare out", 1.05, 5e-6)
        yield over("conv2d / np.matmul, both without", case.name, found, "conv2d", "bare", 1.05, 20e-6)


def over(
    promise: str, layer: str, found: list[dict[str, float]], name: str, base: str, ratio: float, more: float
) -> Bar:
    """At most `ratio` times the base or `more` seconds on top of it, within each round."""
    times = statistics.median(times[name] / times[base] for times in found)
    longer = statistics.median(times[name] - times[base] for times in found)
    figure = f"{times:.3f}, {longer * 1e6:+.1f} µs"
    return Bar(promise, layer, figure, f"{ratio} or +{more * 1e6:.0f} µs", times <= ratio or longer <= more)


def tiny(rounds: int) -> Iterator[Bar]:
    """A small call without a plan: what a call costs besides its arithmetic."""
    x, weight, _ = arrays(TINY.problem())
    runs = {"conv2d": lambda: nc.conv2d(x, weight)}
    check(TINY, runs)
    time = timing.medians(runs, rounds)["conv2d"]
    yield Bar("conv2d without a plan", TINY.name, seconds(time), "30 µs", time <= 30e-6)


def alternation(rounds: int) -> Iterator[Bar]:
    """A product, then loops, in turn: two pools of threads that spin against each other would show."""
    for names in STAGES:
        layers = []
        for name, method in zip(names, ("matmul", "loops"), strict=True):
            case = CASES[name]
            x, weight, _ = arrays(case.problem())
            layer = planned(case, method, x, weight)
            check(case, {method: layer})
            layers.append(layer)
        product, kernel = layers

        def both(product: Callable[[], object] = product, kernel: Callable[[], object] = kernel) -> None:
            product()
            kernel()

        found = list(timing.rounds({"product": product, "kernel": kernel, "both": both}, rounds))
        ratio = statistics.median(times["both"] / (times["product"] + times["kernel"]) for times in found)
        yield Bar("alternating / parts", " + ".join(names), f"{ratio:.3f}", "1.1", ratio <= 1.1)


def loops(rounds: int) -> Iterator[Bar]:
    """Explicit loops against the machine, and against scipy in the fastest of three ways to call it."""
    problem = LOOPS.problem()
    x, weight, _ = arrays(problem)
    image = padded(problem, x)[0]
    runs: dict[str, Callable[[], np.ndarray]] = {
        "loops": planned(LOOPS, "loops", x, weight),
        # Over three axes, scipy adds up the channels by itself; over two, NumPy adds them up.
        "three axes": lambda: np.concatenate([correlate(image, kernel, "valid") for kernel in weight])[None],
        "two axes": lambda: np.stack([by_planes(image, kernel) for kernel in weight])[None],
    }
    check(LOOPS, runs)
    found = list(timing.rounds(runs, rounds))
    peak = peaks.measure().flops
    rate = problem.flops / statistics.median(times["loops"] for times in found)
    yield Bar(
        "loops, GFLOP/s (of the FMA peak)",
        LOOPS.name,
        f"{rate / 1e9:.0f} ({rate / peak:.0%})",
        "80 or 15%",
        rate >= 80e9 or rate >= 0.15 * peak,
    )
    ratio = statistics.median(min(times["three axes"], times["two axes"]) / times["loops"] for times in found)
    yield Bar("loops / scipy, in speed", LOOPS.name, f"{ratio:.0f}", "30", ratio >= 30)


def by_planes(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """One output channel: the sum of the channels' correlations."""
    return sum(correlate(plane, part, "valid") for plane, part in zip(image, kernel, strict=True))


def transforms(rounds: int) -> Iterator[Bar]:
    """Large kernels on a large image, by a plan that fills `out`: against scipy's transforms and our direct sums."""
    for size, dtype, options in itertools.product(LARGE_KERNELS, (np.float64, np.float32), ({}, {"rtol": 1e-5})):
        if options and dtype == np.float64:
            continue
        case = Case(f"{size}x{size} on 2048x2048 {dtype.__name__}", (1, 1, 2048, 2048), (1, 1, size, size))
        x, weight, _ = arrays(case.problem(dtype))
        image, kernel = x[0, 0], np.ascontiguousarray(weight[0, 0, ::-1, ::-1])
        layer, direct = (nc.plan(x.shape, weight, **wish) for wish in (options, {"reproducible": True}))
        out = np.empty(layer.problem.out_shape, dtype)
        runs = {
            "auto": functools.partial(layer, x, out=out),
            direct.method: functools.partial(direct, x, out=out),
            "fftconvolve": functools.partial(fftconvolve, image, kernel, "valid"),
            "oaconvolve": functools.partial(oaconvolve, image, kernel, "valid"),
        }
        found = list(timing.rounds(runs, rounds))
        for name, least in ((direct.method, 1.5), ("fftconvolve", 2), ("oaconvolve", 2)):
            ratio = statistics.median(times[name] / times["auto"] for times in found)
            yield Bar(f"{layer.method} / {name}, in speed", case.name, f"{ratio:.2f}", f"{least}", ratio >= least)


def at_least(promise: str, layer: str, found: list[dict[str, float]], name: str, base: str, ratio: float) -> Bar:
    """At least `ratio` times the base's speed, within each round."""
    speed = statistics.median(times[base] / times[name] for times in found)
    return Bar(promise, layer, f"{speed:.2f}", f"{ratio}", speed >= ratio)


def adjoints(rounds: int) -> Iterator[Bar]:
    """Transposed correlations and gradients, which have the forward's operations, against it: plans that fill `out`,
    and calls of the gradient by the weights, whose kernel is another each time.
    """
    for case, stride in itertools.product(SQUARES, (1, 2)):
        x, weight, _ = arrays(case.problem())
        options = {"padding": 1, "stride": stride}
        forward = nc.plan(x.shape, weight, **options)
        y = forward(x)
        backward = nc.plan(y.shape, weight, op="input", size=x.shape, **options)
        runs: dict[str, Callable[[], np.ndarray]] = {
            "forward": functools.partial(forward, x, out=np.empty_like(y)),
            "by input": functools.partial(backward, y, out=np.empty_like(x)),
            "conv2d": functools.partial(nc.conv2d, x, weight, **options),
            "by weight": functools.partial(nc.conv2d_weight, x, weight.shape, y, **options),
        }
        # <conv2d(x, w), y> = <x, its adjoint of y>, and the same by the weights.
        whole = np.vdot(y, y)
        assert np.allclose([np.vdot(x, runs["by input"]()), np.vdot(weight, runs["by weight"]())], whole, rtol=1e-3)
        found, layer = list(timing.rounds(runs, rounds)), f"{case.name} stride {stride}"
        yield at_least("transposed / forward, in speed", layer, found, "by input", "forward", 0.8)
        if stride == 1:
            yield at_least("conv2d_weight / conv2d, in speed", layer, found, "by weight", "conv2d", 0.8)


def scipys_names(rounds: int) -> Iterator[Bar]:
    """The dialects of scipy on an image in float32, against `conv2d` on the same Problem."""
    rng = np.random.default_rng(0)
    image = rng.standard_normal(PHOTOGRAPH, np.float32)
    for size in FILTERS:
        kernel = rng.standard_normal((size, size), np.float32)
        x, weight = image[None, None], kernel[None, None]
        runs: dict[str, Callable[[], np.ndarray]] = {
            "valid": functools.partial(nc.conv2d, x, weight),
            "correlate2d": functools.partial(signal.correlate2d, image, kernel, "valid"),
            "same": functools.partial(nc.conv2d, x, weight, padding=size // 2),
            "ndimage": functools.partial(ndimage.correlate, image, kernel, mode="constant", accumulator=np.float32),
        }
        for name, base in (("correlate2d", "valid"), ("ndimage", "same")):
            assert np.allclose(runs[name](), runs[base]()[0, 0], atol=1e-3)
        found, layer = list(timing.rounds(runs, rounds)), f"{size}x{size} on 2048x2048"
        yield at_least("signal.correlate2d / conv2d, in speed", layer, found, "correlate2d", "valid", 0.8)
        yield at_least("ndimage.correlate / conv2d, in speed", layer, found, "ndimage", "same", 0.8)


def volumes(rounds: int) -> Iterator[Bar]:
    """A filter of a volume, as a scanner's is, against scipy's function of that name; sums in float64, as scipy's."""
    rng = np.random.default_rng(0)
    for size, dtype in itertools.product(CUBES, (np.float32, np.float64)):
        volume, cube = rng.standard_normal(VOLUME).astype(dtype), rng.standard_normal((size,) * 3)
        runs = {
            "ours": functools.partial(ndimage.correlate, volume, cube),
            "scipy": functools.partial(scipy.ndimage.correlate, volume, cube),
        }
        assert np.allclose(runs["ours"](), runs["scipy"](), atol=1e-4)
        layer, found = f"{size}x{size}x{size} on 128x128x128 {dtype.__name__}", list(timing.rounds(runs, rounds))
        yield at_least("ndimage.correlate / scipy's, in speed", layer, found, "ours", "scipy", 5)


def long_filter(rounds: int) -> Iterator[Bar]:
    """A filter of so many taps along a signal, as a room's echo is, against scipy's function of that name."""
    rng = np.random.default_rng(0)
    for dtype, name in itertools.product((np.float32, np.float64), ("correlate", "oaconvolve")):
        samples, taps = rng.standard_normal(SAMPLES).astype(dtype), rng.standard_normal(TAPS).astype(dtype)
        runs = {
            "ours": functools.partial(getattr(signal, name), samples, taps, "same"),
            "scipy": functools.partial(getattr(scipy.signal, name), samples, taps, "same"),
        }
        assert np.allclose(runs["ours"](), runs["scipy"](), atol=1e-2)
        layer = f"{TAPS:,} taps on {SAMPLES:,} {dtype.__name__}"
        yield at_least(
            f"signal.{name} / scipy's, in speed", layer, list(timing.rounds(runs, rounds)), "ours", "scipy", 1
        )


if __name__ == "__main__":
    sys.exit(main())
