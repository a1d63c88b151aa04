"""The planner asks each method, admits by the caller's wishes, and takes the fastest; a Plan keeps the choice."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import numconv as nc
from numconv import planner
from numconv.machine import gpu_machine, machine, typical_gpu
from numconv.method import Work
from numconv.methods import methods as table
from numconv.planner import Wish, candidates, choose, seconds
from numconv.testing import CASES, EDGES
from numconv.validate import describe

ON, GPU = machine(2), gpu_machine(typical_gpu((9, 0)))
# Of enough terms for the expected error to be well under the proved bound.
ONE_BY_ONE = describe(2, (1, 300, 4, 4), np.dtype("f4"), (2, 300, 1, 1), np.dtype("f4"))


def method(
    name, running=1.0, preparing=0.0, refusal=None, reproducible=False, expected=1e-6, bound=1e-4, needs_rtol=False
):
    """A method that does nothing but answer the planner's questions; times in seconds."""
    return types.SimpleNamespace(
        NAME=name,
        REPRODUCIBLE=reproducible,
        NEEDS_RTOL=needs_rtol,
        STRIDED_OUT=False,
        why_not=lambda problem, on: refusal,
        error_bound=lambda problem: bound,
        expected_error=lambda problem: expected,
        work=lambda problem, on: Work(running, 1.0, 0.0, 0.0, preparing * on.bandwidth),
        scratch_bytes=lambda problem, on: 7,
    )


@pytest.fixture
def offer(monkeypatch):
    """Put other methods into the table."""
    return lambda *methods: monkeypatch.setattr(planner, "methods", lambda: methods)


def chosen(prepared=False, **wish):
    return choose(ONE_BY_ONE, ON, Wish(**wish), prepared).NAME


def test_the_roofline_adds_computing_and_moving_to_the_launch_and_a_gpu_hides_the_shorter():
    assert seconds(Work(flops=6e9, rate=3e9, bytes=0, overhead=0.5, prepare_bytes=0), ON) == (0, 2.5)
    for on, running in ((ON, 6), (GPU, 4)):
        both = Work(flops=6, rate=3, bytes=3 * on.bandwidth, overhead=1, prepare_bytes=2 * on.bandwidth)
        assert seconds(both, on) == (2, running)


def test_the_fastest_wins_and_the_first_of_equals(offer):
    offer(method("slow", 3), method("quick", 1), method("equal", 1))
    assert chosen() == "quick"


def test_a_call_counts_preparing_and_a_plan_does_not(offer):
    offer(method("packs", 1, preparing=5), method("plain", 2))
    assert chosen() == "plain"
    assert chosen(prepared=True) == "packs"


def test_one_that_refuses_is_not_taken_however_fast(offer):
    offer(method("quick", 1, refusal="it cannot"), method("slow", 2))
    assert chosen() == "slow"
    with pytest.raises(ValueError, match="method='quick' does not serve: it cannot; 'auto' finds one that does"):
        chosen(method="quick")


def test_a_name_overrides_the_times_alone(offer):
    offer(method("quick", 1), method("slow", 2))
    assert chosen(method="slow") == "slow"


@pytest.mark.parametrize(
    ("wish", "name"),
    [
        ({}, "quick"),
        ({"reproducible": True}, "direct"),
        ({"rtol": 1e-6}, "quick"),
        ({"rtol": 0.99e-6}, "direct"),
        ({"rtol": 1e-4, "rtol_kind": "bound"}, "quick"),
        ({"rtol": 0.99e-4, "rtol_kind": "bound"}, "direct"),
        ({"rtol": 1.0, "reproducible": True}, "direct"),
        ({"rtol": 0.0}, "direct"),
    ],
    ids=str,
)
def test_wishes_admit_and_exclude(offer, wish, name):
    offer(method("quick", 1), method("direct", 2, reproducible=True, expected=1e-3, bound=1e-2))
    assert chosen(**wish) == name


@pytest.mark.parametrize(
    ("wish", "name"),
    [({}, "direct"), ({"rtol": 1e-6}, "spends"), ({"rtol": 0.99e-6}, "direct"), ({"method": "spends"}, "spends")],
    ids=str,
)
def test_one_that_spends_digits_is_taken_by_an_rtol_or_by_its_name(offer, wish, name):
    offer(method("spends", 1, needs_rtol=True), method("direct", 2, reproducible=True))
    assert chosen(**wish) == name


def test_one_that_spends_digits_says_which_rtol_lets_it_in(offer):
    offer(method("spends", 1, needs_rtol=True), method("direct", 2, reproducible=True))
    sentence = "it spends digits: rtol=1.0e-06 or more, or its name, lets it in"
    assert candidates(ONE_BY_ONE, ON, Wish())[0].refusal == sentence


@pytest.mark.parametrize("case", EDGES, ids=lambda case: case.name)
@pytest.mark.parametrize("wish", [{}, {"reproducible": True}, {"rtol": 0.0}], ids=str)
def test_auto_finds_a_method_for_every_case(case, wish):
    assert choose(case.problem(), ON, Wish(**wish), False) in table()


NOT_3X3 = "its transforms are of kernels of 3x3 taps in the last two axes"
ONE_TAP = "the kernel has one tap, so that there is nothing to transform"
DEEP = "each output channel sums 300 input channels, but it takes one"


@pytest.mark.parametrize(
    ("wish", "refusals"),
    [
        ({}, {"matmul": None, "separable": DEEP, "depthwise": DEEP, "tiled": None, "loops": None}),
        ({"method": "loops"},
         {"matmul": "method='loops' was asked for", "separable": DEEP, "depthwise": DEEP,
          "tiled": "method='loops' was asked for", "loops": None}),
        ({"reproducible": True},
         {"matmul": "it leaves the one order of summation, and reproducible=True excludes that",
          "separable": DEEP, "depthwise": DEEP, "tiled": None, "loops": None}),
        ({"rtol": 1e-9},
         {"matmul": "its expected error is 8.3e-06, over rtol=1e-09", "separable": DEEP, "depthwise": DEEP,
          "tiled": None, "loops": None}),
        ({"rtol": 1e-5}, {"matmul": None, "separable": DEEP, "depthwise": DEEP, "tiled": None, "loops": None}),
        ({"rtol": 1e-5, "rtol_kind": "bound"},
         {"matmul": "its proved error bound is 1.8e-05, over rtol=1e-05", "separable": DEEP, "depthwise": DEEP,
          "tiled": None, "loops": None}),
    ],
    ids=str,
)  # fmt: skip
def test_candidates_tell_each_methods_refusal_by_its_text(wish, refusals):
    found = candidates(ONE_BY_ONE, ON, Wish(**wish))
    told = {candidate.name: candidate.refusal for candidate in found}
    not_taken = dict.fromkeys(("winograd", "winograd2"), NOT_3X3) | dict.fromkeys(("fft", "fft32"), ONE_TAP)
    not_taken["planar"] = "there is one group and no axis of planes, but its lanes hold either"
    assert told == refusals | not_taken


def test_candidates_of_one_that_refuses_have_no_time():
    found = {candidate.name: candidate for candidate in candidates(CASES["plain"].problem(), ON, Wish())}
    refused, served = found["matmul"], found["tiled"]
    assert (refused.name, refused.seconds, refused.flops, refused.scratch_bytes) == ("matmul", None, None, None)
    assert served.seconds > 0
    assert served.flops >= CASES["plain"].problem().flops


def test_each_layer_gets_the_method_that_was_measured_faster():
    for shape, weight, name in (
        ((1, 2048, 7, 7), (512, 2048, 1, 1), "matmul"),
        ((1, 64, 56, 56), (256, 64, 1, 1), "tiled"),
        ((1, 64, 56, 56), (64, 64, 3, 3), "tiled"),
        ((1, 1, 1024, 1024), (1, 1, 5, 5), "depthwise"),
    ):
        assert nc.explain(nc.conv2d, shape, weight).chosen == name


@pytest.mark.parametrize(
    ("size", "ci", "co", "name"),
    [(56, 64, 256, "tiled"), (28, 128, 512, "tiled"), (7, 512, 2048, "tiled"), (1, 512, 1000, "matmul")],
)
def test_tiles_or_blas_for_1x1_by_the_size_of_the_map(size, ci, co, name):
    """Prepared, that is: packing the weights for one call takes longer than tiles gain."""
    weight = np.zeros((co, ci, 1, 1), np.float32)
    assert nc.plan((1, ci, size, size), weight).method == name


# Plans.


@pytest.fixture
def layer(rng):
    """Input, weight and bias of a small layer."""
    return [rng.standard_normal(shape).astype(np.float32) for shape in ((2, 3, 8, 9), (4, 3, 3, 3), (4,))]


def test_a_plan_gives_what_a_call_gives(layer):
    x, weight, bias = layer
    options = {"stride": 2, "padding": "same", "activation": "relu"}
    planned = nc.plan(x.shape, weight, bias, **options)
    np.testing.assert_array_equal(planned(x), nc.conv2d(x, weight, bias, **options))


def test_a_plan_of_one_image_takes_one_image(layer):
    x, weight, bias = layer
    planned = nc.plan(x[0].shape, weight, bias)
    np.testing.assert_array_equal(planned(x[0]), nc.conv2d(x[0], weight, bias))
    with pytest.raises(ValueError, match="this plan takes"):
        planned(x[:1])


@pytest.mark.parametrize("method", ["loops", "tiled", "matmul"])
def test_later_edits_of_the_weights_have_no_effect(rng, method):
    x, weight, bias = rng.standard_normal((1, 3, 4)), rng.standard_normal((2, 3, 1)), rng.standard_normal(2)
    planned = nc.plan(x.shape, weight, bias, method=method)
    expected = planned(x)
    weight[:] = 0
    bias[:] = 0
    np.testing.assert_array_equal(planned(x), expected)


def test_a_plan_writes_where_it_is_told_and_returns_it(layer):
    x, weight, bias = layer
    planned = nc.plan(x.shape, weight, bias)
    out = np.empty((2, 4, 6, 7), np.float32)
    assert planned(x, out=out) is out
    np.testing.assert_array_equal(out, planned(x))


def test_a_plan_takes_lists_and_the_dtype_it_was_made_for():
    planned = nc.plan((1, 4), [[[1, -1]]], x_dtype=np.int8)
    assert planned.problem.x_dtype == np.int8
    assert planned(np.array([[3, 2, 1, 5]], np.int8)).tolist() == [[1, 1, -4]]
    assert nc.plan((1, 4), [[[1, -1]]])([[3, 2, 1, 5]]).tolist() == [[1, 1, -4]]


def test_a_plan_tells_what_it_will_do(layer):
    x, weight, bias = layer
    planned = nc.plan(x.shape, weight, bias)
    assert planned.problem == describe(2, x.shape, x.dtype, weight.shape, weight.dtype, bias.shape, bias.dtype)
    assert planned.method == "tiled"
    assert planned.seconds > 0
    tiled = next(method for method in table() if method.NAME == "tiled")
    assert planned.error_bound == tiled.error_bound(planned.problem)
    assert planned.expected_error == tiled.expected_error(planned.problem)
    assert planned.prepared_bytes == weight.nbytes + bias.nbytes
    assert planned.scratch_bytes > 0
    assert str(planned.problem) in repr(planned)
    assert "tiled" in repr(planned)


def test_a_plan_keeps_one_scratch_for_each_call_in_flight(layer):
    x, weight, _ = layer
    planned = nc.plan(x.shape, weight)
    for _ in range(5):
        planned(x)
    with pytest.raises(ValueError, match="this plan takes"):
        planned(x[:1])
    with pytest.raises(TypeError, match="out has dtype"):
        planned(x, out=np.empty((2, 4, 6, 7)))
    (free,) = planned._free.values()
    assert len(free) == 1
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(planned, [x] * 40))
    assert 1 <= len(free) <= 4


def test_a_plan_follows_the_number_of_threads(layer, set_threads):
    x, weight, _ = layer
    planned = nc.plan(x.shape, weight)
    expected = planned(x)
    set_threads(1)
    np.testing.assert_array_equal(planned(x), expected)


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda plan: pickle.loads(pickle.dumps(plan))])
def test_a_copied_or_pickled_plan_does_the_same(layer, again):
    x, weight, bias = layer
    planned = nc.plan(x.shape, weight, bias, padding=1)
    expected = planned(x)
    other = again(planned)
    np.testing.assert_array_equal(other(x), expected)
    assert (other.problem, other.method, repr(other)) == (planned.problem, planned.method, repr(planned))


def test_explain_and_plan_agree_with_the_call_on_the_method():
    for case in EDGES:
        function = {1: nc.conv1d, 2: nc.conv2d, 3: nc.conv3d}[case.rank]
        options = {**case.options, **({"bias": case.weight_shape[:1]} if case.bias else {})}
        explained = nc.explain(function, case.x_shape, case.weight_shape, **options)
        assert explained.problem == dataclasses.replace(case.problem(), x_dtype=np.dtype("f4"), rank_one=None)
        assert explained.chosen in {candidate.name for candidate in explained.candidates if not candidate.refusal}
