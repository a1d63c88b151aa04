"""What is public is documented in full, in numpy's style, with an example that runs; every module says its idea."""

from __future__ import annotations

import importlib
import importlib.resources
import inspect
import operator
import pkgutil

import pytest

import numconv
from numconv import jit

# What calls return, rather than what is called.
RETURNED = ("Cost", "Explanation", "Plan", "Problem")
FUNCTIONS = [name for name in numconv.__all__ if name not in RETURNED]
FUNCTIONS += [f"{module}.{name}" for module in ("ndimage", "signal") for name in getattr(numconv, module).__all__]
# The command line draws with extras that the library does without.
FOUND = [module.name for module in pkgutil.walk_packages(numconv.__path__, "numconv.")]
MODULES = [name for name in FOUND if not name.startswith(("numconv.cli", "numconv.__main__"))]


def test_all_is_sorted_and_true():
    assert sorted(numconv.__all__) == numconv.__all__
    assert all(hasattr(numconv, name) for name in numconv.__all__)
    public = {name for name, value in vars(numconv).items() if not name.startswith("_") and not inspect.ismodule(value)}
    assert public == set(numconv.__all__)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_has_a_summary_and_an_example(name):
    text = inspect.getdoc(operator.attrgetter(name)(numconv))
    assert text.splitlines()[0].endswith((".", ":"))
    assert "\nExamples\n--------\n>>> " in text
    assert f"nc.{name}(" in text.partition("Examples")[2], "the example calls the function itself"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_functions_parameters_are_described_or_referred_to(name):
    function = operator.attrgetter(name)(numconv)
    text = inspect.getdoc(function)
    if "Parameters, dtypes and errors are those of" in text:
        return
    section = text.partition("Parameters\n----------\n")[2].partition("\n\n")[0]
    for parameter in inspect.signature(function).parameters:
        assert parameter in section


@pytest.mark.parametrize("name", RETURNED)
def test_what_calls_return_is_described_in_a_paragraph(name):
    text = inspect.getdoc(operator.attrgetter(name)(numconv))
    assert len(text.split()) >= 15


@pytest.mark.parametrize("name", FUNCTIONS)
def test_signatures_are_typed(name):
    signature = inspect.signature(operator.attrgetter(name)(numconv))
    assert signature.return_annotation is not inspect.Signature.empty
    assert all(parameter.annotation is not inspect.Parameter.empty for parameter in signature.parameters.values())


@pytest.mark.parametrize("name", MODULES)
def test_a_module_says_its_idea(name):
    assert importlib.import_module(name).__doc__


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith(("numconv.cpu.", "numconv.peaks"))])
def test_a_kernel_says_what_it_does(name):
    module = importlib.import_module(name)
    values = (value.compiled if isinstance(value, jit.Kernel) else value for value in vars(module).values())
    for kernel in (value for value in values if hasattr(value, "py_func") and hasattr(value, "targetoptions")):
        function = kernel.py_func
        if function.__module__ == name and not function.__name__.startswith("_"):
            assert function.__doc__, function.__name__


def test_the_package_is_marked_as_typed():
    assert importlib.resources.files("numconv").joinpath("py.typed").is_file()
