"""Contribution of each kind of training data: four short runs of equal length.

Each row adds one kind to the row above it. Every run has the same recipe, seed and number of
steps. Prints each row's command and its figures on generated pairs of development photographs,
on which no run has trained. An interrupted benchmark resumes.

    python benchmarks/ablation.py --photos ../shared/photos/free -o runs/ablation
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

TIEPOINT = [sys.executable, "-m", "tiepoint"]
SHAPES = "shapes=0.08"
FLAT = f"{SHAPES},leaves=0.46,glyphs=0.11,repeats=0.1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--photos", type=Path, required=True, help="for the last row and the figures"
    )
    parser.add_argument("--steps", type=int, default=1000, help="steps of each run")
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--count", type=int, default=200, help="number of pairs measured")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the runs")
    arguments = parser.parse_args()
    rows = {
        "shapes only": ["--mix", SHAPES],
        "+ leaves and textures": ["--mix", FLAT],
        "+ parallax": [],
        "+ photographs": ["--photos", str(arguments.photos)],
    }
    table = []
    for number, (name, extra) in enumerate(rows.items()):
        folder = arguments.out / str(number)
        recipe = ["--preset", arguments.preset, "--steps", str(arguments.steps), *extra]
        train(folder, recipe)
        cells = figures(folder / "checkpoint", arguments.photos, arguments.count)
        command = " ".join(["tiepoint train", *recipe])
        table.append(f"| {name} | {cells} | `{command}` |")
    print(f"\n{arguments.count} generated pairs, development part of {arguments.photos}")
    print("| data | within 1 / 3 / 5 px | repeatability | precision | command |")
    print("|---|---|---|---|---|")
    print("\n".join(table))


def train(folder: Path, recipe: list[str]) -> None:
    """Start the run, or resume it."""
    fresh = ["-o", str(folder), *recipe, "--compile"]
    how = ["--resume", str(folder)] if (folder / "state.pt").exists() else fresh
    subprocess.run([*TIEPOINT, "train", *how], check=True)


def figures(checkpoint: Path, photos: Path, count: int) -> str:
    """Cells of the table."""
    into = checkpoint.parent / "generated.json"
    how = ["--photos", str(photos), "--limit", str(count), "--methods", "tiepoint"]
    command = [*TIEPOINT, "evaluate", "generated", *how, "--checkpoint", str(checkpoint)]
    subprocess.run([*command, "-o", str(into)], check=True)
    row = json.loads(into.read_text(encoding="utf-8"))["rows"][0]
    within = " / ".join(f"{row['within'][px]['mean']:.3f}" for px in ("1", "3", "5"))
    return f"{within} | {row['repeatability']['mean']:.3f} | {row['precision']['mean']:.3f}"


if __name__ == "__main__":
    main()
