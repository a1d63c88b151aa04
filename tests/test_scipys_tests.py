"""SciPy's own tests of its correlations, from its wheel, run against numconv by the plugin of scipys_tests.py."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import scipy
from conftest import PACKAGE, ROOT

FILES = ("signal/tests/test_signaltools.py", "ndimage/tests/test_filters.py")
SELECTED = (
    "(TestConvolve or TestFFTConvolve or TestOAConvolve or TestAllFreqConvolves or TestCorrelate or longdtype"
    " or correlation_lags or choose_conv_method or correlate or convolve) and not TestDeconvolve"
)
# The failures that stay, each with its reason.
FAILING = {
    "test_signaltools.py::TestFFTConvolve::test_fft_nan[numpy]": (
        "wants the warning that a Fourier transform spreads NaN; ours leaves it in its place"
    ),
    **{
        f"test_signaltools.py::test_convolve_longdtype_input[numpy-{dtype}]": "long double is not taken"
        for dtype in ("longdouble", "clongdouble")
    },
}
# By the version of SciPy whose wheel they were counted with.
PASSING = {"1.17": 2755}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What became of each test: (outcome, message)."""
    folder = tmp_path_factory.mktemp("scipys_tests")
    installed = Path(scipy.__file__).parent
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "scipys_tests", "-p", "no:cacheprovider", "-k", SELECTED),
            *("-c", os.devnull, "--rootdir", str(installed), *(str(installed / file) for file in FILES)),
        ],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(PACKAGE.parent), str(Path(__file__).parent))),
            "NUMCONV_REPORT": str(folder / "report.json"),
            # Thousands of tiny calls: each would wait for a second thread.
            "NUMBA_NUM_THREADS": "1",
        },
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode in (0, 1), (
        f"pytest ended with {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    )
    return json.loads((folder / "report.json").read_text())


def test_the_failures_that_stay_are_known(outcomes):
    failed = {name: text for name, (outcome, text) in outcomes.items() if outcome == "failed"}
    assert failed.keys() == FAILING.keys(), {name: text for name, text in failed.items() if name not in FAILING}


def test_every_test_reached_numconv(outcomes):
    assert not [name for name, (outcome, _) in outcomes.items() if outcome == "not reached"]


def test_as_many_pass_as_are_published(outcomes):
    version = ".".join(scipy.__version__.split(".")[:2])
    if version not in PASSING:
        pytest.skip(f"the tests of SciPy {version} were not counted")
    count = Counter(outcome for outcome, _ in outcomes.values())
    assert count == {"passed": PASSING[version], "failed": len(FAILING)}
    published = re.search(r"([\d,]+) of SciPy ([\d.]+)'s own tests", (ROOT / "README.md").read_text())
    assert published
    assert published.groups() == (f"{PASSING[version]:,}", version)
