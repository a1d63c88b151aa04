"""Processors with narrower vectors, and one without fused multiply-adds, give the bits of this one.

Numba is told, in a process each, that it compiles for another processor. All of them run at once.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import bits
import golden
import llvmlite.binding
import pytest
from conftest import PACKAGE

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the processors are those of x86-64")

AVX2 = "+64bit,+cmov,+cx8,+fxsr,+mmx,+sse,+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+avx,+avx2,+fma,+f16c,+bmi,+bmi2"
# Name: numba's name and features, the machine (bytes of a vector, whether it fuses), and what to run. Vectors of 128
# bits that fuse are those of arm64; here they are a processor that is said to fuse and not said to have AVX.
PROCESSORS = {
    "AVX2": ("haswell", AVX2, [32, True], "tiled:float32 tiled:float64 depthwise:float32 planar:float32"),
    "128 bits": ("x86-64", "+fma", [16, True], "tiled:float32 depthwise:float64 planar:float64"),
    "without FMA": ("x86-64", "+sse2", [16, False], "loops:float32 loops:complex64"),
}


@pytest.fixture(scope="module")
def reports():
    """What each processor reports."""
    here = {name for name, present in llvmlite.binding.get_host_cpu_features().items() if present}
    if not {"avx2", "fma"} <= here:
        pytest.skip("this processor has no AVX2 or FMA to compile for")
    # glibc's fma, too, is to be that of a processor without: the one in software.
    without = {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-FMA,-FMA4,-AVX2"}
    running = {
        name: subprocess.Popen(
            [sys.executable, bits.__file__, *wanted.split()],
            env={
                **os.environ,
                "PYTHONPATH": str(PACKAGE.parent),
                "NUMBA_CPU_NAME": cpu,
                "NUMBA_CPU_FEATURES": features,
                **(without if "fma" not in features else {}),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name, (cpu, features, _, wanted) in PROCESSORS.items()
    }
    found = {}
    for name, process in running.items():
        output, errors = process.communicate()
        found[name] = json.loads(output) if process.returncode == 0 else f"exit {process.returncode}: {errors[-2000:]}"
    return found


@pytest.fixture
def reported(reports, processor):
    """What one of them reports."""
    assert isinstance(reports[processor], dict), reports[processor]
    return reports[processor]


processors = pytest.mark.parametrize("processor", PROCESSORS)


@processors
def test_the_machine_is_what_numba_compiles_for(reported, processor):
    assert reported["machine"] == PROCESSORS[processor][2]


@pytest.mark.parametrize(
    ("processor", "pair"), [(name, pair) for name, (*_, wanted) in PROCESSORS.items() for pair in wanted.split()]
)
def test_every_width_gives_the_golden_bits(reported, processor, pair):
    served, wrong = reported["golden"][pair]
    method, _, dtype = pair.partition(":")
    cases = golden.problems(dtype)
    few = {"depthwise": golden.PLANES, "planar": [name for name in cases if "in lanes" in name]}
    assert served >= len(few.get(method, cases))
    assert wrong == []


@processors
def test_no_tile_spills_at_any_width(reported, processor):
    assert reported["spills"] == []


def test_without_fma_the_tiles_refuse_and_loops_serve(reports):
    refusals = reports["without FMA"]["refusals"]
    assert refusals["tiled"] == refusals["depthwise"] == "the processor has no fused multiply-add for vectors"
    assert refusals["loops"] is None
