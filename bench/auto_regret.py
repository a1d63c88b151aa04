"""Whether `auto` chooses right: the time of its choice over that of the best admissible method, layer by layer.

    python bench/auto_regret.py [--calls] [--json FILE] [--cpu-time]

The layers are the named ones of layers.py and random ones, the same in each run. Of each, every admissible method that
is not predicted hopeless takes turns with the others; a figure is the median over rounds of the best call of a turn.
Layers whose best method is under 50 us are left out: there a call costs more than its arithmetic. Plans, whose weights
are prepared, are timed, or with --calls single calls. Exits with 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
from layers import CLASSES

import numconv as nc
from numconv import jit
from numconv.cli import timing
from numconv.cli.command import output_file
from numconv.machine import machine
from numconv.planner import Candidate, Wish, candidates, choose
from numconv.problem import Problem
from numconv.testing import Case, arrays

# What each run asks of the methods.
WISHES = {"rtol=None": Wish(), "rtol=1e-3": Wish(rtol=1e-3)}
BARS = {"geometric mean": 1.03, "95th percentile": 1.15, "worst": 1.5}
LEAST_SECONDS = 50e-6
# A method that is predicted so many times slower than the best is not timed, and one that a first turn finds so many
# times slower takes no further turn.
HOPELESS, BEHIND = 20.0, 1.6
TURN_SECONDS, TURN_CALLS = 0.02, 4
RANDOM, SEED, WORST = 120, 6, 10
# Bounds of a random layer: operations (of float32, float64 and the others) and bytes.
LEAST_FLOPS, LEAST_BYTES, MOST_BYTES = 15e6, 2e6, 40e6
MOST_FLOPS = {"float32": 1.5e9, "float64": 8e8}
FEW_FLOPS = 3e8

Array = np.ndarray[Any, Any]
Clock = Callable[[], float]


class Layer(NamedTuple):
    """A case and its dtype."""

    case: Case
    dtype: str

    @property
    def problem(self) -> Problem:
        """As the planner sees it."""
        return self.case.problem(self.dtype)


class Row(NamedTuple):
    """One layer: seconds measured and predicted by method; by wish, the methods that compete and the choice."""

    problem: str
    measured: dict[str, float]
    predicted: dict[str, float]
    admitted: dict[str, list[str]]
    choices: dict[str, str]

    def regret(self, wish: str) -> float:
        """The choice's time over the best's."""
        return self.measured[self.choices[wish]] / min(self.measured[method] for method in self.admitted[wish])

    def told(self, method: str, wish: str) -> str:
        """One method's line."""
        mark = "->" if method == self.choices[wish] else "  "
        times = (self.predicted[method], self.measured[method])
        return f"{mark} {method:10} predicted {1e6 * times[0]:8.0f} us, measured {1e6 * times[1]:8.0f} us"


def named_layers() -> list[Layer]:
    """Those that numconv is measured on against other libraries."""
    return [Layer(case, "float32") for cases in CLASSES.values() for case in cases]


def random_layers(count: int, seed: int = SEED) -> list[Layer]:
    """Layers of every kind whose operations and bytes are within bounds, the same for a seed."""
    rng = np.random.default_rng(seed)
    found: list[Layer] = []
    while len(found) < count:
        layer = draw(rng)
        if layer is None:
            continue
        problem = layer.problem
        enough = problem.flops >= LEAST_FLOPS or problem.bytes >= LEAST_BYTES
        if enough and problem.flops <= MOST_FLOPS.get(layer.dtype, FEW_FLOPS) and problem.bytes <= MOST_BYTES:
            found.append(layer)
    return found


def draw(rng: np.random.Generator) -> Layer | None:
    """One layer of any size, or None where its kernel does not fit."""

    def log_uniform(low: int, high: int) -> int:
        return round(math.exp(rng.uniform(math.log(low), math.log(high))))

    def pick(values: Sequence[Any], weights: Sequence[float]) -> Any:
        return values[rng.choice(len(values), p=np.array(weights) / sum(weights))]

    rank = pick((1, 2, 3), (2, 7, 1.5))
    dtype = pick(("float32", "float64", "int32", "uint8", "complex64"), (85, 8, 3, 2, 2))
    ci, co, batch = log_uniform(1, 512), log_uniform(1, 512), pick((1, 2, 3, 4, 8), (6, 1, 1, 1, 1))
    kind = pick(("dense", "depthwise", "groups"), (60, 28, 12))
    groups = 1
    if kind == "depthwise":
        groups, co = ci, ci * pick((1, 2, 3), (8, 1, 1))
    elif kind == "groups":
        groups = pick((2, 4, 8, 16, 32), (1, 1, 1, 1, 1))
        ci, co = (-(-channels // groups) * groups for channels in (ci, co))
    longest = {1: 65536, 2: 512, 3: 64}[rank]
    size = log_uniform(4, longest)
    spatial = tuple(max(1, int(size * rng.uniform(0.7, 1.4))) if axis else size for axis in range(rank))
    side = pick((1, 3, 5, 7, int(rng.integers(2, 16))), (25, 35, 10, 8, 22))
    side = min(side, 5) if rank == 3 else side
    # One channel and one tap would be no correlation.
    side = max(side, 2) if kind == "depthwise" else side
    kernel = (side,) * rank if rng.random() < 0.85 else tuple(int(rng.integers(1, side + 1)) for _ in range(rank))
    stride, dilation = pick((1, 2, 3), (75, 20, 5)), pick((1, 2, 3), (85, 10, 5))
    reach = [dilation * (k - 1) for k in kernel]
    padding = tuple(r // 2 for r in reach) if rng.random() < 0.7 else (0,) * rank
    if any(s + 2 * p <= r for s, p, r in zip(spatial, padding, reach, strict=True)):
        return None
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    case = Case("", (batch, ci, *spatial), (co, ci // groups, *kernel), options)
    return Layer(case, dtype)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that so large a share does not exceed: one of them, the nearest rank."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def statistics_of(regrets: Sequence[float]) -> dict[str, float]:
    """What the bars are about."""
    return {
        "geometric mean": math.exp(statistics.fmean(map(math.log, regrets))),
        "95th percentile": percentile(regrets, 0.95),
        "worst": max(regrets),
    }


def medians(
    runs: Mapping[str, Callable[[], object]], keep: Sequence[str], rounds: int, clock: Clock
) -> dict[str, float]:
    """The median over the rounds of each one's best time; after the first, of `keep` and of those near the best."""
    times = {name: [turn(run, clock)] for name, run in runs.items()}
    least = min(first for (first,) in times.values())
    racing = [name for name, (first,) in times.items() if first <= BEHIND * least or name in keep]
    for number in range(1, rounds if len(racing) > 1 else 1):
        first = number % len(racing)
        for name in racing[first:] + racing[:first]:
            times[name].append(turn(runs[name], clock))
    return {name: statistics.median(found) for name, found in times.items()}


def turn(run: Callable[[], object], clock: Clock) -> float:
    """The best of some calls, after some that are not counted: the first of all may compile."""
    run()
    start = clock()
    run()
    once = clock() - start
    if once > timing.LONG:
        return once
    best = once
    for _ in range(max(TURN_CALLS, int(TURN_SECONDS / once))):
        start = clock()
        run()
        best = min(best, clock() - start)
    return best


def measure(layer: Layer, calls: bool, rounds: int, clock: Clock) -> Row | None:
    """Time the methods of a layer; None where the best is too quick to tell."""
    problem, on = layer.problem, machine(jit.threads())
    x, weight, _ = arrays(problem)
    runs, expected, admitted, choices = {}, {}, {}, {}
    for name, wish in WISHES.items():
        served = [candidate for candidate in candidates(problem, on, wish) if candidate.refusal is None]
        seconds = {candidate.name: predicted(candidate, calls) for candidate in served}
        hopeful = {method: time for method, time in seconds.items() if time <= HOPELESS * min(seconds.values())}
        choices[name], admitted[name] = choose(problem, on, wish, prepared=not calls).NAME, list(hopeful)
        for method in hopeful.keys() - runs.keys():
            runs[method] = contender(layer, wish._replace(method=method), x, weight, calls)
        expected |= hopeful
    measured = medians(runs, list(choices.values()), rounds, clock)
    quick = min(measured.values()) < LEAST_SECONDS
    return None if quick else Row(str(problem), measured, expected, admitted, choices)


def predicted(candidate: Candidate, calls: bool) -> float:
    """Seconds that the planner compares."""
    return (candidate.seconds or 0.0) + (candidate.prepare_seconds or 0.0) * calls


def contender(layer: Layer, wish: Wish, x: Array, weight: Array, calls: bool) -> Callable[[], object]:
    """A plan of one method, or a single call, that writes to the same array each time."""
    options = layer.case.options | {"method": wish.method, "rtol": wish.rtol}
    out = np.empty(layer.problem.out_shape, layer.problem.output)
    if not calls:
        planned = nc.plan(x.shape, weight, x_dtype=x.dtype, **options)
        return lambda: planned(x, out=out)
    function: Any = (nc.conv1d, nc.conv2d, nc.conv3d)[layer.case.rank - 1]
    return lambda: function(x, weight, out=out, **options)


def report(rows: Sequence[Row], wish: str) -> tuple[list[str], bool]:
    """The lines about one wish, and whether the bars hold."""
    figures = statistics_of([row.regret(wish) for row in rows])
    lines = [f"{wish}: {len(rows)} layers"]
    for name, figure in figures.items():
        lines.append(
            f"  {name:16}{figure:7.3f}   at most {BARS[name]:.2f}{'' if figure <= BARS[name] else '   MISSED'}"
        )
    for row in sorted(rows, key=lambda row: -row.regret(wish))[:WORST]:
        lines.append(f"  {row.regret(wish):6.2f}  {row.problem}")
        lines += [f"          {row.told(method, wish)}" for method in row.admitted[wish]]
    return lines, all(figure <= BARS[name] for name, figure in figures.items())


def main() -> int:
    """Measure every layer and print what the choices cost."""
    parser = argparse.ArgumentParser(description="How much slower auto's choice is than the best method.")
    parser.add_argument("--calls", action="store_true", help="single calls, which prepare the weights each time")
    parser.add_argument("--rounds", type=int, default=5, help="odd, so that the median is one of them (5)")
    parser.add_argument("--random", type=int, default=RANDOM, help=f"so many random layers ({RANDOM})")
    parser.add_argument("--seed", type=int, default=SEED, help=f"of the random layers ({SEED})")
    parser.add_argument("--cpu-time", action="store_true", help="one thread's processor time: a hint on a busy machine")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write the figures")
    args = parser.parse_args()
    if args.cpu_time:
        numba.set_num_threads(1)
    elif warning := timing.busy():
        print(warning)
    clock = time.thread_time if args.cpu_time else time.perf_counter
    layers = named_layers() + random_layers(args.random, args.seed)
    rows = []
    for number, layer in enumerate(layers, 1):
        row = measure(layer, args.calls, args.rounds, clock)
        rows += [row] if row else []
        if sys.stderr.isatty():
            print(f"\r{number} of {len(layers)} layers", end="", file=sys.stderr)
    if args.json:
        args.json.write_text(json.dumps([row._asdict() for row in rows], indent=1) + "\n")
    found = [report(rows, wish) for wish in WISHES]
    print("\n".join(line for lines, _ in found for line in lines))
    return 0 if all(holds for _, holds in found) else 1


if __name__ == "__main__":
    sys.exit(main())
