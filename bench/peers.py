"""numconv against other libraries, layer by layer: each library in a process of its own, asleep while another works.

    python bench/peers.py [--classes 3x3 1x1] [--rounds 3] [--patience 600] [--json bench/peers.json]

In every round each library runs each layer for a while and reports its best time; the figure is the median over the
rounds. `numconv` is a plan, `numconv 1e-3` one with that rtol, `numconv alone` one that runs on a single thread,
`numconv once` a call of conv2d. Thread pools that spin would fight, so one process works at a time and the next waits
until the last one's threads sleep. A turn waits until other programs leave the processor alone and is given again where
they did not, as long as the patience lasts; where they come and go within a second, longer turns (--seconds) help more.
The results are compared. A library that is not installed is a dash. In a file, the classes that are not measured stay
as they were, if on such a machine.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import importlib.metadata
import json
import math
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
from layers import CLASSES
from watch import SLEEP_SECONDS, Watch
from write_readme import ratio, ratios

from numconv import jit
from numconv.testing import Case, arrays

Array = np.ndarray[Any, Any]
# A library runs a layer at least so many times in a turn.
TURN_CALLS = 5


def _pads(case: Case) -> list[int]:
    padding = case.options.get("padding", 0)
    pair = padding if isinstance(padding, tuple) else (padding, padding)
    return [*pair, *pair]


def _numconv(case: Case, x: Array, weight: Array, rtol: float | None = None) -> Callable[[], Array]:
    import numconv

    plan = numconv.plan(x.shape, weight, rtol=rtol, **case.options)
    out = plan(x)
    return lambda: plan(x, out=out)


def _numconv_rtol(case: Case, x: Array, weight: Array) -> Callable[[], Array]:
    return _numconv(case, x, weight, rtol=1e-3)


def _numconv_once(case: Case, x: Array, weight: Array) -> Callable[[], Array]:
    import numconv

    return lambda: numconv.conv2d(x, weight, **case.options)


def _numconv_alone(case: Case, x: Array, weight: Array) -> Callable[[], Array]:
    import numba

    numba.set_num_threads(1)
    return _numconv(case, x, weight)


def _torch(case: Case, x: Array, weight: Array, channels_last: bool = False) -> Callable[[], Array]:
    import torch

    layout = torch.channels_last if channels_last else torch.contiguous_format
    xt = torch.from_numpy(x).to(memory_format=layout)
    wt = torch.from_numpy(weight).to(memory_format=layout)

    def call() -> Array:
        with torch.inference_mode():
            return torch.nn.functional.conv2d(xt, wt, **case.options).numpy()

    return call


def _torch_channels_last(case: Case, x: Array, weight: Array) -> Callable[[], Array]:
    return _torch(case, x, weight, channels_last=True)


def _onnx_model(case: Case, x: Array, weight: Array) -> Any:
    from onnx import TensorProto, helper, numpy_helper

    options = case.options
    per_axis = {name: options.get(name, 1) for name in ("stride", "dilation")}
    node = helper.make_node(
        "Conv",
        ["x", "w"],
        ["y"],
        kernel_shape=weight.shape[2:],
        strides=[per_axis["stride"]] * 2,
        dilations=[per_axis["dilation"]] * 2,
        pads=_pads(case),
        group=options.get("groups", 1),
    )
    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _onnxruntime(case: Case, x: Array, weight: Array) -> Callable[[], Array]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = os.cpu_count() or 1
    session = onnxruntime.InferenceSession(
        _onnx_model(case, x, weight).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(None, {"x": x})[0]


def _openvino(case: Case, x: Array, weight: Array) -> Callable[[], Array]:
    import openvino

    core = openvino.Core()
    model = core.read_model(_onnx_model(case, x, weight).SerializeToString())
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": os.cpu_count() or 1}
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    request.set_input_tensor(openvino.Tensor(x, shared_memory=True))

    def call() -> Array:
        request.infer()
        return request.get_output_tensor().data

    return call


def _only_filters(case: Case) -> bool:
    return case.weight_shape[:2] == (1, 1) and case.x_shape[1] == 1 and not case.options


def _scipy(case: Case, x: Array, weight: Array) -> Callable[[], Array]:
    import scipy.signal

    assert _only_filters(case)
    return lambda: scipy.signal.correlate(x[0, 0], weight[0, 0], "valid", method="direct")


def _ndimage(case: Case, x: Array, weight: Array) -> Callable[[], Array]:
    import scipy.ndimage

    assert _only_filters(case)
    return lambda: _valid(scipy.ndimage.correlate(x[0, 0], weight[0, 0]), weight)


def _cv2(case: Case, x: Array, weight: Array) -> Callable[[], Array]:
    import cv2

    assert _only_filters(case)
    return lambda: _valid(cv2.filter2D(x[0, 0], -1, weight[0, 0]), weight)


def _valid(full: Array, weight: Array) -> Array:
    rows, columns = (side // 2 for side in weight.shape[2:])
    return full[rows : full.shape[0] - rows, columns : full.shape[1] - columns]


PEERS: dict[str, tuple[str, Callable[..., Callable[[], Array]]]] = {
    "numconv": ("numconv", _numconv),
    "numconv 1e-3": ("numconv", _numconv_rtol),
    "numconv once": ("numconv", _numconv_once),
    "numconv alone": ("numconv", _numconv_alone),
    "torch": ("torch", _torch),
    "torch nhwc": ("torch", _torch_channels_last),
    "onnxruntime": ("onnxruntime", _onnxruntime),
    "openvino": ("openvino", _openvino),
    "cv2": ("cv2", _cv2),
    "scipy": ("scipy", _scipy),
    "ndimage": ("scipy", _ndimage),
}
OURS = ("numconv", "numconv 1e-3", "numconv once", "numconv alone")
DISTRIBUTIONS = {"cv2": "opencv-python-headless", "numconv": "numconv-numba"}


def serve(name: str, connection: Connection) -> None:
    """A library's process: sends a layer's result or, told how long a turn is, the least seconds of a call in it."""
    library, make = PEERS[name]
    try:
        importlib.import_module(library)
    except ImportError:
        connection.send(False)
        return
    connection.send(True)
    made: dict[str, Callable[[], Array]] = {}
    while True:
        case, seconds = connection.recv()
        if case is None:
            return
        try:
            if case.name not in made:
                x, weight, _ = arrays(case.problem(np.float32))
                made = {case.name: make(case, x, weight)}
            call = made[case.name]
            result = call()
        except (AssertionError, ValueError, TypeError, RuntimeError, ImportError):
            connection.send(None)
            continue
        connection.send(np.array(result) if seconds is None else least_seconds(call, seconds))


def least_seconds(call: Callable[[], Array], seconds: float) -> float:
    """The seconds of the fastest call of a turn that lasts so long."""
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < TURN_CALLS or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def ask(connection: Connection, case: Case, seconds: float | None) -> Any:
    """What a library's process answers, once its threads sleep again."""
    connection.send((case, seconds))
    answer = connection.recv()
    time.sleep(SLEEP_SECONDS)
    return answer


def measure(
    cases: list[Case],
    names: list[str],
    rounds: int,
    seconds: float,
    watch: Watch,
    report: Callable[[str], None],
) -> dict[str, dict[str, float]]:
    """The median over rounds of each library's best seconds, by layer and library; NaN where it has no answer."""
    context = multiprocessing.get_context("spawn")
    connections: dict[str, Connection] = {}
    for name in names:
        ours, theirs = context.Pipe()
        context.Process(target=serve, args=(name, theirs), daemon=True).start()
        if ours.recv():
            connections[name] = ours
    figures: dict[str, dict[str, float]] = {}
    for case in cases:
        able = in_agreement(case, connections)
        times: dict[str, list[float]] = {name: [] for name in able}
        for _ in range(rounds):
            for name, connection in able.items():
                times[name].append(watch.best(functools.partial(ask, connection, case, seconds)))
        medians = {name: statistics.median(values) for name, values in times.items()}
        figures[case.name] = {name: medians.get(name, math.nan) for name in connections}
        report(line(case, figures[case.name]))
    for connection in connections.values():
        connection.send((None, None))
    return figures


def in_agreement(case: Case, connections: dict[str, Connection]) -> dict[str, Connection]:
    """The libraries that run a layer; all have one result, or the program ends."""
    results = {name: ask(connection, case, None) for name, connection in connections.items()}
    able = {name: result for name, result in results.items() if result is not None}
    for name, result in able.items():
        first, expected = next(iter(able.items()))
        error = float(np.abs(result.reshape(expected.shape) - expected).max() / np.abs(expected).max())
        if not error < 1e-4:
            raise SystemExit(f"{name} differs from {first} by {error:.1e} on {case.name}")
    return {name: connections[name] for name in able}


def line(case: Case, seconds: dict[str, float]) -> str:
    """One layer: GFLOP/s of each library, and numconv's ratio to the best of the others."""
    flops = case.problem().flops
    speeds = "".join(f"{flops / value / 1e9:>14.1f}" if value == value else f"{'-':>14}" for value in seconds.values())
    return f"{case.name:34}{speeds}{ratio(seconds, 'numconv'):>9.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", nargs="+", choices=list(CLASSES), default=list(CLASSES))
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.15, help="how long a library runs a layer in a round")
    parser.add_argument("--patience", type=float, default=600, help="seconds to wait for a quiet processor")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    watch, say = Watch(options.patience), functools.partial(print, flush=True)
    report = {"machine": _machine(options.peers), "rounds": options.rounds}
    results = others(options.json, report)
    for name in options.classes:
        print(f"\n{name:34}" + "".join(f"{peer:>14}" for peer in options.peers) + "    ratio")
        figures = measure(list(CLASSES[name]), options.peers, options.rounds, options.seconds, watch, say)
        for ours in (peer for peer in options.peers if peer in OURS):
            print(f"{ours}: geometric mean and least {ratios(figures.values(), ours)}")
        results[name] = figures
    print(f"\nturns disturbed to the last: {watch.disturbed}, patience left: {max(0.0, watch.patience):.0f} s")
    if options.json:
        classes = {name: results[name] for name in CLASSES if name in results}
        options.json.write_text(json.dumps({**report, "classes": classes}, indent=1).replace("NaN", "null") + "\n")


def others(file: Path | None, report: dict[str, Any]) -> dict[str, Any]:
    """The classes that a file has already, where they were measured on such a machine and so often."""
    if file is None or not file.exists():
        return {}
    before = json.loads(file.read_text())
    classes: dict[str, Any] = before.pop("classes")
    return classes if before == report else {}


def _machine(peers: list[str]) -> dict[str, Any]:
    """Where this was measured, and with which libraries."""
    from numconv.machine import machine

    on, versions = machine(jit.threads()), {}
    for library in sorted({PEERS[name][0] for name in peers}):
        try:
            versions[library] = importlib.metadata.version(DISTRIBUTIONS.get(library, library))
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"processor": on.cpu, "threads": on.threads, "libraries": versions}


if __name__ == "__main__":
    main()
