"""A Problem says what a call means: its shapes, its padding, its dtypes, its line, its order of summation."""

from __future__ import annotations

import dataclasses
import itertools
import math
import pickle

import numpy as np
import pytest
from exact import starts_afresh

from numconv.problem import PADDING_MODES, SEGMENT, border_indices, padded_indices
from numconv.validate import accumulator_dtype, canonical, describe

F4 = np.dtype(np.float32)
INTEGERS = [np.dtype(name) for name in ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")]
FLOATS = [np.dtype(name) for name in ("f2", "f4", "f8", "c8", "c16")]


def line(size, kernel, **options):
    """A Problem with one spatial axis."""
    return describe(1, (1, 1, size), F4, (1, 1, kernel), F4, **options)


def positions(size, kernel, stride, dilation, before, after):
    """Where the kernel fits, counted by trying."""
    fits = [o for o in range(size + before + after) if o + dilation * (kernel - 1) < size + before + after]
    return fits[::stride]


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("pad", [(0, 0), (1, 1), (0, 3), (2, 0)])
def test_the_output_has_one_element_for_each_place_where_the_kernel_fits(stride, dilation, pad):
    for size, kernel in itertools.product(range(1, 12), range(1, 5)):
        places = positions(size, kernel, stride, dilation, *pad)
        options = {"stride": stride, "dilation": dilation, "padding": (pad,)}
        if places:
            assert line(size, kernel, **options).out_spatial == (len(places),)
        else:
            with pytest.raises(ValueError, match="the kernel spans"):
                line(size, kernel, **options)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
def test_same_gives_an_output_for_each_stride_with_the_odd_element_after(stride, dilation):
    for size, kernel in itertools.product(range(1, 12), range(1, 6)):
        same = line(size, kernel, stride=stride, dilation=dilation, padding="same")
        lower = line(size, kernel, stride=stride, dilation=dilation, padding="same_lower")
        (before, after), (lower_before, lower_after) = same.padding[0], lower.padding[0]
        assert same.out_spatial == lower.out_spatial == (math.ceil(size / stride),)
        assert (before, after) == (lower_after, lower_before)
        assert after - before in (0, 1)


def test_same_with_stride_1_is_torchs():
    # torch: total = dilation * (kernel - 1), its half before, the rest after.
    for kernel, dilation in itertools.product(range(1, 7), range(1, 4)):
        total = dilation * (kernel - 1)
        assert line(9, kernel, dilation=dilation, padding="same").padding == ((total // 2, total - total // 2),)


@pytest.mark.parametrize(
    ("given", "pairs"),
    [
        (0, ((0, 0), (0, 0))),
        (2, ((2, 2), (2, 2))),
        ((1, 2), ((1, 1), (2, 2))),
        ([[0, 1], [2, 3]], ((0, 1), (2, 3))),
        ([1, (2, 3)], ((1, 1), (2, 3))),
        (np.array([1, 2]), ((1, 1), (2, 2))),
        (np.array(3), ((3, 3), (3, 3))),
        (np.int8(1), ((1, 1), (1, 1))),
        ("valid", ((0, 0), (0, 0))),
        ("full", ((4, 4), (2, 2))),
        ("same", ((2, 2), (1, 1))),
        ("same_lower", ((2, 2), (1, 1))),
    ],
    ids=str,
)
def test_padding_in_any_form_becomes_pairs(given, pairs):
    problem = describe(2, (1, 1, 9, 9), F4, (1, 1, 3, 2), F4, padding=canonical("padding", given), dilation=2)
    assert problem.padding == pairs


def test_shapes_with_batch_and_without():
    batched = describe(2, (2, 4, 8, 9), F4, (6, 2, 3, 3), F4, groups=2)
    assert batched.x_shape == (2, 4, 8, 9)
    assert batched.weight_shape == (6, 2, 3, 3)
    assert batched.out_shape == (2, 6, 6, 7)
    assert describe(2, (4, 8, 9), F4, (6, 2, 3, 3), F4, groups=2) == dataclasses.replace(batched, batch=1)


def test_counts_follow_from_the_shapes():
    problem = describe(2, (2, 4, 8, 9), F4, (6, 2, 3, 3), F4, groups=2)
    assert (problem.pixels, problem.taps) == (6 * 7, 2 * 9)
    assert problem.products == 2 * 6 * 6 * 7 * 18
    assert problem.flops == 2 * problem.products
    assert problem.bytes == 4 * (2 * 4 * 8 * 9 + 6 * 2 * 9 + 2 * 6 * 6 * 7)
    assert describe(1, (1, 1, 3), np.dtype("c8"), (1, 1, 1), F4).flops == 8 * 3


@pytest.mark.parametrize("x", INTEGERS, ids=str)
@pytest.mark.parametrize("weight", INTEGERS, ids=str)
def test_integers_are_added_up_in_64_bits_unsigned_where_all_are(x, weight):
    signs = {x.kind, weight.kind}
    if np.dtype("u8") in (x, weight) and "i" in signs:
        with pytest.raises(TypeError, match="no integer dtype holds the sums of both"):
            accumulator_dtype(x, weight)
        return
    expected = np.uint64 if signs in ({"u"}, {"u", "b"}) else np.int64
    problem = describe(1, (1, 1, 1), x, (1, 1, 1), weight)
    assert (problem.accumulator, problem.output) == (expected, expected)


@pytest.mark.parametrize("bias", INTEGERS, ids=str)
def test_a_signed_bias_makes_unsigned_sums_signed(bias):
    bytes_, words = np.dtype("u1"), np.dtype("u8")
    problem = describe(1, (1, 1, 1), bytes_, (1, 1, 1), bytes_, (1,), bias)
    assert problem.accumulator == problem.output == (np.int64 if bias.kind == "i" else np.uint64)
    if bias.kind == "i":
        with pytest.raises(TypeError, match=f"the bias is {bias.name} and the sums are uint64, but no integer dtype"):
            describe(1, (1, 1, 1), words, (1, 1, 1), bytes_, (1,), bias)


@pytest.mark.parametrize("x", [*INTEGERS, *FLOATS], ids=str)
@pytest.mark.parametrize("weight", FLOATS, ids=str)
def test_floats_give_numpys_common_dtype_and_add_up_in_at_least_float32(x, weight):
    for pair in ((x, weight), (weight, x)):
        problem = describe(1, (1, 1, 1), pair[0], (1, 1, 1), pair[1])
        assert problem.output == np.result_type(*pair)
        assert problem.accumulator == np.result_type(*pair, np.float32)


@pytest.mark.parametrize(
    ("x", "wanted", "accumulator"),
    [
        ("f4", "f8", "f8"), ("f4", "f2", "f4"), ("f8", "f4", "f8"), ("f4", "c8", "c8"), ("f2", "c16", "c16"),
        ("i8", "i4", "i8"), ("u8", "i8", "u8"), ("u1", "i4", "u8"), ("i2", "f4", "f4"), ("i8", "f4", "f8"),
        ("u8", "f8", "f8"), ("?", "i1", "i8"),
    ],
)  # fmt: skip
def test_a_wanted_dtype_is_the_outputs_and_at_least_that_of_the_sums(x, wanted, accumulator):
    problem = describe(1, (1, 1, 1), np.dtype(x), (1, 1, 1), np.dtype(x), dtype=np.dtype(wanted))
    assert (problem.output, problem.accumulator) == (np.dtype(wanted), np.dtype(accumulator))


@pytest.mark.parametrize(
    "kernel",
    [(1,), (9,), (8192,), (8193,), (3, 3), (93, 95), (2, 8192), (3, 9000), (64, 128), (40, 50, 6), (2, 2, 4097)],
)
def test_accumulators_start_where_the_design_says(kernel):
    channels = max(3, 3 * SEGMENT // math.prod(kernel))
    problem = describe(len(kernel), (1, channels, *kernel), F4, (1, channels, *kernel), F4)
    taps = itertools.product(range(channels), np.ndindex(kernel))
    expected = [tap for tap, (ci, k) in enumerate(taps) if starts_afresh(ci, k, kernel)]
    period, segment = problem.segments
    starts = [tap for tap in range(problem.taps) if (tap % period) % segment == 0]
    assert starts == expected
    lengths = np.diff([*starts, problem.taps])
    # A product is added up within its segment, then in what the later segments leave.
    assert problem.longest_sum == lengths.max() + len(lengths) - 1
    assert max(lengths) <= max(SEGMENT, kernel[-1])


def test_the_bias_is_one_addition_more():
    plain = describe(1, (1, 5, 3), F4, (2, 5, 3), F4)
    assert plain.longest_sum == 15
    assert describe(1, (1, 5, 3), F4, (2, 5, 3), F4, (2,), F4).longest_sum == 16
    assert describe(1, (1, 0, 3), F4, (2, 0, 3), F4).longest_sum == 0


@pytest.mark.parametrize(
    ("text", "arguments", "options"),
    [
        ("float32 1x64x56x56 * 64x64x3x3", (2, (1, 64, 56, 56), F4, (64, 64, 3, 3), F4), {}),
        ("float32 1x3x5x5 * 2x3x1x1", (2, (3, 5, 5), F4, (2, 3, 1, 1), F4), {}),
        ("int8*float32 1x1x4 * 1x1x2 dtype float64", (1, (1, 4), np.dtype("i1"), (1, 1, 2), F4),
         {"dtype": np.dtype("f8")}),
        ("int8 1x1x4 * 1x1x2 dtype int64", (1, (1, 4), np.dtype("i1"), (1, 1, 2), np.dtype("i1")), {}),
        ("float32 2x4x9x9 * 6x2x3x3 groups 2 stride 2x1 dilation 3x3 padding 1 bias relu",
         (2, (2, 4, 9, 9), F4, (6, 2, 3, 3), F4, (6,), F4),
         {"groups": 2, "stride": (2, 1), "dilation": 3, "padding": 1, "activation": "relu"}),
        ("float32 1x1x9x9 * 1x1x3x3 padding 0+1x2 reflect", (2, (1, 1, 9, 9), F4, (1, 1, 3, 3), F4),
         {"padding": ((0, 1), (2, 2)), "padding_mode": "reflect"}),
        ("float32 1x1x9 * 1x1x3 padding 1 constant 0.5", (1, (1, 1, 9), F4, (1, 1, 3), F4),
         {"padding": 1, "padding_mode": "constant", "padding_value": 0.5}),
        ("float32 1x1x9 * 1x1x3 padding 1", (1, (1, 1, 9), F4, (1, 1, 3), F4),
         {"padding": 1, "padding_mode": "constant", "padding_value": -0.0}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_it_prints_in_one_line(text, arguments, options):
    assert str(describe(*arguments, **options)) == text


def test_it_is_frozen_and_a_key():
    problem = line(9, 3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        problem.batch = 2
    assert problem == line(9, 3)
    assert hash(problem) == hash(line(9, 3))
    assert problem != line(9, 3, stride=2)
    assert len({line(9, 3), line(9, 3), line(9, 2)}) == 2


def test_a_pickled_problem_is_the_same_key_in_another_process(run_python, tmp_path):
    # Strings hash otherwise there, so a hash that travelled along would be another one.
    problem = line(9, 3)
    hash(problem)
    (tmp_path / "problem").write_bytes(pickle.dumps(problem))
    printed = run_python(
        """
        import pickle, numpy as np
        from numconv.validate import describe
        kind = np.dtype("f4")
        made = describe(1, (1, 1, 9), kind, (1, 1, 3), kind)
        print(pickle.load(open("problem", "rb")) in {made})
        """,
        environment={"PYTHONHASHSEED": "1"},
    )
    assert printed == "True\n"


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("pair", [(0, 0), (1, 2), (3, 0), (0, 5), (9, 4), (17, 23)], ids=str)
def test_a_border_is_a_padded_axis_without_the_axis(mode, pair):
    for size in (1, 2, 5, 10, 11, 40, 100):
        whole = padded_indices(size, pair, mode)
        border = np.delete(whole, slice(pair[0], pair[0] + size))
        np.testing.assert_array_equal(border_indices(size, pair, mode), border)
