"""`info`: what numconv runs on, to put into a report."""

from __future__ import annotations

import argparse
import ctypes
import importlib.metadata
import importlib.util
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

from .. import __version__, conv2d, explain, jit, peaks
from ..cpu import direct
from ..cpu.blas import blas_name, find_blas
from ..machine import PROFILE, machine, profile_path, typical_gpu
from ..profile import Profile

NAME = "info"
SUMMARY = "tell the versions, the processor, the threads, the BLAS, the caches, the profile and the measured peaks"
EXAMPLE = "python -m numconv info"

PACKAGES = ("numpy", "numba", "llvmlite", "scipy", "rich", "matplotlib", "scikit-image")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There is nothing to choose."""


def run(args: argparse.Namespace) -> int:
    """Print one fact a line."""
    for name, value in (facts(peaks.measure()) | calibrated()).items():
        print(f"{name:16}{value}")
    return 0


def facts(measured: peaks.Peaks) -> dict[str, str]:
    """Everything that a time depends on, in words."""
    on = machine(jit.threads())
    held = "its threads are held while numconv's work" if find_blas() else "its threads cannot be held"
    return {
        "numconv": __version__,
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "packages": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
        "processor": f"{on.cpu}, vectors of {8 * on.vector_bytes} bits, {'with' if on.has_fma else 'without'} FMA",
        "threads": f"{on.threads}, numba's {jit.layer()} layer",
        "BLAS": f"{' '.join(blas_name().split())}; {held}",
        "kernel cache": kernel_cache(),
        "data caches": ", ".join(f"L{level} {size >> 10} KiB" for level, size in enumerate(on.caches, 1)),
        "CUDA": cuda(),
        "FMA peak": f"{measured.flops / 1e9:.0f} GFLOP/s, float32, measured",
        "memory peak": f"{measured.bandwidth / 1e9:.1f} GB/s, read and written by a copy, measured",
    }


def calibrated() -> dict[str, str]:
    """The profile that the planner goes by, or that there is none."""
    found, path = machine(jit.threads()).profile, profile_path()
    if path is None:
        return {"profile": f"none is read, for {PROFILE} is 'off': typical rates"}
    if found is None:
        return {"profile": f"none in {path} that fits: typical rates, until `python -m numconv calibrate`"}
    return {"profile": f"in use, from {path}", **{f"  {name}": value for name, value in rates(found).items()}}


def rates(profile: Profile) -> dict[str, str]:
    """A profile's figures in words."""
    pairs = {
        "FMA": (profile.flops, "GFLOP/s"),
        "memory": (profile.bandwidth, "GB/s"),
        "cache": (profile.cache_bandwidth, "GB/s"),
    }
    threads = profile.key.threads
    found = {
        name: f"{one / 1e9:.3g} {unit} of one thread, {every / 1e9:.3g} of {threads}"
        for name, ((one, every), unit) in pairs.items()
    }
    found["launch"] = f"{profile.launch * 1e6:.1f} us"
    for method, kind, share in profile.efficiencies:
        found[method] = ", ".join(filter(None, (found.get(method), f"{kind} {share:.0%}")))
    return found


def version(package: str) -> str:
    """Its version, or that it is not there."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def kernel_cache() -> str:
    """Where numba keeps the compiled kernels, and whether it can."""
    kernel: Any = direct.correlate
    folder = kernel.compiled.stats.cache_path
    if folder is None:
        return "none: no folder to write to, so kernels are compiled in every process"
    try:
        # On a read-only file system, as root, the permission bits do not tell.
        with tempfile.TemporaryFile(dir=folder):
            return f"{folder}, writable"
    except OSError:
        return f"{folder}, not writable" if Path(folder).is_dir() else f"{folder}, not there yet"


def cuda() -> str:
    """Whether calls with device="cuda" can run here, and what the model expects of a typical GPU."""
    if importlib.util.find_spec("numba_cuda") is None:
        here = "numba-cuda is not installed (the extra `cuda`)"
    else:
        try:
            ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
            here = f"numba-cuda {version('numba-cuda')} and an NVIDIA driver are here"
        except OSError:
            here = f"numba-cuda {version('numba-cuda')} is here, an NVIDIA driver is not"
    gpu = typical_gpu((9, 0))
    layer = explain(conv2d, (256, 64, 56, 56), (64, 64, 3, 3), padding=1, device="cuda", cc=gpu.cc)
    best = next(one for one in layer.candidates if one.name == layer.chosen)
    rate = layer.problem.flops / (best.seconds or 1.0)
    predicted = f"3x3 64 at 56 on an {gpu.name} {rate / 1e12:.0f} TFLOP/s"
    return f"{here}; predicted by a model fitted on an H100, not measured: {predicted}"
