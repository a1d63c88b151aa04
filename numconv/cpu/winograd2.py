"""Winograd's F(2x2, 3x3): 3x3 kernels of stride 1 with fewer multiplications than direct summation, by 2.25.

The idea: two times two outputs take 16 products of transformed inputs and taps instead of 36 [1]_ [2]_
(minimal_filtering.py).

It wins where `winograd` does and an rtol does not allow that one's error: of its transforms, which add and subtract
alone, hardly a digit is lost; and on small maps with many channels, whose transformed weights are only 1.8 times the
weights.

.. [1] S. Winograd, "Arithmetic Complexity of Computations", SIAM, 1980.
.. [2] A. Lavin and S. Gray, "Fast algorithms for convolutional neural networks", CVPR 2016, section 4.1.
"""

from __future__ import annotations

from .minimal_filtering import MinimalFiltering

NAME = "winograd2"
REPRODUCIBLE = False
NEEDS_RTOL = True
STRIDED_OUT = False
GROUPS_APART = False

_filtering = MinimalFiltering(NAME, outputs=2)
why_not, error_bound, expected_error = _filtering.why_not, _filtering.error_bound, _filtering.expected_error
work, scratch_bytes = _filtering.work, _filtering.scratch_bytes
prepare, run = _filtering.prepare, _filtering.run
