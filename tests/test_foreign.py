"""Arrays of other libraries are told by what they say of themselves, and a device's is never read on the host."""

from __future__ import annotations

import numpy as np
import pytest

import numconv as nc
from numconv.foreign import library_of, lies_on_gpu


class Exported:
    """What has DLPack alone, on a device of that kind."""

    def __init__(self, kind):
        self.kind = kind

    def __dlpack_device__(self):
        return self.kind, 0


class Tensor:
    """Torch's, whose interface nobody should ask for: on the host it raises, and on a device it takes 10 us."""

    def __init__(self, is_cuda):
        self.is_cuda = is_cuda

    @property
    def __cuda_array_interface__(self):
        raise AssertionError("it was asked for")


Tensor.__module__ = "torch"


class Interface:
    __cuda_array_interface__ = {}  # noqa: RUF012  # an attribute like any


@pytest.mark.parametrize(
    ("value", "there"),
    [(Exported(2), True), (Exported(1), False), (Tensor(True), True), (Tensor(False), False), (Interface(), True)]
    + [(value, False) for value in (np.zeros(2), 1.5, [1, 2], None)],
    ids=lambda value: type(value).__name__,
)
def test_where_an_array_lies(value, there):
    assert lies_on_gpu(value) == there


def test_the_library_of_a_value():
    assert [library_of(value) for value in (Tensor(True), np.zeros(1), 1)] == ["torch", "numpy", "builtins"]


@pytest.mark.parametrize("value", [Exported(2), Tensor(True), Interface()], ids=lambda value: type(value).__name__)
def test_what_lies_on_a_device_is_no_array_of_the_cpu(value):
    with pytest.raises(TypeError, match="the input X lies on a CUDA device, but this is computed on the CPU: copy it"):
        nc.corr2d(value, np.zeros((2, 2)))
