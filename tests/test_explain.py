"""`explain` shows what the planner thinks and `cost` counts, and neither runs anything."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import numconv as nc
from numconv import planner, plans
from numconv.explain import Explanation
from numconv.machine import machine
from numconv.planner import Candidate
from numconv.validate import describe

LAYER = ((1, 64, 56, 56), (64, 64, 3, 3))


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch):
    def fail(*_):
        raise AssertionError("a correlation was run")

    monkeypatch.setattr(plans, "_run", fail)


def test_every_method_has_its_predicted_time_or_its_refusal():
    explained = nc.explain(nc.conv2d, *LAYER, padding=1)
    assert str(explained.problem) == "float32 1x64x56x56 * 64x64x3x3 padding 1"
    matmul, separable, depthwise, planar, winograd, winograd2, tiled, fft, fft32, loops = explained.candidates
    assert (matmul.name, matmul.seconds) == ("matmul", None)
    assert matmul.refusal == "the kernel has 9 taps, but a matrix product takes 1x1"
    assert depthwise.refusal == "each output channel sums 64 input channels, but it takes one"
    assert separable.refusal == depthwise.refusal
    assert planar.refusal == "there is one group and no axis of planes, but its lanes hold either"
    for spends in (winograd, winograd2):
        assert spends.refusal == f"it spends digits: rtol={spends.expected_error:.1e} or more, or its name, lets it in"
    assert (tiled.name, tiled.refusal, explained.chosen) == ("tiled", None, "tiled")
    assert (fft.name, fft.refusal) == ("fft", None)
    assert fft32.refusal == f"it spends digits: rtol={fft32.expected_error:.1e} or more, or its name, lets it in"
    assert (loops.name, loops.refusal) == ("loops", None)
    assert loops.seconds > 0
    assert loops.flops >= explained.problem.flops
    assert loops.bytes >= explained.problem.bytes
    assert loops.scratch_bytes > 0
    assert 0 < loops.expected_error < loops.error_bound


def test_the_prediction_is_for_the_threads_of_the_moment(set_threads):
    set_threads(1)
    explained = nc.explain(nc.conv2d, *LAYER)
    assert explained.threads == 1
    assert explained.candidates == planner.candidates(explained.problem, machine(1), planner.Wish())
    times = [planner.candidates(explained.problem, machine(n), planner.Wish())[-2].seconds for n in (1, 2, 4)]
    assert times == sorted(times, reverse=True)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (nc.corr2d, ((5, 5), (2, 2))),
        (nc.corr2d_multi_in, ((3, 5, 5), (3, 2, 2))),
        (nc.corr2d_multi_in_out, ((3, 5, 5), (4, 3, 2, 2))),
        (nc.corr2d_multi_in_out_1x1, ((3, 5, 5), (4, 3, 1, 1))),
        (nc.trans_conv, ((5, 5), (2, 2))),
        (nc.conv1d, ((3, 5), (4, 3, 2), (4,))),
        (nc.conv2d, ((1, 3, 5, 5), (4, 3, 2, 2), (4,))),
        (nc.conv3d, ((3, 5, 5, 5), (4, 3, 2, 2, 2))),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_shapes_stand_for_float32_arrays_in_every_correlation(function, arguments):
    explained = nc.explain(function, *arguments)
    assert explained.problem.x_dtype == explained.problem.weight_dtype == np.float32
    assert explained.problem.has_bias == (len(arguments) == 3)
    arrays = [np.zeros(shape, np.float32) for shape in arguments]
    assert nc.explain(function, *arrays) == explained
    assert nc.cost(function, *arguments).problem == explained.problem


def test_a_shape_takes_no_memory():
    assert nc.cost(nc.conv2d, (1, 2**20, 2**10, 2**10), (2**20, 2**20, 1, 1)).forward_multiplications == 2**60


def test_the_wishes_of_the_call_are_in_the_explanation():
    explained = nc.explain(nc.conv2d, (1, 64, 56, 56), (64, 64, 1, 1), reproducible=True)
    assert explained.chosen != "matmul"
    assert explained.candidates[0].refusal.endswith("reproducible=True excludes that")
    assert explained.candidates[0].seconds > 0, "what it would have taken is still told"


def test_it_prints_as_a_table():
    problem = describe(2, *(part for shape in LAYER for part in (shape, np.dtype("f4"))))
    candidates = (
        Candidate("matmul", None, None, 2e-5, 1e-6, None, None, None, "the kernel has 9 taps"),
        Candidate("loops", 1.234e-3, 0.0, 3e-5, 2e-6, 231.2e6, 1.75e6, 73728, None),
        Candidate("quick", 56.7e-6, 0.0, 3e-5, 2e-6, 231.2e6, 1.75e6, 0, "rtol"),
    )
    table = """\
float32 1x64x56x56 * 64x64x3x3, 2 threads
    method  predicted  Gflop   MB moved  scratch KB  expected error  bound    why not
    matmul  -          -       -         -           1.0e-06         2.0e-05  the kernel has 9 taps
->  loops   1.23 ms    0.2312  1.75      73.73       2.0e-06         3.0e-05
    quick   56.7 us    0.2312  1.75      0           2.0e-06         3.0e-05  rtol"""
    assert str(Explanation(problem, 2, candidates, "loops")) == table
    assert str(Explanation(problem, 1, candidates, "loops")).splitlines()[0].endswith(", 1 thread")


def counted(x_shape, weight_shape, stride, bias):
    """Operations of a correlation without padding, one by one, each sum's first term being no addition."""
    (ci, h, w), (co, _, kh, kw) = x_shape, weight_shape
    oh, ow = (h - kh) // stride + 1, (w - kw) // stride + 1
    seen, forward, backward = set(), [0, 0], [0, 0]

    def add(kind, *key):
        first = (kind, *key) not in seen
        seen.add((kind, *key))
        return 0 if first else 1

    for o, i, j in itertools.product(range(co), range(oh), range(ow)):
        for c, a, b in itertools.product(range(ci), range(kh), range(kw)):
            forward[0] += 1
            forward[1] += add("y", o, i, j)
            backward[0] += 2
            backward[1] += add("dx", c, i * stride + a, j * stride + b) + add("dw", o, c, a, b)
        if bias:
            forward[1] += add("y", o, i, j)
            backward[1] += add("db", o)
    return forward, backward


@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("stride", [1, 2])
def test_cost_counts_what_a_loop_would_do(stride, bias):
    x_shape, weight_shape = (3, 7, 5), (4, 3, 3, 3)
    arguments = (x_shape, weight_shape, (4,)) if bias else (x_shape, weight_shape)
    counts = nc.cost(nc.conv2d, *arguments, stride=stride)
    forward, backward = counted(x_shape, weight_shape, stride, bias)
    assert [counts.forward_multiplications, counts.forward_additions] == forward
    assert [counts.backward_multiplications, counts.backward_additions] == backward


def test_cost_answers_the_textbooks_exercise():
    # 7.4.5, exercise 2: input (ci, h, w), kernel (co, ci, kh, kw), padding (ph, pw), stride (sh, sw).
    ci, co, h, w, kh, kw, ph, pw, sh, sw = 3, 8, 30, 40, 5, 3, 2, 1, 2, 3
    oh, ow = (h + 2 * ph - kh) // sh + 1, (w + 2 * pw - kw) // sw + 1
    counts = nc.cost(nc.conv2d, (1, ci, h, w), (co, ci, kh, kw), padding=(ph, pw), stride=(sh, sw))
    assert counts.forward_multiplications == co * ci * kh * kw * oh * ow
    assert counts.forward_additions == co * (ci * kh * kw - 1) * oh * ow
    assert counts.backward_multiplications == 2 * counts.forward_multiplications
    x, weight, y = ci * h * w, co * ci * kh * kw, co * oh * ow
    assert counts.forward_bytes == 4 * (x + weight + y)
    assert counts.backward_bytes == 4 * (y + 2 * x + 2 * weight), "reads y', x, weight; writes x', weight'"


def test_doubling_the_channels_quadruples_the_multiplications_of_input_and_output():
    # 7.4.5, exercise 3.
    one = nc.cost(nc.conv2d, (1, 4, 9, 9), (4, 4, 3, 3)).forward_multiplications
    assert nc.cost(nc.conv2d, (1, 8, 9, 9), (8, 8, 3, 3)).forward_multiplications == 4 * one
    assert nc.cost(nc.conv2d, (1, 4, 9, 9), (4, 4, 3, 3), padding=1).forward_multiplications > one


def test_cost_of_nothing_is_nothing():
    counts = nc.cost(nc.conv2d, (2, 0, 8, 9), (4, 0, 3, 3))
    assert counts.forward_multiplications == counts.forward_additions == counts.backward_additions == 0
