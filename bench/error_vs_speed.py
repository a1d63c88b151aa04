"""Error against speed, of every method that serves a layer: ``python bench/error_vs_speed.py``.

Writes bench/error_vs_speed.json and bench/pictures/error_vs_speed.png, from which write_readme.py makes a section. Each
method is a plan that writes to `out`; methods take turns (numconv.cli.timing). Errors are relative to max|x| times
the largest sum of |weight|, against the definition in long doubles, on the first rows of a filter's output.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

import numconv as nc
from numconv import peaks, reference
from numconv.cli import info, timing
from numconv.cli.console import console
from numconv.method import Array
from numconv.methods import methods
from numconv.problem import Problem
from numconv.testing import CASES, Case, arrays

HERE = Path(__file__).resolve().parent
JSON, PICTURE = HERE / "error_vs_speed.json", HERE / "pictures" / "error_vs_speed.png"
PHOTO = (1, 1, 2048, 2048)
LAYERS = (
    CASES["1x1 256->64 at 56"],
    CASES["3x3 64 at 56"],
    CASES["3x3 256 at 14"],
    Case("31x31 filter at 2048", PHOTO, (1, 1, 31, 31)),
    Case("31x31 Gaussian at 2048", PHOTO, (1, 1, 31, 31)),
)
# Output rows of a large filter that the oracle computes.
CHECKED_ROWS = 16
MARKERS = "oD^svP*Xhd<>"
COLOURS = ("#2166ac", "#b2182b", "#e08214", "#1b7837", "#762a83")


def main() -> None:
    """Measure every layer and method, print a line for each, write the figures and the picture."""
    parser = argparse.ArgumentParser(description="Measure error and speed of every method.")
    parser.add_argument("--rounds", type=int, default=7, help="odd, so that the median is one of them (7)")
    parser.add_argument("--json", type=Path, default=JSON, help="where the figures go")
    parser.add_argument("--picture", type=Path, default=PICTURE, help="where the picture goes")
    given = parser.parse_args()
    screen = console()
    if warning := timing.busy():
        screen.print(warning, style="yellow")
    measured, rows = peaks.measure(), []
    for case in LAYERS:
        for row in measure(case, given.rounds):
            rows.append(row)
            screen.print(
                f"{row['layer']:24} {row['method']:10} {row['gflops']:8.1f} GFLOP/s   observed {row['observed']:.1e}"
                f"   expected {row['expected']:.1e}   bound {row['bound']:.1e}"
            )
    machine = {name: value for name, value in info.facts(measured).items() if name != "kernel cache"}
    report = {"machine": machine, "rounds": given.rounds, "rows": rows}
    given.json.write_text(json.dumps(report, indent=1) + "\n")
    draw(report, given.picture)


def measure(case: Case, rounds: int) -> list[dict[str, Any]]:
    """One layer: every method that serves it, timed in turns, with its errors."""
    problem = case.problem()
    x, weight, _ = arrays(problem)
    if "Gaussian" in case.name:
        bell = np.exp(-0.5 * (np.linspace(-3, 3, weight.shape[-1])) ** 2)
        weight = np.outer(bell, bell / bell.sum() ** 2).astype(np.float32)[None, None]
    plans = {}
    for method in methods():
        try:
            plans[method.NAME] = nc.plan(case.x_shape, weight, method=method.NAME, **case.options)
        except ValueError:
            continue  # it says why it does not serve
    outs = {name: np.empty(problem.out_shape, np.float32) for name in plans}
    seconds = timing.medians({name: lambda p=p, o=outs[name]: p(x, out=o) for name, p in plans.items()}, rounds)
    expected = oracle(problem, x, weight)
    scale = float(np.abs(x).max() * np.abs(weight).reshape(len(weight), -1).sum(axis=1).max())
    return [
        {
            "layer": case.name,
            "method": name,
            "seconds": seconds[name],
            "gflops": problem.flops / seconds[name] / 1e9,
            "observed": float(np.abs(outs[name][:, :, : expected.shape[2]] - expected).max()) / scale,
            "expected": plan.expected_error,
            "bound": plan.error_bound,
        }
        for name, plan in plans.items()
    ]


def oracle(problem: Problem, x: Array, weight: Array) -> Array:
    """The exact result; of a large filter without padding, its first rows."""
    if problem.pixels <= 1 << 16:
        return reference.correlate(problem, x, weight, None)
    rows = CHECKED_ROWS + problem.kernel[0] - 1
    part = dataclasses.replace(problem, spatial=(rows, problem.spatial[1]))
    return reference.correlate(part, x[:, :, :rows], weight, None)


def draw(report: dict[str, Any], path: Path) -> None:
    """GFLOP/s over the observed error: a marker for each method, a colour for each layer; lines reach to the expected
    error, which `rtol` is compared with.
    """
    figure = Figure(figsize=(10, 5.6), dpi=110, facecolor="white", layout="constrained")
    axes = figure.add_subplot(xscale="log", yscale="log")
    names = list(dict.fromkeys(row["method"] for row in report["rows"]))
    layers = list(dict.fromkeys(row["layer"] for row in report["rows"]))
    markers = dict(zip(names, MARKERS, strict=False))
    colours = dict(zip(layers, COLOURS, strict=True))
    for row in report["rows"]:
        observed = max(row["observed"], 1e-9)
        colour = colours[row["layer"]]
        axes.plot([observed, row["expected"]], [row["gflops"]] * 2, color=colour, linewidth=0.8, alpha=0.5)
        axes.plot(row["expected"], row["gflops"], "|", color=colour, markersize=8, alpha=0.5)
        axes.plot(observed, row["gflops"], markers[row["method"]], color=colour, markersize=9, markeredgecolor="white")
    axes.set_xlabel("error relative to max|x| * sum|w|: observed (marker), and expected (end of the line)")
    axes.set_ylabel("GFLOP/s of the definition's operations, float32")
    axes.set_title(f"{report['machine']['processor']}, {report['machine']['threads'].partition(',')[0]} threads",
                   loc="left", fontsize=10.5)  # fmt: skip
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(which="major", color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    shapes = [Line2D([], [], marker=markers[name], color="#4a4a4a", linestyle="", label=name) for name in names]
    shades = [Line2D([], [], marker="s", color=colours[layer], linestyle="", label=layer) for layer in layers]
    figure.legend(handles=shapes, loc="outside right upper", title="method", frameon=False, alignment="left")
    figure.legend(handles=shades, loc="outside right lower", title="layer", frameon=False, alignment="left")
    figure.savefig(path)


if __name__ == "__main__":
    main()
