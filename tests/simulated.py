"""The whole road from a device array to the result, in numba's CUDA simulator; test_cuda_simulator.py runs this file
in a process of its own. The simulator's multiply-add rounds twice, so results are held to the oracle's tolerance.
"""

from __future__ import annotations

import dataclasses
import pickle
import sys
import types

import numpy as np
import pytest
from numba import cuda
from numba.cuda.simulator import kernelapi
from numba.cuda.simulator.cudadrv import devicearray, devices

import numconv as nc
from numconv.cuda import launch
from numconv.cuda.arrays import device_array
from numconv.machine import gpu_machine, typical_gpu
from numconv.methods import cuda_methods
from numconv.testing import CASES, EDGES, Case, arrays, assert_matches, tolerance

FUNCTIONS = {1: nc.conv1d, 2: nc.conv2d, 3: nc.conv3d}
FakeArray = devicearray.FakeCUDAArray


def complete_the_simulator():
    """What the simulator lacks and numba on a GPU has: alignment, foreign memory, a device's attributes."""
    for fake in (kernelapi.FakeCUDALocal, kernelapi.FakeCUDAShared):
        plain = fake.array

        def array(self, shape, dtype, alignment=None, plain=plain):
            # One more level of calls: shared arrays are told apart by the line that asks for them.
            line = sys._getframe(1).f_lineno
            if plain is shared:
                table = self.__dict__.setdefault("by_line", {})
                return table.setdefault(line, np.empty(shape, dtype)) if line not in table else table[line]
            return plain(self, shape, dtype)

        fake.array = array

    def interface(self):
        return {**self._ary.__array_interface__, "stream": None, "version": 3}

    FakeArray.__cuda_array_interface__ = property(interface)

    def as_cuda_array(holder, sync=True):
        found = dict(holder.__cuda_array_interface__)
        return FakeArray(np.asarray(types.SimpleNamespace(__array_interface__=found, keep=holder)))

    cuda.as_cuda_array = as_cuda_array
    device = type(devices.gpus[0].device)
    device.id, device.name = 0, "simulator"
    device.MULTIPROCESSOR_COUNT, device.CLOCK_RATE = 4, 1_000_000


shared = kernelapi.FakeCUDAShared.array
complete_the_simulator()


class Foreign:
    """Another library's array on the device."""

    def __init__(self, array, stream=None):
        self.array, self.stream = array, stream

    @property
    def __cuda_array_interface__(self):
        return {**self.array.__array_interface__, "stream": self.stream, "version": 3}


class Second(Foreign):
    """An array on another device."""

    def __dlpack_device__(self):
        return (2, 1)


def on_device(array):
    return None if array is None else Foreign(array)


def host(result):
    return result.copy_to_host()


# A simulated tile takes seconds: a few for all methods, for loops one of each option.
FEW = ("no batch", "stride and dilation", "1x1 groups", "3-D", "empty batch", "no input channels", "no output channels")
MORE = ("relu", "padding by side", "circular", "groups", "depthwise", "1x1 stride", "1-D reflect")


@pytest.mark.parametrize("method", cuda_methods(), ids=lambda method: method.NAME)
@pytest.mark.parametrize("case", [CASES[name] for name in FEW + MORE], ids=lambda case: case.name)
def test_a_kernel_matches_the_oracle_on_a_device_array(method, case):
    problem = case.problem(np.float32)
    if method.why_not(problem, gpu_machine(typical_gpu((9, 0)))) is not None:
        pytest.skip(f"{method.NAME} refuses it")
    if method.NAME != "loops" and case.name in MORE:
        pytest.skip("its kernel is proved on this case in the interpreter")
    x, weight, bias = arrays(problem)
    result = FUNCTIONS[problem.rank](
        Foreign(x.reshape(case.x_shape)), Foreign(weight), on_device(bias), **case.options, method=method.NAME
    )
    assert isinstance(result, FakeArray)
    found = host(result)
    assert found.shape == problem.out_shape[len(problem.out_shape) - found.ndim :]
    assert_matches(problem, found.reshape(problem.out_shape), 2 * method.error_bound(problem), x, weight, bias)


DTYPES = ("bool", "int8", "uint64", "float16", "float64", "complex64", "complex128")


@pytest.mark.parametrize("dtype", DTYPES)
def test_loops_takes_every_dtype(dtype):
    problem = dataclasses.replace(CASES["3-D groups"].problem(dtype))
    x, weight, bias = arrays(problem)
    found = host(nc.conv3d(Foreign(x), Foreign(weight), **CASES["3-D groups"].options))
    assert_matches(problem, found, 4 * nc.plan(x.shape, weight, groups=2).error_bound, x, weight, bias)


def test_gradients_and_integers_on_the_device():
    x, grad = normal(2, 4, 5, 6), normal(2, 6, 3, 4)
    options = {"groups": 2, "method": "loops"}
    found = host(nc.conv2d_weight(Foreign(x), (6, 2, 3, 3), Foreign(grad), **options))
    np.testing.assert_allclose(found, nc.conv2d_weight(x, (6, 2, 3, 3), grad, **options), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(host(nc.conv2d_bias(Foreign(grad))), nc.conv2d_bias(grad))
    whole = np.rint(40 * x).astype(np.int64)
    # Where the simulator's numbers, NumPy's, would not wrap.
    narrow = {**options, "dtype": "int8", "overflow": "saturate", "layout": "NHWC"}
    data = whole.transpose(0, 2, 3, 1).copy(), np.ones((2, 2, 1, 1), int)
    np.testing.assert_array_equal(host(nc.conv2d(*map(Foreign, data), **narrow)), nc.conv2d(*data, **narrow))
    with pytest.raises(OverflowError, match="but int8 holds -128 to 127"):
        nc.conv2d(Foreign(whole), Foreign(data[1]), **options, dtype="int8")


def normal(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


LAYERS = Case("images", (5, 2, 4, 5), (3, 2, 3, 3), {"padding": 1}, bias=True)


def test_numpy_arrays_go_to_the_device_in_chunks_and_come_back(monkeypatch):
    problem = LAYERS.problem(np.float32)
    data = arrays(problem)
    expected = nc.conv2d(*data, **LAYERS.options)
    for images in (1, 2, 5):
        monkeypatch.setattr(launch, "_images", lambda problem, images=images: images)
        found = nc.conv2d(*data, **LAYERS.options, device="cuda")
        assert type(found) is np.ndarray
        assert_matches(problem, found, 2e-6, *data)
        out = np.empty_like(expected)
        assert nc.conv2d(*data, **LAYERS.options, device="cuda", out=out) is out
        np.testing.assert_array_equal(out, found)
    wide = np.zeros((*expected.shape[:-1], 10), np.float32)
    assert nc.conv2d(*data, **LAYERS.options, device="cuda:0", out=wide[..., ::2]).base is wide
    np.testing.assert_array_equal(wide[..., ::2], found)
    assert not wide[..., 1::2].any()


def test_the_layout_of_device_arrays_changes_no_bit():
    problem = CASES["1x1 bias relu"].problem(np.float32)
    x, weight, bias = arrays(problem)
    for name in ("matmul", "tiled", "loops"):
        expected = host(nc.conv2d(Foreign(x), Foreign(weight), Foreign(bias), method=name))
        for view in (
            x[..., ::-1, ::-1].copy()[..., ::-1, ::-1],
            np.ascontiguousarray(np.moveaxis(x, 1, -1)).transpose(0, 3, 1, 2),
            np.repeat(x, 2, axis=-1)[..., ::2],
        ):
            found = nc.conv2d(Foreign(view), Foreign(weight[::-1].copy()[::-1]), Foreign(bias), method=name)
            np.testing.assert_array_equal(host(found), expected)


def test_a_plan_holds_its_weights_on_the_device():
    problem = LAYERS.problem(np.float32)
    x, weight, bias = arrays(problem)
    layer = nc.plan(x.shape, weight, bias, **LAYERS.options, device="cuda")
    expected = host(layer(Foreign(x)))
    weight[:] = 0
    out = cuda.device_array(problem.out_shape, np.float32)
    assert layer(Foreign(x), out=out, stream=cuda.stream()) is out
    np.testing.assert_array_equal(host(out), expected)
    np.testing.assert_array_equal(layer(x), expected)
    assert layer.prepared_bytes > 0
    assert layer.device == "cuda"
    with pytest.raises(ValueError, match="this plan takes"):
        layer(Foreign(x[:1]))
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(layer)


def test_a_plan_of_weights_on_the_device_runs_there():
    problem = LAYERS.problem(np.float32)
    x, weight, bias = arrays(problem)
    layer = nc.plan(x.shape, Foreign(weight), Foreign(bias), **LAYERS.options, method="loops")
    assert layer.device == "cuda:0"
    assert_matches(problem, host(layer(Foreign(x))), 2e-6, x, weight, bias)
    assert_matches(problem, layer(x), 2e-6, x, weight, bias)


class ByDlpack:
    """An array that only DLPack leads to."""

    def __init__(self, array):
        self.array = array

    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self, **options):
        return self.array.__dlpack__()


def test_dlpack_leads_to_the_same_memory():
    problem = LAYERS.problem(np.float32)
    x, weight, bias = arrays(problem)
    found = nc.conv2d(ByDlpack(x), ByDlpack(weight), ByDlpack(bias), **LAYERS.options, method="loops")
    np.testing.assert_array_equal(
        host(found), host(nc.conv2d(Foreign(x), Foreign(weight), Foreign(bias), **LAYERS.options, method="loops"))
    )


def test_a_call_runs_on_its_own_stream_the_inputs_or_the_default(monkeypatch):
    monkeypatch.setattr(cuda, "external_stream", lambda handle: ("external", handle), raising=False)
    for kind in ("legacy_default_stream", "per_thread_default_stream"):
        monkeypatch.setattr(cuda, kind, lambda kind=kind: kind, raising=False)
    mine = cuda.stream()
    launch._of_handle.cache_clear()
    for given, of_input, expected in (
        (None, None, 0),
        (None, 1, "legacy_default_stream"),
        (None, 2, "per_thread_default_stream"),
        (None, 4096, ("external", 4096)),
        (8192, 4096, ("external", 8192)),
        (types.SimpleNamespace(__cuda_stream__=lambda: (0, 8192)), 4096, ("external", 8192)),
        (types.SimpleNamespace(__cuda_stream__=lambda: (0, 0)), 4096, 0),
        (mine, 4096, mine),
    ):
        assert launch.stream_of(given, device_array("input", Foreign(X, of_input))) == expected


def test_the_result_has_the_callers_type(monkeypatch):
    class Array(Foreign):
        pass

    Array.__module__ = "cupy._core"

    class Pooled(Array):
        @property
        def data(self):
            return types.SimpleNamespace(ptr=self.array.ctypes.data)

    made = {"empty": [], "asarray": []}

    def make(name, array):
        made[name].append(array)
        return array

    cupy = types.SimpleNamespace(
        empty=lambda shape, dtype: make("empty", Pooled(np.empty(shape, dtype))),
        asarray=lambda found: make("asarray", Array(found._ary)),
    )
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    problem = LAYERS.problem(np.float32)
    x, weight, bias = arrays(problem)
    layer = nc.plan(x.shape, Array(weight), Array(bias), **LAYERS.options)
    # From its own pool on its own stream; on another, where that pool may hand it out too early, foreign memory.
    for stream, name in ((None, "empty"), (cuda.stream(), "asarray")):
        found = layer(Array(x), stream=stream)
        assert found is made[name].pop()
        assert_matches(problem, found.array, 2e-6, x, weight, bias)
    assert made == {"empty": [], "asarray": []}


X, W = np.zeros((1, 2, 5, 5), np.float32), np.zeros((4, 2, 3, 3), np.float32)
WIDE = np.zeros((1, 4, 3, 6), np.float32)
MISTAKES = [
    (TypeError, "the input lies on a CUDA device, but the weight on the host", lambda: nc.conv2d(Foreign(X), W)),
    (TypeError, "the input lies on the host, but the weight on a", lambda: nc.conv2d(X, Foreign(W), device="cuda")),
    (TypeError, "but device is 'cpu': copy it", lambda: nc.conv2d(Foreign(X), Foreign(W), device="cpu")),
    (ValueError, "on CUDA device 0, but the weight on device 1: copy", lambda: nc.conv2d(Foreign(X), Second(W))),
    (ValueError, "is 'cuda:1', but the input lies on CUDA device 0",
     lambda: nc.conv2d(Foreign(X), Foreign(W), device="cuda:1")),
    (ValueError, "on CUDA device 1, but this plan is on device 0", lambda: nc.plan(X.shape, Foreign(W))(Second(X))),
    (ValueError, "device is 'tpu', but it must be", lambda: nc.conv2d(X, W, device="tpu")),
    (ValueError, "device is 'cuda:7', but this machine has 1", lambda: nc.conv2d(X, W, device="cuda:7")),
    (TypeError, "device is 3, but it takes", lambda: nc.conv2d(X, W, device=3)),
    (TypeError, "out is a ndarray, but the input", lambda: nc.conv2d(Foreign(X), Foreign(W), out=X)),
    (ValueError, "out has shape", lambda: nc.conv2d(Foreign(X), Foreign(W), out=Foreign(X))),
    (TypeError, "out has dtype", lambda: nc.conv2d(Foreign(X), Foreign(W), out=Foreign(np.zeros((1, 4, 3, 3))))),
    (ValueError, "method is .fft., but it must be one of", lambda: nc.conv2d(X, W, device="cuda", method="fft")),
    (TypeError, "dtype >f4", lambda: nc.conv2d(Foreign(X.astype(">f4")), Foreign(W))),
    (ValueError, "out shares memory", lambda: nc.conv2d(Foreign(X), Foreign(W[:2, :, :1, :1]), out=Foreign(X))),
    (ValueError, "out is not C-contiguous", lambda: nc.conv2d(Foreign(X), Foreign(W), out=Foreign(WIDE[..., ::2]))),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "text", "call"), MISTAKES, ids=[text for _, text, _ in MISTAKES])
def test_a_mistake_is_one_sentence(kind, text, call):
    with pytest.raises(kind, match=text) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_the_tolerance_is_no_excuse():
    problem = LAYERS.problem(np.float32)
    data = arrays(problem)
    assert tolerance(problem, 2e-6, *data) < 1e-3 < np.abs(data[0]).max()
    assert {case.name for case in EDGES} >= set(FEW + MORE)
