"""The README's code runs as it stands, and its two commands are what they say."""

from __future__ import annotations

import re

import pytest
from conftest import ROOT

README = (ROOT / "README.md").read_text()


def blocks(language):
    """Code blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_every_python_block_runs_one_after_the_other(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert len(blocks("python")) >= 1


def test_the_first_screen_has_one_call_and_the_output_it_gives(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    first, printed = blocks("python")[0], blocks("text")[0]
    exec(compile(first, "README.md", "exec"), {})
    assert capsys.readouterr().out == printed
    assert README.index(printed) < README.index("![") < 3000, "then the picture"


def test_two_commands_do_all_the_setting_up():
    demo, tests = blocks("sh")
    for command in (demo, tests):
        assert command.startswith("python3 -m venv .venv && ")
        assert command.count("\n") == 1, "one line, to copy as it is"
    assert "numconv demo" in demo
    assert "-m pytest" in tests


def test_what_the_command_installs_exists():
    extras = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    for extra in re.findall(r"\[(\w+)\]", "".join(blocks("sh"))):
        assert re.search(rf"^{extra} = ", extras, re.MULTILINE), extra


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\((?!http)([^)#]+)\)", README))))
def test_links_to_files_lead_somewhere(target):
    assert (ROOT / target).exists()


def test_the_checks_run_the_readmes_own_command():
    assert "README.md" in (ROOT / ".ci" / "run").read_text()
