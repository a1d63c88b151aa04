"""`warmup` compiles every kernel and register tile, once; what it tells is what numba's caches did."""

from __future__ import annotations

import itertools
import re

import bits
import numpy as np
import pytest

from numconv import cache
from numconv.__main__ import main
from numconv.cli import warmup
from numconv.cpu import channel_lanes, channel_tiles, depthwise, loops, pixel_tiles, row_strips, row_tiles, tiled

SCRIPT = """
from numconv.__main__ import main
raise SystemExit(main(["warmup", "--method", "matmul", "--dtype", "float32"]))
"""


def test_it_compiles_once_and_then_loads(run_python, tmp_path):
    environment = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    first, second = (run_python(SCRIPT, environment=environment) for _ in range(2))
    assert re.search(r"matmul +│ float32 │ [1-9]\d* functions │ \d+\.\d", first)
    assert re.search(r"matmul +│ float32 │ nothing: all were there │ \d\.\d", second)
    assert "float64" not in first
    assert f"kept in {tmp_path}" in first


def test_where_nothing_can_be_kept_it_fails(monkeypatch, capsys):
    monkeypatch.setattr(warmup, "warm", lambda method, dtype: ([], 0.0))
    monkeypatch.setattr(warmup, "kernel_cache", lambda: "none: no folder to write to")
    assert main(["warmup"]) == 1
    assert "kept in none: no folder" in capsys.readouterr().out


def recorded(monkeypatch, places):
    """What (module, name) functions will be asked for, in a set that grows."""
    asked = set()

    def record(make):
        return lambda *extents: (asked.add(extents), make(*extents))[1]

    for module, name in places:
        monkeypatch.setattr(module, name, record(getattr(module, name)))
    return asked


@pytest.mark.parametrize("dtype", warmup.DTYPES)
def test_its_layers_need_every_register_tile(monkeypatch, dtype):
    kind = np.dtype(dtype)
    dense = recorded(monkeypatch, [(pixel_tiles, "tile"), (channel_tiles, "tile")])
    rows = recorded(monkeypatch, [(row_tiles, "rows_tile"), (row_strips, "strip_tile")])
    lanes = recorded(monkeypatch, [(channel_lanes, "pixels_tile")])
    for forget in (bits.forget, depthwise._launch.cache_clear, channel_lanes._launch.cache_clear):
        forget()
    warmup.warm(tiled, dtype)
    warmup.warm(depthwise, dtype)
    bits.forget()
    wanted = {*bits.PIXELS, *bits.CHANNELS, *bits.FINISHING, *bits.sparing(3, bits.EVERY_RUN)}
    assert {(*extents[:3], kind, *extents[3:]) for extents in wanted} <= dense
    # With the channels last: the tiles of kernels of common sizes, as wide as they come and narrower.
    widths = {extents[-1] for extents in lanes}
    assert lanes == {(kind, *extents[:-1], width) for extents in bits.LANES if extents[1] for width in widths}
    assert len(widths) == 2
    heights, widths = row_tiles.HEIGHTS, (1, 2, row_tiles.VECTORS)
    assert rows == {(kind, *extents) for extents in (*itertools.product(heights, widths, (False, True)), *bits.STRIPS)}


def test_what_is_there_is_not_compiled_again():
    warmup.warm(loops, "float32")
    with cache.compiled() as names:
        again, _ = warmup.warm(loops, "float32")
    assert names == again == []
