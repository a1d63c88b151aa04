"""One-channel image filters: one group a kernel, one row a contender."""

from __future__ import annotations

import pytest
from rows import row, rows

from numconv.testing import FILTERS


@pytest.mark.parametrize(("case", "name"), rows(FILTERS))
def test_filter(case, name, benchmark):
    row(case, name, benchmark)
