"""Align every scan or photograph of a folder with a reference image, and report how well.

    python examples/register_scans.py reference.tif scans -o aligned --model similarity

Aligned images have the pixel grid of the reference, and keep their bit depth, colour profile and
EXIF. `report.csv` has a row for each image. Images that cannot be read or do not align are
reported and left out. Exit status: 0 all aligned, 1 some did not, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path
from typing import Any

import tiepoint
from tiepoint.registration.aligned import save_aligned

ENDINGS = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".webp")
"""Formats that aligned images can be written in."""
COLUMNS = ("name", "success", "reason", "inliers", "overlap_sd_px", "coverage")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("reference", type=Path, help="image that the others are aligned with")
    parser.add_argument("folder", type=Path, help="folder of the images to align")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the results")
    models = ("affine", "similarity", "homography")
    parser.add_argument("--model", choices=models, default="homography")
    size_help = "longer side for detection, px; larger is more precise and slower (1024)"
    parser.add_argument("--max-side", type=int, default=1024, help=size_help)
    args = parser.parse_args()
    if args.out.resolve() == args.folder.resolve():
        parser.error(f"{args.out} is the folder of the originals: choose another one with -o")
    images = images_in(args.folder, without=args.reference)
    if not images:
        parser.error(f"{args.folder} has no image to align")
    try:
        # Registration limits the number of keypoints itself, so their score needs no threshold.
        detector = tiepoint.Detector(threshold=0.0, max_side=args.max_side)
        detector(args.reference)  # without a readable reference no image can be aligned
    except tiepoint.TiepointError as error:
        parser.error(str(error))

    args.out.mkdir(parents=True, exist_ok=True)
    failed = 0
    with (args.out / "report.csv").open("w", newline="", encoding="utf-8") as file:
        report = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        report.writeheader()
        for path in images:
            row = align(path, args.reference, args.out / path.name, detector, args.model)
            report.writerow(row)
            file.flush()  # an interrupted run has its rows
            failed += not row["success"]
            print(f"{path.name}: {sentence(row)}", flush=True)
    print(f"{len(images) - failed} of {len(images)} images aligned, see {file.name}")
    return 1 if failed else 0


def images_in(folder: Path, *, without: Path) -> list[Path]:
    """The images of a folder, sorted by name; hidden files and the reference are left out."""
    return [
        path
        for path in sorted(folder.glob("[!.]*"))
        if path.suffix.lower() in ENDINGS and path.resolve() != without.resolve()
    ]


def align(
    path: Path, reference: Path, target: Path, detector: tiepoint.Detector, model: Any
) -> dict[str, Any]:
    """Register one image and write it aligned; returns its row of the report."""
    try:
        registration = tiepoint.register(path, reference, detector=detector, model=model)
        if registration.success:
            save_aligned(target, path, reference, registration)
    except tiepoint.TiepointError as error:  # such as a corrupt file
        return {"name": path.name, "success": False, "reason": str(error)}
    return {"name": path.name, **registration.summary()}


def sentence(row: dict[str, Any]) -> str:
    if not row["success"]:
        return f"not aligned: {row['reason']}"
    return f"{row['inliers']} inliers, standard deviation {row['overlap_sd_px']:.2f} px"


if __name__ == "__main__":
    sys.exit(main())
