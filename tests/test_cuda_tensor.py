"""TF32 on tensor cores: products of factors rounded once, asked for by an `rtol`, in PTX that the interpreter knows."""

from __future__ import annotations

import pytest

pytest.importorskip("numba_cuda", reason="the extra `cuda` is not installed")

import cuda_static
import numpy as np
import ptx_device
from numba import cuda
from ptx import Kernel
from ptx_device import DeviceArray, compile_ptx, signature, there
from ptx_memory import Fault

import numconv as nc
from numconv.cuda import tensor
from numconv.testing import CASES, Case, arrays, assert_matches

FUNCTIONS = {1: nc.conv1d, 2: nc.conv2d, 3: nc.conv3d}
SEVERAL = (
    # Two blocks of pixels and of channels, the last of each not full.
    Case("3x3", (1, 9, 9, 20), (70, 9, 3, 3), {"padding": 1, "activation": "relu"}, bias=True),
    Case("groups", (2, 6, 7, 8), (8, 3, 3, 2), {"groups": 2, "stride": (2, 1), "dilation": 2, "padding": 2}, bias=True),
    Case("constant", (1, 3, 6, 7), (5, 3, 3, 3), {"padding": 1, "padding_mode": "constant", "padding_value": 3}),
    Case("volume", (1, 2, 3, 4, 5), (3, 2, 2, 3, 3), {"padding": 1, "padding_mode": "circular"}),
    CASES["1-D 1x1"],
    CASES["no input channels"],
)
needs_tools = pytest.mark.skipif(not cuda_static.tools(), reason="ptxas and nvdisasm are not installed: cuda-test")


@pytest.fixture
def device(monkeypatch):
    """The interpreted device."""
    ptx_device.install(monkeypatch)


def tf32(array):
    """The nearest numbers of ten bits behind the first, half away from zero."""
    return ((array.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)


@pytest.mark.parametrize("case", SEVERAL, ids=lambda case: case.name)
def test_sums_are_those_of_the_rounded_factors(device, case):
    problem = case.problem(np.float32)
    x, weight, bias = arrays(problem)
    function = FUNCTIONS[problem.rank]
    found = function(there(x.reshape(case.x_shape)), there(weight), there(bias), **case.options, method="tensor")
    found = found.copy_to_host().reshape(problem.out_shape)
    adding = (problem.taps + 9) * 2.0**-23
    assert_matches(problem, found, adding, tf32(x), tf32(weight), bias)
    assert_matches(problem, found, tensor.error_bound(problem), x, weight, bias)


def test_nan_and_inf_stay_where_direct_sums_have_them(device):
    case = CASES["padding"]
    problem = case.problem(np.float32)
    x, weight, _ = arrays(problem)
    x[0, 0, 0, 0], x[0, 1, 2, 3], weight[1, 0] = np.nan, np.inf, np.inf
    found = nc.conv2d(there(x), there(weight), **case.options, method="tensor").copy_to_host()
    expected = nc.conv2d(x, weight, **case.options, method="loops")
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_array_equal(found[np.isinf(expected)], expected[np.isinf(expected)])


def test_an_rtol_lets_it_in_and_nothing_else_does():
    def chosen(cc=(9, 0), **options):
        return nc.explain(nc.conv2d, (64, 64, 56, 56), (64, 64, 3, 3), padding=1, device="cuda", cc=cc, **options)

    assert chosen(rtol=2e-3).chosen == chosen(method="tensor").chosen == "tensor"
    assert chosen().chosen == chosen(rtol=5e-4).chosen == chosen(rtol=2e-3, reproducible=True).chosen == "tiled"
    assert chosen((7, 5), rtol=2e-3).chosen == "tiled"
    with pytest.raises(ValueError, match=r"T4 multiplies no TF32: that takes compute capability 8\.0"):
        chosen((7, 5), method="tensor")


@needs_tools
@pytest.mark.parametrize("cc", cuda_static.GATED, ids=str)
def test_a_kernel_keeps_its_sums_in_registers(cc):
    text = compile_ptx(tensor.build().py_func, cuda_static.loops_signature(), tensor.THREADS, tensor.RESIDENT, cc)
    figures = cuda_static.figures(text, cc)
    assert figures["stack"] == figures["spills"] == figures["local"] == 0
    assert figures["registers"] <= 128
    assert figures["occupancy"] >= 0.25
    _, instructions, _ = cuda_static.assemble(text, cc)
    assert sum("HMMA" in one for one in instructions) == 16


def test_a_block_shares_no_banks_and_fills_its_sectors(monkeypatch):
    ptx_device.install(monkeypatch)
    issued = []
    for channels in (16, 32):
        problem = Case("", (1, channels, 4, 32), (64, channels, 3, 3), {"padding": 1}).problem(np.float32)
        x, weight, _ = map(ptx_device.device, arrays(problem))
        out = DeviceArray(np.zeros(int(np.prod(problem.out_shape)), np.float32))
        tensor.run(problem, None, tensor.prepare(problem, None, weight, None), x, out, None)
        counts = tensor.build().counts
        # Four warps, 16 products each for every tap and eight channels.
        assert counts.instructions["mma"] == 4 * 16 * 9 * channels // 8
        assert counts.wavefronts == counts.ideal_wavefronts
        for kind, sectors in counts.sectors.items():
            assert sectors <= 1.5 * counts.ideal_sectors[kind], kind
        # But for what ptxas mostly removes.
        issued.append(sum(n for name, n in counts.instructions.items() if name not in ("mov", "cvt", "cvta")))
    assert issued[1] - issued[0] <= 4 * 18 * tensor.ISSUED


@pytest.mark.parametrize(("broken", "what"), [("parted", "a warp's threads parted"), ("wide", "an operand is no TF32")])
def test_a_broken_product_is_caught(broken, what):
    parted = broken == "parted"

    def kernel(x, out):
        thread = np.uint32(cuda.threadIdx.x)
        value = x[thread]
        word = tensor.rounded(value) if parted else np.uint32(thread + 1)
        if thread < 16 or not parted:
            sums = tensor.multiplied(word, word, word, word, word, word, value, value, value, value)
            out[thread] = sums[0]

    array = DeviceArray(np.ones(32, np.float32))
    text = compile_ptx(kernel, signature([array, array]), 32, 1)
    with pytest.raises(Fault, match=what):
        Kernel(text).launch((1,), 32, [array.array, array.array.copy()])
