"""bench/watch.py: turns that wait for a quiet processor and are given again where they were disturbed."""

from __future__ import annotations

import itertools

import pytest
from conftest import ROOT


@pytest.fixture
def watch(monkeypatch):
    """A watch over a processor that has these rates, one at a time, the first when it is made."""
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    module = __import__("watch")
    monkeypatch.setattr(module, "FIRST", 1)

    def made(*rates, patience=1e9):
        seen = iter(rates)
        return module.Watch(patience, lambda: next(seen)), seen

    return made


def turns(*seconds):
    """A turn that takes so long, and how often it was given."""
    left = list(seconds)
    return lambda: left.pop(0), left


def test_a_quiet_turn_is_given_once(watch):
    turn, left = turns(3.0, 1.0)
    watching, _ = watch(100, 95, 91)
    assert watching.best(turn) == 3.0
    assert left == [1.0]


def test_a_turn_waits_for_quiet(watch):
    turn, left = turns(3.0)
    watching, rates = watch(100, 50, 89, 90, 100, 7)
    assert watching.best(turn) == 3.0
    assert (left, list(rates)) == ([], [7])


def test_a_disturbed_turn_is_given_again_and_the_least_seconds_count(watch):
    turn, left = turns(3.0, 1.0, 2.0, 0.5)
    watching, _ = watch(100, 100, 50, 100, 50, 100, 100)
    assert watching.best(turn) == 1.0
    assert (watching.disturbed, left) == (0, [0.5])


def test_a_higher_rate_than_the_first_is_the_measure(watch):
    turn, left = turns(3.0, 1.0)
    watching, _ = watch(50, 50, 100, 60, 95, 95)
    assert watching.best(turn) == 3.0
    assert left == [1.0]
    assert watching.best(turn) == 1.0


def test_turns_are_not_given_for_ever(watch):
    turn, left = turns(*range(9, 0, -1))
    watching = watch(100, *itertools.chain(*[(100, 50)] * 9))[0]
    assert watching.best(turn) == 6
    assert watching.disturbed == 1
    assert left == [5, 4, 3, 2, 1]


def test_without_patience_a_turn_neither_waits_nor_is_given_again(watch):
    turn, left = turns(3.0, 1.0)
    watching, _ = watch(100, 50, 50, patience=0)
    assert watching.best(turn) == 3.0
    assert left == [1.0]
