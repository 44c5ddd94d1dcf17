"""Registration: false registrations, true pairs that are refused, and the gain by refinement.

Unrelated photographs must not be registered with any model. Pairs with known homographies should
be, unless too few keypoints match. Errors of poses, if given, are in degrees.

The true error is compared with the stated standard deviation, over the common view and for the mean
of the corners.

python benchmarks/registration.py --photos ../shared/photos --real ../shared/eval/oxford \
    ../shared/eval/iguazu ../shared/eval/homogr --poses ../shared/eval/strecha ../shared/eval/tum
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiepoint.config import DetectionOptions, RegistrationConfig
from tiepoint.detector import Detector
from tiepoint.evaluation import metrics
from tiepoint.evaluation.generated import LEVELS, generated_pairs
from tiepoint.evaluation.homography import HOMOGRAPHY
from tiepoint.evaluation.homography_pairs import HomographyPair
from tiepoint.evaluation.methods import Method, method
from tiepoint.evaluation.pair_lists import read_folders
from tiepoint.evaluation.sizes import Grey
from tiepoint.features import Features
from tiepoint.geometry import Float, apply_homography, inside
from tiepoint.images.photographs import list_photos
from tiepoint.images.reading import read
from tiepoint.network.inputs import resize, to_grey
from tiepoint.registration import planar
from tiepoint.registration.models import PLANE_MODELS, TWO_VIEW_MODELS, inlier_px
from tiepoint.registration.register import register, registration_detector
from tiepoint.registration.result import Registration
from tiepoint.registration.verification import common_view

LONG_SIDE = 640
UNRELATED_SEED = 1
WITHIN_PX = (1.0, 3.0, 5.0)
WRONG_PX = 10.0  # a registration with a larger error over the common view is wrong
GOOD_PX = 5.0  # a refused estimate with a smaller error is given up
LAX = RegistrationConfig(
    min_inliers=4, max_false_alarms=math.inf, max_overlap_sd_px=math.inf, guided=False
)
VIEW = 1.2  # assumed focal length, in longer sides of the image


@dataclass(frozen=True)
class Outcome:
    """One pair with a known homography; errors in px of B."""

    group: str
    name: str
    registered: bool
    reason: str
    corners_consensus: float
    corners_refined: float
    corners_registered: float
    overlap: float
    overlap_sd: float
    corner_sd: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--real", type=Path, nargs="*", default=[])
    parser.add_argument("--poses", type=Path, nargs="*", default=[])
    parser.add_argument("--unrelated", type=int, default=500)
    parser.add_argument("--generated", type=int, default=300)
    parser.add_argument("--checkpoint", default="default")
    parser.add_argument("--method", default="tiepoint", help="tiepoint, sift or orb")
    parser.add_argument("--scales", help="scales of tiepoint's pyramid, such as 1,0.7,0.5")
    options = parser.parse_args()
    detector = None
    if options.method == "tiepoint":
        settings: DetectionOptions = {"max_side": None}
        if options.scales:
            settings["scales"] = [float(scale) for scale in options.scales.split(",")]
        detector = registration_detector(options.checkpoint, precision="f32", **settings)
        detect = Method(str(detector), partial(detected, detector))
    else:
        detect = method(options.method)
    photos = list_photos(options.photos)
    print(f"{detect.name}, {RegistrationConfig()}\n")
    unrelated(photos, options.unrelated, detect)
    pairs: list[HomographyPair] = [*generated_pairs(photos, options.generated)]
    pairs += read_folders(HOMOGRAPHY, options.real)[0]
    outcomes = [known(pair, detect, detector) for pair in pairs]
    report(outcomes)
    for folder in options.poses:
        poses(folder, detect)


def detected(detector: Detector, grey: Grey, count: int) -> Features:
    features: Features = detector(grey, max_keypoints=count)
    return features


def found(detect: Method, pixels: Grey) -> Features:
    best = RegistrationConfig().max_keypoints
    return detect.detect(pixels, best).top(best)


def unrelated(photos: Sequence[Path], count: int, detect: Method) -> None:
    """Every model on pairs of photographs that have nothing in common."""
    ways = [(i, j) for i in range(len(photos)) for j in range(i + 1, len(photos))]
    order = np.random.default_rng(UNRELATED_SEED).permutation(len(ways))[:count]
    features = [found(detect, grey(photo)) for photo in photos]
    print(f"{len(order)} pairs of unrelated photographs")
    print(f"{'model':12s} false registrations  most inliers")
    for model in (*PLANE_MODELS, *TWO_VIEW_MODELS):
        registered, most = [], 0
        for index in order:
            i, j = ways[index]
            result = register(
                features[i],
                features[j],
                model=model,
                intrinsics=[camera(features[k]) for k in (i, j)] if model == "essential" else None,
            )
            most = max(most, int(result.inliers.sum()))
            if result.success:
                registered.append(f"{photos[i].name} {photos[j].name}")
        print(f"{model:12s} {len(registered):19d} {most:13d}  {'; '.join(registered)}")


def known(pair: HomographyPair, detect: Method, detector: Detector | None) -> Outcome:
    loaded = pair.load(LONG_SIDE)
    truth = loaded.homography
    a, b = found(detect, loaded.image_a), found(detect, loaded.image_b)
    if detector is None:
        verdict = register(a, b)
    else:  # the verdict compares the pictures too
        verdict = register(loaded.image_a, loaded.image_b, detector=detector)
    lax = register(a, b, config=LAX)
    start = planar.consensus("homography", lax.xy_a, lax.xy_b, inlier_px(LAX) / 2)
    answer = verdict if verdict.success else lax
    return Outcome(
        pair.group,
        pair.name,
        verdict.success,
        verdict.reason,
        metrics.corner_error(start, truth, a.size_hw),
        metrics.corner_error(lax.matrix, truth, a.size_hw),
        metrics.corner_error(verdict.matrix, truth, a.size_hw),
        overlap_error(answer, truth),
        answer.overlap_sd_px,
        answer.corner_sd_px,
    )


def overlap_error(result: Registration, truth: NDArray[np.float64]) -> float:
    """rms over the true common view, px."""
    if result.matrix is None:
        return math.inf
    none: Float = np.empty((0, 2))
    a_hw, b_hw = result.features_a.size_hw, result.features_b.size_hw
    places = common_view(truth, none, none, a_hw, b_hw).places_xy
    true_xy = apply_homography(truth, places)
    assert inside(true_xy, b_hw).any()
    offsets = result.transform(places) - true_xy
    error = float(np.sqrt((offsets**2).sum(axis=1).mean()))
    return error if math.isfinite(error) else math.inf


def report(outcomes: Sequence[Outcome]) -> None:
    print(f"\npairs with a known homography, at most {LONG_SIDE} px")
    print(
        f"{'':12s} pairs  registered  wrong  given up |  share of pairs with a corner error within "
        f"{' / '.join(f'{px:g}' for px in WITHIN_PX)} px | error in the common view"
    )
    print(
        f"{'':47s}|  {'consensus alone':>18s} {'refined':>18s} {'registered':>18s}"
        f"        | {'median px':>9s} {'of its sd':>9s} {'within 2 sd: overlap, corners':>30s}"
    )
    levels = [level.name for level in LEVELS]
    groups = [*levels, *sorted({o.group for o in outcomes} - set(levels))]
    rows = [(name, [o for o in outcomes if o.group == name]) for name in groups]
    rows.append(("generated", [o for o in outcomes if o.group in levels]))
    rows.append(("real", [o for o in outcomes if o.group not in levels]))
    for name, chosen in rows:
        if not chosen:
            continue
        done = [o for o in chosen if o.registered]
        wrong = sum(o.overlap > WRONG_PX for o in done)
        given_up = sum(o.overlap <= GOOD_PX for o in chosen if not o.registered)
        columns = " ".join(
            f"{' / '.join(f'{share:.2f}' for share in shares(errors)):>18s}"
            for errors in (
                [o.corners_consensus for o in chosen],
                [o.corners_refined for o in chosen],
                [o.corners_registered for o in chosen],
            )
        )
        median = np.median([o.overlap for o in done]) if done else math.nan
        ratio = np.median([o.overlap / max(o.overlap_sd, 1e-9) for o in done]) if done else math.nan
        print(
            f"{name:12s} {len(chosen):5d} {len(done):11d} {wrong:6d} {given_up:9d} |  {columns}"
            f"        | {median:9.2f} {ratio:9.2f} {within_two(done):>30s}"
        )
    print("\ncorner error of each real pair, px, or why it is refused")
    for one in (o for o in outcomes if o.group not in levels):
        answer = f"{one.corners_registered:.2f}" if one.registered else f"refused: {one.reason}"
        print(f"{one.group} {one.name}: {answer}")
    print(f"wrong: registered, and off by more than {WRONG_PX:g} px rms over the common view")
    print(f"given up: refused, and the estimate was within {GOOD_PX:g} px of the truth there")


def within_two(done: Sequence[Outcome]) -> str:
    """Share of registered pairs whose true error is within two stated standard deviations."""
    if not done:
        return ""
    overlap = np.mean([o.overlap <= 2 * o.overlap_sd for o in done])
    corners = np.mean([o.corners_registered <= 2 * o.corner_sd for o in done])
    return f"{overlap:.3f}, {corners:.3f}"


def shares(errors: Sequence[float]) -> list[float]:
    return [float(np.mean(np.array(errors) <= px)) for px in WITHIN_PX]


def poses(folder: Path, detect: Method) -> None:
    """The larger of the errors of rotation and direction of translation, in degrees."""
    errors, refused = [], 0
    for line in (folder / "pairs.txt").read_text(encoding="utf-8").splitlines():
        name_a, name_b, *numbers = line.split()
        values = np.array([float(number) for number in numbers])
        features = [
            found(detect, np.rint(to_grey(read(folder / name).pixels) * 255).astype(np.uint8))
            for name in (name_a, name_b)
        ]
        cameras = [
            np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
            for fx, fy, cx, cy in values[:8].reshape(2, 4)
        ]
        truth = values[8:].reshape(4, 4)
        result = register(features[0], features[1], model="essential", intrinsics=cameras)
        refused += not result.success
        errors.append(pose_error_deg(result, truth))
    within = " / ".join(f"{np.mean(np.array(errors) <= limit):.2f}" for limit in (1, 3, 5))
    print(
        f"\n{folder.name}: {len(errors)} pairs, {refused} refused; "
        f"within 1 / 3 / 5 degrees: {within}"
    )
    wrong = [error for error in errors if 10 < error < math.inf]
    print(f"registered, and off by more than 10 degrees: {len(wrong)}")


def pose_error_deg(result: Registration, truth: NDArray[np.float64]) -> float:
    if result.rotation is None or result.translation is None:
        return math.inf
    turn = (np.trace(result.rotation.T @ truth[:3, :3]) - 1) / 2
    moved = truth[:3, 3] / np.linalg.norm(truth[:3, 3])
    return max(
        math.degrees(math.acos(float(np.clip(value, -1, 1))))
        for value in (turn, moved @ result.translation)
    )


def camera(features: Features) -> NDArray[np.float64]:
    height, width = features.size_hw
    focal = VIEW * max(height, width)
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])


def grey(path: Path) -> Grey:
    return np.rint(to_grey(resize(read(path).pixels, LONG_SIDE)) * 255).astype(np.uint8)


if __name__ == "__main__":
    main()
