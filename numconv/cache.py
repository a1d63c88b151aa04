"""What is compiled is kept on disk, and never served when any file of the package has changed.

numba notices an edit only in the file that holds a kernel. A numconv kernel is inlined from several files, so its cache
entry carries the stamp of the whole package: an edit anywhere recompiles. Where the package folder is read-only, numba
falls back to the user's cache folder.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba.core.caching
import numba.core.event

# numba's annotations know nothing of its caches.
_caching: Any = numba.core.caching
_event: Any = numba.core.event

# The kind of numba's events that tell of a function compiled and kept on disk.
COMPILED = "numconv:compiled"


# When this process began to read the package, of which it imports parts later.
IMPORTED = time.time()


@functools.lru_cache(maxsize=1)
def package_stamp() -> str:
    """A digest of the package's sources. One that was written since they were imported may not be what runs here: then
    no other process has the same stamp.
    """
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
        if path.stat().st_mtime > IMPORTED:
            digest.update(uuid.uuid4().bytes)
    return digest.hexdigest()


class _PackageCacheImpl(_caching.CompileResultCacheImpl):
    def __init__(self, py_func: Callable[..., Any]) -> None:
        super().__init__(py_func)
        self._locator.get_source_stamp = package_stamp


class _PackageCache(_caching.FunctionCache):
    """numba's disk cache, made stale by an edit anywhere in the package."""

    _impl_class = _PackageCacheImpl

    def __init__(self, py_func: Callable[..., Any]) -> None:
        super().__init__(py_func)
        # An index of another version is not read at all: it may name classes that this numconv no longer has.
        self._cache_file._version += f" {package_stamp()}"

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        # numba first fills its tables of all that it can compile, and imports SciPy for that: two thirds of a first
        # call. What comes from the disk needs none of them, and the compiler fills them anyhow.
        with self._guard_against_spurious_io_errors():
            return self._load_overload(sig, target_context)

    def save_overload(self, sig: Any, data: Any) -> None:
        with _event.trigger_event(COMPILED, data=self._py_func.__name__):
            super().save_overload(sig, data)


class _Names(_event.Listener):
    """Collects the names that come with an event."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def on_start(self, event: Any) -> None:
        self.names.append(event.data)

    def on_end(self, event: Any) -> None:
        """Nothing: one event, one name."""


@contextlib.contextmanager
def compiled() -> Iterator[list[str]]:
    """The names of the functions that are compiled and kept on disk within, in a list that grows."""
    listener = _Names()
    with _event.install_listener(COMPILED, listener):
        yield listener.names


class LateCache:
    """The cache of a function, opened when it is first compiled: opening all of them would cost each import 7 ms."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    @functools.cached_property
    def _opened(self) -> Any:
        try:
            return _PackageCache(self._function)
        except RuntimeError:
            # Nowhere to write (a read-only install and home): compile in every process.
            return _caching.NullCache()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._opened, name)
