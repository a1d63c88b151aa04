"""Mistakes in `out`: one sentence, by its exact text, and neither the inputs nor `out` are changed."""

from __future__ import annotations

import numpy as np
import pytest
from test_errors import F4, LINE, B, W, X, conv, error

import numconv as nc

READ_ONLY = np.zeros((1, 4, 3, 3), F4)
READ_ONLY.flags.writeable = False
SHARED = np.zeros((1, 4, 5, 5), F4)
OUTS = [
    error(TypeError, f"out is a list, but it takes a np.ndarray {LINE}", conv(out=[1])),
    error(TypeError, f"out is a memmap, but it takes a np.ndarray {LINE}", conv(out=READ_ONLY.view(np.memmap))),
    error(
        ValueError,
        f"out has shape (4, 3, 3), but the result has shape (1, 4, 3, 3): make it np.empty of that {LINE}",
        conv(out=np.zeros((4, 3, 3), F4)),
    ),
    error(
        TypeError,
        f"out has dtype float64, but the result is float32: make it np.empty of that {LINE}",
        conv(out=np.zeros((1, 4, 3, 3))),
    ),
    error(
        TypeError,
        f"out has dtype >f4, but the result is float32: make it np.empty of that {LINE}",
        conv(out=np.zeros((1, 4, 3, 3), ">f4")),
    ),
    error(
        TypeError,
        f"out has dtype float32, but the result is float64: make it np.empty of that {LINE[:-1]} dtype float64]",
        conv(dtype=float, out=np.zeros((1, 4, 3, 3), F4)),
    ),
    error(
        ValueError,
        f"out is read-only, but the result is written to it: pass a writeable array {LINE}",
        conv(out=READ_ONLY),
    ),
    error(
        ValueError,
        f"out has several elements in one place, but each has a result: pass a copy {LINE}",
        conv(out=np.lib.stride_tricks.as_strided(np.zeros(12, F4), (1, 4, 3, 3), (48, 12, 0, 4))),
    ),
    *(
        error(
            ValueError,
            "out shares memory with an input, but the inputs are read while it is written: pass a copy"
            f" [float32 1x4x5x5 * 4x4x1x1{' bias' if bias is not None else ''}]",
            conv(x, weight, bias, out=SHARED),
            f"out shares memory with the {name}",
        )
        for name, x, weight, bias in (
            ("input", SHARED, np.zeros((4, 4, 1, 1), F4), None),
            ("reversed input", SHARED[:, ::-1, ::-1], np.zeros((4, 4, 1, 1), F4), None),
            ("weight", np.zeros((1, 4, 5, 5), F4), SHARED.reshape(-1)[3:19].reshape(4, 4, 1, 1), None),
            ("bias", np.zeros((1, 4, 5, 5), F4), np.zeros((4, 4, 1, 1), F4), SHARED.reshape(-1)[-4:]),
        )
    ),
]


@pytest.mark.parametrize(("call", "kind", "text"), OUTS)
def test_a_mistake_is_one_sentence_and_changes_nothing(call, kind, text):
    watched = [X, W, B, READ_ONLY, SHARED]
    before = [array.tobytes() for array in watched]
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert str(caught.value) == text
    assert [array.tobytes() for array in watched] == before


def test_an_output_that_is_refused_is_left_alone():
    out = np.full((1, 4, 3, 3), 77, F4)
    for options in (
        {"stride": 2},
        {"dtype": float},
        {"padding": "big"},
        {"groups": 3},
        {"method": "best"},
        {"rtol": -1},
    ):
        with pytest.raises((ValueError, TypeError)):
            nc.conv2d(X, W, out=out, **options)
    assert (out == 77).all()


@pytest.mark.parametrize(
    "call", [lambda x, w: nc.conv2d(x, w, stream=7), lambda x, w: nc.plan(x.shape, w)(x, stream=7)]
)
def test_a_stream_is_refused_on_the_cpu(call):
    with pytest.raises(TypeError, match=r"^stream is 7, but the call is one on the CPU: leave it out, or pass device="):
        call(np.zeros((1, 4, 5, 5), F4), np.zeros((4, 4, 3, 3), F4))
