"""The instructions that Python has no name for, as numba intrinsics: the only folder that emits LLVM IR.

An intrinsic must be a module global where a kernel uses it: from a closure, numba's disk cache never hits.
"""
