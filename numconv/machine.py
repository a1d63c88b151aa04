"""The Machine: what the planner and the methods know of the hardware, as frozen facts."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llvmlite.binding
import numba.core.config
import numpy as np

# Flop/s of one thread, per byte of vector: two fused multiply-add units at 3 GHz, two flops for each float32 lane.
FLOP_RATE_PER_BYTE = 2 * 2 * 3e9 / 4
# Bytes/s that one thread moves to and from memory, and that the whole machine does.
THREAD_BANDWIDTH = 10e9
MACHINE_BANDWIDTH = 40e9
DEFAULT_CACHES = (32 << 10, 1 << 20, 16 << 20)


# numba's annotations do not know its settings.
_config: Any = numba.core.config


@dataclass(frozen=True, slots=True)
class Machine:
    """One CPU, used with so many threads and at most so much scratch (None: as much as a method may always take).

    Sizes in bytes, rates in flop/s and bytes/s; the rates are defaults that fit a server of the 2020s, good for
    comparing methods, not for promises: `numconv info` measures.
    """

    threads: int
    cpu: str
    vector_bytes: int
    has_fma: bool
    caches: tuple[int, ...]
    workspace: int | None = None

    def lanes(self, dtype: np.dtype[Any]) -> int:
        """Elements of a dtype in a vector."""
        return self.vector_bytes // dtype.itemsize

    def flop_rate(self, dtype: np.dtype[Any]) -> float:
        """The fused multiply-add peak of all threads in real operations, for a dtype's real part."""
        real = dtype.itemsize // 2 if dtype.kind == "c" else dtype.itemsize
        # Wider than 32 bytes, many processors split a vector in two or lower their clock: count half of it.
        width = min(self.vector_bytes, 32) + max(0, self.vector_bytes - 32) // 2
        return self.threads * FLOP_RATE_PER_BYTE * width * 4 / real

    @property
    def bandwidth(self) -> float:
        """Bytes per second to and from memory."""
        return min(self.threads * THREAD_BANDWIDTH, MACHINE_BANDWIDTH)


@functools.lru_cache(maxsize=256)
def machine(threads: int, workspace: int | None = None) -> Machine:
    """The machine that this process runs on, as its numba compiles for it, used with so many threads and scratch."""
    features = _features()
    width = next((size for name, size in (("avx512f", 64), ("avx", 32)) if name in features), 16)
    return Machine(
        threads=threads,
        cpu=_config.CPU_NAME or llvmlite.binding.get_host_cpu_name(),
        vector_bytes=width,
        has_fma="fma" in features or "neon" in features,
        caches=_caches(),
        workspace=workspace,
    )


def _features() -> frozenset[str]:
    """The processor features that numba compiles for: NUMBA_CPU_FEATURES when set, else the host's."""
    if _config.CPU_FEATURES is not None:
        return frozenset(name[1:] for name in _config.CPU_FEATURES.split(",") if name.startswith("+"))
    return frozenset(name for name, present in llvmlite.binding.get_host_cpu_features().items() if present)


def _caches() -> tuple[int, ...]:
    """Data cache sizes by level, as Linux tells them."""
    sizes: dict[int, int] = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            if (folder / "type").read_text().strip() != "Instruction":
                sizes[int((folder / "level").read_text())] = int((folder / "size").read_text().rstrip("K\n")) << 10
        except (OSError, ValueError):
            return DEFAULT_CACHES
    return tuple(sizes[level] for level in sorted(sizes)) or DEFAULT_CACHES
