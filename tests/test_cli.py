"""Each command does what it says, on real input; a mistake or a missing extra is one sentence and exit code 2."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from numconv.__main__ import COMMANDS, main
from numconv.cli import contenders, photograph, picture, textbook, timing
from numconv.cli.filters import bank
from numconv.methods import methods
from numconv.testing import CASES, FILTERS, RESNET50

ROOT = Path(__file__).resolve().parent.parent
NAMES = ", ".join(method.NAME for method in methods())
EXTRAS = ("rich", "matplotlib", "skimage")


def python(*arguments, folder):
    """A fresh interpreter in a folder."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "118"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """What `demo` printed, with runs of blanks and frames as one blank, and its picture."""
    folder = tmp_path_factory.mktemp("demo")
    done = python("-m", "numconv", "demo", folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    return re.sub(r"[\s│┃]+", " ", done.stdout), folder / "demo.png"


@pytest.mark.parametrize(
    "words",
    [
        "7.2.1 corr2d(X, K), X 3x3, K 2x2 [[19, 25], [37, 43]] yes",
        "7.2.3 edges: corr2d(X, [[1, -1]]), X 6x8 each of 6 rows [0, 1, 0, 0, 0, -1, 0] yes",
        "7.2.3 corr2d(X.T, [[1, -1]]) all zero yes",
        "7.3.1 8x8, kernel 3x3, padding 1 8x8 yes",
        "7.3.1 8x8, kernel 5x3, padding (2, 1) 8x8 yes",
        "7.3.2 8x8, kernel 3x3, padding 1, stride 2 4x4 yes",
        "7.3.2 8x8, kernel 3x5, padding (0, 1), stride 2x2 yes (3, 4)",
        "7.4.1 corr2d_multi_in(X, K), 2 channels [[56, 72], [104, 120]] yes",
        "[[[56, 72], [104, 120]], [[76, 100], yes [148, 172]], [[96, 128], [192, 224]]]",
        '7.5.1 pool2d(X, (2, 2), "max") [[4, 5], [7, 8]] yes',
        '7.5.1 pool2d(X, (2, 2), "avg") [[2.0, 3.0], [5.0, 6.0]] yes',
        "14.10.1 trans_conv(X, K), both 2x2 [[0, 0, 1], [0, 4, 6], [4, 12, 9]] yes",
    ],
)
def test_the_demo_shows_the_books_values(demo, words):
    assert words in demo[0]


def test_the_demo_learns_the_kernel(demo):
    left, right, before, after = map(
        float, re.search(r"\[\[([\d.-]+), ([\d.-]+)\]\], loss (\S+) to (\S+) yes", demo[0]).groups()
    )
    assert (left, right) == pytest.approx((1, -1), abs=0.05)
    assert before > 100 * after


def test_the_one_by_one_example_differs_by_less_than_the_book_allows(demo):
    assert float(re.search(r"7\.4\.3 .*? ([\d.e+-]+) in sum yes", demo[0]).group(1)) < 1e-6


def test_the_demo_shows_loops_matmul_and_scipy_with_times_and_differences(demo):
    rows = re.findall(
        r"(loops|tiled|depthwise|matmul|scipy) [\d.]+ (?:s|ms|µs) [\d.e+]+ [\d.]+ (\d\.\de-\d\d) ", demo[0]
    )
    assert [name for name, _ in rows] == ["loops", "tiled", "scipy", "loops", "tiled", "matmul", "scipy"]
    assert all(float(difference) < 1e-5 for _, difference in rows)
    assert "every response is scipy's" in demo[0]


def test_the_demos_picture_shows_something_everywhere(demo):
    values = pixels(demo[1])
    assert values.shape[1] == 1600
    assert 500 < values.shape[0] < 900
    assert demo[1].stat().st_size < 2_000_000
    # The margins are white; each of 3 rows and 5 columns of the picture's parts holds more than one colour.
    assert (values[:10] == 255).all()
    assert (values[:, -10:] == 255).all()
    parts = [part for row in np.array_split(values, 3) for part in np.array_split(row, 5, axis=1)]
    assert all(part.std() > 10 for part in parts)


def test_a_photographs_colours_survive_in_the_picture(demo):
    values, photo = pixels(demo[1]), photograph.load()
    assert photo.shape == (3, 300, 451)
    shown = values[46:410, 16:565].reshape(-1, 3).mean(axis=0) / 255
    np.testing.assert_allclose(shown, photo.mean(axis=(1, 2)), atol=0.01)


def test_a_wrong_value_makes_the_demo_fail(tmp_path, monkeypatch, capsys):
    wrong = textbook.Example("7.2.1", "corr2d(X, K)", "[[19, 25], [37, 44]]", agrees=False)
    photo = np.zeros((3, 6, 9), np.float32)
    kinds = bank()
    responses = [np.ones((len(kind.weight), 6, 9), np.float32) for kind in kinds]
    result = photograph.Result("a layer", "scipy", 1, 1.0, 0.0, 0.0)
    monkeypatch.setattr(textbook, "examples", lambda: [wrong])
    monkeypatch.setattr(photograph, "measure", lambda _: photograph.Filtered(photo, kinds, responses, [result]))
    assert main(["demo", "--out", str(tmp_path / "demo.png")]) == 1
    assert "WRONG" in capsys.readouterr().out


def test_the_bank_is_what_it_is_called():
    kinds = {kind.name: kind.weight for kind in bank()}
    assert len(kinds) == 12
    for name, weight in kinds.items():
        # An even grey image stays what it is, or vanishes.
        expected = 1 if name in ("Gaussian blur", "sharpen") else 0
        np.testing.assert_allclose(weight.sum(axis=(1, 2, 3)), expected, atol=1e-12, err_msg=name)
    np.testing.assert_array_equal(kinds["Sobel x"], kinds["Sobel y"].swapaxes(2, 3))
    np.testing.assert_allclose(kinds["Gabor 90°"], kinds["Gabor 0°"].swapaxes(2, 3), atol=1e-12)
    assert {kind.look for kind in bank()} <= {"colour", *picture.MAPS}


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """What `bench --quick` printed, its figures, and its plot."""
    folder = tmp_path_factory.mktemp("bench")
    arguments = ("-m", "numconv", "bench", "--quick", "--json", "bench.json", "--plot", "roofline.png")
    done = python(*arguments, folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    return done.stdout, json.loads((folder / "bench.json").read_text()), folder / "roofline.png"


def test_bench_writes_every_figure(quick):
    _, report, _ = quick
    assert set(report) == {"machine", "peaks", "rounds", "layers"}
    assert report["peaks"]["flops"] > 1e9
    assert report["peaks"]["bytes_per_second"] > 1e8
    assert {"numconv", "processor", "threads", "BLAS"} <= set(report["machine"])
    assert str(ROOT) not in json.dumps(report)
    assert len(report["layers"]) == 5
    for layer in report["layers"]:
        problem = CASES[layer["name"]].problem()
        assert set(layer) == {
            "name", "problem", "flops", "bytes", "auto", "seconds", "gflops", "errors", "loops_to_blas",
        }  # fmt: skip
        assert (layer["problem"], layer["flops"], layer["bytes"]) == (str(problem), problem.flops, problem.bytes)
        assert layer["auto"] in ("loops", "tiled", "depthwise", "matmul")
        assert {"loops", "tiled", "scipy"} <= set(layer["seconds"])
        for name, time in layer["seconds"].items():
            assert layer["gflops"][name] == pytest.approx(layer["flops"] / time / 1e9)
            assert layer["errors"][name] < 1e-2
        if layer["loops_to_blas"] is not None:
            ratio = layer["seconds"]["np.matmul"] / layer["seconds"]["loops"]
            assert layer["loops_to_blas"] == pytest.approx(ratio)
    assert {"matmul", "np.matmul"} <= set(report["layers"][0]["seconds"])


def test_bench_prints_a_row_for_each_layer(quick):
    printed, report, _ = quick
    for layer in report["layers"]:
        assert re.search(rf"│ {re.escape(layer['name'])} +│ +[\d.]+ │", printed), layer["name"]


def test_the_roofline_shows_something(quick):
    values = pixels(quick[2])
    assert values.shape[1] > 1000
    assert values.shape[0] > 500
    assert values.std() > 10
    # Something red, which are the loops, and something blue, the matrix products.
    red, green, blue = values.reshape(-1, 3).T.astype(int)
    assert ((red > 150) & (green < 60) & (blue < 80)).sum() > 500
    assert ((red < 60) & (green > 80) & (blue > 150)).sum() > 500


def test_every_layer_of_the_issue_is_benched():
    names = [case.name for case in (*RESNET50, *FILTERS)]
    assert len(names) == len(set(names)) == 17
    for case in RESNET50:
        assert contenders.names(case)[-2:] == ["np.matmul", "scipy"]
        assert ("matmul" in contenders.names(case)) == case.name.startswith("1x1")
    assert contenders.names(FILTERS[0]) == ["depthwise", "loops", "tiled", "scipy"]


@pytest.mark.parametrize("name", ["1x1", "1x1 stride", "stride", "padding", "padding over kernel"])
def test_contenders_agree_and_a_wrong_one_is_caught(name):
    case = CASES[name]
    runs = contenders.contenders(case)
    assert max(contenders.check(case, runs).values()) < 1e-4
    with pytest.raises(AssertionError, match=r"loops is wrong by .*, over .* \[float32 "):
        contenders.check(case, {"loops": lambda: runs["loops"]() + 1})


def test_a_wrong_result_makes_bench_fail(monkeypatch, capsys):
    def fail(*_):
        raise AssertionError("loops is wrong by 1, over 0.1 [a problem]")

    monkeypatch.setattr("numconv.cli.bench.check", fail)
    assert main(["bench", "--quick"]) == 1
    assert capsys.readouterr().err == "numconv: loops is wrong by 1, over 0.1 [a problem]\n"


def test_turns_rotate_and_the_median_of_the_best_is_taken(monkeypatch):
    times = {"a": iter([3.0, 1.0, 2.0]), "b": iter([5.0, 9.0, 7.0])}
    order = []

    def turn(name):
        order.append(name)
        return next(times[name])

    monkeypatch.setattr(timing, "turn", turn)
    assert timing.medians({"a": "a", "b": "b"}, 3) == {"a": 2.0, "b": 7.0}
    assert order == ["a", "b", "b", "a", "a", "b"]


def test_explain_prints_the_chosen_method_and_the_cost(capsys):
    assert main(["explain", "1x64x56x56", "64x64x3x3", "--padding", "1", "--cost"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("float32 1x64x56x56 * 64x64x3x3 padding 1, ")
    assert re.search(r"^->  tiled +[\d.]+ [mu]s ", printed, re.MULTILINE)
    assert "the kernel has 9 taps, but a matrix product takes 1x1" in printed
    assert re.search(r"^multiplications +115,605,504 +231,211,008$", printed, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("2x4x9 6x4x3 --bias", "float32 2x4x9 * 6x4x3 bias"),
        ("1x4x5x6x7 2x2x3x3x3 --groups 2 --dtype float64", "float64 1x4x5x6x7 * 2x2x3x3x3 groups 2"),
        (
            "1x4x9x9 2x4x3x3 --stride 2x3 --padding 0+1x2 --dilation 2 --padding-mode reflect --activation relu",
            "float32 1x4x9x9 * 2x4x3x3 stride 2x3 dilation 2x2 padding 0+1x2 reflect relu",
        ),
        ("1x4x9x9 2x4x3x3 --padding same", "float32 1x4x9x9 * 2x4x3x3 padding 1"),
        ("1x4x9x9 2x4x1x1 --reproducible", "float32 1x4x9x9 * 2x4x1x1"),
    ],
)
def test_explain_takes_every_option(arguments, line, capsys):
    assert main(["explain", *arguments.split()]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{line}, ")
    assert "->" in printed


def test_explain_in_a_terminal_is_a_table(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["explain", "1x64x56x56", "64x64x1x1"]) == 0
    printed = capsys.readouterr().out
    assert "→ tiled" in printed
    assert "┃" in printed


def test_info_prints_every_fact(capsys):
    assert main(["info"]) == 0
    printed = capsys.readouterr().out
    facts = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in printed.splitlines())
    assert re.fullmatch(r"\d+\.\d+\.\d+", facts["numconv"])
    assert re.match(r"\d+\.\d+\.\d+ on \w+", facts["python"])
    assert re.search(r"numpy \d.*numba \d.*llvmlite \d.*scipy \d", facts["packages"])
    assert re.search(r"vectors of (128|256|512) bits, with(out)? FMA", facts["processor"])
    assert re.match(r"\d+, numba's (omp|tbb|workqueue) layer", facts["threads"])
    assert facts["BLAS"]
    assert "writable" in facts["kernel cache"] or "no" in facts["kernel cache"]
    assert re.match(r"L1 \d+ KiB", facts["data caches"])
    assert "predicted by a model fitted on an H100, not measured" in facts["CUDA"]
    assert re.match(r"\d+ GFLOP/s", facts["FMA peak"])
    assert re.match(r"[\d.]+ GB/s", facts["memory peak"])
    assert "typical rates" in facts["profile"]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.NAME)
def test_help_shows_an_example(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command.NAME, "--help"])
    assert end.value.code == 0
    assert f"example:\n  python -m numconv {command.NAME}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("", "the following arguments are required: COMMAND; see numconv --help"),
        (
            "explain 1x64x56x56 64x3x3x3",
            "the input has 64 channels, but the weight takes 3 per group and groups is 1: the input's channels must be"
            " groups * weight.shape[1] = 3 [float32 1x64x56x56 * 64x3x3x3]",
        ),
        (
            "explain 1x64x56x56 64x64",
            "the weight has 2 axes, but it takes 3 to 5: output channels x input channels per group x one to three"
            " axes",
        ),
        ("explain 1x4 2by2", "argument weight: '2by2' is no shape: write it as 1x64x56x56; see numconv explain --help"),
        (
            "explain 1x1x5x5 1x1x3x3 --padding some",
            "argument --padding: 'some' is no padding: write one of valid, same, same_lower, full, or 1, 2x1 or"
            " 0+1x2+2; see numconv explain --help",
        ),
        (
            "explain 1x1x5x5 1x1x3x3 --method best",
            f"method is 'best', but it must be one of auto, {NAMES} [float32 1x1x5x5 * 1x1x3x3]",
        ),
        (
            "explain 1x1x5x5 1x1x3x3 --dtype real",
            "argument --dtype: 'real' is no dtype: write float32, say; see numconv explain --help",
        ),
        (
            "demo --out nowhere/demo.png",
            "argument --out: the folder nowhere does not exist: make it first; see numconv demo --help",
        ),
        (
            "demo --out demo.txt",
            "argument --out: demo.txt is no picture's name, but it takes .png, .jpg, .svg or .pdf; see numconv demo"
            " --help",
        ),
        ("bench --json .", "argument --json: . is a folder, but it takes a file's name; see numconv bench --help"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, sentence, capsys):
    assert main(arguments.split()) == 2
    printed = capsys.readouterr()
    assert printed.err == f"numconv: {sentence}\n"
    assert not printed.out


@pytest.mark.parametrize(
    ("absent", "arguments"),
    [
        ("rich", ["demo"]),
        ("matplotlib", ["demo"]),
        ("skimage", ["demo"]),
        ("rich", ["bench"]),
        ("rich", ["warmup"]),
        ("matplotlib", ["bench", "--plot", "roofline.png"]),
    ],
)
def test_a_missing_extra_is_one_sentence(absent, arguments, tmp_path):
    script = (
        f"import sys; sys.modules[{absent!r}] = None; from numconv.__main__ import main; sys.exit(main({arguments}))"
    )
    done = python("-c", script, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"numconv: this needs {absent}, which is not installed: pip install 'numconv-numba[demo]'\n"
    assert not list(tmp_path.iterdir())


def test_explain_and_info_need_no_extra_and_importing_loads_none(tmp_path):
    script = f"""
import sys
import numconv
assert not {set(EXTRAS)} & set(sys.modules)
sys.modules.update(dict.fromkeys({EXTRAS}))
sys.stdout.isatty = lambda: True
from numconv.__main__ import main
sys.exit(main(["explain", "1x3x5x5", "2x3x3x3"]) or main(["info"]))
"""
    done = python("-c", script, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "->  tiled" in done.stdout
    assert "FMA peak" in done.stdout


def test_the_readmes_tables_are_those_of_the_committed_figures():
    module = runpy.run_path(str(ROOT / "bench" / "write_readme.py"))
    readme = (ROOT / "README.md").read_text()
    assert module["written"](readme) == readme
    assert len(json.loads((ROOT / "bench" / "results.json").read_text())["layers"]) == 17
    row = {"layer": "1->2", "method": "tiled", "gflops": 12.34, "observed": 4e-8, "expected": 1e-6, "bound": 2e-6}
    section = module["between"](readme, "errors", module["errors"]({"rows": [row]}))
    assert "\n| 1→2 | tiled | 12.3 | 4.0e-08 | 1.0e-06 | 2.0e-06 |\n<!-- errors:end -->" in section
    layers = {
        "a": {"numconv": 1.0, "numconv once": 2.0, "numconv alone": 1.5, "torch": 8.0, "cv2": 4.0},
        "b": {"numconv": 1.0, "numconv once": None, "numconv alone": 2.0, "torch": None, "cv2": 1.0},
        "c": {"numconv": 1.0, "torch": None},
    }
    machine = {"processor": "a", "threads": 2, "libraries": {}}
    section = module["peers"]({"machine": machine, "rounds": 3, "classes": {"all": layers}})
    assert section.endswith("\n| all | 3 | 2.00 (1.00) | - | 4.00 (4.00) | 1.73 (1.50) |")
    layers = {"a": {"flops": 8e12, "numconv": 4.0, "torch": 2.0}, "b": {"flops": 6e12, "numconv": 2.0, "torch": 4.0}}
    section = module["on_gpu"]({"machine": {"device": "a", "torch": "2"}, "batches": {"32": {"all": layers}}})
    assert section.endswith("\n| all | 32 | 2.0 to 3.0 | 1.00 (0.50) | - | - |")
