"""Accuracy of lower precision: keypoints that move, and homographies that are lost.

For each precision that this processor has, beside f32: the share of f32's keypoints that have one
within 0.5 px, the mean cosine of their descriptors, and on generated pairs the loss of homographies
within 3 px in points, with its 95 % interval (pairs resampled, both precisions on the same pairs).

    python benchmarks/precision.py --photos ../shared/photos --checkpoints large base small \
        --phases 1 2 --count 1000 --json accuracy.json

With --json, the shares within 3 px of every precision and number of cell phases, of SIFT and of
ORB are stored, and speed.py draws them against the time.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from speed import at, at_phases
from tiepoint import images
from tiepoint.config import DetectionOptions, Precision
from tiepoint.detector import Detector
from tiepoint.errors import ConfigError
from tiepoint.evaluation.generated import generated_pairs
from tiepoint.evaluation.homography import HOMOGRAPHY
from tiepoint.evaluation.methods import OVERSAMPLING, Method, method
from tiepoint.evaluation.metrics import mean_interval
from tiepoint.evaluation.run import evaluate
from tiepoint.evaluation.settings import PROFILES
from tiepoint.features import Features
from tiepoint.images.photographs import list_photos
from tiepoint.network.engines import PRECISIONS
from tiepoint.weights.checkpoint import load_checkpoint

MAX_SIDE, SAME_PX, WITHIN_PX = 640, 0.5, 3.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--checkpoints", nargs="+", default=["default"])
    parser.add_argument("--phases", type=int, nargs="+", help="default: the checkpoint's")
    parser.add_argument("--count", type=int, default=1000, help="pairs")
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS, help="f32 is one of them")
    parser.add_argument("--json", type=Path, help="also measure SIFT and ORB, write all shares")
    arguments = parser.parse_args()
    photos = list_photos(arguments.photos, "development")
    pixels = [images.read(path).pixels for path in photos]
    pairs = generated_pairs(photos, arguments.count)
    print(f"{len(pixels)} photographs, long side {MAX_SIDE} px; {len(pairs)} pairs")
    shares: dict[str, float] = {}
    for name in arguments.checkpoints:
        own = load_checkpoint(name).detection.phases
        for phases in arguments.phases or [own]:
            shares |= print_precisions(name, phases, arguments.precisions, pixels, pairs)
    if arguments.json:
        within = share_within(pairs, {"SIFT": method("sift"), "ORB": method("orb")})
        shares |= {name: float(each.mean()) for name, each in within.items()}
        arguments.json.write_text(json.dumps(shares, indent=1) + "\n")


def print_precisions(
    checkpoint: str,
    phases: int,
    precisions: Sequence[Precision],
    pixels: Sequence[NDArray[Any]],
    pairs: Sequence[Any],
) -> dict[str, float]:
    """Print a table; return the share within 3 px by the method's name in speed.py."""
    detectors = {}
    for precision in precisions:
        try:
            made = detector_of(checkpoint, precision, phases=phases, max_side=MAX_SIDE)
            made(pixels[0])
            detectors[precision] = made
        except ConfigError as error:
            print(f"{precision}: left out, {error}")
    exact = [detectors["f32"](one) for one in pixels]
    within = share_within(
        pairs, {str(each): matched_by(checkpoint, phases, each) for each in detectors}
    )
    name, detection = detectors["f32"].checkpoint.name, detectors["f32"].checkpoint.detection
    print(f"\n| {name}{at_phases(phases)} | keypoints kept | cosine | within 3 px "
          "| loss, points (95 %) |\n|---|---|---|---|---|")  # fmt: skip
    for precision, detector in detectors.items():
        kept, cosine = compared(exact, [detector(one) for one in pixels])
        lost = 100 * (within["f32"].astype(float) - within[precision])
        low, high = mean_interval(lost)
        print(f"| {precision} | {kept:.3f} | {cosine:.4f} | {within[precision].mean():.3f} "
              f"| {lost.mean():.1f} ({low:.1f} to {high:.1f}) |", flush=True)  # fmt: skip
    how = f"openvino{at(detection.scales)}{at_phases(phases)}"
    return {f"{name} {each}, {how}": float(within[each].mean()) for each in detectors}


def share_within(
    pairs: Sequence[Any], methods: Mapping[str, Method]
) -> dict[str, NDArray[np.bool_]]:
    """By name: whether each pair is within 3 px."""
    named = [replace(each, name=name) for name, each in methods.items()]
    evaluation = evaluate(HOMOGRAPHY, pairs, named, PROFILES["tiepoint"], workers=2)
    return {
        name: np.array([one.error_px for one in evaluation.figures_of(name)]) <= WITHIN_PX
        for name in methods
    }


def detector_of(
    checkpoint: str, precision: Precision, **options: Unpack[DetectionOptions]
) -> Detector:
    return Detector(checkpoint, engine="openvino", device="cpu", precision=precision, **options)


def compared(wide: list[Features], narrow: list[Features]) -> tuple[float, float]:
    """Means over images: share of keypoints kept, cosine of the kept ones' descriptors."""
    kept, cosines = [], []
    for one, other in zip(wide, narrow, strict=True):
        apart = np.hypot(*(one.xy[:, None] - other.xy[None]).transpose(2, 0, 1))  # N M
        same = apart.min(axis=1) < SAME_PX
        kept.append(same.mean())
        assert one.descriptors is not None
        assert other.descriptors is not None
        pairs = one.descriptors * other.descriptors[apart.argmin(axis=1)]
        cosines.append(pairs.sum(axis=1)[same].mean())
    return float(np.mean(kept)), float(np.mean(cosines))


def matched_by(checkpoint: str, phases: int, precision: Precision) -> Method:
    detector = detector_of(checkpoint, precision, phases=phases, max_side=None, threshold=0.0)

    def detect(grey: NDArray[np.uint8], k: int) -> Features:
        return detector(grey, max_keypoints=OVERSAMPLING * k)

    return Method(precision, detect)


if __name__ == "__main__":
    main()
