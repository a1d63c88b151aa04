"""Multi-channel cross-correlation for NumPy, compiled by Numba.

    >>> import numpy as np
    >>> import numconv as nc
    >>> nc.corr2d(np.arange(9).reshape(3, 3), [[0, 1], [2, 3]])
    array([[19, 25],
           [37, 43]])

`conv2d` and `plan` are the main roads; `explain` tells what they would do. Importing compiles nothing.
"""

from .d2l import corr2d, corr2d_multi_in, corr2d_multi_in_out, corr2d_multi_in_out_1x1, pool2d, trans_conv
from .explain import Cost, Explanation, cost, explain
from .functional import conv1d, conv2d, conv3d, conv_integer, plan
from .patches import fold, unfold
from .planner import Plan
from .pooling import avg_pool1d, avg_pool2d, avg_pool3d, max_pool1d, max_pool2d, max_pool3d
from .problem import Problem

__version__ = "0.1.0"
__all__ = [
    "Cost",
    "Explanation",
    "Plan",
    "Problem",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_integer",
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
