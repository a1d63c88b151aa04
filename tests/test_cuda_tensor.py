"""TF32 on tensor cores: products of factors rounded once, asked for by an `rtol`, in PTX that the interpreter knows."""

from __future__ import annotations

import re

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
from numconv.cuda import records, tensor, tensor_core, tensor_tile
from numconv.cuda.kernels import Memory
from numconv.machine import gpu_machine, typical_gpu
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
MACHINE = gpu_machine(typical_gpu((9, 0)))
BLOCKS = (*tensor.BY_WARPS, *tensor.BY_GROUPS)
# Instructions of a warp for a step.
ISSUED = dict(zip(BLOCKS, (300, 202, 190), strict=True))
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


@pytest.mark.parametrize(("case", "parts"), [("3x3", 1), ("3x3", 3), ("groups", 2), ("volume", 3)])
@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_blocks_and_parts_give_the_same_but_for_the_order(device, monkeypatch, case, parts, block):
    case = next(one for one in SEVERAL if one.name == case)
    problem = case.problem(np.float32)
    x, weight, bias = arrays(problem)
    monkeypatch.setattr(tensor, "choose", lambda *_: (block, parts, 1))
    function = FUNCTIONS[problem.rank]
    found = function(there(x), there(weight), there(bias), **case.options, method="tensor").copy_to_host()
    assert_matches(problem, found, (problem.taps + 9 + parts) * 2.0**-23, tf32(x), tf32(weight), bias)


def test_channels_that_take_turns_meet_all_taps(device):
    # Thirty-two go through all taps, then the rest.
    problem = Case("", (1, 50, 5, 6), (9, 50, 2, 3), {"padding": 1}).problem(np.float32)
    x, weight, _ = arrays(problem)
    found = nc.conv2d(there(x), there(weight), padding=1, method="tensor").copy_to_host()
    assert_matches(problem, found, (problem.taps + 9) * 2.0**-23, tf32(x), tf32(weight), None)


def test_few_outputs_of_many_taps_are_shared_out():
    def chosen(*shapes, scratch=1 << 24, **options):
        return tensor.choose(Case("", *shapes, options).problem(np.float32), True, 132, scratch)

    # As many images at a time as scratch holds records of.
    assert chosen((32, 64, 56, 56), (64, 64, 3, 3), padding=1)[1:] == (1, 16)
    assert chosen((1, 512, 7, 7), (512, 512, 3, 3), padding=1)[1] >= 8
    assert chosen((1, 512, 7, 7), (512, 512, 3, 3), scratch=0)[1:] == (1, 1)
    # A sum is truncated so often at most, whatever scratch says.
    assert chosen((1, 32, 256, 256), (1, 32, 255, 255), scratch=0)[1] == -(-(255**2) // tensor.MOST_STEPS)


def test_scratch_holds_records_and_sums_and_a_workspace_bounds_it(device, monkeypatch):
    taken = []

    def room(size, dtype, stream):
        taken.append(4 * size)
        return Memory.of(DeviceArray(np.zeros(size, np.dtype(dtype))))

    monkeypatch.setattr(tensor, "allocate", room)
    x, weight = ptx_device.normal(3, 40, 6, 6), ptx_device.normal(5, 40, 3, 3)
    problem = Case("", x.shape, weight.shape).problem(np.float32)
    of_an_image = 4 * records.size(problem, 1)
    for scratch in (None, of_an_image, 3 * of_an_image):
        layer = nc.plan(x.shape, weight, device="cuda", method="tensor", workspace=scratch)
        taken.clear()
        layer(there(x))
        assert sum(taken) == layer.scratch_bytes <= (scratch or 1 << 24)
    with pytest.raises(ValueError, match=f"it takes {of_an_image} bytes of scratch at least, over workspace=9"):
        nc.plan(x.shape, weight, device="cuda", method="tensor", workspace=9)


@needs_tools
@pytest.mark.parametrize(
    ("block", "cc"),
    [
        *((block, cc) for block in tensor.BY_WARPS for cc in cuda_static.GATED),
        *((b, (9, 0, "a")) for b in tensor.BY_GROUPS),
    ],
    ids=str,
)
def test_a_kernel_keeps_its_sums_in_registers(block, cc):
    text = compile_ptx(
        tensor_tile.build(block).py_func, cuda_static.tensor_signature(), tensor.THREADS, block.resident, cc
    )
    said, instructions, _ = cuda_static.assemble(text, cc)
    # Of warp groups' products, that they run one behind another.
    assert "serialized" not in said
    assert re.findall(r"(\d+) bytes (?:stack|spill)", said) == ["0"] * 3
    assert int(re.search(r"Used (\d+) registers", said)[1]) <= 65536 // tensor.THREADS // block.resident
    # A step's: four eights, for warps by 16 columns of eight.
    wanted = 4 * block.parts * (1 if block.by_groups else 16)
    assert sum("GMMA" in one or "HMMA" in one for one in instructions) == wanted


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_shares_no_banks_and_fills_its_sectors(monkeypatch, block):
    ptx_device.install(monkeypatch)
    monkeypatch.setattr(tensor, "choose", lambda *_: (block, 1, 1))
    issued = []
    for channels in (32, 64):
        problem = Case("", (1, channels, 4, 32), (block.channels, channels, 3, 3), {"padding": 1}).problem(np.float32)
        x, weight, _ = map(ptx_device.device, arrays(problem))
        out = DeviceArray(np.zeros(int(np.prod(problem.out_shape)), np.float32))
        tensor.run(problem, MACHINE, tensor.prepare(problem, MACHINE, weight, None), x, out, None)
        for counts in (tensor_tile.build(block).counts, records.build_inputs().counts):
            assert counts.wavefronts == counts.ideal_wavefronts
            for kind, sectors in counts.sectors.items():
                assert sectors <= 1.5 * counts.ideal_sectors[kind], kind
        counts, steps = tensor_tile.build(block).counts, 9 * channels // 32
        # Of each of four warps: its products, or the group's with what waits for them.
        if block.by_groups:
            assert counts.instructions["wgmma"] == 4 * steps * 7 * block.parts
        else:
            assert counts.instructions["mma"] == 4 * steps * 64 * block.parts
        # But for what ptxas mostly removes.
        issued.append(sum(n for name, n in counts.instructions.items() if name not in ("mov", "cvt", "cvta")))
    assert issued[1] - issued[0] <= 4 * 9 * ISSUED[block]


@pytest.mark.parametrize(
    ("shown", "ended", "what"),
    [(False, True, "was not shown by a fence"), (True, False, "is read before its products end"), (True, True, None)],
)
def test_what_warp_groups_read_was_shown_to_them_and_their_sums_are_waited_for(shown, ended, what):
    def kernel(out):
        window = cuda.shared.array(4096, np.uint32, alignment=1024)
        sums = cuda.local.array(64, np.float32)
        factors = cuda.local.array(16, np.uint32)
        for i in range(64):
            sums[i] = np.float32(2)
        for i in range(16):
            factors[i] = np.uint32(0)
        for i in range(32):
            window[np.uint32(128 * i) + np.uint32(cuda.threadIdx.x)] = np.uint32(0)
        if shown:
            tensor_core.show_copies()
        cuda.syncthreads()
        tensor_core.start_products(sums, 0, factors, 0, tensor_core.described(window))
        if ended:
            tensor_core.end_products(sums, 0)
        out[cuda.threadIdx.x] = sums[0]

    array = DeviceArray(np.ones(128, np.float32))
    found = Kernel(compile_ptx(kernel, signature([array]), 128, 1, (9, 0, "a")))
    if what is None:
        found.launch((1,), 128, [array.array])
        assert (array.array == 2).all()
        return
    with pytest.raises(Fault, match=what):
        found.launch((1,), 128, [array.array])


@pytest.mark.parametrize(("broken", "what"), [("parted", "a warp's threads parted"), ("wide", "an operand is no TF32")])
def test_a_broken_product_is_caught(broken, what):
    parted = broken == "parted"

    def kernel(x, out):
        thread = np.uint32(cuda.threadIdx.x)
        value = x[thread]
        word = tensor_core.rounded(value) if parted else np.uint32(thread + 1)
        if thread < 16 or not parted:
            sums = tensor_core.multiplied(word, word, word, word, word, word, value, value, value, value)
            out[thread] = sums[0]

    array = DeviceArray(np.ones(32, np.float32))
    text = compile_ptx(kernel, signature([array, array]), 32, 1)
    with pytest.raises(Fault, match=what):
        Kernel(text).launch((1,), 32, [array.array, array.array.copy()])
