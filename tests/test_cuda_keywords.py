"""What of the GPU is not a direct sum of float32, or not written at once: every keyword, integers, the bias, cuBLAS."""

from __future__ import annotations

import ctypes
import functools
import inspect
import sys
import types

import pytest

pytest.importorskip("numba_cuda", reason="the extra `cuda` is not installed")

import numpy as np
import ptx_device
from ptx_device import assert_same_bits, normal, there

import numconv as nc
from numconv.cuda import blas, cublas, products
from numconv.cuda.arrays import DTYPES, device_array
from numconv.foreign import lies_on_gpu
from numconv.testing import CASES, arrays

FUNCTIONS = {1: nc.conv1d, 2: nc.conv2d, 3: nc.conv3d}
X = normal(2, 4, 5, 6)


@pytest.fixture
def device(monkeypatch):
    """The interpreted device."""
    ptx_device.install(monkeypatch)


ARRAYS = {"input", "weight", "bias", "grad_output", "input_size", "weight_size"}
# Every keyword of the functions that take device arrays, some at a time.
KEYWORDS = (
    {
        "stride": 2, "padding": ((2, 1),), "dilation": 2, "groups": 2, "padding_mode": "circular", "activation": "relu",
        "method": "loops", "layout": "NHWC", "device": "cuda:0", "stream": 0, "output_padding": 1, "workspace": 0,
    },
    {
        "padding": 1, "padding_mode": "constant", "padding_value": 3, "rtol": 1e-3, "rtol_kind": "bound",
        "reproducible": True, "out": None, "dtype": "float64",
    },
    {"dtype": "int8", "overflow": "saturate", "groups": 2, "layout": "NHWC"},
    {"conjugate": True, "groups": 2},
)  # fmt: skip


@pytest.mark.parametrize("function", [nc.conv1d, nc.conv_transpose1d, nc.conv1d_input, nc.conv1d_weight])
def test_every_keyword_gives_the_cpus_bits(device, function):
    known = set(inspect.signature(function).parameters) - ARRAYS
    assert known <= set().union(*KEYWORDS)
    for keywords in KEYWORDS:
        options = {name: value for name, value in keywords.items() if name in known and name != "out"}
        data = one_axis(function, options, "c8" if "conjugate" in options else "f4")
        elsewhere = ("method", "device", "stream", "workspace")
        on_host = {name: value for name, value in options.items() if name not in elsewhere}
        expected = function(*data, **on_host, method="loops")
        if "out" in keywords:
            options["out"] = there(np.zeros_like(expected))
        found = function(*(there(one) if isinstance(one, np.ndarray) else one for one in data), **options)
        assert_same_bits(found.copy_to_host(), expected)
        assert "out" not in keywords or found is options["out"]
        sent = {**options, "device": "cuda", **({"out": np.zeros_like(expected)} if "out" in keywords else {})}
        assert_same_bits(function(*data, **sent), expected)


def one_axis(function, options, dtype):
    """Arguments of a function of one spatial axis that fit its options."""
    groups = options.get("groups", 1)

    def some(*shape, move=False):
        values = normal(*shape, dtype=dtype) * dtype.type(40) if dtype.kind == "f" else normal(*shape) * (1 - 2j)
        last = move and options.get("layout") == "NHWC"
        return np.ascontiguousarray(np.moveaxis(values, 1, -1) if last else values).astype(dtype)

    dtype = np.dtype(dtype)
    geometry = {name: options[name] for name in ("stride", "padding", "dilation", "groups") if name in options}
    weight = some(6, 4 // groups, 3)
    x, grad = some(2, 4, 9, move=True), some(*nc.conv1d(some(2, 4, 9), weight, **geometry).shape, move=True)
    return {
        "conv1d": (x, weight, some(6)),
        "conv_transpose1d": (x, some(4, 6 // groups, 3), some(6)),
        "conv1d_input": (x.shape, weight, grad),
        "conv1d_weight": (x, weight.shape, grad),
    }[function.__name__]


SUMS = {
    "int64": np.array([[[-(2**40), -129, -128, 5, 127, 128, 2**40]]]),
    "uint64": np.array([[[2**63, 127, 128, 0, 2**64 - 1]]], np.uint64),
    "float32": np.array(
        [[[-129, -128.5, -2.5, -1.7, -0.5, 0.5, 1.5, 2**23 + 1, 127.49, np.inf, -np.inf, np.nan]]], np.float32
    ),
}


@pytest.mark.parametrize("sums", SUMS)
@pytest.mark.parametrize("dtype", ["int8", "uint64"])
@pytest.mark.parametrize("overflow", ["raise", "wrap", "saturate"])
def test_sums_become_integers_as_on_the_cpu(device, sums, dtype, overflow):
    x, one = SUMS[sums], np.ones((1, 1, 1), sums)
    out = there(np.full(x.shape, 77, dtype))
    expected = outcome(x, one, dtype=dtype, overflow=overflow)
    found = outcome(there(x), there(one), dtype=dtype, overflow=overflow, out=out)
    if isinstance(expected, str):
        assert found == expected
        assert (out.copy_to_host() == 77).all()
    else:
        assert found is out
        assert_same_bits(out.copy_to_host(), expected)


def outcome(*args, **options):
    """The result, or the sentence that there is none."""
    try:
        return nc.conv1d(*args, **options)
    except (OverflowError, ValueError) as error:
        return str(error)


def test_what_is_computed_on_the_cpu_alone_says_so(device):
    for call in (lambda: nc.max_pool2d(there(X), 2), lambda: nc.unfold(there(X), 2), lambda: nc.corr2d(there(X), X)):
        with pytest.raises(TypeError, match="lies on a CUDA device, but this is computed on the CPU: copy it"):
            call()


@pytest.mark.parametrize(
    "grad",
    [
        normal(3, 4, 23, 29),
        normal(23, 1, 9, 9),
        normal(5, 2, 1, 1),
        normal(2, 300, 2),
        normal(2, 3, 1000),
        normal(0, 3, 4),
        normal(2, 3, 200, dtype="c8") * (1 - 2j),
        normal(3, 2, 99, dtype="f2"),
        (9 * normal(2, 3, 20)).astype(np.int8),
    ],
    ids=lambda grad: f"{grad.dtype} {grad.shape}",
)
def test_the_gradient_by_the_bias_gives_the_cpus_bits(device, grad):
    function = nc.conv1d_bias if grad.ndim == 3 else nc.conv2d_bias
    assert_same_bits(function(there(grad)).copy_to_host(), function(grad))
    for image in grad[:1]:
        assert_same_bits(function(there(np.asfortranarray(image))).copy_to_host(), function(image))


class Library:
    """What stands for cuBLAS: products of the host's memory, through addresses, column after column."""

    def __init__(self):
        self.streams, self.modes, self.turned, self.status = [], [], [], 0
        told = {"cublasCreate_v2": [], "cublasSetStream_v2": self.streams, "cublasSetMathMode": self.modes}
        for name, kept in told.items():
            # ctypes gives its functions their types as attributes.
            setattr(self, name, lambda *arguments, kept=kept: self.told(kept, *arguments))
        self.cublasSgemmStridedBatched = lambda *arguments: self.product(np.float32, *arguments)
        self.cublasDgemmStridedBatched = lambda *arguments: self.product(np.float64, *arguments)

    def told(self, kept, handle, *values):
        kept += values
        return self.status

    def product(self, kind, handle, a, b, m, n, k, one, p, p1, p2, q, q1, q2, zero, r, r1, r2, count):
        assert (one.value, zero.value, b) == (1, 0, 0)
        self.turned.append(a)
        left = columns(kind, p, (count, k, m) if a == 0 else (count, m, k), p2, p1)
        right, result = columns(kind, q, (count, n, k), q2, q1), columns(kind, r, (count, n, m), r2, r1)
        np.matmul(right, left if a == 0 else left.swapaxes(1, 2), out=result)
        return 0


def columns(kind, address, shape, step, pitch):
    """Matrices that lie column after column, each column as a row."""
    size = np.dtype(kind).itemsize
    assert pitch >= shape[2]
    last = (shape[0] - 1) * step + (shape[1] - 1) * pitch + shape[2]
    memory = np.frombuffer((ctypes.c_char * (last * size)).from_address(address), kind)
    return np.lib.stride_tricks.as_strided(memory, shape, (step * size, pitch * size, size))


@pytest.mark.parametrize(("dtype", "method"), [("float32", "blas"), ("float64", "blas"), ("float32", "tensor_blas")])
@pytest.mark.parametrize("case", [CASES["1x1 groups"], CASES["1-D 1x1"]], ids=lambda case: case.name)
def test_cublas_is_asked_where_it_is_installed(device, monkeypatch, case, dtype, method):
    problem = case.problem(dtype)
    x, weight, bias = data = arrays(problem)
    options = {**case.options, "method": method, "activation": "relu"}
    function = FUNCTIONS[problem.rank]
    with pytest.raises(ValueError, match="cuBLAS is not installed: pip install 'cuda-toolkit"):
        function(there(x), there(weight), there(bias), **options)

    library = Library()
    for module in (products, cublas):
        monkeypatch.setattr(module, "library", lambda: library)
    monkeypatch.setattr(cublas, "current", lambda: 0)
    monkeypatch.setattr(cublas, "_products", functools.cache(cublas._products.__wrapped__))
    expected = FUNCTIONS[problem.rank](*data, **case.options, activation="relu")
    allowed = 2 * blas.error_bound(problem) * np.abs(x).max() * np.abs(weight).sum(axis=1).max()
    # Rows that do not lie one behind another, and a weight turned round.
    apart = ptx_device.DeviceArray(np.repeat(x, 2, axis=-1)[..., ::2])
    found = function(apart, ptx_device.DeviceArray(weight[::-1].copy()[::-1]), there(bias), **options)
    np.testing.assert_allclose(found.copy_to_host(), expected, atol=allowed)
    # Without a bias, channels last.
    last = {**options, "layout": "NHWC"}
    found_last = function(there(np.moveaxis(x, 1, -1).copy()), there(weight), **last).copy_to_host()
    plain = FUNCTIONS[problem.rank](x, weight, **case.options, activation="relu")
    np.testing.assert_allclose(np.moveaxis(found_last, -1, 1), plain, atol=allowed)
    assert set(library.turned) == {0, 1}
    assert set(library.modes) == {cublas.FULL if method == "blas" else cublas.TF32}
    side = ptx_device.Stream(99)
    layer = nc.plan(x.shape, weight, bias, **options, device="cuda")
    assert_same_bits(layer(there(x), stream=side).copy_to_host(), found.copy_to_host())
    assert library.streams[-1] == 99
    assert_same_bits(layer(x), found.copy_to_host())
    assert layer.prepared_bytes >= weight.nbytes
    with pytest.raises(ValueError, match="reproducible=True excludes"):
        function(there(x), there(weight), there(bias), **options, reproducible=True)
    library.status = 13
    with pytest.raises(RuntimeError, match="status 13: leave it out by method='matmul'"):
        layer(there(x))


def torch_of(**words):
    """What stands for torch: its dtypes, its new arrays, and what a test adds."""

    def empty_strided(shape, strides, *, dtype, device):
        array = np.empty(shape, dtype.removeprefix("torch."))
        assert device == Tensor.device
        assert strides == tuple(step // array.itemsize for step in array.strides)
        return Tensor(array)

    found = types.ModuleType("torch")
    known = {name: f"torch.{name}" for name in DTYPES}
    vars(found).update(known, strided="strided", empty_strided=empty_strided, **words)
    return found


# Its own word for a stream's handle, and the public one where that is missing.
RAW = {"_C": types.SimpleNamespace(_cuda_getCurrentRawStream=lambda device: 4096 + device)}
PUBLIC = {
    "_C": None,
    "cuda": types.SimpleNamespace(current_stream=lambda device: types.SimpleNamespace(cuda_stream=4096 + device)),
}


class Tensor(ptx_device.DeviceArray):
    layout, requires_grad, is_cuda, device = "strided", False, True, "cuda:0"
    conjugate = negative = False

    def __init__(self, array, **marks):
        super().__init__(array)
        self.dtype, self.asked = f"torch.{array.dtype}", 0
        vars(self).update(marks)

    @property
    def __cuda_array_interface__(self):
        self.asked += 1
        return super().__cuda_array_interface__

    def get_device(self):
        return 0

    def stride(self):
        return tuple(step // self.array.itemsize for step in self.array.strides)

    def data_ptr(self):
        return self.array.ctypes.data

    def is_conj(self):
        return self.conjugate

    def is_neg(self):
        return self.negative


Tensor.__module__ = "torch"


@pytest.mark.parametrize("words", [RAW, PUBLIC], ids=["raw", "public"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tensor_is_described_by_torchs_words_as_by_its_interface(device, monkeypatch, dtype, words):
    monkeypatch.setitem(sys.modules, "torch", torch_of(**words))
    view = X.astype(dtype)[:, :, ::2, 1:]
    plain = Tensor(view)
    assert lies_on_gpu(plain)
    found = device_array("input", plain)
    assert plain.asked == 0
    for marks in ({"conjugate": True}, {"negative": True}, {"dtype": "torch.other"}, {"layout": "other"}):
        other = Tensor(view, **marks)
        asked = device_array("input", other)
        assert other.asked == 1
        # Its interface names no stream.
        assert found.stream == asked.stream == 4096
        for name in ("shape", "dtype", "strides", "pointer", "device", "size", "span", "contiguous"):
            assert getattr(found, name) == getattr(asked, name), name


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "complex64"])
def test_a_tensors_result_is_a_new_tensor(device, monkeypatch, dtype):
    raw = types.SimpleNamespace(_cuda_getCurrentRawStream=lambda device: 0)
    monkeypatch.setitem(sys.modules, "torch", torch_of(_C=raw))
    x, weight = normal(1, 2, 5, 5, dtype=dtype), normal(3, 2, 3, 3, dtype=dtype)
    expected = nc.conv2d(x, weight, padding=1, method="loops")
    layer = nc.plan(x.shape, Tensor(weight), padding=1, method="loops")
    found, out = layer(Tensor(x)), Tensor(np.empty_like(expected))
    assert type(found) is Tensor
    assert_same_bits(found.array, expected)
    assert layer(Tensor(x), out=out) is out
    assert_same_bits(out.array, expected)
    assert_same_bits(nc.conv2d(Tensor(x), Tensor(weight), padding=1, method="loops").array, expected)
