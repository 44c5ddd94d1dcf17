"""A checkpoint or a matcher -> an exported file, compared with tiepoint before it is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from tiepoint.checks import check_choice, check_known, check_within
from tiepoint.config import DetectionConfig, resolve
from tiepoint.detector import Detector
from tiepoint.errors import ConfigError, EngineError, MissingExtraError, is_installed
from tiepoint.export.check import Agreement, compare, runtimes_of
from tiepoint.export.matcher_check import MatchAgreement, compare_matches
from tiepoint.export.matcher_model import build_matcher_model
from tiepoint.export.model import Profile, build_model
from tiepoint.files.writing import write_bytes
from tiepoint.matching.learned.choice import given_matcher
from tiepoint.matching.learned.folder import MatcherCheckpoint
from tiepoint.matching.learned.matcher import LearnedMatcher
from tiepoint.weights.checkpoint import Checkpoint, bundled_with, load_checkpoint

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
    path = _checked(path, profile)
    loaded, detection = _resolved(checkpoint, settings)
    data = build_model(loaded, detection, profile).SerializeToString()
    agreements = []
    if images is not None:
        runtimes = runtimes_of(data, profile, threads)
        samples = _checked_images(images)
        agreements = compare(runtimes, loaded, detection, profile, samples, threads=threads)
        _check(path, agreements, "keypoints")
    write_bytes(path, data)
    return agreements


def export_torch(
    path: str | PathLike[str],
    checkpoint: str | Path | Checkpoint = "default",
    *,
    images: Iterable[NDArray[np.uint8]] | None = None,
    threads: int | None = None,
    **settings: Any,
) -> list[Agreement]:
    """Write a checkpoint as a `torch.export` archive with the whole way from image to keypoints.

    `torch.export.load(path).module()` is a module without tiepoint, with the input and outputs of
    the ONNX profile "generic"; the outputs are a dict. Sides of images are at least 9 px.

    Args:
        path: The file, ending in .pt2; an existing one is replaced.
        checkpoint, images, threads, settings: As for `export_onnx`.

    Returns:
        The comparison of the archive, loaded again, with `Detector`.

    Raises:
        CheckpointError: No such checkpoint, or a damaged one.
        ConfigError: A setting that is unknown, out of range, or not possible in a file.
        EngineError: The keypoints differ from those of `Detector`, or the images have none;
            nothing is written.
        MissingExtraError: The extra `torch` is not installed.
        OutputError: The file cannot be written.
    """
    path = _with_ending(path, ".pt2")
    if not is_installed("torch"):
        raise MissingExtraError("export to a torch.export archive", "torch")
    from tiepoint.export.torch_archive import MIN_SIDE_PX, build_archive, torch_archive

    loaded, detection = _resolved(checkpoint, settings)
    data = build_archive(loaded, detection)
    agreements = []
    if images is not None:
        runtimes = [("torch", torch_archive(data, threads))]
        samples = _checked_images(images, MIN_SIDE_PX)
        agreements = compare(runtimes, loaded, detection, "generic", samples, threads=threads)
        _check(path, agreements, "keypoints")
    write_bytes(path, data)
    return agreements


def export_matcher_onnx(
    path: str | PathLike[str],
    matcher: str | PathLike[str] | LearnedMatcher,
    *,
    profile: Profile = "generic",
    layers: int | None = None,
    threshold: float | None = None,
    images: Iterable[NDArray[np.uint8]] | None = None,
    checkpoint: str | Path | Checkpoint | None = None,
    threads: int | None = None,
) -> list[MatchAgreement]:
    """Write a learned matcher as an ONNX file, from keypoints of two images to their matches.

    Args:
        path: The file, ending in .onnx; an existing one is replaced.
        matcher: As for `tiepoint.match`.
        profile: Inputs and outputs: "generic" and "colmap" are the LightGlue matcher of COLMAP 4,
            "opencv" is `cv2.LightGlueMatcher` of OpenCV 5.
        layers: Number of layers in the file; None takes all.
        threshold: Least probability of a match; None takes the matcher's.
        images: `H W` or `H W 3` RGB uint8; the file must find the matches of the matcher between
            each image and a turned copy of it. None compares nothing.
        checkpoint: Detector for the comparison; None takes the bundled one that the matcher was
            trained on.
        threads: Maximum number of cores of the comparison; None takes all.

    Returns:
        The comparison with `LearnedMatcher` in each installed runtime.

    Raises:
        CheckpointError: No such matcher or checkpoint, or a damaged one.
        ConfigError: A setting out of range, or a checkpoint of other weights.
        EngineError: The matches differ from those of the matcher, or there are none; nothing is
            written.
        MissingExtraError: The extra `onnx` is not installed.
        OutputError: The file cannot be written.
    """
    path = _checked(path, profile)
    loaded = given_matcher(matcher, layers=layers, threads=threads)
    limit = loaded.checkpoint.threshold if threshold is None else threshold
    check_within("threshold", limit, 0, 1, "a probability")
    model = build_matcher_model(loaded.checkpoint, loaded.layers, limit, profile)
    data = model.SerializeToString()
    agreements = []
    if images is not None:
        detector = Detector(
            _detector_of(loaded.checkpoint, checkpoint), device="cpu", precision="f32",
            threads=threads,
        )  # fmt: skip
        agreements = compare_matches(
            data, loaded, detector, profile, _checked_images(images), threshold=limit,
            threads=threads,
        )  # fmt: skip
        _check(path, agreements, "matches")
    write_bytes(path, data)
    return agreements


def _checked(path: str | PathLike[str], profile: Profile) -> Path:
    """The path of an ONNX file to write, when everything is there to write it."""
    path = _with_ending(path, ".onnx")
    check_choice("profile", profile, get_args(Profile))
    for library in ("onnx", "onnxruntime"):
        if not is_installed(library):
            raise MissingExtraError("export to ONNX", "onnx")
    return path


def _with_ending(path: str | PathLike[str], ending: str) -> Path:
    path = Path(path)
    if path.suffix.lower() != ending:
        raise ConfigError(f"{path}: expected a file ending in {ending}")
    return path


def _resolved(
    checkpoint: str | Path | Checkpoint, settings: Mapping[str, Any]
) -> tuple[Checkpoint, DetectionConfig]:
    """The checkpoint, and its settings with single ones replaced."""
    check_known(settings, SETTINGS)
    loaded = checkpoint if isinstance(checkpoint, Checkpoint) else load_checkpoint(checkpoint)
    return loaded, resolve(loaded.detection, settings)


def _checked_images(
    images: Iterable[NDArray[np.uint8]], least_px: int = 1
) -> Iterator[NDArray[np.uint8]]:
    """Images that a file can be compared on; ConfigError for others."""
    for image in images:
        shape, dtype = np.shape(image), getattr(image, "dtype", type(image).__name__)
        if dtype != np.uint8 or shape[2:] not in ((), (3,)) or min(shape[:2]) < least_px:
            raise ConfigError(
                f"a sample image of type {dtype} and shape {shape}, expected uint8 of H W or H W 3 "
                f"with sides of at least {least_px} px: read it with tiepoint.images.reading, and "
                "convert it to 8 bits"
            )
        yield image


def _detector_of(matcher: MatcherCheckpoint, given: str | Path | Checkpoint | None) -> Checkpoint:
    """The checkpoint that a matcher was trained on."""
    if given is not None:
        loaded = given if isinstance(given, Checkpoint) else load_checkpoint(given)
        if matcher.detector_sha256 not in (None, loaded.sha256):
            raise ConfigError(
                f"checkpoint {loaded.name!r} has weights_sha256 {loaded.sha256}, expected "
                f"{matcher.detector_sha256} by matcher {matcher.name!r}: give the checkpoint that "
                "the matcher was trained on"
            )
        return loaded
    bundled = bundled_with(matcher.detector_sha256)
    if bundled is not None:
        return bundled
    raise ConfigError(
        f"matcher {matcher.name!r} was trained on weights_sha256 {matcher.detector_sha256}, which "
        "no bundled checkpoint has: give the checkpoint that it was trained on (--checkpoint)"
    )


def _check(path: Path, agreements: Sequence[Agreement | MatchAgreement], plural: str) -> None:
    """Raise EngineError unless all runtimes agree, on more than nothing."""
    if not any(one.total for one in agreements):
        raise EngineError(
            f"{path}: not written, because the sample images have no {plural} to compare; give "
            "images with structure, or a lower threshold"
        )
    wrong = [str(one) for one in agreements if not one.is_good]
    if wrong:
        raise EngineError(
            f"{path}: not written, because its {plural} differ; {'; '.join(wrong)}. Update the "
            "runtime, or report this with the name of what was exported"
        )
