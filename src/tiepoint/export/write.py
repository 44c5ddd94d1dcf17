"""A checkpoint -> an ONNX file, compared with `Detector` before it is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from tiepoint.checks import check_choice, check_known
from tiepoint.config import DetectionConfig, resolve
from tiepoint.errors import ConfigError, EngineError, MissingExtraError, is_installed
from tiepoint.export.check import Agreement, compare
from tiepoint.export.model import Profile, build_model
from tiepoint.files.writing import write_bytes
from tiepoint.weights.checkpoint import Checkpoint, load_checkpoint

SETTINGS = ("max_keypoints", "threshold", "nms_radius", "border", "subpixel", "scales", "phases")
"""Settings of `DetectionConfig` that a file may be given."""


def export_onnx(
    path: str | PathLike[str],
    checkpoint: str | Path | Checkpoint = "default",
    *,
    profile: Profile = "generic",
    images: Iterable[NDArray[np.uint8]] | None = None,
    threads: int | None = None,
    **settings: Any,
) -> list[Agreement]:
    """Write a checkpoint as an ONNX file with the whole way from image to keypoints.

    The file takes images at the size given to it: `max_side` is not part of it.

    Args:
        path: The file, ending in .onnx; an existing one is replaced.
        checkpoint: As for `Detector`.
        profile: Inputs and outputs: "generic"; "colmap" and "opencv" for the ALIKED extractors of
            COLMAP 4 and OpenCV 5.
        images: `H W` or `H W 3` RGB uint8; the file must find the keypoints of `Detector` in them.
            None compares nothing.
        threads: Maximum number of cores of the comparison; None takes all.
        settings: `max_keypoints`, `threshold`, `nms_radius`, `border`, `subpixel`, `scales` and
            `phases`; one left out is the checkpoint's own. `max_keypoints=None` means 1000.

    Returns:
        The comparison with `Detector` in each installed runtime.

    Raises:
        CheckpointError: No such checkpoint, or a damaged one.
        ConfigError: A setting that is unknown, out of range, or not possible in a file.
        EngineError: The keypoints differ from those of `Detector`, or the images have none;
            nothing is written.
        MissingExtraError: The extra `onnx` is not installed.
        OutputError: The file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".onnx":
        raise ConfigError(f"{path}: expected a file ending in .onnx")
    check_choice("profile", profile, get_args(Profile))
    check_known(settings, SETTINGS)
    for library in ("onnx", "onnxruntime"):
        if not is_installed(library):
            raise MissingExtraError("export to ONNX", "onnx")
    loaded = checkpoint if isinstance(checkpoint, Checkpoint) else load_checkpoint(checkpoint)
    detection: DetectionConfig = resolve(loaded.detection, settings)
    data = build_model(loaded, detection, profile).SerializeToString()
    agreements = []
    if images is not None:
        agreements = compare(data, loaded, detection, profile, images, threads=threads)
        _check(path, agreements)
    write_bytes(path, data)
    return agreements


def _check(path: Path, agreements: Sequence[Agreement]) -> None:
    if not any(one.keypoints for one in agreements):
        raise EngineError(
            f"{path}: not written, because the sample images have no keypoint to compare; give "
            "images with structure, or a lower threshold"
        )
    wrong = [str(one) for one in agreements if not one.is_good]
    if wrong:
        raise EngineError(
            f"{path}: not written, because its keypoints differ; {'; '.join(wrong)}. Update the "
            "runtime, or report this with the name of the checkpoint"
        )
