"""The memory of the interpreted device (ptx.py): checked accesses, races between barriers, counts of traffic."""

from __future__ import annotations

import collections

import numpy as np

WARP = 32
SECTOR = 32
BANKS = 32
SHARED_BASE = 1 << 16  # of shared memory in the 64-bit addresses that name it


class Fault(Exception):  # noqa: N818  # what a kernel does, not this program
    """What a correct kernel never does."""


class Memory:
    """Bytes at addresses from `base` on, of which some belong to nobody."""

    def __init__(self, size, base):
        self.bytes = np.zeros(-(-size // 16) * 16, np.uint8)
        self.mine = np.zeros(len(self.bytes), bool)
        self.base = base

    def at(self, address, dtype, kind):
        """Where the elements at these addresses lie in the view of that dtype."""
        size = np.dtype(dtype).itemsize
        offset = address.astype(np.int64) - self.base
        if ((offset < 0) | (offset + size > len(self.bytes))).any() or not self.mine[offset].all():
            raise Fault(f"{kind} out of bounds")
        return offset // size

    def aligned(self, address, size, kind):
        if (address % size).any():
            raise Fault(f"{kind} not aligned to {size} bytes")


class Arrays(Memory):
    """Global memory that holds arrays, with room that is nobody's between them."""

    GAP = 4096

    def __init__(self, arrays):
        super().__init__(sum(array.nbytes + 2 * self.GAP for array in arrays) + self.GAP, 1 << 32)
        self.places = []
        place = self.GAP
        for array in arrays:
            self.places.append(place)
            self.bytes[place : place + array.nbytes] = np.frombuffer(array.tobytes(), np.uint8)
            self.mine[place : place + array.nbytes] = True
            place += -(-(array.nbytes + self.GAP) // 256) * 256

    def get(self, index, array):
        """The array as it is now."""
        place = self.places[index]
        return self.bytes[place : place + array.nbytes].view(array.dtype).reshape(array.shape).copy()


class Shared(Memory):
    """The shared memory of one block, with who wrote and who read each word since the last barrier."""

    NOBODY, MANY = -1, -2

    def __init__(self, size):
        super().__init__(size, SHARED_BASE)
        self.mine[:size] = True
        self.written = np.zeros(len(self.bytes) // 4, bool)
        # What warp groups' products do not see yet.
        self.hidden = np.zeros(len(self.bytes) // 4, bool)
        self.barrier()

    def barrier(self):
        self.writer = np.full(len(self.bytes) // 4, self.NOBODY)
        self.reader = np.full(len(self.bytes) // 4, self.NOBODY)

    def words(self, address, size):
        first = (address.astype(np.int64) - self.base) // 4
        return first[:, None] + np.arange(max(1, size // 4))

    def read(self, address, size, threads):
        words = self.words(address, size)
        if not self.written[words].all():
            raise Fault("shared memory is read before it is written")
        writer = self.writer[words]
        if ((writer != self.NOBODY) & (writer != threads[:, None])).any():
            raise Fault("race: a thread reads what another wrote since the last barrier")
        self._note(self.reader, words, threads)

    def write(self, address, size, threads):
        words = self.words(address, size)
        for others, what in ((self.writer, "wrote"), (self.reader, "read")):
            found = others[words]
            if ((found != self.NOBODY) & (found != threads[:, None])).any():
                raise Fault(f"race: a thread writes what another {what} since the last barrier")
        if size >= 4 and len(np.unique(words)) < words.size:
            raise Fault("race: two threads write one word at a time")
        self.written[words] = self.hidden[words] = True
        self._note(self.writer, words, threads)

    def show(self, threads):
        """What these threads wrote since the last barrier is seen by warp groups' products."""
        self.hidden &= ~np.isin(self.writer, threads)

    def read_by_group(self, address, threads):
        """The words that a warp group's product reads."""
        self.read(address, 4, np.broadcast_to(threads[:1], len(address)))
        words = self.words(address, 4)[:, 0]
        if self.hidden[words].any():
            raise Fault("wgmma: what was written to shared memory was not shown by a fence")
        return self.bytes.view(np.uint32)[words]

    def _note(self, table, words, threads):
        flat, who = words.ravel(), np.repeat(threads, words.shape[1])
        found = table[flat]
        table[flat] = np.where((found == self.NOBODY) | (found == who), who, self.MANY)
        # Two threads at one word in one instruction: the last one was noted, but there were many.
        table[flat[table[flat] != who]] = self.MANY


class Counts:
    """What the warps executed."""

    def __init__(self):
        self.instructions = collections.Counter()
        self.places = collections.Counter()
        self.wavefronts = self.ideal_wavefronts = 0
        self.sectors = collections.Counter()
        self.ideal_sectors = collections.Counter()

    @property
    def share(self):
        """The share of multiply-adds in all instructions but `mov` and `cvt`, which ptxas mostly removes."""
        total = sum(count for name, count in self.instructions.items() if name not in ("mov", "cvt", "cvta"))
        return self.instructions["fma"] / total

    def shared(self, address, size, threads):
        lanes = BANKS * 4 // max(4, size)
        for phase in np.unique(threads // lanes):
            words = np.unique(address[threads // lanes == phase].astype(np.int64) // 4)
            words = np.unique(words[:, None] + np.arange(max(1, size // 4)))
            self.wavefronts += int(np.bincount(words % BANKS).max())
            self.ideal_wavefronts += 1

    def globally(self, kind, address, size, threads):
        for warp in np.unique(threads // WARP):
            first = np.unique(address[threads // WARP == warp].astype(np.int64))
            self.sectors[kind] += len(np.unique(np.concatenate([first // SECTOR, (first + size - 1) // SECTOR])))
            self.ideal_sectors[kind] += -(-len(first) * size // SECTOR)
