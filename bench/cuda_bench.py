"""Layers on an NVIDIA GPU: numconv against torch (TF32 off and on) and CuPy where they are installed.

`python bench/cuda_bench.py [--batch 1 32] [--json bench/cuda.json]` prints one row a layer: the median over 20 rounds
of the time between two CUDA events with 10 launches between them, so that the GPU waits for no launch that the host can
give in time, after 5 launches to warm up, in TFLOP/s. Arrays are torch's where it is there, else numba's. The layers
are those of layers.py, and the gradients of ResNet-50's by their weights. What keeps the order of summation is first
compared with the CPU, bit by bit on one image. Where there is no GPU it says so, and measures nothing.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from layers import CLASSES

import numconv as nc
from numconv.methods import cuda_methods
from numconv.testing import RESNET50, Case, arrays

WARM, ROUNDS, LAUNCHES = 5, 20, 10
# That of TF32's error on the layers here, as torch's switch accepts it for all.
TF32 = 1e-2
# Of kernels wider than the tiles take.
LEFT_OUT = ("31x31 8->8 at 64",)
GRADIENTS = "by the weights"
ORDERED = {method.NAME for method in cuda_methods() if method.REPRODUCIBLE}


def missing() -> str | None:
    """Why nothing can be measured here."""
    if importlib.util.find_spec("numba_cuda") is None:
        return "numba-cuda is not installed: pip install 'numconv-numba[cuda]'"
    from numba import cuda

    return None if cuda.is_available() else "no NVIDIA GPU and driver are here"


def seconds(run: Callable[[], object]) -> float:
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
        times.append(cuda.event_elapsed_time(start, end) / LAUNCHES / 1e3)
    return statistics.median(times)


def contenders(case: Case) -> tuple[str, dict[str, Callable[[], object]]]:
    """The method that serves a layer, and what is timed on it."""
    x, weight, _ = arrays(case.problem())
    libraries, here = _installed()
    there, kernel = here(x), here(weight)
    layer = nc.plan(x.shape, kernel, **case.options)
    quick = nc.plan(x.shape, kernel, **case.options, rtol=TF32)
    if layer.method in ORDERED:
        expected = nc.conv2d(x[:1], weight, **case.options, reproducible=True)
        image = layer(there)[:1]
        image = image.cpu().numpy() if "torch" in libraries else image.copy_to_host()
        if image.tobytes() != expected.tobytes():
            raise SystemExit(f"{layer.method} differs from the CPU on {layer.problem}")
    found = {
        "numconv": lambda: layer(there),
        "numconv TF32": lambda: quick(there),
        "numconv once": lambda: nc.conv2d(there, kernel, **case.options),
    }
    if "torch" in libraries:
        import torch

        found |= _torch(lambda: torch.nn.functional.conv2d(there, kernel, **case.options))
    if "cupy" in libraries and case.weight_shape[2:] == (1, 1) and not case.options:
        found["cupy matmul"] = _cupy(x, weight)
    return f"{layer.method}, {quick.method}", found


def gradients(case: Case) -> tuple[str, dict[str, Callable[[], object]]]:
    """The same for a layer's gradient by its weights."""
    x, weight, _ = arrays(case.problem())
    grad = np.random.default_rng(1).standard_normal(case.problem().out_shape, dtype=np.float32)
    libraries, here = _installed()
    there, arriving = here(x), here(grad)
    size, options = weight.shape, case.options
    layer = nc.plan(x.shape, arriving, op="weight", size=size, **options)
    quick = nc.plan(x.shape, arriving, op="weight", size=size, **options, rtol=TF32)
    found = {
        "numconv": lambda: layer(there),
        "numconv TF32": lambda: quick(there),
        "numconv once": lambda: nc.conv2d_weight(there, size, arriving, **options),
    }
    if "torch" in libraries:
        import torch

        found |= _torch(lambda: torch.nn.grad.conv2d_weight(there, size, arriving, **options))
    return f"{layer.method}, {quick.method}", found


def _installed() -> tuple[set[str], Callable[[Any], Any]]:
    """The libraries that are here, and what sends an array to the GPU."""
    from numba import cuda

    libraries = {name for name in ("torch", "cupy") if importlib.util.find_spec(name) is not None}
    return libraries, _to_torch if "torch" in libraries else cuda.to_device


def _to_torch(array: Any) -> Any:
    import torch

    return torch.as_tensor(array, device="cuda")


def _torch(call: Callable[[], object]) -> dict[str, Callable[[], object]]:
    import torch

    # Its best: the algorithm that is fastest on this layer, found while it warms up.
    torch.backends.cudnn.benchmark = True

    def run(tf32: bool) -> object:
        torch.backends.cudnn.allow_tf32 = tf32
        return call()

    return {"torch": lambda: run(False), "torch TF32": lambda: run(True)}


def _cupy(x: Any, weight: Any) -> Callable[[], object]:
    import cupy

    given = cupy.asarray(x).reshape(*x.shape[:2], -1)
    kernel = cupy.asarray(weight).reshape(weight.shape[:2])
    return lambda: cupy.matmul(kernel, given)


def machine() -> dict[str, str]:
    """The device and the libraries' versions."""
    from numba import cuda

    device = cuda.get_current_device().name
    names = ("numba-cuda", "torch", "cupy-cuda13x", "cupy-cuda12x")
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"device": device.decode() if isinstance(device, bytes) else str(device), **versions}


def main() -> int:
    """Print the table, or why there is none."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--json", type=Path)
    wish = parser.parse_args()
    reason = missing()
    if reason is not None:
        print(f"nothing was measured: {reason}")
        return 0
    report: dict[str, Any] = {"machine": machine(), "batches": {}}
    for batch in wish.batch:
        classes = report["batches"][str(batch)] = {}
        for name, cases in (*CLASSES.items(), (GRADIENTS, RESNET50)):
            for given in cases:
                if given.name in LEFT_OUT:
                    continue
                case = Case(given.name, (batch, *given.x_shape[1:]), given.weight_shape, given.options)
                method, runs = (gradients if name == GRADIENTS else contenders)(case)
                figures = {who: seconds(run) for who, run in runs.items()}
                flops = case.problem().flops
                classes.setdefault(name, {})[case.name] = {"method": method, "flops": flops, **figures}
                rates = [f"{who} {flops / one / 1e12:.1f}" for who, one in figures.items()]
                print(f"{name}: {case.name}, batch {batch}, {method}, TFLOP/s: {', '.join(rates)}", flush=True)
                if wish.json:
                    wish.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
