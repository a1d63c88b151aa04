"""Layers on an NVIDIA GPU: numconv's plans against torch (TF32 off and on) and CuPy where they are installed.

`python bench/cuda_bench.py [--batch 32]` prints one row a layer: the median over 20 rounds of the time between two CUDA
events with 10 launches between them, so that the GPU waits for no launch, after 5 launches to warm up, in TFLOP/s. What
numconv's own kernels give is first compared with the CPU's, bit by bit on one image. Where there is no GPU it says so,
and measures nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from layers import CLASSES

import numconv as nc
from numconv.testing import Case, arrays

WARM, ROUNDS, LAUNCHES = 5, 20, 10
METHODS = ("matmul", "blas", "depthwise", "tensor", "tiled", "loops")
OTHER_BITS = ("blas", "tensor")
LAYERS = CLASSES["3x3"][:4] + CLASSES["1x1"] + CLASSES["odd"][:6] + CLASSES["depthwise"] + CLASSES["filters"]


def missing() -> str | None:
    """Why nothing can be measured here."""
    if importlib.util.find_spec("numba_cuda") is None:
        return "numba-cuda is not installed: pip install 'numconv-numba[cuda]'"
    from numba import cuda

    return None if cuda.is_available() else "no NVIDIA GPU and driver are here"


def milliseconds(run: Callable[[], object]) -> float:
    """The median time of a launch, among some between two events on the default stream."""
    from numba import cuda

    for _ in range(WARM):
        run()
    times = []
    for _ in range(ROUNDS):
        start, end = cuda.event(), cuda.event()
        start.record()
        for _ in range(LAUNCHES):
            run()
        end.record()
        end.synchronize()
        times.append(cuda.event_elapsed_time(start, end) / LAUNCHES)
    return statistics.median(times)


def contenders(case: Case, batch: int) -> dict[str, Callable[[], object]]:
    """What is timed on a layer."""
    from numba import cuda

    case = Case(case.name, (batch, *case.x_shape[1:]), case.weight_shape, case.options)
    x, weight, _ = arrays(case.problem())
    expected = nc.conv2d(x[:1], weight, **case.options, reproducible=True)
    there = cuda.to_device(x)
    found: dict[str, Callable[[], object]] = {}
    for method in METHODS:
        try:
            layer = nc.plan(x.shape, weight, **case.options, method=method, device="cuda")
        except ValueError:
            continue
        out = cuda.device_array(layer.problem.out_shape, np.float32)
        layer(there, out=out)
        if method not in OTHER_BITS and out[:1].copy_to_host().tobytes() != expected.tobytes():
            raise SystemExit(f"{method} differs from the CPU on {layer.problem}")
        found[method] = lambda layer=layer, out=out: layer(there, out=out)  # type: ignore[misc]
    if importlib.util.find_spec("torch") is not None:
        found |= _torch(x, weight, case.options)
    if importlib.util.find_spec("cupy") is not None and case.weight_shape[2:] == (1, 1) and not case.options:
        found["cupy matmul"] = _cupy(x, weight)
    return found


def _torch(x: Any, weight: Any, options: dict[str, Any]) -> dict[str, Callable[[], object]]:
    import torch

    given, kernel = (torch.as_tensor(array, device="cuda") for array in (x, weight))

    # Its best: the algorithm that is fastest on this layer, found while it warms up.
    torch.backends.cudnn.benchmark = True

    def run(tf32: bool) -> object:
        torch.backends.cudnn.allow_tf32 = tf32
        return torch.nn.functional.conv2d(given, kernel, **options)

    return {"torch": lambda: run(False), "torch TF32": lambda: run(True)}


def _cupy(x: Any, weight: Any) -> Callable[[], object]:
    import cupy

    given = cupy.asarray(x).reshape(*x.shape[:2], -1)
    kernel = cupy.asarray(weight).reshape(weight.shape[:2])
    return lambda: cupy.matmul(kernel, given)


def main() -> int:
    """Print the table, or why there is none."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    batch = parser.parse_args().batch
    reason = missing()
    if reason is not None:
        print(f"nothing was measured: {reason}")
        return 0
    for case in LAYERS:
        flops = batch * case.problem().flops
        cells = [f"{name} {flops / milliseconds(run) / 1e9:.1f}" for name, run in contenders(case, batch).items()]
        print(f"{case.name:36} TFLOP/s: {', '.join(cells)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
