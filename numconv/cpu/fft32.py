"""Fourier transforms in float32, for float32 and complex64: faster than `fft`, by an explicit rtol.

The idea, and what is done about NaN and inf, are those of `fft`: see fourier.py, overlap.py and repair.py. Numbers of
half the size make transforms of about 1.6 times the speed (bench/test_fft.py).

It wins where `fft` does. Its expected error is a few dozen roundings of float32 (fourier.py), relative to the largest
input of a tile: where an image is dark beside something bright, a direct sum keeps digits that this one loses. So
"auto" takes it only where an rtol of its expected error or more says that this is enough.
"""

from __future__ import annotations

import numpy as np

from .fourier import Fourier

NAME = "fft32"
REPRODUCIBLE = False
NEEDS_RTOL = True
STRIDED_OUT = False
GROUPS_APART = False

_transforms = Fourier(np.float32)
why_not, error_bound, expected_error = _transforms.why_not, _transforms.error_bound, _transforms.expected_error
work, scratch_bytes = _transforms.work, _transforms.scratch_bytes
prepare, run = _transforms.prepare, _transforms.run
