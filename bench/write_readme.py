"""Write the README's table from bench/results.json. Everything that the README shows comes from three commands::

python -m numconv bench --json bench/results.json --plot bench/pictures/roofline.png
python -m numconv demo --out bench/pictures/demo.jpg
python bench/write_readme.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from numconv.cli.bench import COLUMNS, cells

ROOT = Path(__file__).resolve().parent.parent
README, RESULTS = ROOT / "README.md", ROOT / "bench" / "results.json"
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"


def written(readme: str, report: dict[str, Any]) -> str:
    """The README with the report's table between the markers."""
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{table(report)}\n{END}{after}"


def table(report: dict[str, Any]) -> str:
    """The machine in a line, and one layer a row."""
    machine, peaks = report["machine"], report["peaks"]
    head = ["layer", *COLUMNS, "loops / np.matmul", "auto takes"]
    lines = [
        f"GFLOP/s in float32 on {machine['threads'].partition(',')[0]} threads of a {machine['processor']}; measured"
        f" peaks: {peaks['flops'] / 1e9:.0f} GFLOP/s of fused multiply-adds, {peaks['bytes_per_second'] / 1e9:.1f} GB/s"
        f" of copying. numpy's BLAS: {machine['BLAS'].partition(';')[0]}.",
        "",
        f"| {' | '.join(head)} |",
        f"| --- |{' ---: |' * (len(head) - 1)}",
    ]
    lines += [f"| {' | '.join(cells(row)).replace('->', '→')} |" for row in report["layers"]]
    return "\n".join(lines)


if __name__ == "__main__":
    README.write_text(written(README.read_text(), json.loads(RESULTS.read_text())))
