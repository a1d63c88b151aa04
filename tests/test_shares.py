"""Work falls into even shares for any number of threads, those that this machine lacks too: the split is simulated."""

from __future__ import annotations

import itertools
import runpy

import numpy as np
import pytest
from conftest import ROOT

from numconv.cpu import blocks, matmul, tile_choice, tiled
from numconv.cpu.simd.shares import Share, portion
from numconv.machine import machine
from numconv.testing import EDGES, RESNET50, Case

# The busiest share over the mean. 64 threads take maps of 7 and 14 rows row by row: 56 tasks. A BLAS's parts are
# multiples of 16 rows or columns, which 49 pixels are not.
BARS = {("tiled", 64): 1.15, ("matmul", 64): 1.36}
BAR = 1.03
# Nine tasks, of which the last has the sixteen pixels that are left of 784: shares of four and of four and a sixth.
UNEVEN = {("1x1 512->128 at 28", 2): 1.031}
# Of the best, one thread's cycles divided by so many, what the busiest thread reaches where there is work: small tasks
# copy more of the input and waste more of a tile. 64 threads copy a map of 14x14 and 512 channels 16 times.
EFFICIENCY, ENOUGH_CYCLES = 0.82, 250_000
EFFICIENCIES = {("3x3 512->512 at 14", 64): 0.77}


@pytest.fixture
def report(monkeypatch):
    """The module that prints the shares of the ResNet-50 and VGG-16 layers."""
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    return runpy.run_path(str(ROOT / "bench" / "shares.py"))


@pytest.mark.parametrize("threads", [1, 2, 16, 64])
def test_the_shares_of_every_layer_are_even(report, threads):
    for case, method, figures in report["rows"]():
        uneven, efficient = figures[threads]
        bar = UNEVEN.get((case.name, threads), BARS.get((method.NAME, threads), BAR))
        assert 1 <= uneven <= bar, f"{method.NAME} {case.name}"
        if method is tiled and sum(tiled.shares(case.problem(np.float32), machine(1))) >= threads * ENOUGH_CYCLES:
            assert efficient >= EFFICIENCIES.get((case.name, threads), EFFICIENCY), f"{method.NAME} {case.name}"


@pytest.mark.parametrize("threads", [1, 2, 16, 64])
def test_the_shares_of_a_product_are_all_of_it(threads):
    for case in RESNET50[:9]:
        shares = matmul.shares(case.problem(np.float32), machine(threads))
        assert len(shares) == threads
        assert sum(shares) == case.problem(np.float32).products


@pytest.mark.parametrize("threads", [1, 2, 3, 16])
@pytest.mark.parametrize("case", [*EDGES[:12], RESNET50[-1]], ids=lambda case: case.name)
def test_the_simulated_shares_hold_the_tasks_that_kernels_run(case, threads):
    # A task that costs its number of sums: the shares' sums are those of the tasks that portion and locate name.
    problem = case.problem(np.float32)
    size = (4, 5, 3)
    split = blocks.blocks(problem, *size)
    window = tiled.Window(*[0] * len(tiled.Window._fields))._replace(block_rows=size[0], block_columns=size[1])
    _, out_h, out_w = (1, 1, *problem.out_spatial)[-3:]
    expected = []
    tasks = blocks.tasks(problem, *size)
    for share in range(threads):
        total = 0
        for task in range(*portion.py_func(tasks, Share(share, threads, 0))):
            _, _, first, _, oh, ow = blocks.locate.py_func(task, window, split)
            channels = min(size[2], problem.out_channels // problem.groups - first)
            total += channels * min(size[0], out_h - oh) * min(size[1], out_w - ow)
        expected.append(total)
    assert blocks.share_costs(problem, *size, threads, lambda *extents: int(np.prod(extents))) == expected
    assert sum(expected) == np.prod(problem.out_shape)


def test_one_share_with_everything_is_as_uneven_as_can_be():
    assert blocks.imbalance([6, 0, 0]) == 3
    assert blocks.imbalance([2, 2, 2]) == 1


def test_the_report_has_a_row_for_each_layer_and_method(report, capsys):
    report["main"]()
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(report["LAYERS"]) + 9


def test_blocks_cut_an_axis_evenly():
    for length in (1, 7, 56, 224, 1000):
        for most in {1, min(5, length), length}:
            all_sizes = {-(-length // part) for part in range(1, length + 1)}
            assert blocks.even_sizes(length, most) == sorted((size for size in all_sizes if size <= most), reverse=True)
    assert blocks.even_sizes(0) == [1]


def test_blocks_of_a_long_axis_are_few_and_even():
    for length in (10**6, 10**9 + 7):
        sizes = blocks.even_sizes(length)
        assert sizes[0] == length
        assert sizes[-1] == 1
        assert len(sizes) < 600
        assert all(-(-length // -(-length // size)) == size for size in sizes)
        assert all(small >= 0.49 * large for large, small in itertools.pairwise(sizes))


def test_a_long_axis_is_planned_as_fast_as_a_short_one():
    """Of few choices; every one of its parts, 10 million of them, took seconds."""
    for shape in ((1, 8, 10**8), (1, 8, 10**6, 30), (1, 8, 30, 10**6)):
        problem = Case("long", shape, (8, 8, *(3,) * (len(shape) - 2))).problem(np.float32)
        for name in tiled.SHAPES:
            assert len(tile_choice.choices(problem, machine(2), name)) < 5000
