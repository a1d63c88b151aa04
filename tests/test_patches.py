"""unfold and fold: by definition, as each other's transpose, as the correlation's matrix, and as torch has them."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import numconv as nc

X = np.ones((1, 2, 5, 6), np.float32)
DTYPES = st.sampled_from(["float32", "float64", "int32", "uint8", "complex128"])


@st.composite
def calls(draw, dtypes=DTYPES):
    """(image, options)."""
    pair = lambda low, high: draw(st.tuples(st.integers(low, high), st.integers(low, high)))  # noqa: E731
    options = {"kernel_size": pair(1, 3), "dilation": pair(1, 2), "padding": pair(0, 2), "stride": pair(1, 3)}
    height, width = (
        max(1, d * (k - 1) + 1 - 2 * p) + extra
        for k, d, p, extra in zip(
            options["kernel_size"], options["dilation"], options["padding"], pair(0, 5), strict=True
        )
    )
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    leading = draw(st.sampled_from([(2,), (2, 3), (0, 1)]))
    return rng.integers(0, 9, (*leading, height, width)).astype(draw(dtypes)), options


def by_definition(x, kernel_size, dilation, padding, stride):
    """Every patch of the padded image, one after another, each as a column."""
    x = np.pad(x, ((0, 0),) * (x.ndim - 2) + tuple((p, p) for p in padding))
    reach = [d * (k - 1) + 1 for k, d in zip(kernel_size, dilation, strict=True)]
    patches = [
        x[..., top : top + reach[0] : dilation[0], left : left + reach[1] : dilation[1]].reshape(
            *x.shape[:-3], np.prod(x.shape[-3:-2], dtype=int) * kernel_size[0] * kernel_size[1]
        )
        for top in range(0, x.shape[-2] - reach[0] + 1, stride[0])
        for left in range(0, x.shape[-1] - reach[1] + 1, stride[1])
    ]
    return np.stack(patches, axis=-1)


@given(calls())
def test_unfold_takes_every_patch_as_a_column(call):
    x, options = call
    columns = nc.unfold(x, **options)
    assert columns.dtype == x.dtype
    assert not np.shares_memory(columns, x)
    np.testing.assert_array_equal(columns, by_definition(x, **options))


@given(calls(st.just("float64")))
def test_fold_is_the_transpose_of_unfold(call):
    x, options = call
    columns = nc.unfold(x, **options)
    other = np.random.default_rng(1).integers(-9, 9, columns.shape).astype(x.dtype)
    image = nc.fold(other, x.shape[-2:], **options)
    assert (image.shape, image.dtype, image.flags.c_contiguous) == (x.shape, x.dtype, True)
    assert (columns * other).sum() == (x * image).sum()


def test_a_correlation_is_a_matrix_product_of_patches(rng):
    x, weight = rng.integers(-9, 9, (2, 3, 8, 9)), rng.integers(-9, 9, (4, 3, 3, 2))
    columns = nc.unfold(x, (3, 2), dilation=(1, 2), padding=1, stride=2)
    expected = nc.conv2d(x, weight, dilation=(1, 2), padding=1, stride=2)
    np.testing.assert_array_equal((weight.reshape(4, -1) @ columns).reshape(expected.shape), expected)


def test_names_order_and_defaults_are_torchs():
    empty = inspect.Parameter.empty
    rest = {"kernel_size": empty, "dilation": 1, "padding": 0, "stride": 1}
    for function, names in (
        (nc.unfold, {"input": empty, **rest}),
        (nc.fold, {"input": empty, "output_size": empty, **rest}),
    ):
        assert [(name, p.default) for name, p in inspect.signature(function).parameters.items()] == list(names.items())


@given(calls(st.sampled_from(["float32", "float64", "complex128"])))
def test_both_are_torchs(call):
    functional = pytest.importorskip("torch.nn.functional", reason="torch is no dependency")
    import torch

    x, options = call
    if not x.size:
        return
    columns = nc.unfold(x, **options)
    np.testing.assert_array_equal(columns, functional.unfold(torch.from_numpy(x), **options).numpy())
    image = functional.fold(torch.from_numpy(columns), x.shape[-2:], **options).numpy()
    np.testing.assert_array_equal(nc.fold(columns, x.shape[-2:], **options), image)


LINE = "[float32 1x2x5x6]"
COLUMNS = np.ones((8, 20), np.float32)


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (
            lambda: nc.unfold(X[0, 0], 2),
            ValueError,
            "the input has 2 axes, but it takes (channels, height, width) or (batch, channels, height, width): add the"
            " missing axes with x[None] [float32 5x6]",
        ),
        (lambda: nc.unfold(X, 0), ValueError, f"kernel_size is 0, but every kernel_size must be at least 1 {LINE}"),
        (lambda: nc.unfold(X, 2, 0), ValueError, f"dilation is 0, but every dilation must be at least 1 {LINE}"),
        (lambda: nc.unfold(X, 2, 1, -1), ValueError, f"padding is -1, but every padding must be at least 0 {LINE}"),
        (
            lambda: nc.unfold(X, 2, stride=1.0),
            TypeError,
            "stride is 1.0 of type float, but it takes an integer: round it first",
        ),
        (
            lambda: nc.unfold(X, 4, 2),
            ValueError,
            "the kernel spans 7 with its dilation, but the padded image has only 5: pad more or take a smaller kernel"
            " [float32 1x2x5x6]",
        ),
        (
            lambda: nc.fold(X, (5, 6), 2),
            ValueError,
            "the input has 4 axes, but it takes (channels * kernel elements, patches) or (batch, channels * kernel"
            " elements, patches): unfold gives it [float32 1x2x5x6]",
        ),
        (
            lambda: nc.fold(COLUMNS, (5, 6), 3),
            ValueError,
            "the input has 8 rows, but they must be channels times the 9 kernel elements [float32 8x20]",
        ),
        (
            lambda: nc.fold(COLUMNS, (5, 5), 2),
            ValueError,
            "the input has 20 patches, but an image of 5x5 has 4x4 [float32 8x20]",
        ),
        (
            lambda: nc.fold(COLUMNS, 0, 2),
            ValueError,
            "output_size is 0, but every output_size must be at least 1 [float32 8x20]",
        ),
    ],
)
def test_a_mistake_is_one_sentence(call, kind, text):
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == text
