"""Interleaved rows are what strided assignments make of the phases, and nothing beside them is written."""

from __future__ import annotations

import numpy as np
import pytest
from test_contract import guarded

from numconv.cpu.interleave import interleave
from numconv.cpu.interleave import rows as told

OUTER, DEPTH, HEIGHT = 3, 3, 5


def phases_of(rng, dtype, columns, period, run, planes, rows):
    """Phases of such rows in scratch, one behind the other, their table, and what assignments make of them."""
    expected = np.full((OUTER, DEPTH, HEIGHT, columns, run), 7, dtype)
    places = expected[:, planes, rows]
    found, table, start = [], [], 0
    for first in range(min(period, columns)):
        phase = rng.standard_normal(places[..., first::period, :].shape).astype(dtype)
        places[..., first::period, :] = phase
        found.append(np.concatenate([phase.ravel(), np.full(3, np.nan, dtype)]))
        table.append((start, phase.shape[-2] * run, first))
        start += len(found[-1])
    return np.concatenate([*found, np.zeros(16, dtype)]), np.array(table), expected


@pytest.mark.parametrize("shares", [1, 4])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("run", [1, 17])
@pytest.mark.parametrize("period", [1, 2, 3, 4, 5, 9])
def test_phases_become_rows(rng, period, run, dtype, shares):
    for columns in (1, 2, 7, 16, 31, 32, 50):
        for planes, rows in ((slice(0, None, 1), slice(0, None, 1)), (slice(1, None, 2), slice(2, None, 3))):
            source, table, expected = phases_of(rng, dtype, columns, period, run, planes, rows)
            out, alive = guarded(expected.size, np.dtype(dtype))
            out[:] = 7
            shape = (OUTER, DEPTH, HEIGHT, columns * run)
            # Of a single phase, all elements are neighbours.
            fields = planes.start, planes.step, rows.start, rows.step, period, run if period > 1 else 1
            interleave(shares, source, out.reshape(shape), table, told(*fields))
            np.testing.assert_array_equal(out.reshape(expected.shape), expected)
            assert alive()


@pytest.mark.parametrize("period", [2, 3])
def test_columns_of_phases_that_are_not_there_stay(rng, period):
    every = slice(0, None, 1)
    source, table, expected = phases_of(rng, np.float32, 11, period, 1, every, every)
    expected[..., 0::period, :] = 7
    out = np.full((OUTER, DEPTH, HEIGHT, 11), 7, np.float32)
    interleave(2, source, out, table[1:], told(0, 1, 0, 1, period, 1))
    np.testing.assert_array_equal(out[..., None], expected)
