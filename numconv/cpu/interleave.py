"""Interleaving: the results of phases, one behind the other in scratch, become whole rows of the output.

Rows are written once and by vectors, which shuffles make of the phases' neighbouring elements: a strided assignment for
each phase would go over the output as often as there are phases, element by element.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from ..method import Array
from .simd.fields import packed, record
from .simd.ir import vector_lanes
from .simd.shares import Share, njit, portion
from .simd.strided import interleave_rows

# Numbers of phases, as lengths of tuples, that are shuffled.
ONE, TWO, THREE, FOUR = ((0,) * phases for phases in (1, 2, 3, 4))


class Rows(NamedTuple):
    """The rows to write: every so-manieth of the planes and of their rows, from some first ones on. Each has columns of
    `run` elements, of which a phase has every `period`-th.
    """

    first_plane: int
    plane_step: int
    first_row: int
    row_step: int
    period: int
    run: int


@functools.lru_cache(maxsize=1024)
def rows(*fields: int) -> Array:
    """The record of Rows of these fields."""
    return packed(Rows(*fields))


@njit(parallel=True)
def interleave(share: Share, source: Array, out: Array, table: Array, integers: Array) -> None:
    """Rows of out (outer, depth, height, columns * run) from the phases in source, by the record of Rows: those of
    one share, as many at a time as lie evenly in a plane.

    table (phases, 3): where a phase starts in source, which has its rows one behind the other, the elements of each,
    and the first of its columns.
    """
    some = record(Rows, integers, 0)
    outer, depth, height, columns = out.shape
    planes, lines = -(-(depth - some.first_plane) // some.plane_step), -(-(height - some.first_row) // some.row_step)
    row, end = portion(outer * planes * lines, share)
    while row < end:
        plane, line = divmod(row, lines)
        image, place = divmod(plane, planes)
        count = min(lines - line, end - row)
        d, h = some.first_plane + place * some.plane_step, some.first_row + line * some.row_step
        target, pitch = out[image, d, h], some.row_step * columns
        whole = len(table) == some.period <= vector_lanes(source) and some.run == 1
        if whole and some.period == 1:
            interleave_rows(ONE, target, pitch, columns, source, table, row, count)
        elif whole and some.period == 2:
            interleave_rows(TWO, target, pitch, columns, source, table, row, count)
        elif whole and some.period == 3:
            interleave_rows(THREE, target, pitch, columns, source, table, row, count)
        elif whole and some.period == 4:
            interleave_rows(FOUR, target, pitch, columns, source, table, row, count)
        else:
            for number in range(count):
                scatter(out[image, d, h + number * some.row_step], source, table, row + number, some)
        row += count


@njit()
def scatter(target: Array, source: Array, table: Array, row: int, some: Rows) -> None:
    """One row of the output, whatever the phases: those that are not in the table leave their columns as they are."""
    for phase in range(len(table)):
        start, width, first = table[phase]
        values = source[start + row * width : start + (row + 1) * width]
        place, step = target[first * some.run :], some.period * some.run
        if some.run == 1:
            for i in range(len(values)):
                place[i * step] = values[i]
        else:
            for begin in range(0, len(values) // some.run):
                pixel, run = place[begin * step :], values[begin * some.run : (begin + 1) * some.run]
                for i in range(len(run)):
                    pixel[i] = run[i]
