"""Named cases, their arrays and their tolerance: the same for the tests and the benchmarks."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from . import reference
from .method import Array
from .problem import Problem
from .rank_one import product
from .validate import canonical, describe


@dataclasses.dataclass(frozen=True)
class Case:
    """One correlation to test or time: shapes as a call takes them, and the options of `numconv.conv2d`; whether its
    kernels are products of one vector an axis.
    """

    name: str
    x_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    bias: bool = False
    rank_one: bool = False

    @property
    def rank(self) -> int:
        """The number of spatial axes."""
        return len(self.weight_shape) - 2

    def problem(self, x_dtype: Any = np.float32, weight_dtype: Any = None) -> Problem:
        """The case as a Problem of those dtypes; the weight's is the input's unless given."""
        x_dtype = np.dtype(x_dtype)
        weight_dtype = x_dtype if weight_dtype is None else np.dtype(weight_dtype)
        options = {name: canonical(name, value) for name, value in self.options.items()}
        bias = (self.weight_shape[:1], weight_dtype) if self.bias else (None, None)
        found = describe(self.rank, self.x_shape, x_dtype, self.weight_shape, weight_dtype, *bias, **options)
        if self.rank_one and found.accumulator.kind == "f" and weight_dtype.kind == "f":
            return dataclasses.replace(found, rank_one=8 * float(np.finfo(weight_dtype).eps))
        return found


def arrays(problem: Problem, seed: int = 0) -> tuple[Array, Array, Array | None]:
    """Input, weight and bias of a Problem: normal numbers, or integers over the dtype's range up to +-1000."""
    rng = np.random.default_rng(seed)

    def draw(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        if dtype.kind == "b":
            return rng.integers(0, 2, shape).astype(bool)
        if dtype.kind in "iu":
            limits = np.iinfo(dtype)
            return rng.integers(max(-1000, int(limits.min)), min(1000, int(limits.max)), shape, endpoint=True).astype(
                dtype
            )
        values = rng.standard_normal(shape)
        return (values + 1j * rng.standard_normal(shape) if dtype.kind == "c" else values).astype(dtype)

    bias = draw((problem.out_channels,), problem.weight_dtype) if problem.has_bias else None
    x = draw(problem.x_shape, problem.x_dtype)
    if problem.rank_one is None:
        return x, draw(problem.weight_shape, problem.weight_dtype), bias
    vectors = [rng.standard_normal((problem.out_channels, length)) for length in problem.kernel]
    return x, product(vectors)[:, None].astype(problem.weight_dtype), bias


def tolerance(problem: Problem, bound: float, x: Array, weight: Array, bias: Array | None) -> float:
    """The largest error that a method of that proved bound may make on these arrays, in absolute terms."""
    if problem.accumulator.kind in "iu" or not x.size or not weight.size:
        return 0.0
    info = np.finfo(problem.accumulator)
    sums = np.abs(weight.astype(np.clongdouble)).reshape(len(weight), -1).sum(axis=1)
    scale = float(max(np.abs(x.astype(np.clongdouble)).max(), abs(problem.padding_value)) * sums.max())
    if bias is not None:
        scale += float(np.abs(bias.astype(np.clongdouble)).max())
    out_eps = float(np.finfo(problem.output).eps) if problem.output != problem.accumulator else 0.0
    return scale * (bound + out_eps) + problem.taps * float(info.smallest_subnormal)


def assert_matches(problem: Problem, result: Array, bound: float, x: Array, weight: Array, bias: Array | None) -> None:
    """Assert that a result is the oracle's, within the proved bound; integers exactly. NaN equals NaN."""
    assert result.shape == problem.out_shape, f"shape {result.shape}, not {problem.out_shape} [{problem}]"
    assert result.dtype == problem.output, f"dtype {result.dtype}, not {problem.output} [{problem}]"
    expected = reference.correlate(problem, x, weight, bias)
    if problem.accumulator.kind in "iu":
        np.testing.assert_array_equal(result, expected.astype(problem.output), err_msg=str(problem))
        return
    np.testing.assert_allclose(
        result, expected, rtol=0, atol=tolerance(problem, bound, x, weight, bias), err_msg=str(problem)
    )


# The layers that the benchmarks name. ResNet-50: K. He et al., "Deep residual learning", 2016, table 1.
RESNET50 = tuple(
    [
        Case(f"1x1 {ci}->{co} at {size}", (1, ci, size, size), (co, ci, 1, 1))
        for ci, co, size in (
            (64, 64, 56), (64, 256, 56), (256, 64, 56), (128, 512, 28), (512, 128, 28), (256, 1024, 14),
            (1024, 256, 14), (512, 2048, 7), (2048, 512, 7),
        )
    ]
    + [
        Case(f"3x3 {channels} at {size}", (1, channels, size, size), (channels, channels, 3, 3), {"padding": 1})
        for channels, size in ((64, 56), (128, 28), (256, 14), (512, 7))
    ]
    + [Case("7x7 stride 2 3->64 at 224", (1, 3, 224, 224), (64, 3, 7, 7), {"padding": 3, "stride": 2})]
)  # fmt: skip
FILTERS = tuple(Case(f"{k}x{k} filter at 1024", (1, 1, 1024, 1024), (1, 1, k, k)) for k in (3, 5, 11))

# Every option and every edge: no map is large, so that each method can be held to each case.
EDGES = (
    Case("one element", (1, 1, 1, 1), (1, 1, 1, 1)),
    Case("plain", (1, 3, 8, 9), (4, 3, 3, 3)),
    Case("bias", (2, 3, 8, 9), (5, 3, 3, 3), bias=True),
    Case("relu", (1, 3, 8, 9), (4, 3, 3, 3), {"activation": "relu"}, bias=True),
    Case("no batch", (3, 8, 9), (4, 3, 3, 3)),
    Case("stride", (1, 3, 11, 12), (4, 3, 3, 3), {"stride": (2, 3)}),
    Case("stride over kernel", (1, 2, 17, 19), (3, 2, 2, 2), {"stride": 5}),
    Case("dilation", (1, 3, 13, 14), (4, 3, 3, 3), {"dilation": (2, 3)}),
    Case("stride and dilation", (1, 3, 19, 21), (4, 3, 3, 4), {"stride": (3, 2), "dilation": (2, 3), "padding": 4}),
    Case("padding", (1, 3, 8, 9), (4, 3, 3, 3), {"padding": (1, 2)}),
    Case("padding by side", (1, 3, 8, 9), (4, 3, 3, 3), {"padding": ((0, 3), (2, 1))}),
    Case("padding over kernel", (1, 2, 3, 3), (2, 2, 2, 2), {"padding": 5}),
    Case("same", (1, 3, 8, 9), (4, 3, 4, 5), {"padding": "same"}),
    Case("same with stride", (1, 3, 8, 9), (4, 3, 4, 5), {"padding": "same", "stride": 2}),
    Case("same lower", (1, 3, 8, 9), (4, 3, 4, 5), {"padding": "same_lower"}),
    Case("full", (1, 3, 8, 9), (4, 3, 4, 5), {"padding": "full"}),
    Case("reflect", (1, 3, 8, 9), (4, 3, 5, 5), {"padding": 2, "padding_mode": "reflect"}),
    Case("replicate", (1, 3, 8, 9), (4, 3, 5, 5), {"padding": ((1, 3), (4, 0)), "padding_mode": "replicate"}),
    Case("circular", (1, 3, 8, 9), (4, 3, 5, 5), {"padding": 2, "padding_mode": "circular", "stride": 2}),
    Case("constant", (2, 3, 8, 9), (4, 3, 4, 3), {"padding": 3, "padding_mode": "constant", "padding_value": -2}),
    Case("symmetric", (1, 3, 8, 9), (4, 3, 5, 5), {"padding": 3, "padding_mode": "symmetric", "dilation": 2}),
    Case("reflect beyond the input", (1, 1, 3, 4), (2, 1, 3, 3), {"padding": 9, "padding_mode": "reflect"}),
    Case("groups", (2, 6, 7, 8), (9, 2, 3, 3), {"groups": 3, "padding": 1}, bias=True),
    Case("depthwise", (1, 7, 9, 10), (7, 1, 3, 3), {"groups": 7, "padding": 1}),
    Case("depthwise times two", (1, 5, 9, 10), (10, 1, 3, 3), {"groups": 5}),
    Case("groups in lanes", (1, 34, 11, 20), (34, 2, 10, 18), {"groups": 17, "padding": (1, 0)}),
    Case("groups in lanes by segments", (1, 9, 30, 103), (3, 3, 28, 100), {"groups": 3}, bias=True),
    Case("planes in lanes", (1, 2, 18, 10, 12), (5, 2, 1, 9, 11), {"padding": (0, 1, 0)}),
    Case("odd channels", (1, 37, 6, 6), (29, 37, 3, 3), {"padding": 1}, bias=True),
    Case("kernel of the input's size", (1, 3, 5, 6), (4, 3, 5, 6)),
    Case("row kernel", (1, 3, 5, 40), (4, 3, 1, 7)),
    Case("column kernel", (1, 3, 40, 5), (4, 3, 7, 1)),
    Case("wide", (1, 2, 3, 300), (6, 2, 2, 3)),
    Case("one pixel", (1, 70, 3, 3), (66, 70, 3, 3)),
    Case("large kernel", (1, 1, 40, 40), (1, 1, 31, 31), {"padding": 15}),
    Case("segments by channel", (1, 950, 4, 4), (2, 950, 3, 3), bias=True),
    Case("segments by row", (1, 2, 95, 97), (1, 2, 93, 95)),
    Case("1x1", (1, 8, 5, 7), (6, 8, 1, 1)),
    Case("1x1 bias relu", (3, 8, 5, 7), (6, 8, 1, 1), {"activation": "relu"}, bias=True),
    Case("1x1 groups", (2, 8, 9, 9), (6, 4, 1, 1), {"groups": 2}, bias=True),
    Case("1x1 wide", (1, 33, 40, 40), (17, 33, 1, 1), bias=True),
    Case("1x1 tall", (1, 33, 3, 3), (170, 33, 1, 1), bias=True),
    Case("1x1 stride", (1, 8, 9, 9), (6, 8, 1, 1), {"stride": 2}),
    Case("1x1 padding", (1, 8, 9, 9), (6, 8, 1, 1), {"padding": 1}),
    Case("empty batch", (0, 3, 8, 9), (4, 3, 3, 3), bias=True),
    Case("no input channels", (2, 0, 8, 9), (4, 0, 3, 3), bias=True),
    Case("no input channels 1x1", (2, 0, 8, 9), (4, 0, 1, 1), bias=True),
    Case("no output channels", (2, 3, 8, 9), (0, 3, 3, 3)),
    Case("rank 1", (2, 2, 13, 70), (4, 1, 5, 7),
         {"groups": 2, "stride": (1, 2), "padding": ((2, 3), (0, 4))}, bias=True, rank_one=True),
    Case("rank 1 reflect relu", (1, 1, 30, 20), (1, 1, 9, 5),
         {"padding": 2, "padding_mode": "reflect", "dilation": (2, 1), "activation": "relu"}, rank_one=True),
    Case("rank 1 3-D", (1, 2, 6, 9, 10), (2, 1, 3, 3, 4), {"groups": 2, "padding": 1}, rank_one=True),
    Case("1-D", (2, 3, 50), (4, 3, 5), {"padding": 2, "stride": 2}, bias=True),
    Case("1-D reflect", (2, 3, 50), (4, 3, 5), {"padding": 2, "padding_mode": "reflect", "dilation": 2}),
    Case("1-D 1x1", (2, 3, 50), (4, 3, 1)),
    Case("3-D", (2, 3, 5, 6, 7), (4, 3, 2, 3, 3), {"padding": (1, 0, 2), "stride": (1, 2, 1)}, bias=True),
    Case("3-D circular", (1, 2, 4, 5, 6), (3, 2, 3, 3, 3), {"padding": 1, "padding_mode": "circular", "dilation": 2}),
    Case("3-D groups", (1, 4, 4, 5, 6), (6, 2, 2, 2, 2), {"groups": 2}),
)  # fmt: skip
# What no method takes as it is: input dilations, crops and folds, as phases.py takes them apart.
TWOS, THREES = {"input_dilation": (2, 2)}, {"input_dilation": (3, 3)}
ADJOINTS = (
    Case("spread by 2", (2, 3, 5, 6), (4, 3, 3, 3), {**TWOS, "padding": ((1, 2), (1, 2))}, bias=True),
    Case("spread by 2 relu", (2, 3, 5, 6), (4, 3, 4, 3), {**TWOS, "padding": 2, "activation": "relu"}, bias=True),
    Case("spread 20 channels", (2, 3, 6, 7), (20, 3, 3, 3), {**TWOS, "padding": ((1, 2), (1, 2))}, bias=True),
    Case("spread over the kernel", (1, 3, 4, 5), (4, 3, 2, 2), {**THREES, "padding": 1}, bias=True),
    Case("spread over the kernel relu", (3, 2, 4), (4, 2, 1),
         {"input_dilation": (4,), "activation": "relu"}, bias=True),
    Case("spread and dilation", (1, 3, 5, 6), (4, 3, 3, 4),
         {"input_dilation": (4, 2), "dilation": (6, 4), "padding": 9}),
    Case("spread and stride", (1, 3, 9, 8), (4, 3, 4, 3), {"input_dilation": (4, 3), "stride": (6, 2), "padding": 3}),
    Case("spread by side", (2, 4, 5, 6), (6, 2, 3, 3),
         {"input_dilation": (1, 2), "padding": ((2, 0), (0, 3)), "groups": 2}),
    Case("spread depthwise", (1, 7, 9, 10), (7, 1, 3, 3), {**TWOS, "groups": 7, "padding": ((1, 2), (1, 2))}),
    Case("crop", (2, 3, 9, 10), (4, 3, 3, 3), {"input_dilation": (1, 1), "padding": ((-1, -2), (0, -3))}, bias=True),
    Case("crop and spread", (1, 3, 9, 10), (4, 3, 3, 3), {**TWOS, "padding": ((-5, -2), (1, -3))}),
    Case("crop past the input", (1, 1, 2, 2), (1, 1, 9, 9), {**THREES, "padding": ((-6, 15), (20, -9))}, bias=True),
    Case("fold", (1, 3, 6, 7), (4, 3, 3, 3),
         {"padding": 2, "fold": 1, "padding_mode": "reflect", "activation": "relu"}, bias=True),
    Case("fold by side", (2, 3, 6, 7), (4, 3, 3, 3),
         {"padding": 2, "fold": ((2, 0), (1, 3)), "padding_mode": "circular"}),
    Case("fold and spread", (2, 3, 4, 5), (4, 3, 3, 3),
         {**TWOS, "padding": 2, "fold": 2, "padding_mode": "symmetric"}, bias=True),
    Case("fold over the output", (1, 2, 6), (3, 2, 3), {"padding": 2, "fold": 3, "padding_mode": "reflect"}),
    Case("fold onto the edge", (1, 2, 3, 4, 5), (3, 2, 2, 2, 2),
         {"padding": 1, "fold": 1, "padding_mode": "replicate"}),
    Case("spread 1-D", (3, 4, 20), (6, 4, 5), {"input_dilation": (2,), "padding": 3}),
    Case("spread 3-D", (1, 2, 3, 4, 5), (3, 2, 3, 2, 2), {"input_dilation": (2, 1, 3), "padding": 2}),
    Case("spread empty batch", (0, 3, 4, 5), (4, 3, 3, 3), {**TWOS, "padding": 2}, bias=True),
    Case("spread no input channels", (1, 0, 4, 5), (4, 0, 3, 3), {**TWOS, "padding": 2}, bias=True),
)  # fmt: skip
CASES = {case.name: case for case in (*EDGES, *ADJOINTS, *RESNET50, *FILTERS)}
