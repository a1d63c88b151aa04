"""Multi-channel cross-correlation for NumPy, compiled by Numba.

    >>> import numpy as np
    >>> import numconv as nc
    >>> nc.corr2d(np.arange(9).reshape(3, 3), [[0, 1], [2, 3]])
    array([[19, 25],
           [37, 43]])

`conv2d` and `plan` are the main roads; `explain` tells what they would do. The modules `numconv.signal` and
`numconv.ndimage` have scipy's names; they are imported when they are first asked for. Importing compiles nothing.
"""

import importlib
import types

from .d2l import corr2d, corr2d_multi_in, corr2d_multi_in_out, corr2d_multi_in_out_1x1, pool2d, trans_conv
from .explain import Cost, Explanation, cost, explain
from .functional import (
    conv1d,
    conv1d_bias,
    conv1d_input,
    conv1d_weight,
    conv2d,
    conv2d_bias,
    conv2d_input,
    conv2d_weight,
    conv3d,
    conv3d_bias,
    conv3d_input,
    conv3d_weight,
    conv_integer,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
    plan,
)
from .patches import fold, unfold
from .plans import Plan
from .pooling import avg_pool1d, avg_pool2d, avg_pool3d, max_pool1d, max_pool2d, max_pool3d
from .problem import Problem
from .version import __version__ as __version__

__all__ = [
    "Cost",
    "Explanation",
    "Plan",
    "Problem",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "conv1d",
    "conv1d_bias",
    "conv1d_input",
    "conv1d_weight",
    "conv2d",
    "conv2d_bias",
    "conv2d_input",
    "conv2d_weight",
    "conv3d",
    "conv3d_bias",
    "conv3d_input",
    "conv3d_weight",
    "conv_integer",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "corr2d",
    "corr2d_multi_in",
    "corr2d_multi_in_out",
    "corr2d_multi_in_out_1x1",
    "cost",
    "explain",
    "fold",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "plan",
    "pool2d",
    "trans_conv",
    "unfold",
]


def __getattr__(name: str) -> types.ModuleType:
    if name in ("ndimage", "signal"):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), "ndimage", "signal"})
