"""Shared by all tests: deterministic hypothesis, random numbers, numba's threads, scripts in a fresh interpreter."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numba
import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import numconv
from numconv.machine import PROFILE

# The same examples in every run, and no deadline: the first call of a dtype compiles for seconds.
settings.register_profile(
    "numconv", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("numconv")
# A profile of this machine, if its user has made one, decides no test, nor in the processes that tests start.
os.environ[PROFILE] = "off"

# Helpers without doctests, which import what only an extra brings, or, for a process of its own, change numba's API: a
# GPU's array, taken for the simulator's, was read on the host.
collect_ignore = ["cuda_static.py", "ptx_device.py", "simulated.py"]

PACKAGE = Path(numconv.__file__).resolve().parent
ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("omp", "tbb", "workqueue")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def set_threads():
    """numba.set_num_threads, undone at the end."""
    before = numba.get_num_threads()
    yield numba.set_num_threads
    numba.set_num_threads(before)


def run_alone(script, *arguments):
    """Run a script of this folder on one thread, in a process that may not end well: the exit code, the last line
    printed and the errors.
    """
    done = subprocess.run(
        [sys.executable, script, *arguments],
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent), "NUMBA_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, (done.stdout.splitlines() or [""])[-1], done.stderr


@pytest.fixture
def run_python(tmp_path):
    """Run a script in a fresh interpreter and return what it printed; it must end well."""

    def run(script, *options, environment=None, package=PACKAGE):
        path = tmp_path / "script.py"
        path.write_text(textwrap.dedent(script))
        done = subprocess.run(
            [sys.executable, *options, str(path)],
            env={**os.environ, "PYTHONPATH": str(package.parent), **(environment or {})},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


@pytest.fixture(scope="session")
def layer_environments():
    """For each threading layer that numba can load here, the environment that selects it; for the others, why not."""
    found = {}
    for layer in LAYERS:
        environment = {"NUMBA_THREADING_LAYER": layer, "NUMBA_NUM_THREADS": "4"}
        if layer == "tbb":
            # A wheel puts the library where the dynamic loader does not look.
            environment["LD_LIBRARY_PATH"] = os.pathsep.join(
                filter(None, [*_tbb_folders(), os.environ.get("LD_LIBRARY_PATH")])
            )
        probe = subprocess.run(
            [sys.executable, "-c", "import numba; numba.get_num_threads(); print(numba.threading_layer())"],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        loaded = probe.returncode == 0 and probe.stdout.strip() == layer
        found[layer] = environment if loaded else f"numba cannot load {layer}: {probe.stderr.strip()[-200:]}"
    return found


@pytest.fixture(params=LAYERS)
def layer_environment(request, layer_environments):
    """The environment of each threading layer in turn, with four threads on any machine."""
    environment = layer_environments[request.param]
    if isinstance(environment, str):
        pytest.skip(environment)
    return environment


def _tbb_folders():
    try:
        files = importlib.metadata.files("tbb") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return sorted({str(Path(file.locate()).resolve().parent) for file in files if file.name.startswith("libtbb.so")})
