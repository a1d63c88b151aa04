"""What the pytest-benchmark suites share: a row is one contender on one layer, checked, then timed."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import pytest

from numconv.cli.contenders import check, contender, names
from numconv.cli.timing import LONG, PAUSE, WARM_CALLS, once
from numconv.testing import Case

# About this long for a row, and so many calls at least.
ROW_SECONDS, FEWEST, MOST = 0.5, 3, 1000


def rows(cases: Iterable[Case]) -> list[Any]:
    """The parameters of a suite."""
    return [pytest.param(case, name, id=f"{case.name}-{name}") for case in cases for name in names(case)]


def row(case: Case, name: str, benchmark: Any) -> None:
    """Check one contender on one layer and time it, in the layer's group."""
    run = contender(case, name)
    check(case, {name: run})
    # Threads that another row left spinning have gone to sleep.
    time.sleep(PAUSE)
    typical = once(run)
    benchmark.group = case.name
    benchmark.extra_info["gflop"] = case.problem().flops / 1e9
    benchmark.pedantic(
        run,
        rounds=min(MOST, max(FEWEST, int(ROW_SECONDS / typical))),
        warmup_rounds=0 if typical > LONG else WARM_CALLS,
    )
