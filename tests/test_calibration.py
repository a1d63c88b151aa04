"""A profile is measured, kept and believed where it fits; what does not fit is left aside, without a word."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from numconv import calibration, jit, machine, planner, profile
from numconv.__main__ import main
from numconv.cli import info
from numconv.machine import DEFAULT_CACHES, Machine
from numconv.methods import methods
from numconv.planner import Wish, candidates, seconds
from numconv.profile import Key, Profile
from numconv.testing import CASES, Case

KEY = Key("cpu", 32, 4)
FAST = Profile(
    KEY, (1e11, 3e11), (2e10, 5e10), (5e10, 2e11), 3e-6, (("tiled", "float32", 0.9), ("loops", "integer", 0.2))
)
BARE = Machine(threads=2, cpu="cpu", vector_bytes=32, has_fma=True, caches=DEFAULT_CACHES)
ON = dataclasses.replace(BARE, profile=FAST)
NAMED = {method.NAME: method for method in methods()}
F4, I8 = np.dtype("f4"), np.dtype("i8")


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A profile of this process, kept where NUMCONV_PROFILE says."""
    path = tmp_path / "folder" / "profile.json"
    monkeypatch.setenv(machine.PROFILE, str(path))
    found = dataclasses.replace(FAST, key=machine.profile_key())
    profile.write(path, found)
    machine._profile.cache_clear()
    yield path, found
    machine._profile.cache_clear()


def test_a_profile_comes_back_as_it_was(tmp_path):
    path = tmp_path / "new" / "folder" / "profile.json"
    for times in (1, 2):
        written = dataclasses.replace(FAST, launch=times * 1e-6)
        profile.write(path, written)
        assert profile.read(path, KEY) == written
    assert [file.name for file in path.parent.iterdir()] == [path.name], "nothing is left beside it"


@pytest.mark.parametrize(
    "other",
    [KEY._replace(cpu="other"), KEY._replace(vector_bytes=64), KEY._replace(threads=2), KEY._replace(version="0")],
)
def test_another_machines_profile_counts_as_none(tmp_path, other):
    profile.write(tmp_path / "profile.json", FAST)
    assert profile.read(tmp_path / "profile.json", other) is None


FACTS = dataclasses.asdict(FAST) | {"key": KEY._asdict()}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        "{}",
        json.dumps({**FACTS, "key": {}}),
        json.dumps({**FACTS, "flops": 1e11}),
        json.dumps({**FACTS, "flops": [1e11]}),
        json.dumps({**FACTS, "bandwidth": [-1, 5e10]}),
        json.dumps({**FACTS, "launch": math.nan}),
        json.dumps({**FACTS, "launch": "3 us"}),
        json.dumps({**FACTS, "efficiencies": [["tiled", "float32", 96.0]]}),
        json.dumps({**FACTS, "efficiencies": [["tiled", 0.9]]}),
    ],
)
def test_what_is_no_profile_counts_as_none(tmp_path, text):
    path = tmp_path / "profile.json"
    path.write_text(text)
    assert profile.read(path, KEY) is None
    assert profile.read(tmp_path, KEY) is None
    assert profile.read(tmp_path / "absent", KEY) is None


def test_rates_lie_between_those_of_one_thread_and_of_all():
    rates = {threads: dataclasses.replace(ON, threads=threads).flop_rate(F4) for threads in (1, 2, 4)}
    assert rates == pytest.approx({1: 1e11, 2: 1e11 + 2e11 / 3, 4: 3e11})
    assert ON.flop_rate(I8) == ON.flop_rate(F4) / 2
    assert ON.bandwidth == pytest.approx(3e10)
    within = machine.CACHE_SHARE * ON.caches[-1]
    assert ON.moving(within) == pytest.approx(within / 1e11)
    assert ON.moving(within + 1) == pytest.approx((within + 1) / 3e10)
    assert (ON.launch, BARE.launch) == (3e-6, machine.CALL)


def test_an_efficiency_is_the_measured_one_or_the_methods_own():
    assert ON.efficiency("tiled", F4, 0.5) == 0.9
    assert ON.efficiency("tiled", np.dtype("f8"), 0.5) == 0.5
    assert {ON.efficiency("loops", np.dtype(name), 0.5) for name in ("i4", "i8", "u8")} == {0.2}
    assert BARE.efficiency("tiled", F4, 0.5) == 0.5


# Fourier transforms run at scipy.fft's rates, by their length, not at a share of the FMA peak.
RATED = [method for method in methods() if not method.NAME.startswith("fft")]


@pytest.mark.parametrize("method", RATED, ids=lambda method: method.NAME)
def test_every_method_asks_for_its_efficiency(method):
    problems = (case.problem() for case in calibration.LAYERS)
    problem, times = next(problem for problem in problems if method.why_not(problem, BARE) is None), []
    for share in (0.2, 0.4):
        measured = dataclasses.replace(FAST, efficiencies=((method.NAME, "float32", share),))
        work = method.work(problem, dataclasses.replace(BARE, profile=measured))
        times.append(work.flops / work.rate)
    assert times[0] == pytest.approx(2 * times[1])


def test_a_profile_changes_the_predicted_seconds_and_the_choice():
    problem = CASES["plain"].problem()
    slow = dataclasses.replace(FAST, efficiencies=(("tiled", "float32", 1e-3), ("loops", "float32", 0.5)))
    names = []
    for on in (ON, dataclasses.replace(ON, profile=slow)):
        tiled = next(one for one in candidates(problem, on, Wish()) if one.name == "tiled")
        assert tiled.seconds == seconds(NAMED["tiled"].work(problem, on), on)[1]
        names.append(planner.choose(problem, on, Wish(), prepared=True).NAME)
    assert names == ["tiled", "loops"]


def test_this_process_believes_the_profile_that_is_kept_for_it(kept):
    key = machine.profile_key()
    here = machine.machine.__wrapped__(key.threads)
    assert here.profile == kept[1]
    assert here.flop_rate(F4) == pytest.approx(3e11 if key.threads > 1 else 1e11)
    assert machine.machine.__wrapped__(key.threads + 1).profile is None, "more threads than were measured"
    assert hash(here) == hash(dataclasses.replace(here, profile=None)), "a call pays for no more than before"


def test_off_and_absent_are_no_profile(monkeypatch, tmp_path):
    assert machine.profile_path() is None
    monkeypatch.delenv(machine.PROFILE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    key = machine.profile_key()
    assert machine.profile_path().parent == tmp_path / "numconv"
    assert key.cpu in machine.profile_path().name
    assert machine._profile.__wrapped__() is None


def test_importing_reads_no_profile(run_python, tmp_path):
    script = """
        import numconv.machine
        assert numconv.machine._profile.cache_info().currsize == 0
        numconv.explain(numconv.conv2d, (1, 1, 4, 4), (1, 1, 2, 2))
        print(numconv.machine._profile.cache_info().currsize)
        """
    assert run_python(script, environment={machine.PROFILE: str(tmp_path)}) == "1\n"


TINY = (Case("dense", (1, 8, 9, 9), (8, 8, 3, 3)), Case("product", (1, 8, 9, 9), (8, 8, 1, 1)))


def test_calibration_measures_every_method_and_rate(monkeypatch):
    monkeypatch.setattr(calibration, "TURN_SECONDS", 0.0)
    monkeypatch.setattr(calibration, "DTYPES", {"float32": 2})
    found = calibration.calibrate(TINY, rounds=1)
    assert found.key == machine.profile_key()
    serving = {
        method.NAME
        for case in TINY
        for method in methods()
        if method.why_not(case.problem(), machine.machine(jit.threads())) is None
    }
    assert {(method, kind) for method, kind, _ in found.efficiencies} == {(name, "float32") for name in serving}
    assert {"tiled", "loops", "matmul"} <= serving
    figures = (*found.flops, *found.bandwidth, *found.cache_bandwidth, found.launch)
    assert min(*figures, *(share for _, _, share in found.efficiencies)) > 0


def test_a_share_of_the_peak_is_the_share_that_predicts_the_time():
    method, problem = NAMED["loops"], CASES["3x3 64 at 56"].problem()
    ones = dataclasses.replace(ON, profile=dataclasses.replace(FAST, efficiencies=(("loops", "float32", 1.0),)))
    share = calibration._share(method, problem, ones, 0.01)
    told = dataclasses.replace(FAST, efficiencies=(("loops", "float32", share),))
    again = dataclasses.replace(ON, profile=told)
    assert seconds(method.work(problem, again), again)[1] == pytest.approx(0.01)


def test_layers_of_every_method_are_measured():
    on = machine.machine(jit.threads())
    for method in methods():
        assert any(method.why_not(case.problem(), on) is None for case in calibration.LAYERS), method.NAME


@pytest.fixture
def measured(monkeypatch):
    """The command without its measuring."""
    found = dataclasses.replace(FAST, key=machine.profile_key())
    monkeypatch.setattr(calibration, "calibrate", lambda: found)
    return found


def test_the_command_keeps_what_it_measured_and_info_tells_it(measured, monkeypatch, tmp_path, capsys):
    path = tmp_path / "profile.json"
    monkeypatch.setenv(machine.PROFILE, str(path))
    assert main(["calibrate"]) == 0
    printed = capsys.readouterr().out
    assert f"kept in {path}\n" in printed
    assert f"100 GFLOP/s of one thread, 300 of {measured.key.threads}\n" in printed
    assert profile.read(path, measured.key) == measured
    assert (
        info.calibrated()["profile"] == f"none in {path} that fits: typical rates, until `python -m numconv calibrate`"
    )
    on = dataclasses.replace(BARE, profile=measured)
    monkeypatch.setattr(info, "machine", lambda threads: on)
    told = info.calibrated()
    assert told["profile"] == f"in use, from {path}"
    assert (told["  tiled"], told["  loops"]) == ("float32 90%", "integer 20%")


def test_the_command_says_why_it_keeps_nothing(measured, monkeypatch, tmp_path, capsys):
    assert main(["calibrate"]) == 2
    assert capsys.readouterr().err == (
        "numconv: NUMCONV_PROFILE is 'off', so no profile is kept or read: unset it, or have it name a file\n"
    )
    assert info.calibrated() == {"profile": "none is read, for NUMCONV_PROFILE is 'off': typical rates"}
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(machine.PROFILE, str(tmp_path / "file" / "profile.json"))
    assert main(["calibrate"]) == 2
    assert "the profile cannot be kept in" in capsys.readouterr().err
    busy = dataclasses.replace(measured, efficiencies=(("tiled", "float32", 96.76),))
    monkeypatch.setattr(calibration, "calibrate", lambda: busy)
    monkeypatch.setenv(machine.PROFILE, str(tmp_path / "profile.json"))
    assert main(["calibrate"]) == 2
    assert "a method seems to beat the peak" in capsys.readouterr().err
    assert not (tmp_path / "profile.json").exists()
