"""The 1x1 correlation is np.matmul on views: nothing copied, the same result however the product is cut."""

from __future__ import annotations

import numpy as np
import pytest

import numconv as nc
from numconv.cpu import blas, matmul
from numconv.machine import machine
from numconv.testing import EDGES, Case, arrays, assert_matches
from numconv.validate import describe

ONE_BY_ONE = [case for case in EDGES if matmul.why_not(case.problem(), machine(1)) is None]
# Complex numbers have no order, so no relu.
PRODUCTS = [
    pytest.param(case, dtype, id=f"{case.name} {dtype}")
    for case in ONE_BY_ONE
    for dtype in ("float32", "float64", "complex64", "complex128")
    if not (dtype.startswith("complex") and case.options.get("activation"))
]


def run(problem, x, weight, bias, threads=1):
    """The method by itself, with so many shares of the work."""
    on = machine(threads)
    out = np.full(problem.out_shape, np.nan, problem.accumulator)
    scratch = np.empty(matmul.scratch_bytes(problem, on), np.uint8)
    matmul.run(problem, on, matmul.prepare(problem, on, weight, bias), x.reshape(problem.x_shape), out, scratch)
    return out


def test_the_named_cases_have_products_with_and_without_batch_groups_and_bias():
    assert len(ONE_BY_ONE) >= 7


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize(("case", "dtype"), PRODUCTS)
def test_a_product_cut_into_any_number_of_parts_matches(case, dtype, threads):
    problem = case.problem(dtype)
    data = arrays(problem)
    assert_matches(problem, run(problem, *data, threads=threads), matmul.error_bound(problem), *data)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("shape", [(1, 1), (15, 1), (16, 17), (100, 31), (1, 1000), (1000, 1)])
def test_parts_cover_every_row_and_column(shape, threads):
    co, pixels = shape
    problem = describe(1, (1, 3, pixels), np.dtype("f8"), (co, 3, 1), np.dtype("f8"))
    data = arrays(problem)
    result = run(problem, *data, threads=threads)
    np.testing.assert_allclose(result[0], data[1][:, :, 0] @ data[0][0], rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("length", [1, 15, 16, 17, 100, 1000])
@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_cuts_ascend_from_the_first_to_the_last(length, parts):
    cuts = [matmul.cut(length, parts, part) for part in range(parts + 1)]
    assert cuts == sorted(cuts)
    assert (cuts[0], cuts[-1]) == (0, length)


# The gradient of a 1x1 layer by its weights: images in the place of channels, the kernel spans the maps.
SPANNED = [
    Case("signals", (2, 5, 3, 4), (6, 5, 1, 4), bias=True),
    Case("groups", (2, 6, 7, 3, 5), (4, 3, 1, 3, 5), {"groups": 2, "stride": (1, 2, 1), "activation": "relu"}),
    Case("one term", (1, 1, 40, 3, 2), (35, 1, 1, 3, 2)),
    Case("an axis of one", (1, 2, 1, 3), (3, 2, 1, 3)),
]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("case", SPANNED, ids=lambda case: case.name)
def test_a_kernel_that_spans_the_last_axes_is_a_sum_of_products(monkeypatch, case, threads):
    problem = case.problem()
    data = arrays(problem)
    assert matmul.why_not(problem, machine(threads)) is None
    result = run(problem, *data, threads=threads)
    assert_matches(problem, result, matmul.error_bound(problem), *data)
    monkeypatch.setattr(matmul, "find_blas", lambda: None)
    matmul._launch.cache_clear()
    assert_matches(problem, run(problem, *data, threads=threads), matmul.error_bound(problem), *data)
    matmul._launch.cache_clear()


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_the_gradient_of_a_1x1_layer_by_its_weights_is_a_product_without_a_copy_of_the_input(monkeypatch, rng, layout):
    x, grad = rng.standard_normal((2, 48, 9, 9)), rng.standard_normal((2, 32, 9, 9))
    expected = sum(g.reshape(32, -1) @ image.reshape(48, -1).T for image, g in zip(x, grad, strict=True))
    if layout == "NHWC":
        x, grad = (np.ascontiguousarray(np.moveaxis(array, 1, -1)) for array in (x, grad))
    assert nc.explain(nc.conv2d_weight, x, (32, 48, 1, 1), grad, layout=layout).chosen == "matmul"
    gradient = nc.conv2d_weight(x, (32, 48, 1, 1), grad, layout=layout)
    np.testing.assert_allclose(gradient[:, :, 0, 0], expected, rtol=1e-12, atol=1e-12)
    seen = []
    if blas.find_blas() is not None:
        monkeypatch.setattr(matmul, "multiply", lambda shares, weight, columns, *rest: seen.append(columns))
        nc.conv2d_weight(x, (32, 48, 1, 1), grad, layout=layout)
        assert np.shares_memory(seen[0], x)


@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("activation", [None, "relu"])
def test_without_a_blas_to_hold_the_call_is_np_matmul(monkeypatch, bias, activation):
    shapes = (2, (2, 8, 5, 7), np.dtype("f4"), (6, 4, 1, 1), np.dtype("f4"))
    problem = describe(*shapes, *((6,), np.dtype("f4")) * bias, groups=2, activation=activation)
    data = arrays(problem)
    monkeypatch.setattr(matmul, "find_blas", lambda: None)
    monkeypatch.delattr(matmul, "multiply")
    assert_matches(problem, run(problem, *data), matmul.error_bound(problem), *data)


def test_contiguous_input_and_output_are_not_copied(monkeypatch, rng):
    if blas.find_blas() is None:
        pytest.skip("NumPy's BLAS cannot be held here, so np.matmul itself takes the views")
    seen = []
    monkeypatch.setattr(matmul, "multiply", lambda shares, weight, x, out, *rest: seen.append((x, out)))
    x, out = rng.standard_normal((3, 4, 5)), np.empty((2, 4, 5))
    nc.corr2d_multi_in_out_1x1(x, rng.standard_normal((2, 3, 1, 1)))
    nc.conv2d(x, rng.standard_normal((2, 3, 1, 1)), method="matmul", out=out)
    assert [np.shares_memory(x, taken) for taken, _ in seen] == [True, True]
    assert np.shares_memory(out, seen[1][1])


def test_each_share_lays_out_its_arguments_in_a_row_of_its_own():
    # Two threads that shared a row would be wrong once in a million calls.
    if blas.find_blas() is None:
        pytest.skip("NumPy's BLAS cannot be held here, so np.matmul lays out nothing")
    problem, on = describe(1, (1, 3, 96), np.dtype("f8"), (4, 3, 1), np.dtype("f8")), machine(3)
    x, weight, _ = arrays(problem)
    jobs, out = np.zeros((3, matmul.JOB), np.int64), np.empty(problem.out_shape)
    assert jobs.nbytes == matmul.scratch_bytes(problem, on)
    matmul.run(problem, on, matmul.prepare(problem, on, weight, None), x, out, jobs.view(np.uint8).reshape(-1))
    thirds = [out.ctypes.data + third * 32 * out.itemsize for third in range(3)]
    assert jobs[:, 2].tolist() == thirds


def test_nan_and_inf_of_the_input_and_of_the_weight_stay_where_they_belong():
    problem = describe(2, (1, 3, 5, 40), np.dtype("f4"), (20, 3, 1, 1), np.dtype("f4"))
    x, weight, _ = arrays(problem)
    x, weight = np.rint(x * 8), np.rint(weight * 8)  # small integers: every order of summation gives the same
    x[0, 1, 2, 3], x[0, 2, 4, 39], weight[17, 0] = np.nan, np.inf, np.nan
    expected = np.einsum("ncij,ockl->noij", x, weight)
    np.testing.assert_array_equal(run(problem, x, weight, None, threads=2), expected)


def test_relu_keeps_nan_and_ends_at_zero():
    x = np.array([[[np.nan, -np.inf, np.inf, -1, 1]]], np.float32)
    for method in ("matmul", "loops"):
        result = nc.conv1d(x, np.ones((1, 1, 1), np.float32), activation="relu", method=method)
        np.testing.assert_array_equal(result[0, 0], [np.nan, 0, np.inf, 0, 1])
        assert not np.signbit(result[0, 0, 1:]).any()


def test_nothing_leaks_from_an_uninitialised_output():
    problem = describe(2, (1, 8, 9, 9), np.dtype("f4"), (6, 8, 1, 1), np.dtype("f4"))
    assert np.isfinite(run(problem, *arrays(problem), threads=2)).all(), "run starts from an output full of NaN"


REFUSALS = {
    "taps": (describe(2, (1, 2, 5, 5), np.dtype("f4"), (3, 2, 3, 1), np.dtype("f4")),
             "the kernel has 3 taps, but a matrix product takes 1x1"),
    "stride": (describe(2, (1, 2, 5, 5), np.dtype("f4"), (3, 2, 1, 1), np.dtype("f4"), stride=2),
               "stride and padding would need a copy of the input: a matrix product takes neither"),
    "padding": (describe(2, (1, 2, 5, 5), np.dtype("f4"), (3, 2, 1, 1), np.dtype("f4"), padding=((0, 0), (0, 1))),
                "stride and padding would need a copy of the input: a matrix product takes neither"),
    "integers": (describe(2, (1, 2, 5, 5), np.dtype("i4"), (3, 2, 1, 1), np.dtype("i4")),
                 "int64 sums must be exact, but a BLAS takes floating-point numbers"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_no_product_of_floats_is_refused(name):
    problem, sentence = REFUSALS[name]
    assert matmul.why_not(problem, machine(1)) == sentence
