"""How evenly each layer is split over 1, 2, 16 and 64 threads, simulated: no thread runs.

    PYTHONPATH=. python bench/shares.py

One cell is the busiest thread's share over the mean, and how much faster all threads are than one, divided by their
number, where every task takes its predicted cycles: what the split alone allows, memory and clocks apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from layers import VGG16

from numconv.cpu import matmul, tiled
from numconv.cpu.blocks import imbalance
from numconv.machine import machine
from numconv.testing import RESNET50, Case

THREADS = (1, 2, 16, 64)
LAYERS = (*RESNET50, *VGG16)


def rows() -> list[tuple[Case, Any, dict[int, tuple[float, float]]]]:
    """(layer, method, threads -> (imbalance, efficiency)) for each layer and method that serves it."""
    found = []
    for case in LAYERS:
        problem = case.problem(np.float32)
        for method in (tiled, matmul):
            if method.why_not(problem, machine(1)) is None:
                costs = {threads: method.shares(problem, machine(threads)) for threads in THREADS}
                alone = costs[1][0]
                figures = {n: (imbalance(shares), alone / n / max(shares)) for n, shares in costs.items()}
                found.append((case, method, figures))
    return found


def main() -> None:
    """Print the table."""
    print(f"{'busiest/mean, efficiency':34}" + "".join(f"{n:>5} threads" for n in THREADS))
    for case, method, figures in rows():
        cells = (f"{uneven:6.2f} {efficient:5.0%}" for uneven, efficient in figures.values())
        print(f"{case.name:27}{method.NAME:7}" + " ".join(cells))


if __name__ == "__main__":
    main()
