"""How numconv compiles and launches: every compiler option, the threading policy. What is kept on disk: cache.py.

Nothing else in the package names a numba option, reads a numba setting or takes a lock.

**Options.** Kernels release the GIL, are cached on disk, follow IEEE arithmetic to the letter (no fast-math:
NaN and inf are data, and the order of summation is a promise) and divide as NumPy does.

**Compiling.** A kernel is optimised as a whole, once, with everything that it calls. numba makes machine code of each
function by itself, and optimises again what it calls, at each level of calls and four times for a prange: that took 15
of the 19 seconds of a first correlation, which now takes 4. Register tiles alone are compiled for themselves and called
by address (`Native`), for all kernels that need them. Of the seconds, half are numba's own, in Python: what keeps them
few are records (cpu/simd/fields.py) in the place of arguments, type tests that leave out what an array's type rules out
(`TypeTest`), and fewer passes (`IDLE_PASSES`).

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

import functools
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast

import numba
import numba.core.ccallback
import numba.core.codegen
import numba.core.compiler
import numba.core.compiler_machinery
import numba.core.ir
import numba.core.ir_utils
import numba.core.registry
import numba.core.untyped_passes
import numba.np.ufunc.parallel
import numpy as np

from .cache import LateCache
from .problem import Array

P = ParamSpec("P")
R = TypeVar("R")

# numba's annotations know not all of its options.
_numba: Any = numba
_parallel: Any = numba.np.ufunc.parallel
_ccallback: Any = numba.core.ccallback
_codegen: Any = numba.core.codegen
_compiler: Any = numba.core.compiler
_machinery: Any = numba.core.compiler_machinery
_ir: Any = numba.core.ir
_ir_utils: Any = numba.core.ir_utils
_untyped_passes: Any = numba.core.untyped_passes
_registry: Any = numba.core.registry

OPTIONS = {"_nrt": False, "nogil": True, "boundscheck": False, "fastmath": False, "error_model": "numpy"}
# Of a function inlined into CUDA kernels. Fused multiply-adds are written out as cuda.fma.
INLINED = {"forceinline": True, "fastmath": False, "lto": False}
# Passes of numba's compiler for closures, context managers and arithmetic of whole arrays.
IDLE_PASSES = {
    "with_lifting",
    "inline_closure_likes",
    "make_function_op_code_to_jit_function",
    "inline_inlinables",
    "inline_overloads",
    "find_literally",
    "literal_unroll",
    "LiteralPropagation",
    "nopython_rewrites",
}
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


def _compile(function: Callable[..., R], **options: Any) -> Callable[..., R]:
    dispatcher = _numba.njit(function, **options, **OPTIONS)
    dispatcher._cache = LateCache(function)
    return cast("Callable[..., R]", dispatcher)


class _PartLibrary(_codegen.JITCodeLibrary):
    """Code for a kernel to take in: each function tidied by itself, without which `loops` ran at 0.8 of its speed, and
    nothing more.
    """

    def _optimize_final_module(self) -> None:
        """Nothing: the kernel does."""

    def _finalize_final_module(self) -> None:
        """No machine code."""
        self._finalized = True


class TypeTest:
    """The decorator of what can be told of arrays by their types alone, numba's, which the function takes.

    In a `Part` whose parameters the arrays are, it is a constant: of an ``if``, what is never done is not compiled.
    """

    _numba_type_ = _numba.types.Dummy("TypeTest")

    def __init__(self, test: Callable[..., bool]) -> None:
        self.test = test
        self.__doc__ = test.__doc__

    def __call__(self, *arrays: Array) -> bool:
        return self.test(*map(_numba.typeof, arrays))


@_machinery.register_pass(mutates_CFG=False, analysis_only=False)
class _AnswerTypeTests(_machinery.FunctionPass):
    """Puts constants in the place of calls of a `TypeTest`."""

    _name = "numconv_type_tests"

    def __init__(self) -> None:
        super().__init__()

    def run_pass(self, state: Any) -> bool:
        code = state.func_ir

        def defined(variable: Any) -> Any:
            return _ir_utils.guard(_ir_utils.get_definition, code, variable)

        for block in code.blocks.values():
            for assigned in block.find_insts(_ir.Assign):
                call = assigned.value
                asked = defined(call.func) if getattr(call, "op", None) == "call" else None
                test = getattr(asked, "value", None)
                if isinstance(test, TypeTest):
                    answer = test.test(*(state.args[defined(argument).index] for argument in call.args))
                    assigned.value = _ir.Const(answer, assigned.loc)
                    code._definitions[assigned.target.name] = [assigned.value]
        return True


class _Compiler(_compiler.Compiler):
    """numba's compiler for functions that kernels call."""

    def define_pipelines(self) -> list[Any]:
        """Numba's passes, but for those that would look for what no kernel has, and one before those that leave out
        what constants rule out.
        """
        (pipeline,) = super().define_pipelines()
        pipeline.passes = [(kind, told) for kind, told in pipeline.passes if kind.name() not in IDLE_PASSES]
        pipeline.add_pass_after(_AnswerTypeTests, _untyped_passes.RewriteSemanticConstants)
        pipeline.finalize()
        return [pipeline]


class _PartCompiler(_Compiler):
    """The same, up to the code as it was written."""

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
        return _compile(self.py_func, pipeline_class=_Compiler)

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
        compiler._cache = LateCache(function)
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
