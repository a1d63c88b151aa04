"""On a real GPU: every method on every edge gives the CPU's bits. `pytest -m gpu` runs these alone."""

from __future__ import annotations

import pytest

pytest.importorskip("numba_cuda", reason="the extra `cuda` is not installed")

import numpy as np
from numba import cuda

import numconv as nc
from numconv.methods import cuda_methods
from numconv.testing import EDGES, FILTERS, RESNET50, arrays, assert_matches

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not cuda.is_available(), reason="no NVIDIA GPU and driver are here"),
]
FUNCTIONS = {1: nc.conv1d, 2: nc.conv2d, 3: nc.conv3d}


@pytest.mark.parametrize("method", cuda_methods(), ids=lambda method: method.NAME)
@pytest.mark.parametrize("case", EDGES, ids=lambda case: case.name)
def test_a_gpu_gives_the_cpus_bits(method, case):
    problem = case.problem(np.float32)
    thoughts = nc.explain(FUNCTIONS[problem.rank], *arrays(problem), **case.options, device="cuda")
    if any(one.name == method.NAME and one.seconds is None for one in thoughts.candidates):
        pytest.skip(f"{method.NAME} refuses it")
    x, weight, bias = arrays(problem)
    x = x.reshape(case.x_shape)
    expected = FUNCTIONS[problem.rank](x, weight, bias, **case.options, method="loops")
    there = [None if array is None else cuda.to_device(array) for array in (x, weight, bias)]
    found = FUNCTIONS[problem.rank](*there, **case.options, method=method.NAME).copy_to_host()
    sent = FUNCTIONS[problem.rank](x, weight, bias, **case.options, method=method.NAME, device="cuda")
    for result in (found, sent):
        if method.REPRODUCIBLE:
            assert result.tobytes() == expected.tobytes()
        else:
            whole = result.reshape(problem.out_shape)
            assert_matches(problem, whole, method.error_bound(problem), x.reshape(problem.x_shape), weight, bias)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint64", "float16", "float64", "complex64", "complex128"])
def test_a_gpu_gives_the_cpus_bits_in_every_dtype(dtype):
    problem = next(case for case in EDGES if case.name == "groups").problem(dtype)
    x, weight, bias = arrays(problem)
    expected = nc.conv2d(x, weight, bias, groups=3, padding=1, method="loops")
    found = nc.conv2d(*map(cuda.to_device, (x, weight, bias)), groups=3, padding=1)
    assert found.copy_to_host().tobytes() == expected.tobytes()


def test_a_plan_on_a_gpu_is_called_on_any_stream():
    x, weight = np.ones((4, 8, 20, 20), np.float32), np.ones((16, 8, 3, 3), np.float32)
    layer = nc.plan(x.shape, weight, padding=1, device="cuda")
    expected = nc.conv2d(x, weight, padding=1)
    stream = cuda.stream()
    out = cuda.device_array(expected.shape, np.float32)
    layer(cuda.to_device(x, stream=stream), out=out, stream=stream)
    stream.synchronize()
    np.testing.assert_array_equal(out.copy_to_host(), expected)


def random(*shape, dtype=np.float32):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


X, WEIGHT, BIAS = random(2, 4, 17, 20), random(6, 4, 3, 3), random(6)
OPTIONS = {"stride": 2, "padding": 1}
GRAD = random(*nc.conv2d(X, WEIGHT, **OPTIONS).shape)
WHOLE = np.rint(40 * X).astype(np.int64)
# Functions with all that they take, sizes among it.
CALLS = {
    "transposed": (nc.conv_transpose2d, (X, random(4, 3, 3, 4), random(3)), {"stride": 2, "activation": "relu"}),
    "transposed groups": (nc.conv_transpose2d, (X, random(4, 3, 2, 2)), {"stride": (1, 2), "groups": 2, "padding": 1}),
    "by input": (nc.conv2d_input, (X.shape, WEIGHT, GRAD), OPTIONS),
    "by weight": (nc.conv2d_weight, (X, WEIGHT.shape, GRAD), OPTIONS),
    "by bias": (nc.conv2d_bias, (GRAD,), {}),
    "channels last": (nc.conv2d, (X.transpose(0, 2, 3, 1).copy(), WEIGHT, BIAS), {**OPTIONS, "layout": "NHWC"}),
    "float64 of float32": (nc.conv2d, (X, WEIGHT, BIAS), {**OPTIONS, "dtype": "float64"}),
    "conjugate": (nc.conv2d, (X * (1 - 2j), WEIGHT * (2 + 1j)), {**OPTIONS, "conjugate": True}),
    "saturate": (nc.conv2d, (WHOLE, WEIGHT.astype(np.int64)), {"dtype": "int8", "overflow": "saturate"}),
}


@pytest.mark.parametrize("name", CALLS)
def test_every_function_gives_the_cpus_bits(name):
    function, data, options = CALLS[name]
    expected = function(*data, **options, method="loops") if name != "by bias" else function(*data)
    there = [cuda.to_device(one) if isinstance(one, np.ndarray) else one for one in data]
    assert function(*there, **options).copy_to_host().tobytes() == expected.tobytes()


def test_a_sum_that_does_not_fit_is_said_on_the_device_too():
    there = map(cuda.to_device, (WHOLE, np.full((6, 4, 3, 3), 9)))
    with pytest.raises(OverflowError, match="but int8 holds -128 to 127"):
        nc.conv2d(*there, dtype="int8")


@pytest.mark.parametrize(("library", "make"), [("cupy", "asarray"), ("torch", "as_tensor")])
def test_the_result_is_of_the_callers_library(library, make):
    module = pytest.importorskip(library, reason=f"{library} is not installed")
    options = {"device": "cuda"} if library == "torch" else {}
    there = [getattr(module, make)(one, **options) for one in (X, WEIGHT, BIAS)]
    expected = nc.conv2d(X, WEIGHT, BIAS, **OPTIONS)
    found = nc.conv2d(*there, **OPTIONS)
    assert type(found) is type(there[0])
    assert np.asarray(found.get() if library == "cupy" else found.cpu()).tobytes() == expected.tobytes()
    out = module.zeros_like(found)
    assert nc.conv2d(*there, **OPTIONS, out=out) is out
    assert bool((out == found).all())
    layer = nc.plan(X.shape, there[1], there[2], **OPTIONS)
    assert bool((layer(there[0]) == found).all())


def test_torchs_streams_are_followed():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x, weight = (
        torch.as_tensor(random(8, 64, 56, 56), device="cuda"),
        torch.as_tensor(random(64, 64, 3, 3), device="cuda"),
    )
    layer = nc.plan(tuple(x.shape), weight, padding=1)
    expected = layer(x)
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        # Long work before it and after it: in another order the result would be another.
        there = x
        for _ in range(20):
            there = there * 2
        found = layer(there)
        there.zero_()
    side.synchronize()
    assert bool((found == expected * 2.0**20).all())


def test_an_image_stack_larger_than_a_chunk_goes_there_and_back():
    x, weight = random(40, 16, 224, 224), random(8, 16, 3, 3)
    expected = nc.conv2d(x, weight, padding=1)
    assert nc.conv2d(x, weight, padding=1, device="cuda").tobytes() == expected.tobytes()


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("case", RESNET50, ids=lambda case: case.name)
def test_gradients_by_the_weights_of_networks_give_the_cpus_bits(case, batch):
    x, weight = random(batch, *case.x_shape[1:]), case.weight_shape
    grad = random(batch, *case.problem(np.float32).out_shape[1:])
    expected = nc.conv2d_weight(x, weight, grad, **case.options, reproducible=True)
    there = cuda.to_device(x), weight, cuda.to_device(grad)
    for method in ("auto", "wide"):
        found = nc.conv2d_weight(*there, **case.options, reproducible=True, method=method)
        assert found.copy_to_host().tobytes() == expected.tobytes()


@pytest.mark.parametrize("case", RESNET50 + FILTERS, ids=lambda case: case.name)
def test_layers_of_networks_give_the_cpus_bits(case):
    problem = case.problem(np.float32)
    x, weight, bias = arrays(problem)
    expected = nc.conv2d(x, weight, bias, **case.options, reproducible=True)
    there = [None if array is None else cuda.to_device(array) for array in (x, weight, bias)]
    found = nc.conv2d(*there, **case.options, reproducible=True)
    assert found.copy_to_host().tobytes() == expected.tobytes()
