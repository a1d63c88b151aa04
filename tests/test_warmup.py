"""`warmup` compiles every kernel and register tile, once; what it tells is what numba's caches did."""

from __future__ import annotations

import re

import bits
import pytest

from numconv import jit
from numconv.__main__ import main
from numconv.cli import warmup
from numconv.cpu import channel_tiles, loops, pixel_tiles, tiled

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


@pytest.mark.parametrize("dtype", warmup.DTYPES)
def test_its_layers_need_every_register_tile(monkeypatch, dtype):
    asked = set()
    for module in (pixel_tiles, channel_tiles):

        def record(*extents, tile=module.tile):
            asked.add((*extents[:3], extents[4]))
            return tile(*extents)

        monkeypatch.setattr(module, "tile", record)
    bits.forget()
    warmup.warm(tiled, dtype)
    bits.forget()
    assert asked == {*bits.PIXELS, *bits.CHANNELS}


def test_what_is_there_is_not_compiled_again():
    warmup.warm(loops, "float32")
    with jit.compiled() as names:
        again, _ = warmup.warm(loops, "float32")
    assert names == again == []
