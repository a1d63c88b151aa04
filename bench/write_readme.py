"""Write the README's tables from bench/results.json, peers.json, error_vs_speed.json and cuda.json, which need not be
there yet. Everything that the README shows comes from six commands, one of them on a machine with a GPU::

python -m numconv bench --json bench/results.json --plot bench/pictures/roofline.png
python -m numconv demo --out bench/pictures/demo.jpg
python bench/peers.py --json bench/peers.json
python bench/error_vs_speed.py
python bench/cuda_bench.py --json bench/cuda.json
python bench/write_readme.py
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from numconv.cli.bench import COLUMNS, cells
from numconv.cli.units import digits

ROOT = Path(__file__).resolve().parent.parent
README, RESULTS = ROOT / "README.md", ROOT / "bench" / "results.json"
PEERS, ON_GPU = ROOT / "bench" / "peers.json", ROOT / "bench" / "cuda.json"
ERRORS, PICTURE = ROOT / "bench" / "error_vs_speed.json", "bench/pictures/error_vs_speed.png"


def written(readme: str) -> str:
    """The README with what the figures that are there give."""
    tables = (("bench", RESULTS, table), ("peers", PEERS, peers), ("errors", ERRORS, errors), ("cuda", ON_GPU, on_gpu))
    for name, path, text in tables:
        if path.exists():
            readme = between(readme, name, text(json.loads(path.read_text())))
    return readme


def between(readme: str, name: str, text: str) -> str:
    """The README with a text between the markers of a name."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, rest = readme.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n{text}\n{end}{after}"


def table(report: dict[str, Any]) -> str:
    """The machine in a line, and one layer a row."""
    machine, peaks = report["machine"], report["peaks"]
    head = ["layer", *COLUMNS, "loops / np.matmul", "auto takes"]
    lines = [
        f"GFLOP/s in float32 on {machine['threads'].partition(',')[0]} threads, {machine['processor']}; measured"
        f" peaks: {peaks['flops'] / 1e9:.0f} GFLOP/s of fused multiply-adds, {peaks['bytes_per_second'] / 1e9:.1f} GB/s"
        f" of copying. numpy's BLAS: {machine['BLAS'].partition(';')[0]}.",
        "",
        f"| {' | '.join(head)} |",
        f"| --- |{' ---: |' * (len(head) - 1)}",
    ]
    lines += [f"| {' | '.join(cells(row)).replace('->', '→')} |" for row in report["layers"]]
    return "\n".join(lines)


# What the rows of a class are compared with: (head, whose speed, the libraries of which the fastest counts).
LIBRARIES = ("torch", "torch nhwc", "onnxruntime", "openvino", "cv2")
COMPARISONS = (
    ("a plan", "numconv", LIBRARIES),
    ("a plan, `rtol=1e-3`", "numconv 1e-3", LIBRARIES),
    ("a call of `conv2d` over torch's", "numconv once", ("torch",)),
    ("two threads over one", "numconv", ("numconv alone",)),
)


def peers(report: dict[str, Any]) -> str:
    """A class of layers a row: how many times as fast, as geometric mean and least."""
    machine = report["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["libraries"].items() if name != "numconv")
    lines = [
        f"How many times as fast as the fastest of {versions}, each layer's weights prepared: the geometric mean of a"
        f" class, and the least in brackets. float32, {machine['threads']} threads, {machine['processor']}, median"
        f" of {report['rounds']} rounds.",
        "",
        f"| layers | number | {' | '.join(head for head, _, _ in COMPARISONS)} |",
        f"| --- | ---: |{' ---: |' * len(COMPARISONS)}",
    ]
    for name, layers in report["classes"].items():
        figures = " | ".join(ratios(layers.values(), ours, others) for _, ours, others in COMPARISONS)
        lines.append(f"| {name} | {len(layers)} | {figures} |")
    return "\n".join(lines)


def ratio(seconds: Mapping[str, float | None], ours: str, others: Iterable[str] = LIBRARIES) -> float:
    """The best other's seconds over ours, for one layer: above 1, ours is faster. NaN where either is missing."""
    mine, theirs = seconds.get(ours), [value for name in others if (value := seconds.get(name)) and value == value]
    return min(theirs) / mine if mine and theirs else math.nan


def ratios(layers: Iterable[Mapping[str, float | None]], ours: str, others: Iterable[str] = LIBRARIES) -> str:
    """The geometric mean of the ratios of layers that both have, and the least."""
    found = [value for seconds in layers if (value := ratio(seconds, ours, others)) == value]
    return f"{statistics.geometric_mean(found):.2f} ({min(found):.2f})" if found else "-"


# The same on a GPU.
GPU_COMPARISONS = (
    ("a plan over torch", "numconv", ("torch",)),
    ("a plan, `rtol=1e-2`, over torch with TF32", "numconv TF32", ("torch TF32",)),
    ("a call of `conv2d` over torch's", "numconv once", ("torch",)),
)


def on_gpu(report: dict[str, Any]) -> str:
    """A class of layers and a batch a row: what the plans reach, and how many times as fast they are as torch."""
    device, *versions = report["machine"].items()
    batches = report["batches"]
    lines = [
        f"A class's geometric mean, and its least in brackets: how many times as fast as torch (cuDNN's fastest"
        f" algorithm), float32, on an {device[1]}; {', '.join(f'{name} {version}' for name, version in versions)}.",
        "",
        f"| layers | batch | a plan, TFLOP/s | {' | '.join(head for head, _, _ in GPU_COMPARISONS)} |",
        f"| --- | ---: | ---: |{' ---: |' * len(GPU_COMPARISONS)}",
    ]
    for batch, classes in batches.items():
        for name, layers in classes.items():
            rates = [layer["flops"] / layer["numconv"] / 1e12 for layer in layers.values()]
            figures = " | ".join(ratios(layers.values(), ours, others) for _, ours, others in GPU_COMPARISONS)
            lines.append(f"| {name} | {batch} | {min(rates):.1f} to {max(rates):.1f} | {figures} |")
    return "\n".join(lines)


def errors(report: dict[str, Any]) -> str:
    """The picture, and one layer and method a row."""
    lines = [
        f"![Speed over error, for each method and layer]({PICTURE})",
        "",
        "| layer | method | GFLOP/s | observed error | expected error | proved bound |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for row in report["rows"]:
        figures = " | ".join(f"{row[name]:.1e}" for name in ("observed", "expected", "bound"))
        lines.append(f"| {row['layer'].replace('->', '→')} | {row['method']} | {digits(row['gflops'])} | {figures} |")
    return "\n".join(lines)


if __name__ == "__main__":
    README.write_text(written(README.read_text()))
