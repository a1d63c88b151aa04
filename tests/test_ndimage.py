"""numconv.ndimage gives what scipy.ndimage gives: modes, origins, outputs, axes and dtypes."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st

import numconv as nc
from numconv.ndimage import MODES

SHAPES = [
    ((9,), (4,)),
    ((3,), (11,)),
    ((1,), (6,)),
    ((6, 7), (3, 4)),
    ((2, 3), (5, 7)),
    ((4, 5, 6), (3, 2, 1)),
    ((3, 4, 2, 5), (2, 3, 3, 2)),
    ((3, 2, 3, 2, 3), (2, 3, 1, 2, 1)),
]
IN_DTYPES = ["bool", "uint8", "int16", "int64", "uint64", "float32", "float64"]
OUT_DTYPES = ["uint8", "int8", "int16", "int32", "uint32", "int64", "uint64", "float32", "float64"]


def both(name, *args, **options):
    """Our result, and scipy's."""
    return getattr(nc.ndimage, name)(*args, **options), getattr(scipy.ndimage, name)(*args, **options)


def same(result, expected):
    assert result.dtype == expected.dtype
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("name", ["correlate", "convolve"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_every_mode_and_origin(rng, name, mode, shapes):
    # Small integers without zeros, which scipy leaves out: both add up exactly.
    image, weights = rng.integers(-9, 9, shapes[0]).astype(float), rng.integers(1, 9, shapes[1])
    for origin in range(-(min(shapes[1]) // 2), (min(shapes[1]) - 1) // 2 + 1):
        moved = -origin - (min(shapes[1]) % 2 == 0) if name == "convolve" else origin
        if all(-(size // 2) <= moved <= (size - 1) // 2 for size in shapes[1]):
            same(*both(name, image, weights, mode=mode, cval=2.5, origin=moved if name == "convolve" else origin))


@settings(max_examples=60)
@given(data=st.data())
def test_any_line_along_any_axis(data):
    pick = data.draw
    shape = tuple(pick(st.integers(1, 6)) for _ in range(pick(st.integers(1, 3))))
    size = pick(st.integers(1, 5))
    rng = np.random.default_rng(pick(st.integers(0, 99)))
    image, weights = rng.integers(-9, 9, shape).astype(float), rng.integers(1, 9, size)
    options = {"axis": pick(st.integers(-len(shape), len(shape) - 1)), "mode": pick(st.sampled_from(list(MODES)))}
    origin = pick(st.integers(-(size // 2), (size - 1) // 2))
    same(*both("correlate1d", image, weights, origin=origin, cval=1, **options))
    same(*both("convolve1d", image, weights, origin=-origin - (size % 2 == 0), cval=1, **options))


@pytest.mark.parametrize("dtype", IN_DTYPES)
def test_every_output_converts_like_scipys(rng, dtype):
    # Products and sums of quarters are exact.
    image = rng.integers(0 if dtype in ("uint8", "uint64") else -99, 99, (5, 6)).astype(dtype)
    for output in OUT_DTYPES:
        same(*both("correlate", image, [[1, -2.25], [1.75, -1]], output=np.dtype(output)))
    same(*both("correlate", image, [[1, -2.25], [1.75, -1]]))


@pytest.mark.parametrize("name", ["correlate", "convolve", "correlate1d", "convolve1d"])
@pytest.mark.parametrize("dtypes", [("float32", "complex128"), ("complex64", "float64"), ("complex128", "complex64")])
def test_complex(rng, name, dtypes):
    values = rng.integers(1, 9, 12) + 1j * rng.integers(1, 9, 12)
    image, weights = (values.astype(dtype) if dtype[0] == "c" else values.real.astype(dtype) for dtype in dtypes)
    image, weights = (image, weights[:4]) if name.endswith("1d") else (image.reshape(3, 4), weights[:6].reshape(2, 3))
    cval = 2 + 1j if image.dtype.kind == "c" else 2
    same(*both(name, image, weights, mode="constant", cval=cval))


@pytest.mark.parametrize("axes", [0, (1,), (0, 2), (2, 0), (-1, -2)], ids=str)
@pytest.mark.parametrize("name", ["correlate", "convolve"])
def test_some_axes(rng, axes, name):
    count = np.size(axes)
    image, weights = rng.integers(-9, 9, (4, 5, 6)).astype(float), rng.integers(1, 9, (3, 2)[:count])
    same(*both(name, image, weights, axes=axes, origin=(-1, 0)[:count], mode="nearest"))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7, 129])
@pytest.mark.parametrize("dtype", ["float64", "float32", "uint8"])
def test_a_short_last_axis_that_the_kernel_does_not_reach_along_is_one_of_channels(rng, dtype, channels):
    image, weights = rng.integers(0, 9, (6, 9, channels)).astype(dtype), rng.integers(-4, 5, (4, 3)) * 1.0
    few = channels <= 4 or (dtype == "float64" and channels <= 128)
    for mode in ("reflect", "constant"):
        options = {"mode": mode, "origin": (1, -1, 0), "cval": 3.0, "output": np.float64}
        same(*both("correlate", image, weights[:, :, None], **options))
        call = nc.explain(nc.ndimage.correlate, image, weights[:, :, None], **options)
        assert (call.problem.layout, call.problem.groups) == (("NHWC", channels) if few else ("NCHW", 1))
    same(*both("correlate1d", image, weights[:, 0], axis=0, output=np.float64))
    same(*both("convolve", image[0], weights[:, :1], output=np.float64))


@pytest.mark.parametrize("dtype", ["float64", "float32", "int32"])
def test_the_output_may_be_any_array_even_the_input(rng, dtype):
    image = rng.integers(-9, 9, (8, 9)).astype(dtype)
    expected = scipy.ndimage.correlate(image, [[1, 2], [3, 4]])
    for make in (
        lambda: np.empty((8, 9), dtype),
        lambda: np.empty((9, 8), dtype).T,
        lambda: np.empty((8, 18), dtype)[:, ::2],
        lambda: np.empty((8, 9), np.dtype(dtype).newbyteorder(">")),
    ):
        output = make()
        assert nc.ndimage.correlate(image, [[1, 2], [3, 4]], output=output) is output
        np.testing.assert_array_equal(output, expected)
    assert nc.ndimage.correlate(image, [[1, 2], [3, 4]], output=image) is image
    np.testing.assert_array_equal(image, expected)


def test_no_axes_and_no_elements():
    same(*both("correlate", np.float64(3), np.float64(2)))
    same(*both("correlate", np.empty((0, 3)), np.ones((2, 2))))


def test_nan_times_zero_is_nan():
    # scipy leaves out weights of zero, and those below 2e-16.
    image = np.array([np.nan, 1, 2])
    np.testing.assert_array_equal(nc.ndimage.correlate(image, [0, 1, 0]), [np.nan, np.nan, 2])
    np.testing.assert_allclose(nc.ndimage.correlate([1e300], [1e-17]), 1e283)


def test_sums_are_float64_unless_asked_otherwise(rng):
    image, weights = rng.standard_normal((40, 50)).astype(np.float32), rng.standard_normal((5, 5))
    thoughts = nc.explain(nc.ndimage.correlate, image, weights)
    assert (thoughts.chosen, thoughts.problem.accumulator, thoughts.problem.output) == ("depthwise", "f8", "f4")
    fast = nc.explain(nc.ndimage.correlate, image, weights, accumulator=np.float32)
    assert (fast.chosen, fast.problem.accumulator, fast.problem.output) == ("depthwise", "f4", "f4")
    expected = scipy.ndimage.correlate(image, weights)
    np.testing.assert_allclose(nc.ndimage.correlate(image, weights), expected, rtol=1e-6, atol=1e-6)
    result = nc.ndimage.correlate(image, weights, accumulator="float32")
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)
    wide = nc.ndimage.correlate(image, weights, np.float64, accumulator="float32")
    np.testing.assert_array_equal(wide, result)
    assert wide.dtype == np.float64


@pytest.mark.parametrize("size", [5, 15])
def test_a_filter_of_a_large_image_is_served_by_registers(size):
    assert nc.explain(nc.ndimage.correlate, (2048, 2048), (size, size)).chosen == "depthwise"


def test_a_dtype_that_must_be_complex_says_so():
    with pytest.warns(UserWarning, match="promoting specified output dtype to complex") as caught:
        assert nc.ndimage.correlate([1.0], [1j], output=np.float32).dtype == np.complex64
    assert caught[0].filename == __file__


ONES = np.ones((2, 3))
ERRORS = [
    (RuntimeError, lambda: nc.ndimage.correlate(ONES, [1, 2]),
     "weights.ndim (1) must match len(axes) (2): the weights have shape (2,) and the input (2, 3)"),
    (RuntimeError, lambda: nc.ndimage.correlate1d(ONES, []),
     "no filter weights given: their shape is (0,), but it takes one axis that has some"),
    (RuntimeError, lambda: nc.ndimage.correlate(ONES, [[1]], mode="fold"),
     "boundary mode not supported: it is 'fold', but must be one of reflect, grid-mirror, constant, grid-constant,"
     " nearest, mirror, wrap, grid-wrap"),
    (RuntimeError, lambda: nc.ndimage.correlate(ONES, [[1]], mode=["wrap", "wrap"]),
     "boundary mode not supported: it is ['wrap', 'wrap'], but must be one of reflect, grid-mirror, constant,"
     " grid-constant, nearest, mirror, wrap, grid-wrap"),
    (RuntimeError, lambda: nc.ndimage.correlate(ONES, [[1]], origin=[0]),
     "origin is [0], but a sequence argument must have length equal to input rank, or to axes: 2"),
    (ValueError, lambda: nc.ndimage.correlate(ONES, [[1]], origin=1),
     "Invalid origin; origin must satisfy -(weights.shape[k] // 2) <= origin[k] <= (weights.shape[k]-1) // 2, but it is"
     " [1, 1] for weights of shape (1, 1) in correlation form"),
    (ValueError, lambda: nc.ndimage.correlate(ONES, [1], axes=2),
     "specified axis: 2 is out of range for an input of 2 axes"),
    (ValueError, lambda: nc.ndimage.correlate(ONES, [[1]], axes=(0, -2)), "axes must be unique, but they are (0, -2)"),
    (RuntimeError, lambda: nc.ndimage.correlate(ONES, [[1]], output=np.ones(3)),
     "output shape not correct: it is (3,), but the input's is (2, 3)"),
    (RuntimeError, lambda: nc.ndimage.correlate(ONES, [[1j]], output=ONES),
     "output must have complex dtype, for input or weights are, but it is float64"),
    (RuntimeError, lambda: nc.ndimage.correlate(ONES, [[1]], output="O"),
     "output must have numeric dtype, but it is object"),
    (TypeError, lambda: nc.ndimage.correlate(ONES, [[1]], cval=1j),
     "cval is 1j, but the input is real: convert it to complex with astype"),
    (TypeError, lambda: nc.ndimage.correlate(ONES, [[1]], cval="a"), "cval is 'a', but it takes one number"),
    (ValueError, lambda: nc.ndimage.correlate(ONES, [[1]], accumulator=int),
     "accumulator is <class 'int'>, but it takes np.float32 or np.float64, also for complex numbers"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "call", "text"), ERRORS, ids=lambda value: value[:50] if isinstance(value, str) else ""
)
def test_a_mistake_is_one_sentence(kind, call, text):
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert str(caught.value) == text
