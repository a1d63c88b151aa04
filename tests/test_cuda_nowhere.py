"""Where there is no GPU, no driver or no numba-cuda: one sentence that says so, and `explain` all the same."""

from __future__ import annotations

import importlib.util
import re

import numpy as np
import pytest

import numconv as nc
from numconv.machine import GPUS, typical_gpu

X, W = np.zeros((1, 2, 5, 5), np.float32), np.zeros((4, 2, 3, 3), np.float32)
HAS_LIBRARY = importlib.util.find_spec("numba_cuda") is not None
WITHOUT = """
import importlib.util, sys
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "numba_cuda" else found(name, *rest)
import numpy as np
import numconv as nc
x, w = np.zeros((1, 2, 5, 5), np.float32), np.zeros((4, 2, 3, 3), np.float32)
for call in (
    lambda: nc.conv2d(x, w, device="cuda"),
    lambda: nc.plan(x.shape, w, device="cuda:0"),
    lambda: nc.explain(nc.conv2d, x, w, device="cuda"),
):
    try:
        call()
    except ImportError as error:
        print(error)
print(nc.explain(nc.conv2d, x.shape, w.shape, device="cuda", cc=(8, 0)).gpu.name)
print("numba.cuda" in sys.modules)
"""


def test_without_the_library_a_sentence_names_the_extra(run_python):
    *sentences, gpu, loaded = run_python(WITHOUT).splitlines()
    assert len(sentences) == 3
    assert set(sentences) == {
        "a CUDA array or device was asked for, but numba-cuda is not installed: pip install 'numconv-numba[cuda]', or"
        " [cuda12] for a driver of CUDA 12"
    }
    assert (gpu, loaded) == ("A100", "False")


@pytest.mark.skipif(not HAS_LIBRARY, reason="the extra `cuda` is not installed")
@pytest.mark.parametrize(
    "call",
    [
        lambda: nc.conv2d(X, W, device="cuda"),
        lambda: nc.conv2d_weight(X, W.shape, np.zeros((1, 4, 3, 3)), device="cuda:0"),
        lambda: nc.plan(X.shape, W, device="cuda"),
    ],
)
def test_without_a_driver_a_sentence_says_so(call):
    from numba import cuda

    if cuda.is_available():
        pytest.skip("a GPU is here")
    with pytest.raises(RuntimeError, match="no NVIDIA driver answers here: install the driver") as caught:
        call()
    assert "\n" not in str(caught.value)
    assert "numconv-numba[cuda]" in str(caught.value)


def test_a_cpu_call_loads_nothing_of_cuda(run_python):
    script = """
        import sys
        import numpy as np
        import numconv as nc
        x, w = np.zeros((1, 2, 5, 5), np.float32), np.zeros((4, 2, 3, 3), np.float32)
        nc.conv2d(x, w)
        nc.conv2d(x, w, device="cpu")
        nc.conv2d(x.tolist(), w.tolist())
        nc.plan(x.shape, w)(x)
        print([name for name in sys.modules if name.startswith(("numconv.cuda", "numba.cuda", "numba_cuda"))])
        """
    assert run_python(script) == "[]\n"


@pytest.mark.parametrize("cc", GPUS, ids=str)
def test_explain_asks_a_typical_gpu(cc):
    thoughts = nc.explain(nc.conv2d, (64, 64, 56, 56), (64, 64, 3, 3), padding=1, device="cuda", cc=cc)
    assert thoughts.chosen == "tiled"
    assert thoughts.gpu == typical_gpu(cc)
    assert "predicted by a model fitted on an H100, not measured" in str(thoughts)
    seconds = next(one.seconds for one in thoughts.candidates if one.name == "tiled")
    # A prediction is under the peak.
    assert thoughts.problem.flops / seconds < 2 * thoughts.gpu.multiprocessors * thoughts.gpu.lanes * thoughts.gpu.clock


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 8])
def test_a_tile_is_found_for_every_stride(stride):
    thoughts = nc.explain(nc.conv2d, (1, 3, 224, 224), (64, 3, 11, 11), stride=stride, device="cuda", cc=(9, 0))
    assert thoughts.chosen in ("tiled", "loops")


def test_a_compute_capability_that_is_unknown_or_not_asked_for():
    with pytest.raises(ValueError, match="known here"):
        nc.explain(nc.conv2d, X, W, device="cuda", cc=(1, 0))
    with pytest.raises(ValueError, match="pass device='cuda'"):
        nc.explain(nc.conv2d, X, W, cc=(9, 0))


@pytest.mark.parametrize("device", ["tpu", "cuda:x", "cuda:", "cuda:-1", "CUDA"])
def test_a_device_that_is_none_is_refused_wherever_it_is_said(device):
    sentence = f"device is '{device}', but it must be 'cuda', 'cuda:1' (a device's number), 'cpu' or None"
    for call in (
        lambda: nc.conv2d(X, W, device=device),
        lambda: nc.plan(X.shape, W, device=device),
        lambda: nc.explain(nc.conv2d, X, W, device=device),
        lambda: nc.explain(nc.conv2d, X, W, device=device, cc=(9, 0)),
    ):
        with pytest.raises(ValueError, match="but it must be") as caught:
            call()
        assert str(caught.value) == sentence
    with pytest.raises(TypeError, match=re.escape("device is 3, but it takes 'cuda', 'cuda:1'")):
        nc.explain(nc.conv2d, X, W, device=3, cc=(9, 0))


def test_the_cost_is_that_of_any_device():
    assert str(nc.cost(nc.conv2d, X, W, device="cuda")) == str(nc.cost(nc.conv2d, X, W))
