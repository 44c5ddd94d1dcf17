"""Reconstructions of surveyed scenes from tiepoint's keypoints and from SIFT's, by COLMAP.

    python benchmarks/reconstruction.py ../shared/eval/strecha [-c base] [--work FOLDER]

All methods have the surveyed intrinsics, the same number of keypoints at most, all pairs of images
and pycolmap's incremental mapping with fixed intrinsics. The ways:
- tiepoint: `tiepoint colmap`, ratio test .9, mutual, verified by tiepoint; and the same without
  the ratio test;
- SIFT (OpenCV, RootSIFT) through the same writer: ratio test .8, mutual, verified by tiepoint;
- SIFT of COLMAP (pycolmap, CPU), matched and verified by COLMAP.
Centres are compared after the best similarity, rotations after the best common rotation.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from survey import Pose, Survey, pose_errors, read_survey
from tiepoint.batch.colmap import CameraConfig, DatabaseFeatures, export_colmap, match_images
from tiepoint.batch.pair_choice import choose_pairs
from tiepoint.batch.reconstruction import ModelSummary, load_pycolmap, reconstruct
from tiepoint.config import MatchingConfig, PairConfig
from tiepoint.detector import Detector
from tiepoint.evaluation.methods import BASELINES
from tiepoint.formats.colmap import ColmapDatabase

SETS = ("fountain-P11", "entry-P10")
KEYPOINTS = 4096
LOWE = 0.8

Writer = Callable[[Survey, Path], None]


def camera_config(survey: Survey) -> CameraConfig:
    """The surveyed intrinsics, with pixel centres at +0.5."""
    fx, fy, cx, cy = survey.intrinsics
    return CameraConfig("PINHOLE", params=(fx, fy, cx + 0.5, cy + 0.5))


def write_tiepoint(
    detector: Detector, survey: Survey, path: Path, matching: MatchingConfig | None = None
) -> None:
    """The database of a checkpoint."""
    export_colmap(
        survey.folder, path, detector=detector, cameras=camera_config(survey), matching=matching
    )


def write_sift(count: int, survey: Survey, path: Path) -> None:
    """The database of OpenCV's SIFT, by tiepoint's writer and verification."""
    detect = BASELINES["sift"].detect_exactly_k
    assert detect is not None
    database = ColmapDatabase(path)
    try:
        for image in sorted(survey.folder.iterdir()):
            grey: Any = cv2.imread(str(image), cv2.IMREAD_GRAYSCALE)
            features = detect(grey, count)
            camera = camera_config(survey).camera(image, features.size_hw)
            database.add(image.name, features, camera)
        pairs = choose_pairs(DatabaseFeatures(database), PairConfig())
        for _ in match_images(database, pairs, MatchingConfig(ratio=LOWE)):
            pass
        database.close()
    finally:
        database.suspend()


def write_colmap_sift(count: int, survey: Survey, path: Path) -> None:
    """The database of COLMAP's own SIFT, matching and verification."""
    pycolmap = load_pycolmap()
    pycolmap.logging.minloglevel = 2
    params = ",".join(map(str, camera_config(survey).params))
    reader = pycolmap.ImageReaderOptions(camera_model="PINHOLE", camera_params=params)
    extraction = pycolmap.FeatureExtractionOptions()
    extraction.sift.max_num_features = count
    cpu = pycolmap.Device.cpu
    pycolmap.extract_features(
        path, survey.folder, camera_mode=pycolmap.CameraMode.SINGLE, reader_options=reader,
        extraction_options=extraction, device=cpu,
    )  # fmt: skip
    pycolmap.match_exhaustive(path, device=cpu)


def poses_of(folder: Path) -> dict[str, Pose]:
    """Name -> pose of the registered images of a model."""
    model = load_pycolmap().Reconstruction(folder)
    poses: dict[str, Pose] = {}
    for image in model.images.values():
        if image.has_pose:
            matrix = np.asarray(image.cam_from_world().matrix())  # 3 4
            poses[image.name] = matrix[:, :3], matrix[:, 3]
    return poses


def models_of(write: Writer, survey: Survey, path: Path) -> list[ModelSummary]:
    """The models of a database, which is written unless it exists; they are next to it."""
    if not path.exists():
        write(survey, path)
    folder = tempfile.mkdtemp(prefix=f"{path.stem}-", dir=path.parent)
    return reconstruct(path, survey.folder, folder, refine_intrinsics=False)


def row(name: str, survey: Survey, models: list[ModelSummary]) -> str:
    """A line of the table."""
    images = len(survey.poses)
    if not models:
        return f"| {name} | 0 of {images} | | | | | |"
    best = models[0]
    errors = pose_errors(poses_of(best.folder), survey.poses)
    centres, rotations = errors.centres_mm, errors.rotations_deg
    return (
        f"| {name} | {best.images} of {images} | {best.points} | {best.observations} | "
        f"{best.reprojection_px:.3f} | {best.track_length:.2f} | "
        f"{np.sqrt((centres**2).mean()):.1f} / {centres.max():.1f} | "
        f"{np.sqrt((rotations**2).mean()):.3f} / {rotations.max():.3f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("strecha", type=Path)
    parser.add_argument("-c", "--checkpoint", action="append", default=[])
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--keypoints", type=int, default=KEYPOINTS)
    parser.add_argument("--work", type=Path, help="folder that keeps databases and models")
    options = parser.parse_args()
    count = options.keypoints
    writers: dict[str, Writer] = {}
    for checkpoint in options.checkpoint or ["base"]:
        detector = Detector(checkpoint, max_keypoints=count)
        writers[checkpoint] = partial(write_tiepoint, detector)
        without = partial(write_tiepoint, detector, matching=MatchingConfig())
        writers[f"{checkpoint}, no ratio test"] = without
    writers["sift-opencv"] = partial(write_sift, count)
    writers["sift-colmap"] = partial(write_colmap_sift, count)
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        for name in options.sets:
            survey = read_survey(options.strecha, name)
            print(f"\n{name}, at most {count} keypoints an image\n")
            print(
                "| method | images | points | observations | reprojection error, px | track length "
                "| centres, rms / max, mm | rotations, rms / max, degrees |\n"
                "|---|---|---|---|---|---|---|---|"
            )
            for method, write in writers.items():
                models = models_of(write, survey, work / f"{name}-{method}.db")
                print(row(method, survey, models), flush=True)


if __name__ == "__main__":
    main()
