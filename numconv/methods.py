"""Every method, in the order in which ties are settled: the one place that lists them.

To add one, write a module to the contract of method.py and put it in the table.
"""

from __future__ import annotations

from .cpu import loops, matmul
from .method import Method

METHODS: tuple[Method, ...] = (matmul, loops)
