"""torch as an oracle: its results and its gradients, where it is installed (the extra `peers`)."""

from __future__ import annotations

import importlib.util

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed: the float64 oracle stands alone"
)

# In a process of its own, on one thread: two pools of OpenMP threads must not meet in the tests' own process.
FUZZ = """
import itertools, random
import numpy as np
import torch
import numconv as nc

torch.set_num_threads(1)
random.seed(0)
numbers = np.random.default_rng(0)

def draw(*shape):
    return numbers.standard_normal(shape)

def check(ours, theirs, what):
    theirs = theirs.detach().numpy()
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape, what)
    assert ours.dtype == theirs.dtype, (ours.dtype, theirs.dtype, what)
    np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10, err_msg=str(what))

for trial in range(TRIALS):
    rank = random.choice((1, 2, 2, 3))
    per_axis = lambda low, high: tuple(random.randint(low, high) for _ in range(rank))
    groups, batch = random.choice((1, 1, 2, 3)), random.choice((1, 2))
    stride, dilation, kernel, padding = per_axis(1, 3), per_axis(1, 3), per_axis(1, 4), per_axis(0, 3)
    sides = tuple(max(1, d * (k - 1) + 1 - 2 * p) + random.randint(0, 7 if rank < 3 else 3)
                  for d, k, p in zip(dilation, kernel, padding))
    x, weight = draw(batch, groups * 2, *sides), draw(groups * 3, 2, *kernel)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    name = f"conv{rank}d"
    functional = torch.nn.functional

    # Forward, and every gradient by autograd.
    bias = draw(groups * 3)
    tensors = [torch.tensor(array, requires_grad=True) for array in (x, weight, bias)]
    y = getattr(functional, name)(*tensors, **options)
    check(getattr(nc, name)(x, weight, bias, **options), y, (name, options, sides))
    grad = draw(*y.shape)
    y.backward(torch.tensor(grad))
    check(getattr(nc, name + "_input")(x.shape, weight, grad, **options), tensors[0].grad, ("input", options, sides))
    check(getattr(nc, name + "_weight")(x, weight.shape, grad, **options), tensors[1].grad, ("weight", options, sides))
    check(getattr(nc, name + "_bias")(grad), tensors[2].grad, "bias")

    # Transposed, with output padding.
    extra = tuple(random.randrange(max(s, d)) for s, d in zip(stride, dilation))
    inputs = per_axis(1, 5)
    result = [(n - 1) * s + d * (k - 1) + 1 - 2 * p + e
              for n, s, d, k, p, e in zip(inputs, stride, dilation, kernel, padding, extra)]
    if min(result) > 0:
        x, weight, bias = draw(batch, groups * 3, *inputs), draw(groups * 3, 2, *kernel), draw(groups * 2)
        name = f"conv_transpose{rank}d"
        theirs = getattr(functional, name)(
            *map(torch.tensor, (x, weight, bias)), stride, padding, extra, groups, dilation
        )
        ours = getattr(nc, name)(x, weight, bias, stride, padding, extra, groups, dilation)
        check(ours, theirs, (name, options, extra, inputs))

# Padding modes, by torch's own padding before the convolution, through autograd.
for mode, rank in itertools.product(("reflect", "replicate", "circular"), (1, 2, 3)):
    x, weight = draw(2, 3, *(6,) * rank), draw(4, 3, *(3,) * rank)
    pads = [(1, 2), (3, 0), (2, 2)][:rank]
    tensor = torch.tensor(x, requires_grad=True)
    flat = [side for pair in reversed(pads) for side in pair]
    y = getattr(torch.nn.functional, f"conv{rank}d")(
        torch.nn.functional.pad(tensor, flat, mode=mode), torch.tensor(weight), stride=2
    )
    options = {"stride": 2, "padding": pads, "padding_mode": mode}
    check(getattr(nc, f"conv{rank}d")(x, weight, **options), y, (mode, rank))
    grad = draw(*y.shape)
    y.backward(torch.tensor(grad))
    check(getattr(nc, f"conv{rank}d_input")(x.shape, weight, grad, **options), tensor.grad, (mode, rank))

# 'same' with stride 1 is torch's.
for kernel, dilation in itertools.product((1, 2, 3, 4), (1, 2)):
    x, weight = draw(1, 2, 9), draw(3, 2, kernel)
    theirs = torch.nn.functional.conv1d(*map(torch.tensor, (x, weight)), padding="same", dilation=dilation)
    check(nc.conv1d(x, weight, padding="same", dilation=dilation), theirs, ("same", kernel, dilation))
print("done")
"""


def test_results_and_gradients_are_torchs(run_python):
    assert run_python(FUZZ.replace("TRIALS", "60")) == "done\n"
