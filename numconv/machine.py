"""The Machine: what the planner and the methods know of the hardware, as frozen facts."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import llvmlite.binding
import numba.core.config
import numba.misc.appdirs
import numpy as np

from .profile import Key, Profile, read

# Flop/s of one thread, per byte of vector: two fused multiply-add units at 3 GHz, two flops for each float32 lane.
FLOP_RATE_PER_BYTE = 2 * 2 * 3e9 / 4
# Bytes/s that one thread moves to and from memory, and that the whole machine does.
THREAD_BANDWIDTH = 16e9
MACHINE_BANDWIDTH = 40e9
# Bytes/s that one thread moves to and from the last cache, where what moves takes this share of the cache at most.
CACHE_BANDWIDTH = 80e9
CACHE_SHARE = 0.5
# Seconds of a call without arithmetic.
CALL = 4e-6
DEFAULT_CACHES = (32 << 10, 1 << 20, 16 << 20)


# Names the file that keeps the machine's profile, or says "off".
PROFILE = "NUMCONV_PROFILE"

# numba's annotations do not know its settings, nor where it keeps what is a user's.
_config: Any = numba.core.config
_folders: Any = numba.misc.appdirs


@dataclass(frozen=True, slots=True)
class Gpu:
    """An NVIDIA GPU as the static model knows it: figures of a typical one of that compute capability, from NVIDIA's
    data sheets, or what the driver tells of this one. Clock in Hz, sizes in bytes, bandwidth in bytes/s.
    """

    name: str
    cc: tuple[int, int]
    multiprocessors: int
    clock: float
    bandwidth: float
    shared_bytes: int
    # float32 multiply-adds that a multiprocessor starts in a cycle, float64 ones, and TF32 ones of its tensor cores.
    lanes: int
    double_lanes: int
    tensor_lanes: int


# One typical GPU for each compute capability.
GPUS = {
    gpu.cc: gpu
    for gpu in (
        Gpu("T4", (7, 5), 40, 1.59e9, 320e9, 64 << 10, 64, 2, 0),
        Gpu("A100", (8, 0), 108, 1.41e9, 1555e9, 164 << 10, 64, 32, 512),
        Gpu("RTX 3090", (8, 6), 82, 1.70e9, 936e9, 100 << 10, 128, 2, 128),
        Gpu("RTX 4090", (8, 9), 128, 2.52e9, 1008e9, 100 << 10, 128, 2, 128),
        Gpu("H100", (9, 0), 132, 1.83e9, 3350e9, 228 << 10, 128, 64, 1024),
        Gpu("B200", (10, 0), 148, 1.92e9, 8000e9, 228 << 10, 128, 64, 2048),
        Gpu("RTX 5090", (12, 0), 170, 2.41e9, 1792e9, 100 << 10, 128, 2, 128),
    )
}
# Seconds from a launch to its kernel's first instruction, and of numba's part in it.
LAUNCH = 12e-6


@dataclass(frozen=True, slots=True)
class Machine:
    """One CPU, used with so many threads and at most so much scratch (None: as much as a method may always take), or a
    GPU.

    Sizes in bytes, rates in flop/s and bytes/s. The rates are those of the profile that `numconv calibrate` measured,
    or defaults that fit a server of the 2020s: good for comparing methods, not for promises.
    """

    threads: int
    cpu: str
    vector_bytes: int
    has_fma: bool
    caches: tuple[int, ...]
    workspace: int | None = None
    gpu: Gpu | None = None
    # Out of the hash, which each call asks for: one process has one profile.
    profile: Profile | None = field(default=None, hash=False)

    def lanes(self, dtype: np.dtype[Any]) -> int:
        """Elements of a dtype in a vector."""
        return self.vector_bytes // dtype.itemsize

    def flop_rate(self, dtype: np.dtype[Any]) -> float:
        """The fused multiply-add peak of all threads in real operations, for a dtype's real part."""
        real = dtype.itemsize // 2 if dtype.kind == "c" else dtype.itemsize
        if self.gpu is not None:
            lanes = self.gpu.lanes if real <= 4 else self.gpu.double_lanes
            return 2.0 * self.gpu.multiprocessors * lanes * self.gpu.clock
        if self.profile is not None:
            return self.profile.at(self.profile.flops, self.threads) * 4 / real
        # Wider than 32 bytes, many processors split a vector in two or lower their clock: count half of it.
        width = min(self.vector_bytes, 32) + max(0, self.vector_bytes - 32) // 2
        return self.threads * FLOP_RATE_PER_BYTE * width * 4 / real

    def efficiency(self, method: str, dtype: np.dtype[Any], default: float) -> float:
        """The share of `flop_rate` that a method runs its own count of operations at, for sums of a dtype: as measured
        here, or the method's default.
        """
        return default if self.profile is None else self.profile.efficiency(method, dtype, default)

    @property
    def bandwidth(self) -> float:
        """Bytes per second to and from memory."""
        if self.gpu is not None:
            return self.gpu.bandwidth
        if self.profile is not None:
            return self.profile.at(self.profile.bandwidth, self.threads)
        return min(self.threads * THREAD_BANDWIDTH, MACHINE_BANDWIDTH)

    def moving(self, moved: float) -> float:
        """Seconds that so many bytes take to move: through the last cache, if they stay in it from call to call."""
        if self.gpu is not None or moved > CACHE_SHARE * self.caches[-1]:
            return moved / self.bandwidth
        if self.profile is not None:
            return moved / self.profile.at(self.profile.cache_bandwidth, self.threads)
        return moved / (self.threads * CACHE_BANDWIDTH)

    @property
    def multiprocessors(self) -> int:
        """Of the GPU; 1 without one."""
        return self.gpu.multiprocessors if self.gpu is not None else 1

    @property
    def launch(self) -> float:
        """Seconds that starting a kernel takes."""
        if self.gpu is not None:
            return LAUNCH
        return CALL if self.profile is None else self.profile.launch


@functools.lru_cache(maxsize=256)
def machine(threads: int, workspace: int | None = None) -> Machine:
    """The machine that this process runs on, as its numba compiles for it, used with so many threads and scratch."""
    features, key, kept = _features(), profile_key(), _profile()
    return Machine(
        threads=threads,
        cpu=key.cpu,
        vector_bytes=key.vector_bytes,
        has_fma="fma" in features or "neon" in features,
        caches=_caches(),
        workspace=workspace,
        profile=kept if threads <= key.threads else None,
    )


def profile_key() -> Key:
    """What a profile must have been measured with to be believed in this process."""
    features = _features()
    width = next((size for name, size in (("avx512f", 64), ("avx", 32)) if name in features), 16)
    return Key(_config.CPU_NAME or llvmlite.binding.get_host_cpu_name(), width, int(_config.NUMBA_NUM_THREADS))


def profile_path() -> Path | None:
    """Where the profile lies: the file that NUMCONV_PROFILE names, none where it says "off", else one of the user's
    cache folder, beside the one to which numba falls back.
    """
    named = os.environ.get(PROFILE, "")
    if named:
        return None if named == "off" else Path(named)
    key = profile_key()
    folder = Path(_folders.user_cache_dir("numconv", False))
    return folder / f"{key.cpu}-{8 * key.vector_bytes}-bit-{key.threads}-threads.json"


@functools.lru_cache(maxsize=1)
def _profile() -> Profile | None:
    """The profile that fits this process: read once, by the first call that plans."""
    path = profile_path()
    return None if path is None else read(path, profile_key())


@functools.lru_cache(maxsize=64)
def gpu_machine(gpu: Gpu, workspace: int | None = None) -> Machine:
    """The machine that is a GPU, with so much scratch."""
    return Machine(1, cpu=gpu.name, vector_bytes=128, has_fma=True, caches=(), workspace=workspace, gpu=gpu)


def typical_gpu(cc: tuple[int, int]) -> Gpu:
    """A GPU of that compute capability."""
    if cc not in GPUS:
        known = ", ".join(str(known) for known in GPUS)
        raise ValueError(f"cc is {cc!r}, but it takes a compute capability that is known here: {known}")
    return GPUS[cc]


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
