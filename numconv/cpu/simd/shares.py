"""Kernels: a function of one share of some work, run for every share on numba's threads."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Concatenate, Literal, NamedTuple, ParamSpec, TypeVar, overload

import numba.core.compiler
import numba.core.environment
import numba.core.funcdesc
import numpy as np
from llvmlite import ir
from numba import prange
from numba.core import cgutils, types, typing

from ...aligned import LINE_BYTES
from ...jit import Kernel, Part, threaded
from .ir import INT64, intrinsic, unpacked
from .native import fetch_add

P = ParamSpec("P")
R = TypeVar("R")

# numba's annotations know little of what it compiles with.
_types: Any = types
_typing: Any = typing
_cgutils: Any = cgutils
_funcdesc: Any = numba.core.funcdesc
_environment: Any = numba.core.environment
_compiler: Any = numba.core.compiler


class Share(NamedTuple):
    """One share of a kernel's work: its number, the number of shares, and the address of their counters, which are 0
    as the kernel starts.
    """

    number: int
    total: int
    counters: int


SHARE: Any = _types.NamedUniTuple(types.intp, len(Share._fields), Share)


@overload
def njit(*, parallel: Literal[True]) -> Callable[[Callable[Concatenate[Share, P], None]], Kernel[P]]: ...


@overload
def njit() -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def njit(*, parallel: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """The decorator of every CPU kernel.

    ``@njit(parallel=True)`` makes a `Kernel`, called from Python, of a function whose first parameter is a `Share`: a
    call gives the number of shares in its place. ``@njit()`` makes a `Part`, for kernels to call.
    """
    return functools.partial(Kernel, compiler=_KernelCompiler) if parallel else Part


@njit()
def portion(length: int, share: Share) -> tuple[int, int]:
    """(first, end) of a share of so many items: even shares, neighbours together."""
    return length * share.number // share.total, length * (share.number + 1) // share.total


@njit()
def counted(share: Share, number: int, more: int) -> int:
    """What the counter of share number `number` stood at, before so many more, atomically. Each has a cache line."""
    before: int = fetch_add(share.counters + number * LINE_BYTES, more)
    return before


@intrinsic
def _call_share(typing_context: Any, body: Any, share: Any, arguments: Any) -> Any:
    """Call ``void f(intp share, void *arguments)`` by its address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [INT64] * 2)
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), generate


@threaded
def each(body: int, arguments: int, shares: int) -> None:
    """Every share on one of numba's threads: the one loop of all kernels, so that it is compiled once."""
    for share in prange(shares):
        _call_share(body, np.intp(share), arguments)


class _KernelCompiler:
    """What numba has compile a kernel, of (shares, ...), from the function of one share, of (Share, ...).

    Fewer than no shares: so many, one after another on the caller's thread.
    """

    def __init__(self, typing_context: Any, context: Any, library: Any, args: Any, *options: Any) -> None:
        self.typing_context, self.context, self.args = typing_context, context, args

    def compile_extra(self, function: Callable[..., None]) -> Any:
        """The kernel, as numba's dispatchers and caches know it."""
        context, part, loop = self.context, Part(function), types.void(*(types.intp,) * 3)
        share, together = part.get_compile_result(types.void(SHARE, *self.args[1:])), each.get_compile_result(loop)
        names = share.fndesc
        described = _funcdesc.PythonFunctionDescriptor(
            True, names.modname, names.qualname, names.unique_name, names.doc, None, types.none, None, names.args, (),
            context.mangler, self.args, abi_tags=names.abi_tags, uid=names.uid,
        )  # fmt: skip
        library = context.codegen().create_library(names.qualname)
        library.enable_object_caching()
        for linked in (share, together):
            library.add_linking_library(linked.library)
        module = context.create_module(names.qualname)
        helper = _define_driver(context, module, described, share.fndesc, together.fndesc)
        library.add_ir_module(module)
        environment = _environment.Environment.from_fndesc(described)
        context.create_cpython_wrapper(library, described, environment, helper, release_gil=True)
        library.finalize()
        return _compiler.compile_result(
            typing_context=self.typing_context, target_context=context, library=library, fndesc=described,
            entry_point=context.get_executable(library, described, environment), environment=environment,
            signature=_typing.signature(types.none, *self.args), objectmode=False, lifted=(), call_helper=helper,
            metadata={}, reload_init=list(library._reload_init),
        )  # fmt: skip


def _define_driver(context: Any, module: Any, described: Any, share: Any, together: Any) -> Any:
    """The function that Python's wrapper calls; returns numba's helper for such calls."""
    driver = context.declare_function(module, described)
    builder = ir.IRBuilder(driver.append_basic_block("entry"))
    helper = context.call_conv.init_call_helper(builder)
    asked, *values = context.get_arg_packer(described.argtypes).from_arguments(
        builder, context.call_conv.get_arguments(driver)
    )
    alone = builder.icmp_signed("<", asked, INT64(0))
    count = builder.select(alone, builder.neg(asked), asked)
    size = builder.mul(count, INT64(LINE_BYTES))
    counters = builder.alloca(ir.IntType(8), size)
    counters.align = LINE_BYTES
    _cgutils.memset(builder, counters, size, 0)
    arguments = _cgutils.make_anonymous_struct(builder, [count, builder.ptrtoint(counters, INT64), *values])
    place = builder.alloca(arguments.type)
    builder.store(arguments, place)
    body = _define_body(context, module, described, share, arguments.type)
    address = builder.ptrtoint(place, INT64)
    with builder.if_else(alone) as (by_caller, on_threads):
        with by_caller, cgutils.for_range(builder, count) as loop:
            builder.call(body, [loop.index, address])
        with on_threads:
            callee = context.declare_function(module, together)
            operands = [builder.ptrtoint(body, INT64), address, count]
            context.call_conv.call_function(builder, callee, together.restype, together.argtypes, operands)
    context.call_conv.return_value(builder, context.get_dummy_value())
    return helper


def _define_body(context: Any, module: Any, described: Any, share: Any, arguments: Any) -> Any:
    """What `each` calls: ``void f(intp share, void *arguments)``."""
    body = ir.Function(module, ir.FunctionType(ir.VoidType(), [INT64] * 2), f"{described.mangled_name}.share")
    body.linkage = "internal"
    builder = ir.IRBuilder(body.append_basic_block())
    number, place = body.args
    count, counters, *values = unpacked(builder, builder.load(builder.inttoptr(place, arguments.as_pointer())))
    given = _cgutils.pack_array(builder, [number, count, counters])
    callee = context.declare_function(module, share)
    context.call_conv.call_function(builder, callee, share.restype, share.argtypes, [given, *values])
    builder.ret_void()
    return body
