"""Golden digests: the results that every method which keeps the one order of summation gives, on any machine.

golden.json holds them by dtype and case. ``python tests/golden.py`` writes it anew, by `loops`: for a case that is new,
and for no other reason, since these bits are promised.

Inputs come from SplitMix64 (G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014)
by integer arithmetic and exact scalings alone, so no version of NumPy draws others.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from numconv.machine import machine
from numconv.methods import methods
from numconv.phased import summing
from numconv.planner import phased_on
from numconv.testing import ADJOINTS, EDGES, Case

FILE = Path(__file__).with_suffix(".json")
# Planes that meet every road through `depthwise`.
PLANES = (
    Case("rows in place", (1, 2, 20, 151), (2, 1, 3, 3), {"groups": 2}),
    Case("rows by two", (1, 2, 20, 75), (2, 1, 3, 3), {"groups": 2, "stride": 2, "padding": 1}),
    Case("narrow 5x5", (2, 3, 14, 7), (3, 1, 5, 5), {"groups": 3, "padding": 2}),
    Case("narrow 7x7", (1, 3, 9, 8), (3, 1, 7, 7), {"groups": 3, "padding": 3}),
)
CASES = (*EDGES, *ADJOINTS, *PLANES)
# NaN, inf, a subnormal number and -0 strewn into the input.
SPECIAL = "float32 with NaN and inf"
VARIANTS = ("float32", SPECIAL, "float64", "int32", "complex64")


def words(count, seed):
    """So many 64-bit words of the stream of a seed."""
    state = (np.arange(1, count + 1, dtype=np.uint64) + np.uint64(seed << 32)) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ state >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ state >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return state ^ state >> np.uint64(31)


def numbers(shape, dtype, seed):
    """Integers over the dtype's whole range; floats of random digits and sign, from 2**-4 to 2**3 in magnitude."""
    if dtype.kind == "c":
        parts = numbers((*shape, 2), np.dtype(f"f{dtype.itemsize // 2}"), seed)
        return parts.view(dtype)[..., 0]
    drawn = words(int(np.prod(shape)), seed).reshape(shape)
    if dtype.kind in "iu":
        return (drawn >> np.uint64(64 - 8 * dtype.itemsize)).astype(f"u{dtype.itemsize}").view(dtype)
    digits = np.finfo(dtype).nmant + 1
    fractions = (drawn >> np.uint64(64 - digits)).astype(np.float64) * 2.0 ** (1 - digits) - 1
    return np.ldexp(fractions, (drawn % np.uint64(8)).astype(np.int32) - 4).astype(dtype)


def arrays(problem, variant):
    """Input, weight and bias of a Problem, the same everywhere and for ever."""
    x = numbers(problem.x_shape, problem.x_dtype, 0)
    if variant == SPECIAL:
        values = np.array([np.nan, np.inf, -np.inf, 1e-44, -0.0], x.dtype)
        places = words(len(values), 3) % np.uint64(max(1, x.size))
        x.flat[places[: x.size].astype(np.intp)] = values[: x.size]
    weight = numbers(problem.weight_shape, problem.weight_dtype, 1)
    return x, weight, numbers((problem.out_channels,), problem.weight_dtype, 2) if problem.has_bias else None


def problems(variant):
    """Case name -> Problem of the cases that there are in a dtype."""
    dtype = np.dtype(variant.partition(" ")[0])
    return {
        case.name: case.problem(dtype)
        for case in CASES
        if not (dtype.kind == "c" and case.options.get("activation") == "relu")
    }


def digest(result):
    """Of a result's shape and bits; every NaN is the same."""
    parts = np.ascontiguousarray(result)
    parts = parts.view(f"f{parts.itemsize // 2}") if parts.dtype.kind == "c" else parts
    if parts.dtype.kind == "f":
        parts = np.where(np.isnan(parts), parts.dtype.type(np.nan), parts)
    little = parts.astype(parts.dtype.newbyteorder("<")).tobytes()
    return hashlib.sha256(f"{result.shape} {result.dtype.name} ".encode() + little).hexdigest()[:16]


def run(method, problem, on, x, weight, bias, garbage=0xFF):
    """One call of a method, for every phase of a Problem in phases, with scratch full of garbage."""
    serves = method if problem.plain else phased_on(on)(problem, (method,) * len(summing(problem)), method.NAME)
    if serves.why_not(problem, on) is not None:
        return None
    out = np.full(problem.out_shape, 7, problem.accumulator)
    scratch = np.full(serves.scratch_bytes(problem, on), garbage, np.uint8)
    serves.run(problem, on, serves.prepare(problem, on, weight, bias), x.reshape(problem.x_shape), out, scratch)
    return out


def digests(method, variant, on):
    """Case name -> digest of a method's result, of the cases that it serves."""
    found = {}
    with np.errstate(invalid="ignore"):
        for name, problem in problems(variant).items():
            result = run(method, problem, on, *arrays(problem, variant))
            if result is not None:
                found[name] = digest(result)
    return found


def golden():
    """Variant -> case name -> digest."""
    return json.loads(FILE.read_text())


if __name__ == "__main__":
    loops = next(method for method in methods() if method.NAME == "loops")
    FILE.write_text(json.dumps({variant: digests(loops, variant, machine(1)) for variant in VARIANTS}, indent=1) + "\n")
