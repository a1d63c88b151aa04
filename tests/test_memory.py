"""No call takes more than a quarter of its input and output and 16 MiB beside them; `workspace=` allows less."""

from __future__ import annotations

import dataclasses
import itertools
import math
import platform
import signal
import tracemalloc

import numpy as np
import pytest
import signalling_scratch
from conftest import run_alone

import numconv as nc
from numconv import jit
from numconv.cpu.overlap import SPECTRUM_BYTES
from numconv.machine import machine
from numconv.method import allowed_scratch
from numconv.methods import methods as table
from numconv.testing import CASES, EDGES, FILTERS, RESNET50, Case, arrays

MIB = 1 << 20
LARGE = (
    Case("batch", (16, 64, 56, 56), (64, 64, 3, 3), {"padding": 1}),
    Case("VGG", (1, 256, 56, 56), (256, 256, 3, 3), {"padding": 1}),
    Case("4K", (1, 3, 2160, 3840), (16, 3, 3, 3), {"padding": 1}),
    Case("31x31", (1, 64, 256, 256), (64, 64, 31, 31), {"padding": 15}),
    Case("volume", (1, 16, 64, 64, 64), (16, 16, 3, 3, 3), {"padding": 1}),
    Case("signal", (1, 64, 1_000_000), (64, 64, 9)),
    Case("many channels", (1, 2048, 7, 7), (2048, 2048, 3, 3), {"padding": 1}),
    Case("far apart", (1, 2, 4, 200_000), (1, 2, 3, 3), {"dilation": (1, 90_000)}),
    Case("strip", (1, 3, 3, 10**7), (4, 3, 3, 3)),
)
PLANES = (
    Case("4K filter", (1, 1, 2160, 3840), (1, 1, 5, 5)),
    Case("planes", (2, 3, 200, 60), (6, 1, 3, 3), {"groups": 3, "padding": 1}),
    Case("planes of another kernel", (1, 2, 200, 60), (2, 1, 4, 6), {"groups": 2, "padding": 1}),
    Case("planes of rank 1", (1, 1, 300, 300), (1, 1, 9, 9), rank_one=True),
    Case("wide planes", (1, 32, 100, 10_000), (32, 1, 7, 7), {"groups": 32, "padding": 3}),
)

TRANSFORMS = ("fft", "fft32")

methods = pytest.mark.parametrize("method", table(), ids=lambda method: method.NAME)


@methods
@pytest.mark.parametrize("threads", [1, 2, 16, 64])
def test_scratch_is_a_quarter_of_input_and_output_and_16_mib_at_most(method, threads):
    over = []
    everywhere = [(case, "NCHW") for case in (*EDGES, *RESNET50, *FILTERS, *LARGE, *PLANES)]
    for case, layout in everywhere + [(case, "NHWC") for case in (*LARGE, *PLANES)]:
        for dtype in ("float32", "float64"):
            problem = dataclasses.replace(case.problem(dtype), layout=layout)
            moved = sum(math.prod(shape) for shape in (problem.x_shape, problem.out_shape)) * np.dtype(dtype).itemsize
            if method.why_not(problem, machine(threads)) is None:
                scratch = method.scratch_bytes(problem, machine(threads))
                over += [f"{problem}: {scratch}"] * (scratch > moved / 4 + 16 * MIB)
    assert not over


def peak(call):
    """Bytes allocated at most during a call that is not the first, as NumPy and Python tell tracemalloc."""
    call()
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@methods
@pytest.mark.parametrize("name", ["1x1 64->256 at 56", "3x3 64 at 56", "1x1 groups", "3x3 filter at 1024"])
def test_a_call_allocates_no_more_than_that(method, name):
    problem, on = CASES[name].problem(np.float32), machine(jit.threads())
    if method.why_not(problem, on) is not None:
        return
    x, weight, bias = arrays(problem)
    out, options = np.empty(problem.out_shape, np.float32), {**CASES[name].options, "method": method.NAME}
    planned = nc.plan(x.shape, weight, bias, **options)
    allowed = allowed_scratch(problem, on)
    small = 1 << 16
    assert peak(lambda: nc.conv2d(x, weight, bias, out=out, **options)) <= allowed + planned.prepared_bytes + small
    # scipy.fft takes memory of its own, which counts as scratch.
    own = planned.scratch_bytes if method.NAME in TRANSFORMS else 0
    assert peak(lambda: planned(x)) <= out.nbytes + small + own, "a plan's second call takes the scratch of the first"
    assert planned.scratch_bytes <= allowed


@pytest.mark.parametrize("dtype", ["float32", "int64"])
@pytest.mark.parametrize("options", [{}, {"padding": 3, "padding_mode": "reflect"}, {"method": "loops"}], ids=str)
def test_a_long_signal_leaves_nothing_behind(options, dtype):
    """Tables as long as an axis took eight times the memory of the signal itself, and stayed there."""
    weight, sizes = np.ones((1, 1, 9), dtype), range(2_000_000, 2_000_003)
    nc.conv1d(np.ones((1, 1, 1_000_000), dtype), weight, **options)
    tracemalloc.start()
    try:
        for size in sizes:
            nc.conv1d(np.ones((1, 1, size), dtype), weight, **options)
        held, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    moved = 2 * sizes[-1] * np.dtype(dtype).itemsize
    assert held < MIB
    assert most < moved * 5 // 4 + 16 * MIB


def test_the_peak_sees_what_a_call_allocates():
    assert peak(lambda: np.ones(MIB, np.uint8) + 1) >= 2 * MIB


@methods
def test_prepared_weights_are_a_tenth_larger_at_most(method):
    for case in (*EDGES, *RESNET50[:12]):
        problem = case.problem(np.float32)
        if method.why_not(problem, machine(2)) is None:
            _, weight, bias = arrays(problem)
            parts = method.prepare(problem, machine(2), weight, bias)
            held = sum(part.nbytes for part in parts if isinstance(part, np.ndarray))
            # Beside the weights lie the bias and room for a vector.
            # Transformed weights come beside the weights.
            most = {"winograd": 36 / 9 + 1, "winograd2": 16 / 9 + 1}.get(method.NAME, 1.1)
            spectra = SPECTRUM_BYTES if method.NAME in TRANSFORMS else 0
            assert held <= most * weight.nbytes + 4 * problem.out_channels + 64 + spectra


@pytest.mark.parametrize(
    ("method", "name"),
    [
        *itertools.product(("tiled", "loops"), ("odd channels", "segments by channel", "1x1 tall", "3-D")),
        ("depthwise", "planes"),
        ("depthwise", "planes of another kernel"),
        ("separable", "planes of rank 1"),
    ],
)
def test_less_workspace_means_smaller_blocks_and_the_same_bits(method, name):
    module = next(module for module in table() if method == module.NAME)
    case = {**CASES, **{case.name: case for case in PLANES}}[name]
    problem = case.problem(np.float32)
    data, options = arrays(problem), {**case.options, "method": method}
    function = {2: nc.conv2d, 3: nc.conv3d}[problem.rank]
    threads, expected = jit.threads(), function(*data, **options)
    least = module.scratch_bytes(problem, machine(threads, 0))
    most = module.scratch_bytes(problem, machine(threads))
    assert least < most
    for workspace in (least, (least + most) // 2, most - 1):
        assert module.scratch_bytes(problem, machine(threads, workspace)) <= workspace
        np.testing.assert_array_equal(function(*data, **options, workspace=workspace), expected)
        planned = nc.plan(data[0].shape, *data[1:], **options, workspace=workspace)
        assert planned.scratch_bytes <= workspace
        np.testing.assert_array_equal(planned(data[0]), expected)


def test_explain_shows_what_the_workspace_refuses():
    arguments, options = (nc.conv2d, (1, 64, 56, 56), (64, 64, 3, 3)), {"padding": 1}
    least = table()[-1].scratch_bytes(nc.explain(*arguments, **options).problem, machine(jit.threads(), 0))
    free, tight = nc.explain(*arguments, **options), nc.explain(*arguments, **options, workspace=least - 1)
    before, after = ({c.name: c for c in found.candidates} for found in (free, tight))
    assert (before["loops"].refusal, after["tiled"].refusal) == (None, None)
    assert after["loops"].refusal == f"it takes {least} bytes of scratch at least, over workspace={least - 1}"
    assert after["tiled"].scratch_bytes < least < before["tiled"].scratch_bytes
    assert tight.chosen == "tiled"


def test_a_plan_serves_any_number_of_threads_by_the_weights_it_packed(set_threads):
    # By threads, tiles of pixels or of channels are chosen, and only one of them wants packed weights.
    problem = CASES["1x1 512->128 at 28"].problem(np.float32)
    x, weight, _ = arrays(problem)
    most = jit.threads()
    results = []
    for planned_for in (1, most):
        set_threads(planned_for)
        planned = nc.plan(x.shape, weight, method="tiled")
        for threads in (1, most):
            set_threads(threads)
            results.append(planned(x))
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


traps = pytest.mark.skipif(
    platform.machine() != "x86_64" or platform.libc_ver()[0] != "glibc", reason="traps are set as glibc on x86-64 does"
)


@traps
@pytest.mark.parametrize("method", [name for name in signalling_scratch.METHODS if name not in TRANSFORMS])
def test_what_lay_in_scratch_goes_through_no_sum(method):
    """Subnormal numbers there had winograd take up to a hundred times as long. FFTs have room beside their rows."""
    code, last, errors = run_alone(signalling_scratch.__file__, method)
    assert (code, last) == (0, "done"), errors[-2000:]


@traps
def test_a_number_that_is_read_traps():
    code, last, _ = run_alone(signalling_scratch.__file__, "tiled", "read")
    assert (code, last.split(" [")[0]) == (-signal.SIGFPE, "tiled pixels")
