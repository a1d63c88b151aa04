"""What bench/auto_regret.py computes: its random layers, its statistics and whom it times. No layer is run."""

from __future__ import annotations

import math

import pytest
from conftest import ROOT

from numconv.machine import machine
from numconv.planner import Wish, choose


@pytest.fixture
def bench(monkeypatch):
    """The module."""
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    return __import__("auto_regret")


def test_random_layers_are_the_same_for_a_seed_and_within_bounds(bench):
    layers = bench.random_layers(60, seed=1)
    assert layers == bench.random_layers(60, seed=1)
    assert layers != bench.random_layers(60, seed=2)
    problems = [layer.problem for layer in layers]
    for problem, layer in zip(problems, layers, strict=True):
        assert problem.flops >= bench.LEAST_FLOPS or problem.bytes >= bench.LEAST_BYTES
        assert problem.flops <= bench.MOST_FLOPS.get(layer.dtype, bench.FEW_FLOPS)
        assert problem.bytes <= bench.MOST_BYTES
        assert choose(problem, machine(1), Wish(), prepared=True)
    assert {problem.rank for problem in problems} == {1, 2, 3}
    assert {"float32", "float64"} < {layer.dtype for layer in layers}
    assert any(problem.groups == problem.in_channels > 1 for problem in problems)
    assert any(1 < problem.groups < problem.in_channels for problem in problems)
    assert {True, False} == {max(problem.stride) > 1 for problem in problems}
    assert {True, False} == {max(problem.dilation) > 1 for problem in problems}


def test_named_layers_are_those_of_the_peers(bench):
    assert len(bench.named_layers()) == sum(map(len, bench.CLASSES.values()))


def test_statistics_of_regrets(bench):
    figures = bench.statistics_of([1.0] * 18 + [1.1, 2.0])
    assert figures == pytest.approx(
        {"geometric mean": math.exp((math.log(1.1) + math.log(2)) / 20), "95th percentile": 1.1, "worst": 2.0}
    )
    assert bench.percentile([3.0, 1.0, 2.0], 0.5) == 2.0


def row(bench, choice, slow=3.0):
    return bench.Row("a problem", {"a": 1.0, "b": slow}, {"a": 2.0, "b": 1.0}, {"w": ["a", "b"]}, {"w": choice})


def test_a_regret_is_the_choices_time_over_the_best(bench):
    assert row(bench, "a").regret("w") == 1
    assert row(bench, "b").regret("w") == 3


def test_a_report_shows_the_worst_and_whether_the_bars_hold(bench):
    lines, holds = bench.report([row(bench, "a")] * 99 + [row(bench, "b", slow=1.4)], "w")
    assert holds
    assert lines[4:7] == [
        "    1.40  a problem",
        "             a          predicted  2000000 us, measured  1000000 us",
        "          -> b          predicted  1000000 us, measured  1400000 us",
    ]
    lines, holds = bench.report([row(bench, "b")], "w")
    assert not holds
    assert sum("MISSED" in line for line in lines) == 3


def test_after_a_turn_only_those_near_the_best_and_the_choices_go_on(bench, monkeypatch):
    turns = {
        "best": iter([1.0, 3.0, 2.0]),
        "near": iter([1.5, 1.5, 1.5]),
        "far": iter([9.0]),
        "chosen": iter([9.0] * 3),
    }
    monkeypatch.setattr(bench, "turn", lambda run, clock: next(turns[run]))
    times = bench.medians({name: name for name in turns}, ["chosen"], 3, None)
    assert times == {"best": 2.0, "near": 1.5, "far": 9.0, "chosen": 9.0}


def test_a_turn_is_the_best_call_after_one_that_is_not_counted(bench):
    ticks = iter([0.0, 0.05, 1.0, 1.02, 2.0, 2.03, 3.0, 3.01, 4.0, 4.04])
    calls = []
    assert bench.turn(lambda: calls.append(1), lambda: next(ticks)) == pytest.approx(0.01)
    assert len(calls) == 2 + bench.TURN_CALLS
