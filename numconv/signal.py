"""scipy.signal's names and semantics: correlations of arrays of any number of axes, with scipy's shapes and dtypes.

Sums are those of the one engine: integers exact, modulo the result's dtype, floats in the result's own precision. The
planner chooses the method, a Fourier transform where that is faster: `fftconvolve` and `oaconvolve` name what scipy
would do.
"""

from __future__ import annotations

import functools
import math
import timeit
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import jit
from .axes import reverse
from .dialect import correlation
from .method import Array
from .modes import MODES, WAYS, bounded, broadcast_convolution, conjugate, images, pair, part_of, span, worded_call
from .planner import Call, Wish, candidates, chosen
from .validate import integer, is_word

__all__ = [
    "choose_conv_method",
    "convolve",
    "convolve2d",
    "correlate",
    "correlate2d",
    "correlation_lags",
    "fftconvolve",
    "oaconvolve",
]

PerAxis = int | tuple[int, ...] | list[int]
# Above the expected error of float32 transforms of any length, which is what scipy's names for them give.
TRANSFORM_RTOL = 1e-5
TRANSFORMS = ("fft", "fft32")


@correlation
def correlate(
    in1: ArrayLike,
    in2: ArrayLike,
    mode: str = "full",
    method: str = "auto",
    *,
    axes: int | Sequence[int] | None = None,
    stride: PerAxis = 1,
    dilation: PerAxis = 1,
    rtol: float | None = None,
    reproducible: bool = False,
) -> Call | Array:
    """Cross-correlation of two arrays: z[k] = sum over l of in1[l] * conj(in2[l - k]), along every axis.

    Parameters
    ----------
    in1, in2 : array_like
        With equally many axes, of any number.
    mode : {"full", "valid", "same"}
        All sums; those where the smaller array lies within the larger; or in1's shape, from the middle of "full".
    method : str
        "auto" lets the planner choose, "direct" asks for the one order of summation, "fft" for a Fourier transform in
        float64 where one serves, and any other word is a method's name: see `numconv.explain`.
    axes : int or sequence of int, optional
        Those to correlate along; along the others the arrays broadcast.
    stride, dilation : int or one for each of `axes`
        Keep every so many outputs; spread in2's elements so far apart.
    rtol, reproducible
        As in `numconv.conv2d`.

    Returns
    -------
    np.ndarray
        Its dtype is np.result_type(in1, in2). Integers are exact modulo that dtype; bool means "any of both".

    Raises
    ------
    ValueError
        Arrays that are empty, differ in their number of axes, or do not fit into one another with "valid"; a word that
        is not known.
    TypeError
        A dtype beyond 64 bits, or 128 for complex numbers; a MaskedArray.

    References
    ----------
    scipy.signal.correlate.

    Examples
    --------
    >>> import numconv as nc
    >>> nc.signal.correlate([1, 2, 3], [0, 1, 2])
    array([2, 5, 8, 3, 0])
    >>> nc.signal.correlate([[1, 2, 3], [4, 5, 6]], [[1, 1]], "valid", axes=1)
    array([[ 3,  5],
           [ 9, 11]])

    """
    x, kernel = pair(in1, in2)
    kernel = conjugate(kernel)
    if not x.ndim:
        return np.multiply(x, kernel)
    part = part_of(x, mode, axes, stride, dilation)
    return worded_call(x, kernel, part, method, rtol, reproducible)


@correlation
def convolve(
    in1: ArrayLike,
    in2: ArrayLike,
    mode: str = "full",
    method: str = "auto",
    *,
    axes: int | Sequence[int] | None = None,
    stride: PerAxis = 1,
    dilation: PerAxis = 1,
    rtol: float | None = None,
    reproducible: bool = False,
) -> Call | Array:
    """Convolution of two arrays: z[k] = sum over l of in1[l] * in2[k - l], along every axis.

    Parameters, dtypes and errors are those of `numconv.signal.correlate`; names and defaults those of
    scipy.signal.convolve.

    Examples
    --------
    >>> import numconv as nc
    >>> nc.signal.convolve([1, 2, 3], [0, 1, 2])
    array([0, 1, 4, 7, 6])

    """
    return _convolution(in1, in2, mode, axes, stride, dilation, method, rtol, reproducible)


@correlation
def correlate2d(
    in1: ArrayLike,
    in2: ArrayLike,
    mode: str = "full",
    boundary: str = "fill",
    fillvalue: complex = 0,
    *,
    method: str = "auto",
    stride: PerAxis = 1,
    dilation: PerAxis = 1,
    rtol: float | None = None,
    reproducible: bool = False,
) -> Call | Array:
    """Cross-correlation of two images, with a choice of what lies around the first.

    Parameters
    ----------
    in1, in2 : array_like, two axes
    mode : {"full", "valid", "same"}
        As in `numconv.signal.correlate`, but that "same" takes the later of two middles.
    boundary : {"fill", "wrap", "symm"}
        Around in1 lies `fillvalue`, or in1 again and again, or its mirror image with the edge repeated.
    fillvalue : number
        As the result's dtype holds it.
    method, stride, dilation, rtol, reproducible
        As in `numconv.signal.correlate`.

    Returns
    -------
    np.ndarray
        Its dtype is np.result_type(in1, in2).

    Raises
    ------
    ValueError, TypeError
        As `numconv.signal.correlate`; ValueError also for a fillvalue that the result's dtype cannot hold.

    References
    ----------
    scipy.signal.correlate2d. Like it, "valid" with a larger in2 conjugates in1 in place of in2.

    Examples
    --------
    >>> import numpy as np
    >>> import numconv as nc
    >>> nc.signal.correlate2d(np.arange(6).reshape(2, 3), [[1, 1]], "same", boundary="wrap")
    array([[1, 3, 2],
           [7, 9, 8]])

    """
    x, kernel = images(in1, in2, "correlate2d")
    part = part_of(x, mode, None, stride, dilation)._replace(late=True)
    # scipy changes places before it conjugates.
    changed = mode == "valid" and any(n < k for n, k in zip(x.shape, kernel.shape, strict=True))
    x, kernel = (conjugate(x), kernel) if changed else (x, conjugate(kernel))
    part = bounded(part, boundary, fillvalue, x, kernel)
    return worded_call(x, kernel, part, method, rtol, reproducible)


@correlation
def convolve2d(
    in1: ArrayLike,
    in2: ArrayLike,
    mode: str = "full",
    boundary: str = "fill",
    fillvalue: complex = 0,
    *,
    method: str = "auto",
    stride: PerAxis = 1,
    dilation: PerAxis = 1,
    rtol: float | None = None,
    reproducible: bool = False,
) -> Call | Array:
    """Convolution of two images, with a choice of what lies around the first.

    Parameters, dtypes and errors are those of `numconv.signal.correlate2d`; "same" takes the earlier of two middles.
    Names and defaults are those of scipy.signal.convolve2d.

    Examples
    --------
    >>> import numconv as nc
    >>> nc.signal.convolve2d([[1, 2], [3, 4]], [[1, -1]], boundary="symm")
    array([[0, 1, 0],
           [0, 1, 0]])

    """
    x, kernel = images(in1, in2, "convolve2d")
    part = bounded(part_of(x, mode, None, stride, dilation), boundary, fillvalue, x, kernel)
    return worded_call(x, reverse(kernel, part.axes), part, method, rtol, reproducible)


@correlation
def fftconvolve(
    in1: ArrayLike, in2: ArrayLike, mode: str = "full", axes: int | Sequence[int] | None = None
) -> Call | Array:
    """Convolution of two arrays in floating point, along some axes; along the others they broadcast.

    Parameters
    ----------
    in1, in2 : array_like
        With equally many axes. Those of length 1 in either broadcast, even where `axes` names them.
    mode : {"full", "valid", "same"}
        As in `numconv.signal.correlate`; "same" has in1's shape also along axes that broadcast.
    axes : int or sequence of int, optional
        Those to convolve along; all unless given.

    Returns
    -------
    np.ndarray
        Its dtype is np.result_type(in1, in2), where bool and integers count as float64, float16 as float32. Arrays of
        which one is empty give an empty one.

    Raises
    ------
    ValueError, TypeError
        As `numconv.signal.correlate`.

    Notes
    -----
    The planner chooses the method, transforms in the result's own precision included, as scipy takes them: an rtol of
    1e-5 lets them in. Sums are direct where that is faster, and NaN and inf stay where direct sums have them.

    References
    ----------
    scipy.signal.fftconvolve.

    Examples
    --------
    >>> import numconv as nc
    >>> nc.signal.fftconvolve([1, 2, 3], [0, 1, 2])
    array([0., 1., 4., 7., 6.])

    """
    return broadcast_convolution(in1, in2, mode, axes, Wish(rtol=TRANSFORM_RTOL))


@correlation
def oaconvolve(
    in1: ArrayLike, in2: ArrayLike, mode: str = "full", axes: int | Sequence[int] | None = None
) -> Call | Array:
    """Convolution of two arrays of which one is much longer: `numconv.signal.fftconvolve` by scipy's other name.

    Parameters, dtypes and errors are those of `numconv.signal.fftconvolve`; names and defaults those of
    scipy.signal.oaconvolve.

    Examples
    --------
    >>> import numconv as nc
    >>> nc.signal.oaconvolve([1.0, 2.0, 3.0], [0.5, 0.5], mode="same")
    array([0.5, 1.5, 2.5])

    """
    return broadcast_convolution(in1, in2, mode, axes, Wish(rtol=TRANSFORM_RTOL))


def choose_conv_method(
    in1: ArrayLike, in2: ArrayLike, mode: str = "full", measure: bool = False
) -> str | tuple[str, dict[str, float]]:
    """Whether `convolve` would take a Fourier transform ("fft") or add up ("direct").

    Parameters
    ----------
    in1, in2, mode
        As in `numconv.signal.convolve`.
    measure : bool
        Time both rather than ask the planner.

    Returns
    -------
    str, or with `measure` (str, dict)
        The dict has the seconds of both; math.inf where no Fourier transform serves.

    References
    ----------
    scipy.signal.choose_conv_method.

    Examples
    --------
    >>> import numconv as nc
    >>> nc.signal.choose_conv_method([1.0, 2.0, 3.0], [0.0, 1.0])
    'direct'

    """
    call = _convolution(in1, in2, mode, None, 1, 1, "auto", None, False)
    if not isinstance(call, Call):
        return ("direct", {"direct": 0.0, "fft": math.inf}) if measure else "direct"
    try:
        problem, on, method, _ = chosen(call, jit.threads(), prepared=False)
    except TypeError:
        return "direct"  # what no method takes, no Fourier transform takes
    if not measure:
        return "fft" if method.NAME in TRANSFORMS else "direct"
    served = {candidate.name for candidate in candidates(problem, on, call.wish) if candidate.refusal is None}
    seconds = {
        name: min(timeit.repeat(functools.partial(convolve, in1, in2, mode, name), number=1, repeat=3))
        if name == "direct" or name in served
        else math.inf
        for name in WAYS
    }
    return min(seconds, key=lambda name: seconds[name]), seconds


def correlation_lags(in1_len: int, in2_len: int, mode: str = "full") -> Array:
    """The lag k that each element of `correlate` of two signals of these lengths stands for.

    Parameters
    ----------
    in1_len, in2_len : int
        Elements of the signals.
    mode : {"full", "valid", "same"}
        That of `numconv.signal.correlate`.

    Returns
    -------
    np.ndarray of int64

    Raises
    ------
    ValueError
        Another mode.

    Notes
    -----
    With "same", an odd in1_len and an even in2_len, these are scipy's lags: one more than those of `correlate`.

    References
    ----------
    scipy.signal.correlation_lags.

    Examples
    --------
    >>> import numconv as nc
    >>> nc.signal.correlation_lags(3, 2)
    array([-1,  0,  1,  2])

    """
    if not is_word(mode, MODES):
        raise ValueError(f"Mode {mode} is invalid; it must be one of {', '.join(MODES)}")
    first, kernel = integer("in1_len", in1_len), integer("in2_len", in2_len)
    low, high = span(mode, first, kernel)
    # For an odd signal and an even kernel, scipy counts "same" from the other middle than its correlate.
    late = mode == "same" and first % 2 == 1 and kernel % 2 == 0
    return np.arange(low, high) - (kernel - 1 - late)


def _convolution(
    in1: Any, in2: Any, mode: Any, axes: Any, stride: Any, dilation: Any, method: Any, rtol: Any, reproducible: Any
) -> Call | Array:
    x, kernel = pair(in1, in2, "volume and kernel")
    if not x.ndim:
        return np.multiply(x, kernel)
    part = part_of(x, mode, axes, stride, dilation)
    return worded_call(x, reverse(kernel, part.axes), part, method, rtol, reproducible)
