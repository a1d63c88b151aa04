"""Gradients by the weights on the GPU: every geometry of `wide`, however arrays lie, gives the CPU's bits."""

from __future__ import annotations

import pytest

pytest.importorskip("numba_cuda", reason="the extra `cuda` is not installed")

import cuda_static
import numpy as np
import ptx_device
from ptx_device import DeviceArray, assert_same_bits, normal, there

import numconv as nc
import numconv.problem
from numconv import planner
from numconv.cpu import direct
from numconv.cuda import launch, wide, wide_geometry, wide_tile
from numconv.cuda.kernels import Memory
from numconv.machine import gpu_machine, typical_gpu
from numconv.testing import FILTERS, RESNET50, Case, arrays

MACHINE = gpu_machine(typical_gpu(ptx_device.CC))
# Input, size of the weights, gradient of the output, options: of odd sizes, so that each tile is ragged.
LAYERS = {
    "3x3": ((normal(2, 5, 6, 7), (9, 5, 3, 3), normal(2, 9, 6, 7)), {"padding": 1}),
    "stride": ((normal(3, 3, 9, 11), (5, 3, 3, 2), normal(3, 5, 5, 6)), {"padding": ((1, 1), (0, 1)), "stride": 2}),
    "dilation": ((normal(2, 3, 9, 9), (4, 3, 3, 2), normal(2, 4, 5, 7)), {"dilation": 2}),
    "groups": ((normal(2, 6, 6, 7), (4, 3, 2, 3), normal(2, 4, 5, 5)), {"groups": 2}),
    "1x1": ((normal(2, 20, 4, 5), (9, 20, 1, 1), normal(2, 9, 4, 5)), {}),
    # The input's last row and column meet no window, so it is cropped.
    "1x1 stride": ((normal(2, 3, 8, 10), (5, 3, 1, 1), normal(2, 5, 4, 5)), {"stride": 2}),
    "depthwise": ((normal(2, 5, 6, 7), (5, 1, 3, 3), normal(2, 5, 6, 7)), {"padding": 1, "groups": 5}),
    "reflect": ((normal(2, 3, 5, 6), (4, 3, 3, 3), normal(2, 4, 5, 6)), {"padding": 1, "padding_mode": "reflect"}),
}
RANKS = {
    "1-D": (nc.conv1d_weight, (normal(2, 3, 30), (3, 3, 4), normal(2, 3, 30)), {"padding": ((2, 1),)}),
    "3-D": (nc.conv3d_weight, (normal(2, 3, 3, 4, 5), (3, 3, 2, 2, 2), normal(2, 3, 2, 3, 4)), {}),
}
SEGMENT = 36


@pytest.fixture(autouse=True)
def device(monkeypatch):
    """The interpreted device."""
    ptx_device.install(monkeypatch)


@pytest.fixture
def short_segments(monkeypatch):
    """Sums start afresh every 36 products at most, also of Problems that are in caches."""
    fresh = numconv.problem.Problem.segments.func
    monkeypatch.setattr(numconv.problem, "SEGMENT", SEGMENT)
    monkeypatch.setattr(numconv.problem.Problem, "segments", property(fresh))
    caches = (wide_geometry.choose, planner._chosen, direct.launch)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


def check(data, options, function=nc.conv2d_weight):
    expected = function(*data, **options, method="loops")
    found = function(*(there(one) if isinstance(one, np.ndarray) else one for one in data), **options, method="wide")
    assert_same_bits(found.copy_to_host(), expected)


@pytest.mark.parametrize("name", [*LAYERS, *RANKS])
def test_a_gradient_by_the_weights_has_the_cpus_bits(name):
    function, data, options = RANKS.get(name) or (nc.conv2d_weight, *LAYERS[name])
    check(data, options, function)


@pytest.mark.usefixtures("short_segments")
@pytest.mark.parametrize("name", [*LAYERS, *RANKS])
def test_a_gradient_in_segments_has_the_cpus_bits(name):
    function, data, options = RANKS.get(name) or (nc.conv2d_weight, *LAYERS[name])
    if name != "1x1 stride":
        assert wide_geometry.segments(nc.explain(function, *data, **options).problem)[0] > 1
    check(data, options, function)


GEOMETRIES = [
    (dtype, sums, groups, planes)
    for dtype, table in ((np.float32, wide_geometry.SUMS), (np.float64, wide_geometry.SUMS_OF_DOUBLES))
    for sums in table
    for groups in wide_geometry.GROUPS
    for planes in (4, 2)
]


@pytest.mark.usefixtures("short_segments")
@pytest.mark.parametrize(("dtype", "sums", "groups", "planes"), GEOMETRIES, ids=str)
def test_every_geometry_has_the_cpus_bits(dtype, sums, groups, planes, monkeypatch):
    asked = []

    def choose(problem, multiprocessors):
        fits = (sums, groups, planes)
        few = [
            one
            for one in wide_geometry.geometries(problem)
            if ((one.rows, one.columns), one.groups, one.planes) == fits
        ]
        asked.append(few)
        return few[0] if few else unlimited(problem, multiprocessors)

    unlimited = wide_geometry.choose
    monkeypatch.setattr(wide_geometry, "choose", choose)
    (x, size, grad), options = LAYERS["3x3" if planes > 2 else "stride"]
    check((x.astype(dtype), size, grad.astype(dtype)), options)
    if not asked[-1]:
        pytest.skip("what a thread fetches would take too many registers")


@pytest.mark.usefixtures("short_segments")
@pytest.mark.parametrize("together", [1, 2])
def test_segments_run_some_at_a_time_where_scratch_is_short(together, monkeypatch):
    (x, size, grad), options = LAYERS["stride"]
    bytes_of_result = 4 * int(np.prod(size))
    monkeypatch.setattr(wide_geometry, "allowed_scratch", lambda problem, on: together * bytes_of_result)
    problem = nc.explain(nc.conv2d_weight, x, size, grad, **options).problem
    assert wide_geometry.segments(problem)[0] > together
    assert wide_geometry.scratch_bytes(problem, MACHINE) == together * bytes_of_result
    check((x, size, grad), options)


def test_infinities_stay_where_the_cpu_has_them():
    (x, size, grad), options = LAYERS["3x3"]
    x, grad = x.copy(), grad.copy()
    # Padding's zeros are terms: zero times infinity is no number.
    x[0, 0, 2, 3], grad[0, 1, 0, 0], grad[1, 2, 3, 3] = np.inf, np.inf, np.nan
    expected = nc.conv2d_weight(x, size, grad, **options, method="loops")
    found = nc.conv2d_weight(there(x), size, there(grad), **options, method="wide").copy_to_host()
    assert np.isnan(expected).any()
    assert not np.isnan(expected).all()
    np.testing.assert_array_equal(found, expected)
    # Taps behind a segment's end meet nothing, whatever the padding holds.
    x, weight = normal(2, 3, 6, 7), np.abs(normal(3, 3, 5, 6))
    framed = {"padding": 1, "padding_mode": "constant", "padding_value": np.inf}
    expected = nc.conv2d(x, weight, **framed, method="loops")
    found = nc.conv2d(there(x), there(weight), **framed, method="wide").copy_to_host()
    assert np.isinf(expected).any()
    assert not np.isnan(expected).any()
    np.testing.assert_array_equal(found, expected)


def test_arrays_are_read_where_they_lie(monkeypatch):
    packs = []
    pack = numconv.cuda.pack._pack
    monkeypatch.setattr(numconv.cuda.pack, "_pack", lambda *arguments: packs.append(arguments) or pack(*arguments))
    (x, size, grad), options = LAYERS["3x3"]
    expected = nc.conv2d_weight(x, size, grad, **options, method="loops")
    # Channels last in memory: the input is read as it lies, the gradient's taps do not lie side by side.
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    turned = np.ascontiguousarray(x[:, :, ::-1, ::-1])[:, :, ::-1, ::-1]
    every_second = np.zeros((4, 9, 6, 7), np.float32)
    every_second[::2] = grad
    apart = every_second[::2]
    grads = (grad, 0), (apart, 0), (np.ascontiguousarray(grad.transpose(0, 1, 3, 2)).transpose(0, 1, 3, 2), 1)
    for one, copies in grads:
        for inputs in (x, last, turned):
            packs.clear()
            found = nc.conv2d_weight(Strided(inputs), size, Strided(one), **options, method="wide")
            assert_same_bits(found.copy_to_host(), expected)
            assert len(packs) == copies
    # A plan keeps what it was given.
    changed = grad.copy()
    layer = nc.plan(x.shape, there(changed), op="weight", size=size, **options, method="wide")
    changed[:] = 0
    assert_same_bits(layer(there(x)).copy_to_host(), expected)


def test_a_result_may_go_where_the_gradient_lies():
    (x, size, grad), options = LAYERS["3x3"]
    expected = nc.conv2d_weight(x, size, grad, **options, method="loops")
    memory = np.zeros(1000, np.float32)
    there_too, out = memory[: grad.size].reshape(grad.shape), memory[40 : 40 + expected.size].reshape(size)
    there_too[:] = grad
    nc.conv2d_weight(Strided(x), size, Strided(there_too), **options, method="wide", out=Strided(out))
    assert_same_bits(out, expected)


@pytest.mark.parametrize("sums", wide_geometry.SUMS, ids=str)
def test_a_whole_block_moves_no_more_than_it_must(sums, monkeypatch):
    tile = cuda_static.wide_of(4, sums)
    monkeypatch.setattr(wide_geometry, "choose", lambda problem, multiprocessors: tile)
    problem = Case("", (1, 2, 16, 18, 18), (tile.height, 2, 1, 16, 16)).problem(np.float32)
    x, weight, _ = map(ptx_device.device, arrays(problem))
    out = DeviceArray(np.zeros(int(np.prod(problem.out_shape)), np.float32))
    wide.run(problem, MACHINE, wide.prepare(problem, MACHINE, weight, None), x, Memory.of(out), None)
    counts = wide_tile.build(tile).counts
    assert counts.share >= {(8, 8): 0.73, (8, 4): 0.68, (4, 4): 0.57, (4, 2): 0.45}[sums]
    assert counts.wavefronts <= 1.1 * counts.ideal_wavefronts
    assert counts.sectors["ld"] <= 1.5 * counts.ideal_sectors["ld"]


class Strided(DeviceArray):
    """An array of any strides on the device."""

    def __init__(self, array):
        super().__init__(array)
        self.ndim = array.ndim


def test_a_chunk_of_images_runs_by_what_was_prepared_for_all(monkeypatch):
    x, weight = normal(3, 2, 9, 8), normal(5, 2, 8, 7)
    expected = nc.conv2d(x, weight, padding=1, method="loops")
    for images in (1, 2):
        monkeypatch.setattr(launch, "_images", lambda problem, images=images: images)
        assert_same_bits(nc.conv2d(x, weight, padding=1, device="cuda", method="wide"), expected)


REFUSED = {
    "fetch 4 or more side by side": Case("", (1, 3, 9, 9), (4, 3, 3, 3)),
    "no more than the 60 taps": Case("", (1, 3, 20, 20), (4, 3, 4, 5)),
    "there are no taps": Case("", (1, 0, 9, 9), (4, 0, 5, 5)),
    "the weight has": Case("", (1, 1 << 14, 17, 17), (512, 1 << 14, 16, 16)),
    "the output has": Case("", (1 << 20, 1, 4, 4), (1 << 10, 1, 4, 4)),
    "65535 blocks of channels": Case("", (1, 70000, 5, 5), (70000, 1, 4, 4), {"groups": 70000}),
}


@pytest.mark.parametrize("text", REFUSED)
def test_a_refusal_is_a_sentence(text):
    assert text in wide_geometry.why_not(REFUSED[text].problem(np.float32), MACHINE)


@pytest.mark.parametrize("batch", [1, 32])
def test_auto_takes_it_for_gradients_and_for_no_layer(batch):
    for case in (*RESNET50, *FILTERS):
        x = (batch, *case.x_shape[1:])
        layer = nc.explain(nc.conv2d, x, case.weight_shape, **case.options, device="cuda", cc=(9, 0))
        assert layer.chosen != "wide"
        if case in RESNET50:
            y = layer.problem.out_shape
            thoughts = nc.explain(nc.conv2d_weight, x, case.weight_shape, y, **case.options, device="cuda", cc=(9, 0))
            assert thoughts.chosen == "wide", case.name


def test_a_workspace_bounds_the_segments_that_run_at_a_time():
    def taken(**options):
        shapes = (32, 64, 56, 56), (64, 64, 3, 3), (32, 64, 56, 56)
        found = nc.explain(nc.conv2d_weight, *shapes, padding=1, device="cuda", cc=(9, 0), **options)
        return next(one.scratch_bytes for one in found.candidates if one.name == "wide")

    assert taken() > 500_000
    assert 0 < taken(workspace=500_000) <= 500_000
