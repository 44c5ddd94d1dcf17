"""Noise floor: scores of noise, blank pairs that register, and faint pairs that still do.

Prints the best scores of frames of 480x640 px by the deviation of their noise. Then unrelated
pairs of blank frames are registered with every model, without and with the checkpoint's floor: none
should be. Generated pairs at a tenth of their contrast, with noise of 1 grey level, should register
as often with the floor as without.

    python benchmarks/noise_floor.py --photos ../shared/photos --checkpoint small
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint import Detector
from tiepoint.config import Model
from tiepoint.evaluation.generated import generated_pairs
from tiepoint.evaluation.noise_floor import MEANS, sloped, vignetted
from tiepoint.evaluation.settings import HomographySettings
from tiepoint.features import Features
from tiepoint.geometry import SizeHW, apply_homography, corners_xy
from tiepoint.images.photographs import list_photos
from tiepoint.registration.register import register

SEED, SEEDS = 5, 3
SIZES_HW: tuple[SizeHW, ...] = ((64, 97), (120, 160), (240, 320), (480, 640))
NOISE = (0.3, 0.5, 1, 2, 3, 4, 8, 16)
CONTRAST, RIGHT_PX = 0.1, 5.0

Grey = NDArray[np.uint8]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--checkpoint", default="default")
    parser.add_argument("--blank", type=int, default=20, help="blank pairs of each kind")
    parser.add_argument("--faint", type=int, default=100, help="faint pairs")
    arguments = parser.parse_args()
    detector = Detector(
        arguments.checkpoint, precision="f32", threshold=0.0, noise_floor=0.0, max_keypoints=1000
    )
    floor = detector.checkpoint.detection.noise_floor
    print(f"{arguments.checkpoint}: noise floor {floor:g}")
    print("noise: best / 15th / 100th score, highest of the frames")
    for noise in NOISE:
        print(f"{noise:4g}: " + " / ".join(f"{score:.1e}" for score in ranks(detector, noise)))
    print("blank pairs registered without / with the floor, and attempts")
    for kind, draw in KINDS.items():
        print(f"{kind}: {registered(detector, draw, arguments.blank)}", flush=True)
    pairs = generated_pairs(list_photos(arguments.photos, "all"), arguments.faint, SEED)
    right = np.zeros(2, int)
    for pair in pairs:
        loaded = pair.load(HomographySettings().frame)
        random = np.random.default_rng(SEED)
        a, b = (detector(faint(random, i)) for i in (loaded.image_a, loaded.image_b))
        right += np.array([count_right(at(t, a, b), loaded.homography) for t in (0.0, floor)])
    print(f"faint pairs right without / with the floor: {right} of {SEEDS * len(pairs)}")


def ranks(detector: Detector, noise: float) -> NDArray[np.float64]:
    """Highest score of rank 1, 15 and 100 among frames of all `MEANS`."""
    random = np.random.default_rng(SEED)
    frames = (rounded(random.normal(mean, noise, SIZES_HW[-1])) for mean in MEANS)
    scores = [np.resize(detector(frame).scores, 100) for frame in frames]
    highest: NDArray[np.float64] = np.amax([one[[0, 14, 99]] for one in scores], axis=0)
    return highest


def rounded(grey: NDArray[np.float64]) -> Grey:
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)


def compressed(random: np.random.Generator, grey: Grey, quality: tuple[int, int]) -> Grey:
    settings = [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(*quality))]
    return np.asarray(cv2.imdecode(cv2.imencode(".jpg", grey, settings)[1], cv2.IMREAD_GRAYSCALE))


Draw = Callable[[np.random.Generator, SizeHW], Iterator[Grey]]
"""Draws the two frames of a pair."""


def uniform(low: float, high: float, quality: tuple[int, int] | None = None) -> Draw:
    """Grey levels and noise of their own in both frames; JPEG if a quality is given."""

    def draw(random: np.random.Generator, size_hw: SizeHW) -> Iterator[Grey]:
        while True:
            noise, mean = random.uniform(low, high), random.choice(MEANS)
            grey = rounded(random.normal(mean, noise, size_hw))
            yield grey if quality is None else compressed(random, grey, quality)

    return draw


def shaded(shade: Any, *, same: bool, quality: tuple[int, int] | None = None) -> Draw:
    """Shading of its own or the same in both frames, each with noise of 1 grey level."""

    def draw(random: np.random.Generator, size_hw: SizeHW) -> Iterator[Grey]:
        first = shade(random, size_hw)
        while True:
            background = first if same else shade(random, size_hw)
            grey = rounded(background + random.normal(0, 1, size_hw))
            yield grey if quality is None else compressed(random, grey, quality)

    return draw


KINDS: dict[str, Draw] = {
    "no noise": uniform(0, 0),
    "noise .3 to 1": uniform(0.3, 1),
    "noise 1 to 2": uniform(1, 2),
    "noise 3 to 4": uniform(3, 4),
    "noise 5 to 8": uniform(5, 8),
    "noise 10 to 20": uniform(10, 20),
    "slope": shaded(sloped, same=False),
    "same slope": shaded(sloped, same=True),
    "vignetting": shaded(vignetted, same=False),
    "same vignetting": shaded(vignetted, same=True),
    "noise .5 to 4, JPEG 5 to 20": uniform(0.5, 4, (5, 20)),
    "noise .5 to 4, JPEG 30 to 95": uniform(0.5, 4, (30, 95)),
    "same vignetting, JPEG 5 to 20": shaded(vignetted, same=True, quality=(5, 20)),
    "same vignetting, JPEG 30 to 95": shaded(vignetted, same=True, quality=(30, 95)),
}


def registered(detector: Detector, draw: Draw, count: int) -> str:
    """Registrations without and with the floor; each pair with the next one of the models."""
    random = np.random.default_rng(SEED)
    successes = np.zeros(2, int)
    for number in range(count):
        height, width = size_hw = SIZES_HW[number % len(SIZES_HW)]
        model = get_args(Model)[number % len(get_args(Model))]
        frames = draw(random, size_hw)
        a, b = (detector(next(frames)) for _ in range(2))
        camera = np.array([[1.2 * width, 0, width / 2], [0, 1.2 * width, height / 2], [0, 0, 1]])
        intrinsics = camera if model == "essential" else None
        for which, floor in enumerate((0.0, detector.checkpoint.detection.noise_floor)):
            result = register(*at(floor, a, b), model=model, intrinsics=intrinsics)
            successes[which] += result.success
    return f"{successes[0]} / {successes[1]} of {count}"


def at(floor: float, a: Features, b: Features) -> tuple[Features, Features]:
    """The features as a detector with this noise floor gives them."""
    return a.take(a.scores > floor), b.take(b.scores > floor)


def faint(random: np.random.Generator, grey: Grey) -> Grey:
    return rounded(128 + CONTRAST * (grey.astype(float) - 128) + random.normal(0, 1, grey.shape))


def count_right(pair: tuple[Features, Features], homography: NDArray[np.float64]) -> int:
    """Registrations of `SEEDS` with a mean corner error below `RIGHT_PX`."""
    a, b = pair
    corners = corners_xy(a.size_hw)
    truth = apply_homography(homography, corners)
    results = [register(a, b, seed=seed).matrix for seed in range(SEEDS)]
    errors = [
        np.linalg.norm(apply_homography(matrix, corners) - truth, axis=1).mean()
        for matrix in results
        if matrix is not None
    ]
    return sum(error < RIGHT_PX for error in errors)


if __name__ == "__main__":
    main()
