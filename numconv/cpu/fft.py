"""Fourier transforms in float64: large kernels, for a part of the products of a sum, and no fewer digits.

The idea: the transform of a correlation is a product of transforms, so that a kernel of K taps costs each output what
log2 of a tile costs, and not K [1]_ (fourier.py; the tiles: overlap.py).

It wins with kernels of hundreds of taps and more; many channels in and out make products again, of which tiles in
registers do forty times as many in the same time. For float32 it is the more exact way: its one rounding that counts is
that of the result, so that its expected error is below that of any sum of two terms, and for float64, from some dozen
taps on, below that of the direct sum too: no rtol is needed. But an error is relative to what the tile holds at most,
where that of a direct sum is relative to what one output meets. Integers are exact: they are rounded, and refused where
that proves nothing. A tile in which NaN, inf or an overflow turns up is added up again, directly (repair.py).

.. [1] T. G. Stockham, "High-speed convolution and correlation", AFIPS Spring Joint Computer Conference, 1966.
"""

from __future__ import annotations

import numpy as np

from .fourier import Fourier

NAME = "fft"
REPRODUCIBLE = False
NEEDS_RTOL = False
STRIDED_OUT = False
GROUPS_APART = False

_transforms = Fourier(np.float64)
why_not, error_bound, expected_error = _transforms.why_not, _transforms.error_bound, _transforms.expected_error
work, scratch_bytes = _transforms.work, _transforms.scratch_bytes
prepare, run = _transforms.prepare, _transforms.run
