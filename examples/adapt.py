"""Adapt the network to your own photographs, and compare it before and after on held-out ones.

    python examples/adapt.py infrared -o runs/infrared --minutes 60
    tiepoint detect infrared -c runs/infrared/checkpoint -o features.h5

The photographs need no labels. A fifth of them, chosen by name, is held out for the comparison, so
give at least ten. The checkpoint is in `checkpoint` inside the output folder. It needs the extra
`torch`. Photographs that cannot be read are reported and left out. Exit status: 0 done, otherwise
that of the `tiepoint` command that failed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import tiepoint
from tiepoint.images.photographs import list_photos

SOME_LEFT_OUT = 1
"""Exit status of `tiepoint evaluate` if some photographs cannot be read."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder of photographs")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("-c", "--checkpoint", default="base", help="network to begin with (base)")
    parser.add_argument("--minutes", type=float, default=20, help="time of training (20)")
    parser.add_argument("--pairs", type=int, default=200, help="pairs of the comparison (200)")
    args = parser.parse_args()
    if args.out.exists():
        parser.error(f"{args.out} exists: choose another folder with -o")
    try:
        list_photos(args.folder, "training")  # neither part is empty
        list_photos(args.folder, "development")
    except tiepoint.TiepointError as error:
        parser.error(str(error))

    checkpoint = args.out / "checkpoint"
    before = evaluate(args.checkpoint, args.folder, args.pairs, args.out / "before.json")
    training = ["-c", args.checkpoint, "--minutes", args.minutes, "-o", args.out]
    command("adapt", args.folder, *training)
    after = evaluate(checkpoint, args.folder, args.pairs, args.out / "after.json")

    print(f"\n{before['pairs']} pairs of held-out photographs, mean and 95 % interval")
    print(f"{'':28}{'before':>18}{'after':>18}")
    for name, key in (
        ("homography within 3 px", "within"),
        ("repeatability", "repeatability"),
        ("precision of the matches", "precision"),
    ):
        print(f"{name:28}{interval(before[key]):>18}{interval(after[key]):>18}")
    print(f"adapted checkpoint: {checkpoint}")
    return 0


def evaluate(checkpoint: str | Path, photos: Path, pairs: int, report: Path) -> dict[str, Any]:
    """The figures of one checkpoint over all pairs, from the report of `tiepoint evaluate`."""
    only = ["--methods", "tiepoint", "-c", checkpoint]
    where = ["--photos", photos, "--limit", pairs, "-o", report]
    command("evaluate", "generated", *where, *only, stdout=subprocess.DEVNULL, fine=SOME_LEFT_OUT)
    rows: list[dict[str, Any]] = json.loads(report.read_text(encoding="utf-8"))["rows"]
    return rows[0]  # all levels of difficulty


def command(*arguments: object, stdout: int | None = None, fine: int = 0) -> None:
    """Run a `tiepoint` command; a failure ends the program with its exit status."""
    words = [str(argument) for argument in arguments]
    print("tiepoint", *words, flush=True)
    status = subprocess.call([sys.executable, "-m", "tiepoint", *words], stdout=stdout)
    if status not in (0, fine):
        sys.exit(status)


def interval(figure: dict[str, Any]) -> str:
    """A mean with its interval; of the shares by limit in px, that of 3 px."""
    mean = figure.get("3", figure)
    return f"{mean['mean']:.2f} ({mean['low']:.2f}-{mean['high']:.2f})"


if __name__ == "__main__":
    sys.exit(main())
