"""Work falls into even shares for any number of threads, those that this machine lacks too: the split is simulated."""

from __future__ import annotations

import runpy

import numpy as np
import pytest
from conftest import ROOT

from numconv.cpu import blocks, matmul, tiled
from numconv.cpu.simd.shares import Share, portion
from numconv.machine import machine
from numconv.testing import EDGES, RESNET50

# The busiest share over the mean. 64 threads take maps of 7 and 14 rows row by row: 56 tasks. A BLAS's parts are
# multiples of 16 rows or columns, which 49 pixels are not.
BARS = {("tiled", 64): 1.15, ("matmul", 64): 1.36}
BAR = 1.03
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
        assert 1 <= uneven <= BARS.get((method.NAME, threads), BAR), f"{method.NAME} {case.name}"
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
