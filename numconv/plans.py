"""Running a correlation: once, or, by a `Plan` that keeps the choice of the method and the prepared weights, often."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from . import aligned, jit
from .machine import Machine, machine
from .method import Array, Method
from .methods import methods
from .narrow import narrowed
from .phased import Phased
from .planner import Call, chosen, phased_on, seconds
from .problem import Problem
from .validate import as_array, refuse


def execute(call: Call) -> Any:
    """Run a call once: the one entry below the dialects."""
    if call.device is not None:
        return _execute_on_gpu(call)
    problem, on, method, scratch_bytes = chosen(call, jit.threads(), prepared=False)
    shape, wanted = _out_shapes(call, problem)
    check_out(call.out, wanted, problem, (call.x, call.weight, call.bias))
    prepared = method.prepare(problem, on, jit.without_lock(call.weight), call.bias)
    scratch = aligned.empty((scratch_bytes,), np.uint8)
    if call.view is None:
        result = _run(method, problem, on, prepared, call.x, call.out, shape, scratch)
        return result if call.finish is None else call.finish(result)
    result = call.view(_run(method, problem, on, prepared, call.x, None, shape, scratch))
    if call.out is None:
        return result
    np.copyto(call.out, result)
    return call.out


def _execute_on_gpu(call: Call) -> Any:
    """The same on a CUDA device, where nothing of the CPU's road fits: arrays, memory, streams."""
    from .cuda.launch import Held, gpu_of

    problem, on, method, _ = chosen(call, 1, prepared=False, gpu=gpu_of(call.x, call.device))
    shape, wanted = _out_shapes(call, problem)
    if type(call.x) is np.ndarray:
        check_out(call.out, wanted, problem, (call.x, call.weight, call.bias))
    held = Held(method, problem, on, call, shape, wanted, once=True)
    return held.run(call.x, call.out, call.stream)


def _out_shape(call: Call, problem: Problem) -> tuple[int, ...]:
    """The result's shape: with a batch if the input has one."""
    shape = problem.laid_out(problem.out_shape)
    return shape if len(call.x_shape) == problem.rank + 2 else shape[1:]


def _out_shapes(call: Call, problem: Problem) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The result's shape as the call asks for it, and that of the view of it which the caller gets."""
    shape = _out_shape(call, problem)
    if call.shape is not None:
        shape = call.shape(shape)
    return shape, shape if call.view is None else call.view(np.broadcast_to(np.uint8(0), shape)).shape


def refuse_stream(stream: object) -> None:
    """Raise where a stream is given to a call on the CPU."""
    if stream is not None:
        raise TypeError(f"stream is {stream!r}, but the call is one on the CPU: leave it out, or pass device='cuda'")


def check_out(out: Array | None, shape: tuple[int, ...], problem: Problem, inputs: tuple[Array | None, ...]) -> None:
    """Raise unless `out` can take the result."""
    if out is None:
        return
    if type(out) is not np.ndarray:
        refuse(TypeError, f"out is a {type(out).__name__}, but it takes a np.ndarray", problem)
    if out.shape != shape:
        refuse(
            ValueError,
            f"out has shape {out.shape}, but the result has shape {shape}: make it np.empty of that",
            problem,
        )
    if out.dtype != problem.output or not out.dtype.isnative:
        refuse(
            TypeError,
            f"out has dtype {out.dtype}, but the result is {problem.output}: make it np.empty of that",
            problem,
        )
    if not out.flags.writeable:
        refuse(ValueError, "out is read-only, but the result is written to it: pass a writeable array", problem)
    if any(step == 0 and size > 1 for size, step in zip(out.shape, out.strides, strict=True)):
        refuse(ValueError, "out has several elements in one place, but each has a result: pass a copy", problem)
    for array in inputs:
        if _share(out, array):
            sentence = "out shares memory with an input, but the inputs are read while it is written: pass a copy"
            refuse(ValueError, sentence, problem)


def _share(out: Array, array: Array | None) -> bool:
    """Whether two arrays have memory in common; two that own theirs do only if they are one."""
    if array is None or (out.base is None and array.base is None and out is not array):
        return False
    return bool(np.may_share_memory(out, array))


def _run(
    method: Method,
    problem: Problem,
    on: Machine,
    prepared: Any,
    x: Array,
    out: Array | None,
    shape: tuple[int, ...],
    scratch: Array,
) -> Array:
    """Fill `out`, or a new array: through one of the accumulator's dtype where the result's differs."""
    if x.dtype.char == "e":
        # numba knows no float16 on the CPU. Every float16 is a float32, so no digit is lost.
        x = x.astype(np.float32)
    direct = problem.output == problem.accumulator and (out is None or out.flags.c_contiguous)
    result = out if out is not None and direct else aligned.empty(shape, problem.accumulator)
    x = jit.without_lock(x)
    if x.ndim <= problem.rank + 2:
        x = problem.channels_first(x, problem.x_shape)
    elif not method.GROUPS_APART:
        x = x.reshape(problem.x_shape)
    whole = problem.channels_first(result, problem.out_shape)
    method.run(problem, on, prepared, x, whole, scratch)
    if direct:
        return result
    if problem.overflow is not None:
        return narrowed(problem, result, out)
    if out is None:
        return result.astype(problem.output)
    np.copyto(out, result, casting="same_kind")
    return out


class Plan:
    """A correlation whose weights are prepared: called with an input, again and again, from any number of threads.

    Made by `numconv.plan`. The weights were copied: editing them later has no effect. The number of threads is asked
    of numba at each call.

    Attributes
    ----------
    problem : Problem
        What is computed. `str(plan.problem)` is its line.
    method : str
        The name of the method that serves it.
    device : str or None
        Where it runs: None is the CPU.
    seconds : float
        Predicted for one call.
    error_bound, expected_error : float
        Proved and probabilistic, relative to max|x| * max over outputs of sum|w| + max|b|.
    prepared_bytes, scratch_bytes : int
        What the plan holds for the weights, and what each call in flight takes.

    """

    def __init__(self, call: Call) -> None:
        self.device = call.device
        gpu = None
        if call.device is not None:
            from .cuda.launch import Held, gpu_of

            gpu = gpu_of(call.x, call.device)
        problem, on, method, scratch_bytes = chosen(call, 1 if gpu else jit.threads(), prepared=True, gpu=gpu)
        self.problem = problem
        self.method = method.NAME
        self._methods = tuple(part.NAME for part in method.methods) if isinstance(method, Phased) else (method.NAME,)
        self.seconds = seconds(method.work(problem, on), on)[1]
        self.error_bound = method.error_bound(problem)
        self.expected_error = method.expected_error(problem)
        self.scratch_bytes = scratch_bytes
        self._workspace = call.wish.workspace
        self._x_shape, self._out_shape = call.x.shape, _out_shape(call, problem)
        if call.device is not None:
            shape, self._out_shape = _out_shapes(call, problem)
            self._held = Held(method, problem, on, call, shape, self._out_shape)
            self.prepared_bytes = self._held.nbytes
            return
        bias = None if call.bias is None else call.bias.copy()
        self._prepared = method.prepare(problem, on, call.weight.copy(), bias)
        self.prepared_bytes = _array_bytes(self._prepared)
        self._connect()

    def _connect(self) -> None:
        found = tuple(next(method for method in methods() if name == method.NAME) for name in self._methods)
        self._module = found[0] if self.problem.plain else phased_on(machine(1))(self.problem, found, self.method)
        # Free scratch by the number of threads. A deque's append and pop are atomic: calls from many threads share it.
        self._free: dict[int, deque[Array]] = {}

    def __call__(self, x: Any, *, out: Any = None, stream: object = None) -> Any:
        """The correlation of x, which must have the shape and dtype that were planned for.

        Raises
        ------
        ValueError
            x has another shape, or `out` another shape or memory shared with x.
        TypeError
            x or `out` has another dtype.

        """
        if self.device is not None:
            there = self._held.described(x)
            x = as_array("input", x) if there is None else there
            self._check(x)
            if there is None:
                check_out(out, self._out_shape, self.problem, (x,))
            return self._held.run(x, out, stream)
        refuse_stream(stream)
        problem = self.problem
        x = as_array("input", x)
        if x.shape != self._x_shape or x.dtype != problem.x_dtype:
            self._check(x)
        check_out(out, self._out_shape, problem, (x,))
        on = machine(jit.threads(), self._workspace)
        free = self._free.get(on.threads) or self._free.setdefault(on.threads, deque())
        try:
            scratch = free.pop()
        except IndexError:
            scratch = aligned.empty((self._module.scratch_bytes(problem, on),), np.uint8)
        try:
            return _run(self._module, problem, on, self._prepared, x, out, self._out_shape, scratch)
        finally:
            free.append(scratch)

    def _check(self, x: Any) -> None:
        problem = self.problem
        if x.shape != self._x_shape:
            refuse(
                ValueError,
                f"the input has shape {x.shape}, but this plan takes {self._x_shape}: make a plan for each shape",
                problem,
            )
        if x.dtype != problem.x_dtype:
            refuse(
                TypeError,
                f"the input has dtype {x.dtype}, but this plan takes {problem.x_dtype}: convert it with astype or make"
                f" the plan with x_dtype={x.dtype}",
                problem,
            )

    def __getstate__(self) -> dict[str, Any]:
        if self.device is not None:
            refuse(
                TypeError,
                "a plan on a CUDA device holds its memory and cannot be pickled: make one there",
                self.problem,
            )
        return {name: value for name, value in vars(self).items() if name not in ("_module", "_free")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._connect()

    def __repr__(self) -> str:
        return (
            f"<Plan {self.problem}: {self.method}, {self.seconds * 1e6:.0f} us predicted, expected error"
            f" {self.expected_error:.1e}, bound {self.error_bound:.1e}>"
        )


def _array_bytes(prepared: Any) -> int:
    """Bytes of the arrays in what methods prepared."""
    if isinstance(prepared, np.ndarray):
        return prepared.nbytes
    return sum(map(_array_bytes, prepared)) if isinstance(prepared, tuple) else 0
