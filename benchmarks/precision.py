"""What less precision costs: keypoints that move, and homographies that are lost.

For each precision that this processor has, beside f32: the share of f32's keypoints that have one
within 0.5 px, the mean cosine of their descriptors, and on generated pairs the loss of homographies
within 3 px in points, with its 95 % interval (pairs resampled, both precisions on the same pairs).

    python benchmarks/precision.py --photos ../shared/photos --count 1000

With --json, the shares within 3 px of every precision, SIFT and ORB in one file, as speed.py
draws them against the time.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from speed import at
from tiepoint import images
from tiepoint.config import Precision
from tiepoint.detector import Detector
from tiepoint.errors import ConfigError
from tiepoint.evaluation.generated import generated_pairs
from tiepoint.evaluation.homography import HOMOGRAPHY
from tiepoint.evaluation.methods import Method, method
from tiepoint.evaluation.metrics import mean_interval
from tiepoint.evaluation.run import evaluate
from tiepoint.evaluation.settings import PROFILES
from tiepoint.features import Features
from tiepoint.images.photographs import list_photos
from tiepoint.network.engines import PRECISIONS

MAX_SIDE, SAME_PX, WITHIN_PX = 640, 0.5, 3.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--checkpoint", default="default")
    parser.add_argument("--count", type=int, default=1000, help="pairs")
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS, help="f32 is one of them")
    parser.add_argument("--json", type=Path, help="also measure SIFT and ORB, write all shares")
    arguments = parser.parse_args()
    photos = list_photos(arguments.photos, "development")
    images = [images.read(path).pixels for path in photos]
    detectors = {}
    for precision in arguments.precisions:
        try:
            made = Detector(
                arguments.checkpoint,
                engine="openvino",
                device="cpu",
                precision=precision,
                max_side=MAX_SIDE,
            )
            made(images[0])
            detectors[precision] = made
        except ConfigError as error:
            print(f"{precision}: left out, {error}")
    wide = [detectors["f32"](one) for one in images]
    methods = [matched_by(arguments.checkpoint, precision) for precision in detectors]
    if arguments.json:
        methods += [method("sift"), method("orb")]
    pairs = generated_pairs(photos, arguments.count)
    evaluation = evaluate(HOMOGRAPHY, pairs, methods, PROFILES["tiepoint"], workers=2)
    within = {
        m.name: np.array([one.error_px for one in evaluation.figures_of(m.name)]) <= WITHIN_PX
        for m in methods
    }
    print(f"{len(images)} photographs, long side {MAX_SIDE} px; {len(within['f32'])} pairs\n")
    print("| precision | keypoints kept | cosine | within 3 px | loss, points (95 %) |")
    print("|---|---|---|---|---|")
    for precision, detector in detectors.items():
        kept, cosine = compared(wide, [detector(one) for one in images])
        lost = 100 * (within["f32"].astype(float) - within[precision])
        low, high = mean_interval(lost)
        print(f"| {precision} | {kept:.3f} | {cosine:.4f} | {within[precision].mean():.3f} "
              f"| {lost.mean():.1f} ({low:.1f} to {high:.1f}) |")  # fmt: skip
    if arguments.json:
        name = detectors["f32"].checkpoint.name
        seen = at(detectors["f32"].checkpoint.detection.scales)
        labels = {p: f"{name} {p}, openvino{seen}" for p in detectors}
        labels |= {"sift": "SIFT", "orb": "ORB"}
        shares = {labels[m.name]: float(within[m.name].mean()) for m in methods}
        arguments.json.write_text(json.dumps(shares, indent=1) + "\n")


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


def matched_by(checkpoint: str, precision: Precision) -> Method:
    detector = Detector(
        checkpoint,
        engine="openvino",
        device="cpu",
        precision=precision,
        max_side=None,
        threshold=0.0,
    )

    def detect(grey: NDArray[np.uint8], k: int) -> Features:
        return detector(grey, max_keypoints=4 * k)

    return Method(precision, detect)


if __name__ == "__main__":
    main()
