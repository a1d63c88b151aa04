"""What holds for every correlation, over shapes, strides, paddings, dilations, groups, modes, ranks and dtypes."""

from __future__ import annotations

import exact
import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import numconv as nc
from numconv import jit
from numconv.machine import machine
from numconv.methods import methods as table
from numconv.problem import PADDING_MODES
from numconv.testing import arrays, assert_matches
from numconv.validate import describe

LOOPS = table()[-1]
FUNCTIONS = {1: nc.conv1d, 2: nc.conv2d, 3: nc.conv3d}
DTYPES = ("float32", "float64", "complex64", "int64", "uint8")
SIZES = {1: 40, 2: 9, 3: 4}


@st.composite
def problems(draw, dtypes=DTYPES, **fixed):
    """Any small Problem; keywords fix some of its options."""

    def option(name, strategy):
        return fixed[name] if name in fixed else draw(strategy)

    rank = option("rank", st.integers(1, 3))
    per_axis = lambda strategy: st.tuples(*[strategy] * rank)  # noqa: E731  # a strategy's own short form
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    groups = option("groups", st.integers(1, 3))
    batch, group_in, group_out = (option(n, st.integers(low, 4)) for n, low in (("batch", 0), ("ci", 0), ("co", 0)))
    kernel = draw(per_axis(st.integers(1, 4)))
    dilation = option("dilation", per_axis(st.integers(1, 3)))
    stride = option("stride", per_axis(st.integers(1, 4)))
    padding = option("padding", per_axis(st.tuples(st.integers(0, 4), st.integers(0, 4))))
    spatial = tuple(
        max(1, d * (k - 1) + 1 - sum(p) + draw(st.integers(0, SIZES[rank])))
        for d, k, p in zip(dilation, kernel, padding, strict=True)
    )
    mode = option("padding_mode", st.sampled_from(list(PADDING_MODES)))
    relu = dtype.kind != "c" and option("activation", st.booleans())
    return describe(
        rank,
        (batch, groups * group_in, *spatial),
        dtype,
        (groups * group_out, group_in, *kernel),
        dtype,
        *((groups * group_out,), dtype) * option("bias", st.booleans()),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        padding_mode=mode,
        padding_value=draw(st.integers(0, 3)) if mode == "constant" else 0,
        activation="relu" if relu else None,
    )


def options(problem):
    names = ("stride", "padding", "dilation", "groups", "padding_mode", "padding_value", "activation")
    return {name: getattr(problem, name) for name in names}


def call(problem, x, weight, bias, **others):
    """The Problem through the front door."""
    return FUNCTIONS[problem.rank](x, weight, bias, **{**options(problem), **others})


def run(method, problem, x, weight, bias, threads):
    """The Problem by one method, cut into so many shares."""
    on = machine(threads)
    out = np.empty(problem.out_shape, problem.accumulator)
    scratch = np.empty(method.scratch_bytes(problem, on), np.uint8)
    method.run(problem, on, method.prepare(problem, on, weight, bias), x, out, scratch)
    return out


@settings(max_examples=300)
@given(problem=problems(), seed=st.integers(0, 2**32))
def test_every_method_refuses_or_matches_the_oracle(problem, seed):
    data = arrays(problem, seed)
    for method in table():
        if method.why_not(problem, machine(jit.threads())) is None:
            result = call(problem, *data, method=method.NAME)
            assert_matches(problem, result, method.error_bound(problem), *data)


@settings(max_examples=200)
@given(problem=problems(dtypes=("float32", "complex64", "int64")), seed=st.integers(0, 2**32), shares=st.integers(1, 9))
def test_the_loops_keep_the_one_order_of_summation_in_any_number_of_shares(problem, seed, shares):
    data = arrays(problem, seed)
    np.testing.assert_array_equal(run(LOOPS, problem, *data, shares), exact.correlate(problem, *data))


@settings(max_examples=60)
@given(problem=problems(dtypes=("float32",)), seed=st.integers(0, 2**32))
def test_one_thread_and_several_give_the_same_bits(problem, seed):
    data = arrays(problem, seed)
    most = jit.threads()
    expected = call(problem, *data, reproducible=True)
    try:
        for threads in range(1, most + 1):
            numba.set_num_threads(threads)
            np.testing.assert_array_equal(call(problem, *data, reproducible=True), expected)
    finally:
        numba.set_num_threads(most)


@settings(max_examples=60)
@given(problem=problems(dtypes=("float32", "int64")), seed=st.integers(0, 2**32))
def test_a_plan_gives_the_bits_of_the_call_in_a_forked_child_too(problem, seed):
    x, weight, bias = arrays(problem, seed)
    expected = call(problem, x, weight, bias, reproducible=True)
    planned = nc.plan(x.shape, weight, bias, reproducible=True, **options(problem))
    np.testing.assert_array_equal(planned(x), expected)
    with pytest.MonkeyPatch.context() as patch:
        # As in a forked child.
        patch.setattr(jit, "_PROCESS", -1)
        np.testing.assert_array_equal(planned(x), expected)


@settings(max_examples=60)
@given(problem=problems(dtypes=("float32", "complex64")), seed=st.integers(0, 2**32), data=st.data())
def test_any_split_of_the_batch_gives_the_same_bits(problem, seed, data):
    x, weight, bias = arrays(problem, seed)
    cut = data.draw(st.integers(0, problem.batch))
    for method in table():
        if method.REPRODUCIBLE and method.why_not(problem, machine(jit.threads())) is None:
            results = [call(problem, part, weight, bias, method=method.NAME) for part in (x[:cut], x[cut:], x)]
            np.testing.assert_array_equal(np.concatenate(results[:2]), results[2])


@settings(max_examples=60)
@given(problem=problems(dtypes=("float32",), groups=1), seed=st.integers(0, 2**32), data=st.data())
def test_any_split_of_the_output_channels_gives_the_same_bits(problem, seed, data):
    x, weight, bias = arrays(problem, seed)
    cut = data.draw(st.integers(0, problem.out_channels))
    parts = [
        call(problem, x, weight[part], None if bias is None else bias[part], reproducible=True)
        for part in (slice(cut), slice(cut, None))
    ]
    np.testing.assert_array_equal(np.concatenate(parts, 1), call(problem, x, weight, bias, reproducible=True))


@settings(max_examples=60)
@given(problem=problems(dtypes=("float32",)), seed=st.integers(0, 2**32))
def test_groups_are_correlations_side_by_side(problem, seed):
    x, weight, bias = arrays(problem, seed)
    pieces = [
        call(problem, part, kernel, some, groups=1, reproducible=True)
        for part, kernel, some in zip(
            np.split(x, problem.groups, 1),
            np.split(weight, problem.groups),
            [None] * problem.groups if bias is None else np.split(bias, problem.groups),
            strict=True,
        )
    ]
    np.testing.assert_array_equal(np.concatenate(pieces, 1), call(problem, x, weight, bias, reproducible=True))


@settings(max_examples=100)
@given(problem=problems(dtypes=("float32", "uint8")), seed=st.integers(0, 2**32))
def test_padding_is_np_pad_before_the_call(problem, seed):
    x, weight, bias = arrays(problem, seed)
    mode = PADDING_MODES[problem.padding_mode]
    value = {"constant_values": problem.padding_value} if mode == "constant" else {}
    padded = np.pad(x, ((0, 0), (0, 0), *problem.padding), mode, **value)
    expected = call(problem, padded, weight, bias, padding=0, reproducible=True)
    np.testing.assert_array_equal(call(problem, x, weight, bias, reproducible=True), expected)


@settings(max_examples=60)
@given(problem=problems(dtypes=("float32",)), seed=st.integers(0, 2**32))
def test_a_stride_leaves_out_what_lies_between(problem, seed):
    data = arrays(problem, seed)
    every = call(problem, *data, stride=1, reproducible=True)
    steps = tuple(slice(None, None, step) for step in problem.stride)
    np.testing.assert_array_equal(call(problem, *data, reproducible=True), every[:, :, *steps])


@settings(max_examples=60)
@given(problem=problems(dtypes=("int64",)), seed=st.integers(0, 2**32))
def test_a_dilated_kernel_is_one_with_zeros_between(problem, seed):
    x, weight, bias = arrays(problem, seed)
    reach = tuple(d * (k - 1) + 1 for d, k in zip(problem.dilation, problem.kernel, strict=True))
    wide = np.zeros((*weight.shape[:2], *reach), weight.dtype)
    wide[:, :, *(slice(None, None, d) for d in problem.dilation)] = weight
    expected = call(problem, x, wide, bias, dilation=1)
    np.testing.assert_array_equal(call(problem, x, weight, bias), expected)


@settings(max_examples=60)
@given(problem=problems(dtypes=("int64",), activation=False, bias=False), seeds=st.tuples(*[st.integers(0, 2**32)] * 2))
def test_a_correlation_is_linear_in_both_arguments(problem, seeds):
    (x, weight, _), (other_x, other_weight, _) = (arrays(problem, seed) for seed in seeds)
    # With a constant that is not zero it would be affine.
    linear = lambda x, weight: call(problem, x, weight, None, padding_value=0)  # noqa: E731
    left, right = linear(x + 3 * other_x, weight), linear(x, weight + 3 * other_weight)
    base = linear(x, weight)
    np.testing.assert_array_equal(left, base + 3 * linear(other_x, weight))
    np.testing.assert_array_equal(right, base + 3 * linear(x, other_weight))


@settings(max_examples=60)
@given(
    problem=problems(
        dtypes=("int64",),
        rank=2,
        groups=1,
        stride=(1, 1),
        padding=((0, 0), (0, 0)),
        padding_mode="zeros",
        activation=False,
        bias=False,
    ),
    seed=st.integers(0, 2**32),
)
def test_the_full_correlation_with_the_turned_kernel_is_the_adjoint(problem, seed):
    x, weight, _ = arrays(problem, seed)
    result = call(problem, x, weight, None)
    other = np.random.default_rng(seed).integers(-9, 9, result.shape)
    turned = weight[:, :, ::-1, ::-1].swapaxes(0, 1)
    back = call(problem, other, turned, None, padding="full")
    assert (result * other).sum() == (x * back).sum()


@settings(max_examples=40)
@given(problem=problems(dtypes=("float32",), rank=1), seed=st.integers(0, 2**32))
def test_a_signal_is_an_image_of_one_row(problem, seed):
    x, weight, bias = arrays(problem, seed)
    image = nc.conv2d(
        x[:, :, None],
        weight[:, :, None],
        bias,
        stride=(1, *problem.stride),
        padding=((0, 0), *problem.padding),
        dilation=(1, *problem.dilation),
        groups=problem.groups,
        padding_mode=problem.padding_mode,
        padding_value=problem.padding_value,
        activation=problem.activation,
        reproducible=True,
    )
    np.testing.assert_array_equal(call(problem, x, weight, bias, reproducible=True), image[:, :, 0])
