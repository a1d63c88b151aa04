"""An interpreter of the PTX that numba emits, so that kernels are proved where no GPU is.

All threads of a block run side by side in NumPy, the group with the lowest program counter first, so that branches
that part come together again. Multiply-adds are fused: rounded once. Every access to global and shared memory is
checked: that it lies in an array (or the block's memory), that it is aligned, that shared memory was written before
it is read, and that between two barriers no thread reads or writes what another wrote, or writes what another read.
What is executed is counted: warp instructions, the wavefronts of shared memory and the sectors of global memory,
each beside the fewest that would do.
"""

from __future__ import annotations

import re

import numpy as np
from exact import fused32, fused64
from ptx_cooperation import Cooperation
from ptx_memory import SHARED_BASE, WARP, Arrays, Counts, Fault, Shared

TYPES = {
    "pred": np.bool_, "f32": np.float32, "f64": np.float64,
    **{f"{kind}{size}": np.dtype(f"{letter}{size // 8}").type for kind, letter in (("u", "u"), ("b", "u"), ("s", "i"))
       for size in (8, 16, 32, 64)},
}  # fmt: skip
COMPARE = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "lo": np.less, "ls": np.less_equal, "hi": np.greater, "hs": np.greater_equal,
    "neu": np.not_equal, "ltu": lambda a, b: ~(a >= b), "leu": lambda a, b: ~(a > b),
    "gtu": lambda a, b: ~(a <= b), "geu": lambda a, b: ~(a < b),
    "nan": lambda a, b: np.isnan(a) | np.isnan(b), "num": lambda a, b: ~(np.isnan(a) | np.isnan(b)),
}  # fmt: skip


class Kernel:
    """A kernel's PTX, parsed."""

    def __init__(self, text):
        body = text[text.index(".entry") :]
        header, _, rest = body.partition("{")
        self.parameters = re.findall(r"\.param \.(\w+) (\w+)", header)
        self.shared_names, size = {}, 0
        for align, name, count in re.findall(r"\.shared \.align (\d+) \.b8 (\w+)\[(\d+)\]", text):
            size = -(-size // int(align)) * int(align)
            self.shared_names[name] = SHARED_BASE + size
            size += int(count)
        self.shared_size = size
        self.types, self.code, labels = {}, [], {}
        rest = re.sub(r"//.*", "", rest)
        for prefix, name, _ in re.findall(r"\.reg \.(\w+)\s+(%\w+?)<(\d+)>;", rest):
            self.types[name] = TYPES[prefix]
        for prefix, name in re.findall(r"\.reg \.(\w+)\s+(%\w+);", rest):
            self.types[name] = TYPES[prefix]
        assert ".local" not in rest, "local memory: something did not stay in registers"
        for statement in re.findall(r"^\s*(\$?[\w$]+):|^\s*((?:@!?%\w+\s+)?[a-z][\w.:]*(?:\s+[^;]*)?);", rest, re.M):
            label, instruction = statement
            if label:
                labels[label] = len(self.code)
            elif not instruction.startswith("."):
                self.code.append(self._parse(instruction))
        self.targets = labels

    @staticmethod
    def _parse(text):
        guard, name, rest = re.match(r"(?:@(!?%\w+)\s+)?([\w.:]+)\s*(.*)", text, re.S).groups()
        operands = [part.strip() for part in re.findall(r"\{[^}]*\}|\[[^\]]*\]|[^,\s{\[][^,]*", rest)]
        return guard, name.split("."), [part for part in operands if part]

    def launch(self, grid, threads, arguments, counts=None, blocks=None):
        """Run it over a grid; arrays among the arguments are 1-D, and are filled in place."""
        arrays = list({id(one): one for one in arguments if isinstance(one, np.ndarray)}.values())
        memory = Arrays(arrays)
        values = []
        for argument in arguments:
            if isinstance(argument, np.ndarray):
                place = memory.base + memory.places[next(i for i, a in enumerate(arrays) if a is argument)]
                size = argument.itemsize
                values += [0, 0, argument.size, size, place, argument.size, size]
            else:
                values.append(argument)
        assert len(values) == len(self.parameters), (len(values), len(self.parameters))
        counts = Counts() if counts is None else counts
        grid = (*grid, 1, 1)[:3]
        for index in np.ndindex(*reversed(grid)) if blocks is None else blocks:
            Block(self, memory, values, threads, tuple(reversed(index)), grid, counts).run()
        for i, array in enumerate(arrays):
            array[...] = memory.get(i, array)
        return counts


class Block(Cooperation):
    """One block on its way."""

    def __init__(self, kernel, memory, values, threads, index, grid, counts):
        self.kernel, self.memory, self.counts, self.threads = kernel, memory, counts, threads
        self.registers = {}
        self.parameters = {
            name: TYPES[kind](value) if kind[0] != "f" else value
            for (kind, name), value in zip(kernel.parameters, map(_unsigned, values), strict=True)
        }
        self.shared = Shared(kernel.shared_size)
        super().__init__(threads)
        axes = dict(zip("xyz", range(3), strict=True))
        self.special = {"%tid.x": np.arange(threads, dtype=np.uint32), "%tid.y": np.uint32(0), "%tid.z": np.uint32(0)}
        for axis, i in axes.items():
            self.special[f"%ctaid.{axis}"] = np.uint32(index[i])
            self.special[f"%nctaid.{axis}"] = np.uint32(grid[i])
            self.special[f"%ntid.{axis}"] = np.uint32(threads if i == 0 else 1)

    def run(self):
        everybody = np.arange(self.threads)
        groups, waiting, running = {0: everybody}, {}, self.threads
        code = self.kernel.code
        with np.errstate(all="ignore"):
            while groups or waiting:
                if not groups:
                    if len(waiting) != 1 or sum(map(len, waiting.values())) != running:
                        raise Fault("a barrier that not all threads reach")
                    self.shared.barrier()
                    groups, waiting = {place + 1: who for place, who in waiting.items()}, {}
                place = min(groups)
                who = groups.pop(place)
                while True:
                    guard, name, operands = code[place]
                    self.counts.places[place] += len(who) / WARP
                    self.counts.instructions[name[0]] += len(np.unique(who // WARP)) if len(who) < self.threads else (
                        self.threads // WARP
                    )  # fmt: skip
                    if name[0] == "bra":
                        taken = np.ones(len(who), bool) if guard is None else self._guard(guard, who)
                        for target, part in ((self.kernel.targets[operands[0]], who[taken]), (place + 1, who[~taken])):
                            if len(part):
                                groups[target] = np.union1d(groups[target], part) if target in groups else part
                        break
                    if name[0] == "ret":
                        running -= len(who)
                        break
                    if name[0] == "bar":
                        waiting[place] = np.union1d(waiting[place], who) if place in waiting else who
                        break
                    part = who if guard is None else who[self._guard(guard, who)]
                    if len(part):
                        self._execute(name, operands, slice(None) if len(part) == self.threads else part, part)
                    place += 1
                    if place in groups:
                        groups[place] = np.union1d(groups[place], who)
                        break

    def _guard(self, guard, who):
        value = self.registers[guard.lstrip("!")][who]
        return ~value if guard.startswith("!") else value

    def _register(self, name):
        found = self.registers.get(name)
        if found is None:
            kind = self.kernel.types[re.match(r"%[a-z]+", name).group()]
            found = self.registers[name] = np.zeros(self.threads, kind)
        return found

    def _value(self, operand, dtype, at):
        if operand in self.special:
            value = self.special[operand]
            return value[at] if value.ndim else value
        if operand[0] == "%":
            if operand not in self.registers:
                raise Fault(f"{operand} is read before it is written")
            if operand in self.running:
                raise Fault(f"wgmma: {operand} is read before its products end")
            value = self.registers[operand][at]
            if dtype is np.bool_ or value.dtype == dtype:
                return value
            return value.view(dtype) if value.itemsize == np.dtype(dtype).itemsize else value.astype(dtype)
        if operand[:2] in ("0f", "0d"):
            bits = np.array(int(operand[2:], 16), np.uint32 if operand[1] == "f" else np.uint64)
            return bits.view(np.float32 if operand[1] == "f" else np.float64)[()]
        if operand in self.kernel.shared_names:
            return np.uint64(self.kernel.shared_names[operand])
        number = int(operand, 0)
        if dtype in (np.float32, np.float64):
            return dtype(number)
        return np.array(number & (2 ** (8 * np.dtype(dtype).itemsize) - 1)).astype(
            f"u{np.dtype(dtype).itemsize}"
        ).view(dtype)[()] if dtype is not np.bool_ else np.bool_(number)  # fmt: skip

    def _set(self, operand, value, at):
        register = self._register(operand)
        value = np.asarray(value)
        if value.dtype != register.dtype and value.dtype.kind != "b" and value.itemsize == register.itemsize:
            value = value.view(register.dtype)
        register[at] = value

    def _execute(self, name, operands, at, who):
        kind, modifiers = name[0], name[1:]
        if kind in ("ld", "st"):
            self._access(kind, modifiers, operands, at, who)
            return
        if kind in self.TOGETHER:
            getattr(self, f"_{kind}")(modifiers, operands, at, who)
            return
        dtype = TYPES.get(name[-1])
        if kind == "cvt":
            self._set(operands[0], self._convert(modifiers, operands[1], at), at)
            return
        if kind == "setp":
            a, b = (self._value(operand, dtype, at) for operand in operands[1:3])
            self._set(operands[0], COMPARE[modifiers[0]](a, b), at)
            return
        if kind == "selp":
            a, b = (self._value(operand, dtype, at) for operand in operands[1:3])
            self._set(operands[0], np.where(self._value(operands[3], np.bool_, at), a, b), at)
            return
        values = [self._value(operand, dtype, at) for operand in operands[1:]]
        self._set(operands[0], getattr(self, f"_{kind}")(modifiers, dtype, *values), at)

    def _convert(self, modifiers, operand, at):
        if modifiers == ["rna", "tf32", "f32"]:
            value = self._value(operand, np.float32, at)
            bits = value.view(np.uint32)
            return np.where(np.isnan(value), np.uint32(0x7FFFE000), (bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000))
        to, source = (TYPES[part] if part != "f16" else np.float16 for part in modifiers[-2:])
        value = self._value(operand, source, at) if source is not np.float16 else self._value(operand, np.uint16, at)
        value = value.view(np.float16) if source is np.float16 else value
        if "rzi" in modifiers or (np.dtype(to).kind in "iu" and np.dtype(source).kind == "f"):
            value = np.trunc(value)
        return np.asarray(value).astype(to) if to is not np.float16 else np.asarray(value).astype(to).view(np.uint16)

    def _access(self, kind, modifiers, operands, at, who):
        space = next(part for part in modifiers if part in ("param", "global", "shared"))
        place, registers = (operands[1], operands[0]) if kind == "ld" else (operands[0], operands[1])
        base, _, more = place.strip("[]").partition("+")
        registers = [part.strip() for part in registers.strip("{}").split(",")]
        dtype = TYPES[modifiers[-1]]
        if space == "param":
            self._set(registers[0], np.full(len(who), self.parameters[base], dtype), at)
            return
        address = np.broadcast_to(self._value(base, np.uint64, at), len(who)) + np.uint64(int(more or 0) & (2**64 - 1))
        item = np.dtype(dtype).itemsize
        size = item * len(registers)
        memory, label = (self.shared, "shared memory") if space == "shared" else (self.memory, "global memory")
        memory.aligned(address, size, f"{kind} {label}")
        first = memory.at(address, dtype, f"{kind} {label}")
        memory.at(address + np.uint64(size - item), dtype, f"{kind} {label}")
        if space == "shared":
            (self.shared.read if kind == "ld" else self.shared.write)(address, size, who)
            self.counts.shared(address, size, who)
        else:
            self.counts.globally(kind, address, size, who)
        view = memory.bytes.view(dtype)
        for i, register in enumerate(registers):
            if kind == "ld":
                self._set(register, _widened(view[first + i], self._register(register).dtype), at)
            else:
                view[first + i] = self._value(register, dtype, at)

    def _mov(self, modifiers, dtype, a):
        return a

    _cvta = _mov

    def _add(self, modifiers, dtype, a, b):
        return a + b

    def _sub(self, modifiers, dtype, a, b):
        return a - b

    def _neg(self, modifiers, dtype, a):
        return -a

    def _abs(self, modifiers, dtype, a):
        return np.abs(a)

    def _not(self, modifiers, dtype, a):
        return ~a

    def _and(self, modifiers, dtype, a, b):
        return a & b

    def _or(self, modifiers, dtype, a, b):
        return a | b

    def _xor(self, modifiers, dtype, a, b):
        return a ^ b

    def _min(self, modifiers, dtype, a, b):
        return np.fmin(a, b)

    def _max(self, modifiers, dtype, a, b):
        return np.fmax(a, b)

    def _mul(self, modifiers, dtype, a, b):
        if "wide" in modifiers:
            wide = np.dtype(f"{np.dtype(dtype).kind}8")
            return np.asarray(a).astype(wide) * np.asarray(b).astype(wide)
        if "hi" in modifiers:
            product = np.asarray(a).astype(object) * np.asarray(b).astype(object)
            return np.asarray(product // 2 ** (8 * np.dtype(dtype).itemsize)).astype(dtype)
        return a * b

    def _mad(self, modifiers, dtype, a, b, c):
        return self._mul(modifiers, dtype, a, b) + c

    def _fma(self, modifiers, dtype, a, b, c):
        fused = fused32 if dtype is np.float32 else fused64
        return fused(*np.broadcast_arrays(*map(np.asarray, (a, b, c))))

    def _div(self, modifiers, dtype, a, b):
        if np.dtype(dtype).kind == "f":
            return a / b
        quotient = np.abs(np.asarray(a)) // np.abs(np.asarray(b))
        return np.where((a < 0) != (b < 0), -quotient, quotient).astype(dtype)

    def _rem(self, modifiers, dtype, a, b):
        return a - self._div(modifiers, dtype, a, b) * b

    def _shl(self, modifiers, dtype, a, b):
        return a << _count(b, dtype)

    def _shr(self, modifiers, dtype, a, b):
        return a >> _count(b, dtype)

    def _bfi(self, modifiers, dtype, a, b, start, length):
        ones = (1 << int(np.max(length))) - 1
        mask = dtype(ones << int(np.max(start)))
        return (b & ~mask) | ((a << _count(start, dtype)) & mask)


def _unsigned(value):
    """A parameter as PTX passes it."""
    return value & (2**64 - 1) if isinstance(value, int) else value


def _count(value, dtype):
    return np.asarray(value).astype(dtype)


def _widened(value, dtype):
    """A load into a wider register: integers keep their value."""
    return value.astype(dtype) if value.itemsize < dtype.itemsize else value
