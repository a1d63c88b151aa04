"""Compiled kernels are kept on disk, and never served when any file of the package has changed."""

from __future__ import annotations

import pickle
import shutil

import numba
import pytest
from conftest import PACKAGE

# The smallest kernel that calls into simd.py; what is printed: its result, and what numba's disk cache did.
SCRIPT = """
import numpy as np
from numconv import peaks
sums = np.zeros(1, np.float32)
peaks.spin_all(1, sums, 1, (0, 0, 0, 0))
stats = peaks.spin_all.compiled.stats
print(round(float(sums[0]), 3), sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""
# 12 chains of 4 lanes that start at 0 to 11, once times 0.999 plus 0.001, added up.
RIGHT = round(4 * (66 * 0.999 + 12 * 0.001), 3)


@pytest.fixture
def package(tmp_path):
    """A copy of the package, without anything compiled."""
    shutil.copytree(PACKAGE, tmp_path / "copy" / "numconv", ignore=shutil.ignore_patterns("__pycache__", "cli"))
    return tmp_path / "copy" / "numconv"


def edit(path, old, new):
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def test_a_kernel_is_compiled_once_and_then_loaded(run_python, package):
    assert run_python(SCRIPT, package=package) == f"{RIGHT} 0 1\n"
    assert run_python(SCRIPT, package=package) == f"{RIGHT} 1 0\n"


def test_a_kernel_is_loaded_without_what_a_compiler_needs(run_python, package):
    script = (
        SCRIPT + 'import sys; print([name for name in ("numba.np.linalg", "scipy.linalg") if name in sys.modules])\n'
    )
    run_python(script, package=package)
    # Nor does it keep the next kernel from being compiled.
    copied = "target = np.zeros(2); peaks.copy_all(1, np.ones(2), target); print(target)\n"
    assert run_python(script + copied, package=package) == f"{RIGHT} 1 0\n[]\n[1. 1.]\n"


def test_an_edited_simd_is_not_served_stale(run_python, package):
    run_python(SCRIPT, package=package)
    edit(package / "cpu" / "simd" / "native.py", "for value in (0.999, 0.001)", "for value in (0.5, 0.001)")
    assert run_python(SCRIPT, package=package) == f"{4 * (66 * 0.5 + 12 * 0.001)} 0 1\n"


@pytest.mark.parametrize("name", ["problem.py", "cpu/blas.py"])
def test_an_edit_of_any_file_compiles_anew(run_python, package, name):
    run_python(SCRIPT, package=package)
    with (package / name).open("a") as file:
        file.write("# an edit\n")
    assert run_python(SCRIPT, package=package) == f"{RIGHT} 0 1\n"


def test_what_ran_before_an_edit_is_not_kept_as_what_runs_after_it(run_python, package):
    """A process that has imported the sources, and compiles when they are others."""
    later = "import numconv.cpu.simd.native as native, pathlib, time\ntime.sleep(0.05)\n"
    later += "path = pathlib.Path(native.__file__)\npath.write_text(path.read_text().replace('(0.999,', '(0.5,'))\n"
    assert run_python(later + SCRIPT, package=package) == f"{RIGHT} 0 1\n"
    assert run_python(SCRIPT, package=package) == f"{4 * (66 * 0.5 + 12 * 0.001)} 0 1\n"


def test_an_index_of_another_numconv_is_not_read(run_python, package):
    run_python(SCRIPT, package=package)
    for index in package.rglob("*.nbi"):
        index.write_bytes(pickle.dumps(numba.__version__) + b"names of classes that are gone")
    assert run_python(SCRIPT, package=package) == f"{RIGHT} 0 1\n"


def test_a_read_only_package_keeps_its_kernels_in_the_users_cache(run_python, package, tmp_path):
    # A file in place of the folder keeps everybody out, the superuser too.
    (package / "__pycache__").write_text("")
    (package / "cpu" / "__pycache__").write_text("")
    (package / "cpu" / "simd" / "__pycache__").write_text("")
    environment = {"XDG_CACHE_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)}
    assert run_python(SCRIPT, package=package, environment=environment) == f"{RIGHT} 0 1\n"
    assert list(tmp_path.rglob("*.nbi"))
    assert run_python(SCRIPT, package=package, environment=environment) == f"{RIGHT} 1 0\n"


def test_where_nothing_can_be_written_every_process_compiles(run_python, package, tmp_path):
    (package / "__pycache__").write_text("")
    (package / "cpu" / "__pycache__").write_text("")
    (package / "cpu" / "simd" / "__pycache__").write_text("")
    environment = {"XDG_CACHE_HOME": "/dev/null", "HOME": "/dev/null"}
    for _ in range(2):
        assert run_python(SCRIPT, package=package, environment=environment).startswith(f"{RIGHT} 0 ")
    assert not list(tmp_path.rglob("*.nbi"))
