"""Every kernel of the GPU, as the PTX that numba emits, gives the CPU's bits; see ptx.py for what else is checked."""

from __future__ import annotations

import pytest

pytest.importorskip("numba_cuda", reason="the extra `cuda` is not installed")

import numpy as np
import ptx_device
from ptx_device import assert_same_bits, normal, there

import numconv as nc
import numconv.problem
from numconv.cuda import launch
from numconv.machine import gpu_machine, typical_gpu
from numconv.methods import cuda_methods
from numconv.testing import CASES, Case, arrays

FUNCTIONS = {1: nc.conv1d, 2: nc.conv2d, 3: nc.conv3d}
GPU = gpu_machine(typical_gpu(ptx_device.CC))
# One of each option; a tile is compiled for each geometry, so those of `tiled` are chosen to share few.
LOOPS = (
    "one element", "relu", "no batch", "stride and dilation", "padding by side", "padding over kernel", "reflect",
    "replicate", "circular", "constant", "symmetric", "reflect beyond the input", "groups", "depthwise times two",
    "odd channels", "1x1 bias relu", "empty batch", "no input channels", "no output channels",
    "1-D reflect", "3-D", "3-D circular",
)  # fmt: skip
CONSTANT = {"padding": ((1, 2), (3, 1)), "padding_mode": "constant"}
TILED = (
    Case("3x3", (2, 5, 6, 35), (11, 5, 3, 3), {"padding": 1, "activation": "relu"}, bias=True),
    Case("3x3 groups", (1, 6, 9, 10), (20, 3, 3, 3), {"groups": 2, "padding": 1, "padding_mode": "reflect"}),
    Case("3x3 stride", (1, 3, 12, 13), (70, 3, 3, 3), {"stride": 2, "padding": ((1, 0), (2, 1))}, bias=True),
    Case("dilated phases", (1, 3, 12, 30), (5, 3, 2, 4), {"stride": (1, 2), "dilation": (2, 3), "padding": 3}),
    Case("large kernel", (1, 2, 9, 12), (9, 2, 5, 5), {"padding": "same", "padding_mode": "circular"}, bias=True),
    Case("wide row", (1, 2, 40), (9, 2, 11), {"padding": "full"}, bias=True),
    Case("volume", (1, 2, 4, 5, 6), (9, 2, 2, 3, 3), {"padding": 1, "stride": (1, 2, 1)}, bias=True),
    Case("1x1 strided", (1, 5, 7, 9), (9, 5, 1, 1), {"stride": 2, "padding": 1}, bias=True),
    Case("constant", (2, 3, 6, 35), (11, 3, 3, 3), {**CONSTANT, "padding_value": -2}, bias=True),
    CASES["no input channels"],
    CASES["no output channels"],
)
MATMUL = (CASES["1x1 groups"], CASES["1-D 1x1"], CASES["1x1 tall"], CASES["1x1 wide"])
DEPTHWISE = (
    Case("3x3", (2, 5, 9, 20), (5, 1, 3, 3), {"groups": 5, "padding": 1, "activation": "relu"}, bias=True),
    Case("times two", (1, 3, 9, 21), (6, 1, 3, 4), {"groups": 3, "stride": 2, "padding": ((1, 0), (2, 3))}, bias=True),
    Case("filter", (1, 1, 40, 70), (1, 1, 7, 7), {"padding": 3, "padding_mode": "reflect"}),
    Case("dilated", (1, 2, 12, 13), (2, 1, 3, 3), {"groups": 2, "dilation": (2, 3), "stride": (1, 2), "padding": 4}),
    Case("line", (2, 3, 50), (3, 1, 11), {"groups": 3, "padding": "same", "padding_mode": "circular"}),
    Case("constant", (2, 5, 9, 20), (5, 1, 3, 3), {**CONSTANT, "padding_value": 3, "groups": 5}),
    Case("slices", (1, 2, 3, 5, 6), (2, 1, 1, 3, 3), {"groups": 2, "padding": 1, "stride": (2, 1, 1)}, bias=True),
)
WIDE = (
    Case("slices", (1, 3, 9, 8, 9), (11, 3, 1, 7, 8), {"padding": (0, 1, 1), "activation": "relu"}, bias=True),
    Case("slices stride", (1, 2, 5, 9, 12), (3, 2, 1, 4, 5), {"stride": (2, 1, 2), "dilation": (1, 2, 1)}, bias=True),
    Case("images", (3, 2, 9, 12), (5, 2, 8, 9), {"padding": ((1, 0), (2, 1)), "stride": (1, 2)}, bias=True),
    Case("groups", (2, 6, 9, 9), (4, 3, 3, 4), {"groups": 2, "dilation": 2, "padding": 1, "padding_mode": "reflect"}),
    Case("volume", (1, 2, 3, 6, 7), (3, 2, 2, 5, 6), {"padding": 1, "dilation": (2, 1, 1)}, bias=True),
    Case("volumes", (2, 1, 4, 5, 6), (3, 1, 3, 4, 5), {"padding": (1, 0, 0)}),
    Case("line", (2, 3, 40), (5, 3, 35), {"padding": 2, "padding_mode": "circular"}, bias=True),
    Case("constant", (2, 3, 6, 7), (3, 3, 5, 6), {**CONSTANT, "padding_value": -2}, bias=True),
)
# Where sums start afresh, every 36 products instead of 8192: tiled in rounds of stores, loops by its two counters.
SEGMENT = 36
SEGMENTS = (
    ("tiled", Case("segments", (1, 21, 2, 3), (3, 21, 2, 2), {"padding": 1}, bias=True)),
    ("matmul", Case("segments 1x1", (2, 75, 1, 2), (3, 75, 1, 1), {"activation": "relu"}, bias=True)),
    ("wide", Case("segments wide", (2, 7, 4, 6), (9, 7, 3, 4), {"padding": 1, "activation": "relu"}, bias=True)),
    ("wide", Case("segments of rows", (2, 2, 9, 11), (3, 2, 7, 8), {"stride": 2}, bias=True)),
    ("loops", Case("segments by channel", (1, 21, 4, 5), (3, 21, 2, 2), bias=True)),
    ("loops", Case("segments by row", (1, 2, 9, 11), (1, 2, 7, 8), {"stride": 2})),
)
# Exact multiply-adds of float64 are slow here, so these are small.
DOUBLES = (
    ("depthwise", Case("planes", (1, 9, 5, 8), (9, 1, 3, 3), {"groups": 9, "padding": 1}, bias=True)),
    ("tiled", Case("3x3", (1, 3, 5, 9), (9, 3, 3, 3), {"padding": 1, "padding_mode": "constant", "padding_value": 3})),
    ("tiled", Case("stride", (1, 2, 7, 20), (3, 2, 2, 5), {"stride": 2, "activation": "relu"}, bias=True)),
    ("matmul", Case("1x1", (2, 5, 4, 5), (11, 5, 1, 1), bias=True)),
    ("wide", Case("images", (3, 2, 6, 7), (5, 2, 5, 6), {"padding": 1}, bias=True)),
    ("depthwise", Case("phases", (1, 1, 11, 20), (1, 1, 2, 3), {"stride": 2, "padding": 1})),
)
DTYPES = ("bool", "int8", "uint16", "int32", "int64", "uint64", "float16", "float64", "complex64")


@pytest.fixture
def device(monkeypatch):
    """The interpreted device."""
    ptx_device.install(monkeypatch)


def on_gpu(problem, data, case, method):
    x, *others = data
    function = FUNCTIONS[problem.rank]
    result = function(there(x.reshape(case.x_shape)), *map(there, others), **case.options, method=method)
    return result.copy_to_host()


def on_cpu(problem, data, case):
    x, *others = data
    return FUNCTIONS[problem.rank](x.reshape(case.x_shape), *others, **case.options, method="loops")


def cases():
    for name in LOOPS:
        yield pytest.param("loops", CASES[name], id=f"loops {name}")
    for case in TILED:
        yield pytest.param("tiled", case, id=f"tiled {case.name}")
    for case in DEPTHWISE:
        yield pytest.param("depthwise", case, id=f"depthwise {case.name}")
    for case in WIDE:
        yield pytest.param("wide", case, id=f"wide {case.name}")
    for case in MATMUL:
        yield pytest.param("matmul", case, id=f"matmul {case.name}")


@pytest.mark.parametrize(("method", "case"), list(cases()))
def test_a_kernel_gives_the_cpus_bits(device, method, case):
    problem = case.problem(np.float32)
    data = arrays(problem)
    assert_same_bits(on_gpu(problem, data, case, method), on_cpu(problem, data, case))


@pytest.mark.parametrize(("method", "case"), SEGMENTS, ids=lambda value: getattr(value, "name", value))
def test_sums_start_afresh_where_the_cpus_do(device, method, case, monkeypatch):
    monkeypatch.setattr(numconv.problem, "SEGMENT", SEGMENT)
    problem = case.problem(np.float32)
    data = arrays(problem)
    assert problem.taps > problem.segments[0]
    assert_same_bits(on_gpu(problem, data, case, method), on_cpu(problem, data, case))


@pytest.mark.parametrize(("method", "case"), DOUBLES, ids=lambda value: getattr(value, "name", value))
def test_a_kernel_gives_the_cpus_bits_in_float64(device, method, case):
    problem = case.problem(np.float64)
    data = arrays(problem)
    assert_same_bits(on_gpu(problem, data, case, method), on_cpu(problem, data, case))


@pytest.mark.parametrize("dtype", DTYPES)
def test_loops_gives_the_cpus_bits_in_every_dtype(device, dtype):
    case = Case("small", (1, 3, 4, 5), (2, 3, 2, 3), {"padding": 1, "stride": 2}, bias=True)
    problem = case.problem(dtype)
    data = arrays(problem)
    assert_same_bits(on_gpu(problem, data, case, "loops"), on_cpu(problem, data, case))


X, Y, Z = normal(2, 4, 5, 6), normal(2, 3, 6, 7), normal(2, 3, 3, 4)
ADJOINTS = {
    "transposed": (nc.conv_transpose2d, (X, normal(4, 3, 3, 4), normal(3)), {"stride": 2, "activation": "relu"}),
    "transposed groups": (nc.conv_transpose2d, (X, normal(4, 3, 2, 2)), {"stride": (1, 2), "groups": 2, "padding": 1}),
    # Outputs that meet no tap are the bias alone.
    "over the kernel": (nc.conv_transpose1d, (normal(2, 4, 3), normal(4, 2, 2), normal(2)), {"stride": 3}),
    "float16": (nc.conv_transpose1d, [normal(1, 2, 5, dtype="f2"), normal(2, 3, 3, dtype="f2")], {"stride": 2}),
    "input": (nc.conv2d_input, ((2, 4, 6, 7), normal(3, 4, 3, 3), Y), {"padding": 1}),
    "input crop": (
        nc.conv2d_input,
        ((2, 3, 6, 7), normal(3, 1, 1, 1), normal(2, 3, 10, 11)),
        {"padding": 2, "groups": 3},
    ),
    "input folded": (
        nc.conv2d_input,
        ((1, 2, 4, 5), normal(3, 2, 3, 3), normal(1, 3, 4, 5)),
        {"padding": 1, "padding_mode": "reflect"},
    ),
    "input folded twice": (
        nc.conv1d_input,
        ((1, 2, 3), normal(3, 2, 3), normal(1, 3, 5)),
        {"padding": 4, "padding_mode": "circular", "stride": 2},
    ),
    "weight": (nc.conv2d_weight, (X, (3, 4, 3, 3), Z), {}),
    # The last row and column meet no window: views of the result.
    "weight trimmed": (
        nc.conv2d_weight,
        (X, (3, 4, 2, 2), normal(2, 3, 3, 4)),
        {"stride": 2, "padding": 1, "padding_mode": "reflect"},
    ),
    "weight groups": (
        nc.conv2d_weight,
        (X, (6, 2, 2, 3), normal(2, 6, 3, 3)),
        {"groups": 2, "padding": 1, "stride": 2, "padding_mode": "circular"},
    ),
    "weight one image": (nc.conv1d_weight, (X[0, :, 0], (4, 2, 3), normal(4, 4)), {"groups": 2}),
    "weight volume": (nc.conv3d_weight, (normal(2, 2, 3, 4, 5), (3, 2, 2, 2, 2), normal(2, 3, 2, 3, 4)), {}),
    "weight conjugate": (
        nc.conv1d_weight,
        [normal(2, 2, 7).astype("c8") * (1 + 2j), (2, 1, 3), normal(2, 2, 5).astype("c8") * 1j],
        {"groups": 2, "conjugate": True},
    ),
}


@pytest.mark.parametrize("name", ADJOINTS)
def test_an_adjoint_gives_the_cpus_bits(device, name):
    function, arguments, options = ADJOINTS[name]
    expected = function(*arguments, **options, method="loops")
    found = function(*(there(one) if isinstance(one, np.ndarray) else one for one in arguments), **options)
    assert_same_bits(found.copy_to_host(), expected)


def test_a_chunk_of_images_runs_by_what_was_prepared_for_all(device, monkeypatch):
    monkeypatch.setattr(launch, "_images", lambda problem: 2)
    x, weight = normal(3, 5, 8, 8), normal(5, 1, 3, 3)
    expected = nc.conv2d(x, weight, groups=5, method="loops")
    assert_same_bits(nc.conv2d(x, weight, groups=5, device="cuda", method="depthwise"), expected)


def test_a_plan_of_an_adjoint_runs_on_the_gpu(device):
    x, weight, bias = X, normal(4, 3, 3, 3), normal(3)
    layer = nc.plan(x.shape, weight, bias, op="transpose", stride=2, device="cuda")
    expected = nc.conv_transpose2d(x, weight, bias, stride=2, method="loops")
    assert_same_bits(layer(there(x)).copy_to_host(), expected)
    assert_same_bits(layer(x), expected)
    assert layer.prepared_bytes > 0
    gradient = nc.plan(Y.shape, normal(3, 4, 3, 3), op="input", size=(2, 4, 6, 7), padding=1, device="cuda")
    assert_same_bits(gradient(Y), nc.conv2d_input((2, 4, 6, 7), normal(3, 4, 3, 3), Y, padding=1, method="loops"))
    gradient = nc.plan(X.shape, Z, op="weight", size=(3, 4, 3, 3), device="cuda")
    expected = nc.conv2d_weight(X, (3, 4, 3, 3), Z, method="loops")
    assert_same_bits(gradient(X), expected)
    assert_same_bits(gradient(there(X)).copy_to_host(), expected)
    with pytest.raises(ValueError, match="this plan takes"):
        gradient(there(X[:1]))


def test_every_method_is_among_the_cases():
    assert {parameters.values[0] for parameters in cases()} == {m.NAME for m in cuda_methods() if m.REPRODUCIBLE}
    reordering = [method.NAME for method in cuda_methods() if not method.REPRODUCIBLE]
    assert reordering == ["blas", "tensor_blas", "tensor"]


def test_nan_and_inf_stay_where_the_cpu_has_them(device):
    case = CASES["padding"]
    problem = case.problem(np.float32)
    x, weight, _ = arrays(problem)
    x[0, 0, 0, 0], x[0, 1, 2, 3], weight[1, 0], weight[2, 1] = np.nan, np.inf, np.inf, np.nan
    for method in ("tiled", "loops"):
        found, expected = on_gpu(problem, (x, weight, None), case, method), on_cpu(problem, (x, weight, None), case)
        np.testing.assert_array_equal(found, expected)
    # Channels that fill up the last chunk of a tile meet nothing.
    framed = Case("", case.x_shape, case.weight_shape, {**CONSTANT, "padding_value": np.inf})
    weight[:] = 1
    found, expected = on_gpu(problem, (x, weight, None), framed, "tiled"), on_cpu(problem, (x, weight, None), framed)
    np.testing.assert_array_equal(found, expected)
