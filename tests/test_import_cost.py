"""`import numconv` needs no torch, adds neither scipy nor CUDA, compiles nothing, and costs next to nothing."""

from __future__ import annotations

import json

# Import hooks come first in every script below: whatever asks for torch is told that it is not there.
WITHOUT_TORCH = """
import importlib.abc, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
"""

# Every public name of the library, once.
EVERYTHING = """
import numpy as np
import numconv as nc

used = set()

def use(name):
    used.add(name)
    return getattr(nc, name)

image, kernel = np.arange(9.0).reshape(3, 3), np.arange(4.0).reshape(2, 2)
x, weight = np.ones((1, 2, 5, 5)), np.ones((3, 2, 1, 1))
use("corr2d")(image, kernel)
use("corr2d_multi_in")(image[None], kernel[None])
use("corr2d_multi_in_out")(image[None], kernel[None, None])
use("corr2d_multi_in_out_1x1")(image[None], np.ones((2, 1, 1, 1)))
use("pool2d")(image, (2, 2))
use("trans_conv")(image, kernel)
use("conv1d")(x[0, 0], np.ones((2, 5, 2)))
use("conv2d")(x, weight, padding=1)
use("conv3d")(x, np.ones((2, 1, 1, 2, 2)))
for rank in (1, 2, 3):
    small, taps = np.ones((1, 2) + (3,) * rank), np.ones((3, 2) + (2,) * rank)
    y = getattr(nc, f"conv{rank}d")(small, taps)
    use(f"conv_transpose{rank}d")(y, taps)
    use(f"conv{rank}d_input")(small.shape, taps, y)
    use(f"conv{rank}d_weight")(small, taps.shape, y)
    use(f"conv{rank}d_bias")(y)
use("conv_integer")(np.ones((1, 5), np.uint8), np.ones((1, 1, 2), np.int8))
for rank in (1, 2, 3):
    use(f"max_pool{rank}d")(np.ones((1, *(4,) * rank)), 2)
    use(f"avg_pool{rank}d")(np.ones((1, *(4,) * rank)), 2)
use("fold")(use("unfold")(x, 2), (5, 5), 2)
layer = use("plan")(x.shape, weight)
layer(x)
assert isinstance(layer, use("Plan"))
assert isinstance(layer.problem, use("Problem"))
assert isinstance(use("explain")(nc.conv2d, x, weight), use("Explanation"))
assert isinstance(use("cost")(nc.conv2d, x, weight), use("Cost"))
assert used == set(nc.__all__), set(nc.__all__) ^ used
assert nc.signal.correlate(image, kernel).shape == (4, 4)
assert nc.ndimage.correlate(image, kernel).shape == (3, 3)
"""


def test_everything_works_where_torch_is_not_installed(run_python):
    script = WITHOUT_TORCH + EVERYTHING + "assert 'torch' not in sys.modules\nprint('done')\n"
    assert run_python(script, "-W", "error") == "done\n"


def test_the_hook_does_block_torch(run_python):
    # Else the test above would prove nothing where torch is installed.
    script = WITHOUT_TORCH + "try:\n    import torch\nexcept ModuleNotFoundError as error:\n    print(error.name)\n"
    assert run_python(script) == "torch\n"


def test_importing_adds_no_scipy_and_no_cuda_to_what_numba_loads(run_python):
    added = json.loads(
        run_python(
            """
            import json, sys
            import numba
            before = set(sys.modules)
            import numconv
            assert not {"numconv.signal", "numconv.ndimage"} & set(sys.modules)
            assert {"signal", "ndimage"} <= set(dir(numconv))
            print(json.dumps(sorted(set(sys.modules) - before)))
            """
        )
    )
    assert "numconv" in added
    assert not [name for name in added if name.startswith(("scipy", "numba.cuda", "numba_cuda", "torch", "cuda"))]
    assert not [name for name in added if name.partition(".")[0] in ("rich", "matplotlib", "skimage", "pytest")]


def test_scipys_names_do_not_call_scipys_functions(run_python):
    printed = run_python(
        """
        import sys
        import numconv
        numconv.signal.correlate([1.0, 2.0], [3.0, 4.0])
        numconv.ndimage.correlate([1.0, 2.0], [3.0, 4.0])
        print([name for name in sys.modules if name.startswith(("scipy.signal", "scipy.ndimage", "scipy.fft"))])
        """
    )
    assert printed == "[]\n"


def test_importing_compiles_nothing_and_starts_no_threads(run_python):
    printed = run_python(
        """
        import threading
        import numba
        from numba.core import event

        class Count(event.Listener):
            started = 0
            def on_start(self, event):
                Count.started += 1
            def on_end(self, event):
                pass

        event.register("numba:compile", Count())
        import numconv
        from numconv import jit
        from numconv.cpu import blas, loops, matmul

        signatures = []
        for module in (loops, matmul, blas):
            for value in vars(module).values():
                if isinstance(value, jit.Kernel):
                    value = value.compiled
                signatures += getattr(value, "signatures", [])
        try:
            layer = numba.threading_layer()
        except ValueError:
            layer = "not started"
        print(Count.started, signatures, layer, threading.active_count())
        """
    )
    assert printed == "0 [] not started 1\n"


def test_importing_costs_at_most_30_milliseconds_over_numba(run_python):
    script = """
        import gc
        import time
        import numba
        # A full collection goes through all of numba, for 16 ms. It is due soon after numba's import, whoever is next.
        gc.collect()
        start = time.perf_counter()
        import numconv
        print(time.perf_counter() - start)
        """
    # The first run writes the bytecode, as an installation does; the best of the others is free of noise.
    seconds = [float(run_python(script, environment={"PYTHONDONTWRITEBYTECODE": ""})) for _ in range(12)]
    assert min(seconds[1:]) <= 0.030
