"""How numconv compiles and launches: every compiler option, the cache policy, the threading policy.

Nothing else in the package names a numba option, reads a numba setting or takes a lock.

**Options.** Kernels release the GIL, are cached on disk, follow IEEE arithmetic to the letter (no fast-math:
NaN and inf are data, and the order of summation is a promise) and divide as NumPy does.

**Compiling.** A kernel is optimised as a whole, once, with everything that it calls. numba makes machine code of each
function by itself, and optimises again what it calls, at each level of calls and four times for a prange: that took 15
of the 19 seconds of a first correlation, which now takes 8. Register tiles alone are compiled for themselves and called
by address (`Native`), for all kernels that need them.

**Cache.** numba notices an edit only in the file that holds a kernel. A numconv kernel is inlined from several
files, so its cache entry carries the stamp of the whole package: an edit anywhere recompiles, and stale code is
never served. Where the package folder is read-only, numba falls back to the user's cache folder.

**Threads.** The number is asked of numba at each call, so ``numba.set_num_threads``, joblib and dask are obeyed.
What happens when several Python threads call at once, or a process forks, depends on numba's threading layer:

| situation | policy |
| --- | --- |
| omp or tbb layer, any number of Python threads | every caller has numba's threads run its shares |
| workqueue layer, which aborts the process on concurrent entry | one caller does, the others run theirs alone |
| a forked child (GNU OpenMP kills a child that enters a parallel region) | the caller runs its shares alone |

A caller that runs alone goes through the same kernel and the same shares, one after another: the bits are the same.
The lock guards numconv's own kernels: under workqueue, a program that runs parallel kernels of its own beside
numconv's from several Python threads needs the omp or tbb layer, as numba's manual says.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast

import numba
import numba.core.caching
import numba.core.ccallback
import numba.core.codegen
import numba.core.compiler
import numba.core.event
import numba.core.registry
import numba.np.ufunc.parallel
import numba.np.unsafe.ndarray
import numpy as np

from .problem import Array

P = ParamSpec("P")
R = TypeVar("R")

# numba's annotations know neither all of its options nor its caches.
_numba: Any = numba
_parallel: Any = numba.np.ufunc.parallel
_caching: Any = numba.core.caching
_ccallback: Any = numba.core.ccallback
_event: Any = numba.core.event
_codegen: Any = numba.core.codegen
_compiler: Any = numba.core.compiler
_registry: Any = numba.core.registry

# In a kernel, ``Fields(*to_fields(integers, FIELDS))`` is a NamedTuple of the integers that an array brought. As an
# argument, a tuple costs each call 0.1 us for each of its fields, the array 0.1 us as a whole.
to_fields: Any = numba.np.unsafe.ndarray.to_fixed_tuple

OPTIONS = {"_nrt": False, "nogil": True, "boundscheck": False, "fastmath": False, "error_model": "numpy"}
# The kind of numba's events that tell of a function compiled and kept on disk.
COMPILED = "numconv:compiled"
# Of a function inlined into CUDA kernels. Fused multiply-adds are written out as cuda.fma.
INLINED = {"forceinline": True, "fastmath": False, "lto": False}
THREADSAFE_LAYERS = ("omp", "tbb")

_FORKED_WITHOUT_EXEC = 0x40


def _threads_left_behind() -> bool:
    """Whether, at import, numba's threads were started already and this process was forked, as far as Linux tells:
    they may be the parent's, and GNU OpenMP kills a child that takes them for its own.
    """
    try:
        flags = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[6])
    except (OSError, ValueError, IndexError):
        return False
    return bool(_parallel._is_initialized and flags & _FORKED_WITHOUT_EXEC)


# The process whose threads numba's are.
_PROCESS = -1 if _threads_left_behind() else os.getpid()
_WORKQUEUE = threading.RLock()


@functools.lru_cache(maxsize=1)
def package_stamp() -> str:
    """A digest of the package's sources."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
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


class _LateCache:
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


def _compile(function: Callable[..., R], **options: Any) -> Callable[..., R]:
    dispatcher = _numba.njit(function, **options, **OPTIONS)
    dispatcher._cache = _LateCache(function)
    return cast("Callable[..., R]", dispatcher)


class _PartLibrary(_codegen.JITCodeLibrary):
    """Code as it was written, for a kernel to take in."""

    def _optimize_final_module(self) -> None:
        """Nothing: the kernel does."""

    def _finalize_final_module(self) -> None:
        """No machine code."""
        self._finalized = True


class _PartCompiler(_compiler.Compiler):
    """numba's compiler, up to the code as it was written."""

    def compile_extra(self, function: Callable[..., Any]) -> Any:
        self.state.library = _PartLibrary(self.state.targetctx.codegen(), function.__qualname__)
        self.state.flags.no_compile = True
        return super().compile_extra(function)


class Part(_registry.CPUDispatcher):
    """A function that kernels call, and that becomes machine code only within them.

    Where Python calls it, as tests do, it is compiled once more for that.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        options = {"nopython": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True, **OPTIONS}
        super().__init__(function, targetoptions=options, pipeline_class=_PartCompiler)

    def add_overload(self, result: Any) -> None:
        """Keep the code of a signature, which has no address, under a key of its own."""
        result = result._replace(entry_point=object())
        self.targetctx.insert_user_function(result.entry_point, result.fndesc, [result.library])
        self.overloads[tuple(result.signature.args)] = result

    @functools.cached_property
    def alone(self) -> Callable[..., Any]:
        """The same function, compiled for Python to call."""
        return _compile(self.py_func)

    def __call__(self, *args: Any) -> Any:
        return self.alone(*args)


class Kernel(Generic[P]):
    """A kernel whose shares run on numba's threads, or on the caller's, by the threading policy above.

    A call gives the number of shares, and the rest of the function's arguments. `compiler` makes of the function of one
    share one of all (cpu/simd/shares.py): of fewer than none, it has the caller run as many.
    """

    def __init__(self, function: Callable[Concatenate[Any, P], None], compiler: type) -> None:
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__
        self.compiled: Callable[..., None] = _compile(function, pipeline_class=compiler)

    def __call__(self, shares: int, *args: P.args, **kwargs: P.kwargs) -> None:
        if os.getpid() != _PROCESS:
            return self.compiled(-shares, *args, **kwargs)
        if layer() in THREADSAFE_LAYERS:
            return self.compiled(shares, *args, **kwargs)
        try:
            return self.compiled(shares if _WORKQUEUE.acquire(blocking=False) else -shares, *args, **kwargs)
        finally:
            # The lock itself knows whether it is this thread's, for Ctrl-C may come after any call: before the answer
            # of `acquire` is stored, and inside contextlib.suppress.
            try:  # noqa: SIM105
                _WORKQUEUE.release()
            except RuntimeError:
                pass


def njit() -> Callable[[Callable[P, R]], Callable[P, R]]:
    """The decorator of what kernels call: it makes a `Part`. That of kernels is `kernel` of cpu/simd/shares.py."""
    return cast("Callable[[Callable[P, R]], Callable[P, R]]", Part)


def threaded(function: Callable[..., None]) -> Any:
    """The decorator of a loop over numba's threads, a prange: kernels run theirs by that of cpu/simd/shares.py."""
    return _compile(function, parallel=True)


def cuda_options(threads: int, resident: int) -> dict[str, Any]:
    """The options of a CUDA kernel that is launched with so many threads a block, `resident` of them to a
    multiprocessor: that bounds its registers. Signatures are lazy, since an eager one needs a driver. Without
    optimization at link time the assembler gets the PTX that the tests prove, and makes of it what they measured.
    """
    return {"cache": True, "fastmath": False, "opt": True, "lto": False, "launch_bounds": (threads, resident)}


class Native:
    """A function with an address, compiled for itself: kernels call it by that address.

    Which register tiles a kernel needs, the shapes tell: compiled into it, all of them would be, for each dtype of the
    input. The function takes the address of its operands.
    """

    def __init__(self, function: Callable[[int], None]) -> None:
        compiler = _ccallback.CFunc(function, ((numba.types.intp,), numba.types.void), {}, OPTIONS)
        compiler._cache = _LateCache(function)
        compiler.compile()
        self._compiled = compiler
        self.address = int(compiler.address)

    def assembly(self) -> str:
        """What the compiler makes of it: compiled anew, since what comes from the cache has no text."""
        return str(self._compiled._compile_uncached().library.get_asm_str())


class _Memory:
    """Where an array lies, as numpy's protocol tells it."""

    def __init__(self, array: Array) -> None:
        self.array = array  # kept alive
        self.__array_interface__ = {**array.__array_interface__, "data": (array.ctypes.data, False)}


def without_lock(array: Array) -> Array:
    """The same array, but not marked as read-only, for kernels, which write to no input.

    numba takes the mark for a type of its own: a frozen image, such as JAX and Pillow give, would have every kernel
    compiled once more.
    """
    return array if array.flags.writeable else np.asarray(_Memory(array))


def forked() -> bool:
    """Whether this process was forked off the one that imported numconv, or that had started numba's threads."""
    return os.getpid() != _PROCESS


def threads() -> int:
    """How many threads a kernel started now would use."""
    if os.getpid() != _PROCESS:
        return 1
    layer()
    # What numba.get_num_threads asks once the layer runs; through its own lock it costs 0.7 us of a 3 us launch.
    return int(_parallel._get_num_threads())


def spread(function: Callable[[int], None], count: int) -> None:
    """Call function(0) to function(count - 1), each on a thread of its own: for what another library does with the GIL
    released. The threads end with the call.
    """
    if count == 1:
        function(0)
        return
    import concurrent.futures  # by the first call that needs it: an import of numconv should not

    with concurrent.futures.ThreadPoolExecutor(count - 1) as pool:
        futures = [pool.submit(function, number) for number in range(1, count)]
        function(0)
        for future in futures:
            future.result()


@functools.lru_cache(maxsize=1)
def layer() -> str:
    """Numba's threading layer, which is started by the first call: "omp", "tbb" or "workqueue"."""
    _numba.get_num_threads()
    return str(_numba.threading_layer())
