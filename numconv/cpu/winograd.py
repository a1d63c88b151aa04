"""Winograd's F(4x4, 3x3): 3x3 kernels of stride 1 with a quarter of the multiplications of direct summation.

The idea: four times four outputs, as a polynomial product, take 36 products of transformed inputs and taps instead of
144 [1]_ (minimal_filtering.py; the transforms' points: toom_cook.py).

It wins on 3x3 kernels from about 16 channels on, twice over direct summation. It spends digits for that: errors are up
to 4 times those of direct sums, so "auto" takes it only where an rtol allows its expected error. Its transformed
weights take four times the memory of the weights.

.. [1] A. Lavin and S. Gray, "Fast algorithms for convolutional neural networks", CVPR 2016, section 4.2.
"""

from __future__ import annotations

from .minimal_filtering import MinimalFiltering

NAME = "winograd"
REPRODUCIBLE = False
NEEDS_RTOL = True
STRIDED_OUT = False
GROUPS_APART = False

_filtering = MinimalFiltering(NAME, outputs=4)
why_not, error_bound, expected_error = _filtering.why_not, _filtering.error_bound, _filtering.expected_error
work, scratch_bytes = _filtering.work, _filtering.scratch_bytes
prepare, run = _filtering.prepare, _filtering.run
