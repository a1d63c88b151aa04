"""The layers of ResNet-50: one group a layer, one row a contender; ``python -m pytest bench --benchmark-only``.

Row names are those of `numconv.cli.contenders`, which says what each computes.
"""

from __future__ import annotations

import pytest
from rows import row, rows

from numconv.testing import RESNET50


@pytest.mark.parametrize(("case", "name"), rows(RESNET50))
def test_layer(case, name, benchmark):
    row(case, name, benchmark)
