"""What the threads of a warp or of a block do together in the interpreter (ptx.py): tensor cores, exchanges, copies."""

from __future__ import annotations

import numpy as np
from ptx_memory import WARP, Fault


class Cooperation:
    """Instructions by which a block's threads work together."""

    TOGETHER = ("cp", "fence", "mma", "shfl", "wgmma")

    def __init__(self, threads):
        # On their way to shared memory: (groups, threads, from, to, bytes); and the groups that each thread closed.
        self.copies, self.groups = [], np.zeros(threads, int)
        # The registers of warp groups' sums whose products may not have ended.
        self.running = set()

    def _fence(self, modifiers, operands, at, who):
        """What was written is seen by warp groups' products."""
        assert modifiers == ["proxy", "async", "shared::cta"], modifiers
        self.shared.show(who)

    def _shfl(self, modifiers, operands, at, who):
        """Each thread gets the value of another one of its warp."""
        assert modifiers == ["sync", "idx", "b32"], modifiers
        for operand, wanted in zip(operands[3:], (31, 2**32 - 1), strict=True):
            assert (self._value(operand, np.uint32, at) == wanted).all(), operands
        if len(who) % WARP:
            raise Fault("shfl: a warp's threads parted")
        values = self._value(operands[1], np.uint32, at)
        lane = np.broadcast_to(self._value(operands[2], np.uint32, at), len(who)) % WARP
        self._set(operands[0].partition("|")[0], values[np.arange(len(who)) // WARP * WARP + lane], at)

    def _cp(self, modifiers, operands, at, who):
        """A copy to shared memory arrives when its thread waits for it, and not before."""
        if modifiers[1] == "commit_group":
            self.groups[who] += 1
        elif modifiers[1] == "wait_group":
            left = []
            for group, threads, source, to, size in self.copies:
                due = np.isin(threads, who) & (group < self.groups[threads] - int(operands[0]))
                if due.any():
                    self.shared.write(to[due], size, threads[due])
                    words = np.arange(size // 4)
                    from_ = self.memory.at(source[due], np.uint32, "cp")[:, None] + words
                    into = self.shared.at(to[due], np.uint32, "cp")[:, None] + words
                    self.shared.bytes.view(np.uint32)[into] = self.memory.bytes.view(np.uint32)[from_]
                if not due.all():
                    left.append((group[~due], threads[~due], source[~due], to[~due], size))
            self.copies = left
        else:
            assert modifiers == ["async", "ca", "shared", "global"], modifiers
            size = int(operands[2])
            to, source = (
                np.broadcast_to(self._value(operand.strip("[]"), kind, at), len(who)).astype(np.uint64)
                for operand, kind in zip(operands, (np.uint32, np.uint64), strict=False)
            )
            for memory, address, label in ((self.shared, to, "shared memory"), (self.memory, source, "global memory")):
                memory.aligned(address, size, f"cp {label}")
                for first in (address, address + np.uint64(size - 4)):
                    memory.at(first, np.uint32, f"cp {label}")
            self.counts.shared(to, size, who)
            self.counts.globally("cp", source, size, who)
            self.copies.append((self.groups[who], who.copy(), source, to, size))

    def _mma(self, modifiers, operands, at, who):
        """Sums of 16 by 8 and products of TF32, eight deep, by each warp."""
        assert modifiers == ["sync", "aligned", "m16n8k8", "row", "col", "f32", "tf32", "tf32", "f32"], modifiers
        if len(who) % WARP or (who.reshape(-1, WARP) % WARP != np.arange(WARP)).any():
            raise Fault("mma: a warp's threads parted")
        places, a, b, c = (operand.strip("{}").replace(" ", "").split(",") for operand in operands)
        words = [self._value(one, np.uint32, at).reshape(-1, WARP) for one in (*a, *b)]
        if any((word & 0x1FFF).any() for word in words):
            raise Fault("mma: an operand is no TF32")
        factors = [word.view(np.float32).astype(np.float64) for word in words]
        across, down = np.divmod(np.arange(WARP), 4)
        left, right, sums = (np.zeros((len(who) // WARP, *shape)) for shape in ((16, 8), (8, 8), (16, 8)))
        for i in range(4):
            left[:, across + i % 2 * 8, down + i // 2 * 4] = factors[i]
            sums[:, across + i // 2 * 8, 2 * down + i % 2] = self._value(c[i], np.float32, at).reshape(-1, WARP)
        for i in range(2):
            right[:, down + 4 * i, across] = factors[4 + i]
        sums = (sums + left @ right).astype(np.float32)
        for i in range(4):
            self._set(places[i], sums[:, across + i // 2 * 8, 2 * down + i % 2].ravel(), at)

    def _wgmma(self, modifiers, operands, at, who):
        """Sums of 64 by 128 and products of TF32, eight deep, by four warps: nobody reads them before their end."""
        if modifiers[0] == "wait_group":
            assert operands == ["0"], operands
            self.running.clear()
        if modifiers[0] != "mma_async":
            return
        assert modifiers[3:] == ["m64n128k8", "f32", "tf32", "tf32"], modifiers
        if len(who) != 4 * WARP:
            raise Fault("wgmma: a warp group's threads parted")
        places, a = (operand.strip("{}").replace(" ", "").split(",") for operand in operands[:2])
        assert self._value(operands[3], np.bool_, at).all(), "sums are replaced"
        assert operands[4:] == ["1", "1"], operands
        described = np.unique(self._value(operands[2], np.uint64, at))
        assert len(described) == 1, "the threads describe several places"
        (described,) = map(int, described)
        assert described >> 62 == 1, "the swizzle is not of 128 bytes"
        column, k = (axis.ravel() for axis in np.indices((128, 8)))
        address = (described & 0x3FFF) * 16 + column % 8 * 128 + column // 8 * (described >> 32 & 0x3FFF) * 16 + 4 * k
        words = self.shared.read_by_group((address ^ (address >> 7 & 7) << 4).astype(np.uint64), who)
        left = np.stack([self._value(one, np.uint32, at) for one in a])
        if (words & 0x1FFF).any() or (left & 0x1FFF).any():
            raise Fault("mma: an operand is no TF32")
        lane = who % WARP
        across, down = who // WARP * 16 + lane // 4, lane % 4
        weights = np.zeros((64, 8))
        for i in range(4):
            weights[across + i % 2 * 8, down + i // 2 * 4] = left[i].view(np.float32)
        sums = weights @ words.view(np.float32).astype(np.float64).reshape(128, 8).T
        for i, name in enumerate(places):
            part = sums[across + i // 2 % 2 * 8, i // 4 * 8 + 2 * down + i % 2]
            self.running.discard(name)
            self._set(name, (self._value(name, np.float32, at) + part).astype(np.float32), at)
        self.running.update(places)
