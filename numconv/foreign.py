"""Whose an array is: asked without importing anything of CUDA, or of any library but NumPy."""

from __future__ import annotations

from typing import Any

# DLPack's number for a CUDA device.
DLPACK_CUDA = 2


def lies_on_gpu(value: Any) -> bool:
    """Whether it is an array on a CUDA device, which has no np.ndarray's type; says so without importing CUDA."""
    # Torch's interface takes 10 us to ask for, numba's 1.3: both have shorter words for it.
    if library_of(value) == "torch":
        return bool(getattr(value, "is_cuda", False))
    if hasattr(value, "__cuda_ndarray__") or hasattr(value, "__cuda_array_interface__"):
        return True
    place = getattr(value, "__dlpack_device__", None)
    return place is not None and int(place()[0]) == DLPACK_CUDA


def library_of(value: object) -> str:
    """The package that an object's type is of."""
    return type(value).__module__.partition(".")[0]
