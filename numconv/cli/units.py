"""How the commands write numbers."""

from __future__ import annotations

UNITS = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9))


def seconds(value: float | None) -> str:
    """A time to three digits in the unit that suits it, or a dash for none."""
    if value is None:
        return "-"
    unit, size = next((pair for pair in UNITS if value >= pair[1]), UNITS[-1])
    return f"{digits(value / size)} {unit}"


def rate(flops: float, time: float) -> str:
    """GFLOP/s to three digits."""
    return digits(flops / time / 1e9)


def digits(value: float) -> str:
    """Three digits, without an exponent for large numbers."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
