"""What ptxas makes of the kernels: registers, spills, the share of multiply-adds in the hot loop; what a block does.

`python tests/cuda_static.py` measures every figure again and writes them to cuda_static.json, which the tests compare
with. Assembler and disassembler are those of the toolkit that numba compiles with: `cuda-toolkit[nvcc,nvdisasm]`.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import ptx_device
from numba import float32, float64, int32, int64, types, uint32

from numconv.cuda import strip, strip_geometry, tile, tiling, wide_geometry, wide_tile
from numconv.testing import Case

FIGURES = Path(__file__).with_name("cuda_static.json")
GATED = ((8, 0), (9, 0))
COMPILED = ((7, 5), (8, 6), (8, 9), (10, 0), (12, 0))
WARPS = {(8, 0): 64, (9, 0): 64}
SHARED = {(8, 0): 164 << 10, (9, 0): 228 << 10}
REGISTERS = 65536
LAYERS = {
    f"{width}x{width} stride {stride}": Case(
        "", (1, 64, 32 * stride, 32 * stride), (64, 64, width, width), {"stride": stride, "padding": width // 2}
    )
    for width in (1, 3, 5, 7)
    for stride in (1, 2)
}
STRIPS = {
    **{
        f"filter {width}x{width}": Case("", (1, 1, 4096, 4096), (1, 1, width, width), {"padding": width // 2})
        for width in (3, 5, 7, 11)
    },
    "depthwise 3x3 at 16": Case("", (64, 64, 16, 16), (64, 1, 3, 3), {"groups": 64, "padding": 1}),
    "depthwise 3x3 stride 2": Case("", (64, 32, 64, 64), (32, 1, 3, 3), {"groups": 32, "padding": 1, "stride": 2}),
}


# Half the pixels a thread, so that as many registers hold them.
# Tiles of fewer pixels, for problems that have few blocks.
FEW_PIXELS = {f"{name} of 4 pixels": LAYERS[name] for name in ("1x1 stride 1", "3x3 stride 1", "7x7 stride 2")}
DOUBLES = {
    "float64 3x3": LAYERS["3x3 stride 1"],
    "float64 7x7 stride 2": LAYERS["7x7 stride 2"],
    "float64 1x1": Case("", (1, 64, 32 * 32), (64, 64, 1)),
    "float64 filter 7x7": STRIPS["filter 7x7"],
}


# Gradients by the weights, as tiles of so many sums a thread, channels by columns.
WIDE = {
    f"{'float64 ' if itemsize == 8 else ''}gradient of {rows}x{columns} sums": (itemsize, (rows, columns))
    for itemsize, sums in ((4, wide_geometry.SUMS), (8, wide_geometry.SUMS_OF_DOUBLES))
    for rows, columns in sums
}
GRADIENT = Case("", (1, 32, 64, 58, 58), (64, 32, 1, 56, 56))


def flat(dtype):
    return types.Array(dtype, 1, "C")


def signature(real, weight):
    """x, weight (a tile's by 64 bits), bias, out; depth, height, width, places; start and strides."""
    return types.void(*map(flat, (real, weight, real, real, int32, int32, int32, int32)), *[int64] * 6)


def loops_signature():
    """x, weight, bias; depth, height, width, places; out; start and strides."""
    return types.void(*map(flat, (float32, float32, float32, int32, int32, int32, int32, float32)), *[int64] * 6)


def tensor_signature():
    """records, weight, bias; depth, height, width, places; out; its first image, steps, sums, pixels."""
    return types.void(*map(flat, (uint32, uint32, float32, int32, int32, int32, int32, float32)), *[int64] * 4)


def wide_signature(real):
    """x, weight, bias, out; depth, height, width, places; segments, planes, steps, start and strides."""
    return types.void(*map(flat, (real, real, real, real, int32, int32, int32, int32)), *[int64] * 10)


def tool(name):
    """A program of the CUDA toolkit: the wheel's, else the one on the path."""
    found = sorted(Path(np.__file__).parents[1].glob(f"nvidia/*/bin/{name}"))
    return str(found[0]) if found else shutil.which(name)


def tools():
    """Whether both are here."""
    return bool(tool("ptxas") and tool("nvdisasm"))


def toolkit():
    """The assembler's version."""
    text = subprocess.run([tool("ptxas"), "--version"], capture_output=True, text=True, check=True).stdout
    return re.search(r"release ([\d.]+)", text)[1]


def assemble(text, cc):
    """(what ptxas says, the instructions, the place of each label)."""
    with tempfile.TemporaryDirectory() as folder:
        source, binary = Path(folder) / "kernel.ptx", Path(folder) / "kernel.cubin"
        source.write_text(text)
        said = subprocess.run(
            [tool("ptxas"), "-v", "-arch", f"sm_{''.join(map(str, cc))}", source, "-o", binary],
            capture_output=True, text=True, check=True,
        ).stderr  # fmt: skip
        listing = subprocess.run([tool("nvdisasm"), "-c", binary], capture_output=True, text=True, check=True).stdout
    instructions, labels = [], {}
    for line in listing.splitlines():
        if label := re.match(r"\s*\.?(L_x_\d+):", line):
            labels[label[1]] = len(instructions)
        elif found := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(.*?);", line):
            instructions.append(found[1])
    return said, instructions, labels


def hot_loop(instructions, labels):
    """(share of multiply-adds, bytes from shared memory per flop) in the loop with most of them, the innermost; in all
    from the first of them to the last, where the compiler left no loop around any.
    """
    adds = [place for place, one in enumerate(instructions) if re.search("FFMA|DFMA|HMMA", one)]
    bodies = [instructions[adds[0] : adds[-1] + 1]]
    for end, instruction in enumerate(instructions):
        branch = re.search(r"BRA.*`\(\.(L_x_\d+)\)", instruction)
        if branch and any(labels[branch[1]] <= place <= end for place in adds):
            bodies.append(instructions[labels[branch[1]] : end + 1])
    loops = []
    for body in bodies[1:] or bodies:
        count = sum(bool(re.search("FFMA|DFMA|HMMA", one)) for one in body)
        loaded = sum(int(width or 32) // 8 for one in body for width in re.findall(r"\bLDS(?:\.(\d+))?\b", one))
        loops.append((count, -len(body), loaded))
    count, length, loaded = max(loops)
    return round(count / -length, 4), round(loaded / (2 * count), 4)


def figures(text, cc, threads=tiling.THREADS):
    """Everything static about one kernel."""
    said, instructions, labels = assemble(text, cc)
    share, bytes_per_flop = hot_loop(instructions, labels)
    registers = int(re.search(r"Used (\d+) registers", said)[1])
    shared = int((re.search(r"(\d+) bytes smem", said) or [0, 0])[1])
    # Registers are handed out to warps in units of 256, shared memory comes with 1 KiB of the system's.
    blocks = min(REGISTERS // (-(-registers * 32 // 256) * 256 * threads // 32), SHARED[cc[:2]] // (shared + 1024))
    return {
        "registers": registers,
        "shared": shared,
        "stack": int(re.search(r"(\d+) bytes stack", said)[1]),
        "spills": sum(map(int, re.findall(r"(\d+) bytes spill", said))),
        "local": sum(bool(re.match(r"(@!?\w+ )?(LDL|STL)", one)) for one in instructions),
        "share": share,
        "bytes per flop": bytes_per_flop,
        "occupancy": round(blocks * threads / 32 / WARPS[cc[:2]], 4),
    }


def tile_of(problem, pixels=None):
    """The tile of a problem that has blocks for every multiprocessor, or the same of so many pixels."""
    found = tiling.choose(problem, 1)
    return found if pixels is None else dataclasses.replace(found, pixels=pixels)


def wide_of(itemsize, sums):
    """The tile of so many sums a thread that takes least time for a gradient on one multiprocessor."""
    problem = GRADIENT.problem(np.float32 if itemsize == 4 else np.float64)
    found = [one for one in wide_geometry.geometries(problem) if (one.rows, one.columns) == sums and one.groups == 8]
    return max(found, key=lambda one: one.planes)


def kernel_of(layer):
    """(function, signature, threads, resident blocks) of a named layer's kernel."""
    if layer in WIDE:
        itemsize, sums = WIDE[layer]
        kernel = wide_tile.build(wide_of(itemsize, sums))
        real = float32 if itemsize == 4 else float64
        return kernel.py_func, wide_signature(real), tiling.THREADS, wide_of(itemsize, sums).resident
    case, dtype, real = {**LAYERS, **STRIPS, **DOUBLES, **FEW_PIXELS}[layer], np.float32, float32
    if layer in DOUBLES:
        dtype, real = np.float64, float64
    if layer.startswith("1x1 stride 1"):
        case = Case("", (1, 64, 32 * 32), (64, 64, 1))
    problem = case.problem(dtype)
    if problem.in_channels == problem.groups:
        kernel = strip.build(strip_geometry.choose(problem))
        return kernel.py_func, signature(real, real), tiling.THREADS, strip.RESIDENT
    kernel = tile.build(tile_of(problem, 4 if layer in FEW_PIXELS else None))
    return kernel.py_func, signature(real, float64), tiling.THREADS, tiling.RESIDENT


def measure():
    """Every static figure, by compute capability and layer."""
    found = {"toolkit": toolkit()}
    for cc in GATED:
        found[f"{cc[0]}.{cc[1]}"] = {
            layer: figures(ptx_device.compile_ptx(*kernel_of(layer), cc), cc)
            for layer in (*LAYERS, *STRIPS, *DOUBLES, *FEW_PIXELS, *WIDE)
        }
    return found


if __name__ == "__main__":
    FIGURES.write_text(json.dumps(measure(), indent=1) + "\n")
    sys.stdout.write(FIGURES.read_text())
