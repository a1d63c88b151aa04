"""One order of summation, proved: the bits of golden.json, from every method that promises them, however it is run."""

from __future__ import annotations

import exact
import golden
import numpy as np
import pytest

from numconv.machine import machine
from numconv.methods import methods as table
from numconv.planner import Call, Options, Wish, candidates, choose
from numconv.plans import execute
from numconv.testing import EDGES

GOLDEN = golden.golden()
REPRODUCIBLE = [method for method in table() if method.REPRODUCIBLE]
OTHERS = [method for method in table() if not method.REPRODUCIBLE]

variants = pytest.mark.parametrize("variant", golden.VARIANTS)


def differing(found, variant):
    return [name for name, digest in found.items() if digest != GOLDEN[variant][name]]


@variants
def test_the_file_holds_every_case(variant):
    assert list(GOLDEN) == list(golden.VARIANTS)
    assert list(GOLDEN[variant]) == list(golden.problems(variant))


@pytest.mark.parametrize("threads", [1, 3])
@variants
@pytest.mark.parametrize("method", REPRODUCIBLE, ids=lambda method: method.NAME)
def test_every_method_of_the_one_order_gives_the_golden_bits(method, variant, threads):
    found = golden.digests(method, variant, machine(threads))
    assert found or variant not in ("float32", "float64")
    assert differing(found, variant) == []


@variants
def test_a_reproducible_call_gives_the_golden_bits(variant):
    found = {}
    for case in golden.CASES:
        if case.name in GOLDEN[variant]:
            x, weight, bias = golden.arrays(case.problem(variant.partition(" ")[0]), variant)
            call = Call(case.rank, x, weight, bias, Options(**case.options), Wish(reproducible=True))
            with np.errstate(invalid="ignore"):
                found[case.name] = golden.digest(execute(call))
    assert len(found) == len(GOLDEN[variant])
    assert differing(found, variant) == []


@pytest.mark.parametrize("rtol", [None, 1.0])
def test_reproducible_admits_the_methods_of_the_one_order_alone(rtol):
    on, wish = machine(2), Wish(reproducible=True, rtol=rtol)
    for case in golden.CASES:
        problem = case.problem()
        assert choose(problem, on, wish, False).REPRODUCIBLE
        admitted = {candidate.name for candidate in candidates(problem, on, wish) if candidate.refusal is None}
        assert admitted.isdisjoint(method.NAME for method in OTHERS)


@pytest.mark.parametrize(
    "case", [case for case in EDGES if case.name in ("plain", "bias", "segments by channel", "groups", "3-D", "1x1")],
    ids=lambda case: case.name,
)  # fmt: skip
def test_the_golden_bits_are_those_of_exact_arithmetic(case):
    problem = case.problem()
    assert golden.digest(exact.correlate(problem, *golden.arrays(problem, "float32"))) == GOLDEN["float32"][case.name]


def test_a_digest_tells_one_bit_and_one_zero_but_no_nan_from_another():
    zeros = np.zeros((2, 3), np.float32)
    least = zeros.copy()
    least[1, 2] = 1e-45
    assert len({golden.digest(array) for array in (zeros, -zeros, least, zeros.T, zeros.astype("f8"))}) == 5
    quiet = np.array([0x7FC00000, 0xFFC00001], np.uint32).view(np.float32)
    assert golden.digest(quiet[:1]) == golden.digest(quiet[1:])
    assert golden.digest(quiet[:1] * 1j) == golden.digest(quiet[1:] * 1j)
