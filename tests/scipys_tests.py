"""A pytest plugin that runs SciPy's own tests against numconv: `pytest -p scipys_tests FILES` from SciPy's wheel.

After a test module is imported, its names for SciPy's correlations, and those functions among its parameters, become
numconv's; before, SciPy's own helpers would break. Every call that reaches numconv is counted, and a test that made
none is not counted as passed. What became of each test is written as JSON to the file that NUMCONV_REPORT names.
"""

from __future__ import annotations

import functools
import json
import os
import types
from collections import Counter
from pathlib import Path

import pytest
import scipy.ndimage
import scipy.signal

import numconv.ndimage
import numconv.signal

calls = Counter()
outcomes = {}


def counted(function):
    """The function, with its calls counted."""

    @functools.wraps(function)
    def call(*args, **kwargs):
        calls["numconv"] += 1
        return function(*args, **kwargs)

    return call


REPLACED = {
    getattr(theirs, name): counted(getattr(ours, name))
    for theirs, ours in ((scipy.signal, numconv.signal), (scipy.ndimage, numconv.ndimage))
    for name in ours.__all__
}


def replaced(value):
    """What stands for a value of a test module: numconv's function for scipy's, a module that has it for a module."""
    if isinstance(value, types.ModuleType) and value in (scipy.signal, scipy.ndimage):
        module = types.ModuleType(value.__name__)
        module.__getattr__ = lambda name: replaced(getattr(value, name))
        return module
    return REPLACED.get(value, value) if isinstance(value, types.FunctionType) else value


def pytest_collection_modifyitems(config, items):
    for module in {item.module for item in items}:
        for name, value in list(vars(module).items()):
            setattr(module, name, replaced(value))
    for item in items:
        if hasattr(item, "callspec"):
            item.callspec.params.update({name: replaced(value) for name, value in item.callspec.params.items()})
    slow = [item for item in items if item.get_closest_marker("slow")]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if item not in slow]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    if call.when == "call":
        item.numconv_calls = calls.pop("numconv", 0)
    report = yield
    if report.failed or report.when == "call":
        reached = getattr(item, "numconv_calls", 0)
        name = item.nodeid.partition("::")[2]
        outcome = "not reached" if report.passed and not reached else report.outcome
        text = str(call.excinfo.value).partition("\n")[0] if call.excinfo else ""
        outcomes[f"{item.path.name}::{name}"] = (outcome, text)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    calls.clear()
    return (yield)


def pytest_sessionfinish():
    Path(os.environ["NUMCONV_REPORT"]).write_text(json.dumps(outcomes))
