"""What numconv knows of the hardware is what numba compiles for, and what a bad answer leaves is a default."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from numconv import jit, machine, peaks
from numconv.machine import DEFAULT_CACHES, Machine

FACTS = Machine(threads=2, cpu="none", vector_bytes=32, has_fma=True, caches=DEFAULT_CACHES)


def test_the_machine_is_frozen_and_a_key():
    with pytest.raises(dataclasses.FrozenInstanceError):
        FACTS.threads = 3
    assert hash(FACTS) == hash(dataclasses.replace(FACTS))
    assert machine.machine(2) is machine.machine(2)


def test_this_machine_has_plausible_facts():
    here = machine.machine(3)
    assert here.threads == 3
    assert here.vector_bytes in (16, 32, 64)
    assert here.cpu
    assert list(here.caches) == sorted(here.caches)


@pytest.mark.parametrize(
    ("features", "width", "fma"),
    [
        ("+sse4.2", 16, False),
        ("+avx,+avx2,+fma", 32, True),
        ("+avx,+fma,+avx512f", 64, True),
        ("+avx,-avx512f,-fma", 32, False),
    ],
)
def test_the_features_that_numba_was_told_decide(monkeypatch, features, width, fma):
    monkeypatch.setattr(machine._config, "CPU_FEATURES", features)
    here = machine.machine.__wrapped__(1)
    assert (here.vector_bytes, here.has_fma) == (width, fma)


def test_rates_grow_with_threads_and_shrink_with_the_size_of_a_number():
    rates = [FACTS.flop_rate(np.dtype(name)) for name in ("f4", "f8", "c8", "c16")]
    assert rates[0] == rates[2] == 2 * rates[1] == 2 * rates[3]
    assert dataclasses.replace(FACTS, threads=4).flop_rate(np.dtype("f4")) == 2 * rates[0]
    assert dataclasses.replace(FACTS, vector_bytes=64).flop_rate(np.dtype("f4")) > rates[0]
    assert FACTS.bandwidth <= dataclasses.replace(FACTS, threads=64).bandwidth == machine.MACHINE_BANDWIDTH


def test_unreadable_caches_are_the_default(monkeypatch):
    def fail(self):
        raise OSError

    monkeypatch.setattr(Path, "read_text", fail)
    assert machine._caches() == DEFAULT_CACHES
    monkeypatch.setattr(Path, "glob", lambda self, pattern: [])
    assert machine._caches() == DEFAULT_CACHES


def test_both_peaks_are_measured():
    measured = peaks.measure(repeats=1)
    assert measured.flops > 1e8
    assert measured.bandwidth > 1e8


def test_the_copy_that_is_measured_copies():
    source, target = np.arange(1001, dtype=np.float32), np.zeros(1001, np.float32)
    peaks.copy_all(jit.threads(), source, target)
    np.testing.assert_array_equal(target, source)
