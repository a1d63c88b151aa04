"""The Profile: what `numconv calibrate` measured of this machine, and the JSON file that keeps it.

It is believed on the processor, vector width, number of threads and numconv that it was measured with; any other, and
what is no profile at all, counts as none, without a word: then the defaults of machine.py and of the methods hold.
"""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .version import __version__

# Methods count their operations in round figures: a share may be over 1, but not by so much.
MOST_SHARE = 2.0


class Key(NamedTuple):
    """What a profile must have been measured with to be believed; threads are all that numba has."""

    cpu: str
    vector_bytes: int
    threads: int
    version: str = __version__


@dataclass(frozen=True)
class Profile:
    """Measured rates; pairs are those of one thread and of all.

    flops: float32 flop/s of fused multiply-adds from registers. bandwidth: bytes/s to and from memory; cache_bandwidth:
    to and from a cache. launch: seconds of a call without arithmetic. efficiencies: (method, kind of dtype, the share
    of the peak that the method runs its own count of operations at).
    """

    key: Key
    flops: tuple[float, float]
    bandwidth: tuple[float, float]
    cache_bandwidth: tuple[float, float]
    launch: float
    efficiencies: tuple[tuple[str, str, float], ...]

    def at(self, rates: tuple[float, float], threads: int) -> float:
        """A rate of so many threads, on the line from one to all."""
        one, every = rates
        return one + (every - one) * (threads - 1) / max(1, self.key.threads - 1)

    def efficiency(self, method: str, dtype: np.dtype[Any], default: float) -> float:
        """The share of the peak for a method's sums of a dtype; the default where it was not measured."""
        measured = (share for name, kind, share in self.efficiencies if (name, kind) == (method, kind_of(dtype)))
        return next(measured, default)


def kind_of(dtype: np.dtype[Any]) -> str:
    """Dtypes of one kind have one efficiency: float32, float64, complex, integer."""
    return {"c": "complex", "i": "integer", "u": "integer"}.get(dtype.kind, dtype.name)


def read(path: Path, key: Key) -> Profile | None:
    """The profile in a file, or None where there is none that fits."""
    try:
        found = json.loads(path.read_text())
        names = (field.name for field in dataclasses.fields(Profile))
        profile = Profile(Key(**found.pop("key")), *(_frozen(found[name]) for name in names if name != "key"))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return profile if profile.key == key and plausible(profile) else None


def _frozen(value: Any) -> Any:
    """Lists as tuples, so that nothing can be changed."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def plausible(profile: Profile) -> bool:
    """Whether the figures are such as a machine can have. A busy one's are not: a method may seem to beat the peak."""
    pairs = (profile.flops, profile.bandwidth, profile.cache_bandwidth)
    try:
        figures = [figure for one, every in pairs for figure in (one, every)] + [profile.launch]
        shares = [share for _, _, share in profile.efficiencies]
        return all(math.isfinite(figure) and figure > 0 for figure in figures + shares) and max(shares) <= MOST_SHARE
    except (TypeError, ValueError):
        return False


def write(path: Path, profile: Profile) -> None:
    """Keep a profile; another process sees the old file or the new one, never a part. OSError where it cannot be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = dataclasses.asdict(profile) | {"key": profile.key._asdict()}
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=path.name, delete=False) as file:
        json.dump(facts, file, indent=1)
    Path(file.name).replace(path)
