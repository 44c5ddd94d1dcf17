"""Reconstruct cameras and 3-D points from a folder of photographs, by tiepoint and COLMAP.

    python examples/reconstruct.py photos -o model
    python examples/reconstruct.py video-frames -o model --pairs sequential

It needs the extra `colmap`. The output folder has the database, COLMAP's models and `points.ply`,
the coloured points of the largest model. The database of an interrupted run is continued.
Photographs that cannot be read are reported and left out.
Exit status: 0 all registered, 1 some are missing or an error occurred, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import tiepoint
from tiepoint.batch import ImageRecord
from tiepoint.batch.colmap import export_colmap
from tiepoint.batch.reconstruction import load_pycolmap, reconstruct
from tiepoint.config import PairConfig


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path, help="folder of photographs of one scene")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--max-keypoints", type=int, default=4096, help="per photograph (4096)")
    pairs_help = "pairs to match, as in tiepoint colmap: all, sequential, similar, gps or a file"
    parser.add_argument("--pairs", default="all", help=pairs_help)
    args = parser.parse_args()
    if not args.images.is_dir():
        parser.error(f"{args.images}: no such folder")
    models = args.out / "sparse"
    if models.exists() and any(models.iterdir()):
        parser.error(f"{models} has models: remove them, or choose another folder with -o")
    try:
        return run(args.images, args.out, models, args.max_keypoints, PairConfig(args.pairs))
    except tiepoint.TiepointError as error:  # a wrong setting, no pycolmap, a full disk
        print(error, file=sys.stderr)
        return 1


def run(images: Path, out: Path, models: Path, max_keypoints: int, pairs: PairConfig) -> int:
    """Match, map, write the points and print the figures; returns the exit status."""
    pycolmap = load_pycolmap()  # its absence is an error now, not after an hour of matching
    out.mkdir(parents=True, exist_ok=True)
    records = export_colmap(images, out / "database.db", pairs=pairs, max_keypoints=max_keypoints)
    for record in records:
        if record.error is not None:
            print(f"left out: {record.error}", file=sys.stderr)
    count = sum(isinstance(record, ImageRecord) for record in records)

    summaries = reconstruct(out / "database.db", images, models)
    if not summaries:
        print("no model: no two photographs have enough in common")
        return 1
    largest = summaries[0]
    points = out / "points.ply"
    pycolmap.Reconstruction(largest.folder).export_PLY(points)
    print(f"{largest.images} of {count} photographs registered, {largest.points} points")
    print(f"mean reprojection error {largest.reprojection_px:.2f} px")
    print(f"mean track length {largest.track_length:.1f} photographs")
    print(f"model {largest.folder}, points {points}")
    return 0 if largest.images == count else 1


if __name__ == "__main__":
    sys.exit(main())
