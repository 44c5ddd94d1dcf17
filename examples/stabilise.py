"""Steadies a shaky video: the camera's path from tracks, smoothed.

    python examples/stabilise.py shaky.mp4 -o steady.mp4
    python examples/stabilise.py frames/ -o steady.mp4 --seconds 1 --zoom 1.15

The motion of each frame comes from `tiepoint.track`. Its shift, rotation and zoom at the middle of
the frame are summed to the path of the camera, and a Gaussian smooths the path within each shot.
The second pass moves each frame from the path to the smooth one, enlarged by --zoom so that the
border stays outside.

Exit status: 0 done, 1 some frames are broken, 2 no video or wrong usage.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

import tiepoint
from tiepoint.images.reading import read
from tiepoint.images.video import frames_of
from tiepoint.images.video_writing import VideoWriter
from tiepoint.plotting import to_rgb8
from tiepoint.tracking.track import tracking_detector

DEFAULT_RATE = 25.0
"""Frames a second of folders."""

Array = NDArray[np.float64]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("video", help="a video file, or a folder of images")
    parser.add_argument("-o", "--out", type=Path, required=True, help="the steady video, .mp4")
    parser.add_argument("--seconds", type=float, default=0.5, help="width of the smoothing, s")
    parser.add_argument("--zoom", type=float, default=1.1, help="enlargement of each frame")
    parser.add_argument("-c", "--checkpoint", default="small")
    arguments = parser.parse_args()
    try:
        steps, shots, rate = camera_of(arguments.video, arguments.checkpoint)
        path = np.cumsum(steps, axis=0)  # F 4
        smooth = smoothed(path, shots, arguments.seconds * rate)
        broken = write_steady(arguments.video, arguments.out, smooth - path, arguments.zoom)
    except tiepoint.TiepointError as error:
        print(error, file=sys.stderr)
        return 2
    before, after = shake_px(path, shots), shake_px(smooth, shots)
    print(f"{len(path)} frames; shake {before:.2f} px before, {after:.2f} px after")
    return 1 if broken else 0


def camera_of(video: str, checkpoint: str) -> tuple[Array, NDArray[np.int64], float]:
    """First pass: steps F 4 (x, y px, angle, log of zoom), shot F of each frame, frames a second.

    Broken frames are left out.
    """
    steps, shots, times, shot = [], [], [], 0
    for frame in tiepoint.track(video, detector=tracking_detector(checkpoint), read_ahead=True):
        if frame.size_hw is None:
            continue
        shot += frame.is_cut
        steps.append(step_of(frame.motion, frame.size_hw))
        shots.append(shot)
        times.append(frame.time_s)
    gaps = np.diff(times)
    known = gaps[np.isfinite(gaps) & (gaps > 0)]
    rate = 1 / float(np.median(known)) if len(known) else DEFAULT_RATE
    return np.array(steps), np.array(shots), rate


def step_of(motion: Array | None, size_hw: tuple[int, int]) -> Array:
    """Shift x, y, px, rotation, rad, and log of the zoom at the middle of the frame."""
    if motion is None:
        return np.zeros(4)
    middle = (np.array(size_hw[::-1]) - 1) / 2
    side = min(size_hw) / 4
    square = middle + side * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1.0]])
    moved = cv2.perspectiveTransform(square[None], motion)[0]
    similarity, _ = cv2.estimateAffinePartial2D(square - middle, moved - middle)
    cosine, sine = similarity[0, 0], similarity[1, 0]
    shift = similarity[:, 2]
    return np.array([*shift, np.arctan2(sine, cosine), np.log(np.hypot(cosine, sine))])


def smoothed(path: Array, shots: NDArray[np.int64], sigma: float) -> Array:
    """F 4: the path under a Gaussian of `sigma` frames; each shot by itself."""
    frames = np.arange(len(path))
    result = np.empty_like(path)
    for index in frames:
        near = frames[(np.abs(frames - index) <= 3 * sigma) & (shots == shots[index])]
        weights = np.exp(-0.5 * np.square((near - index) / max(sigma, 1e-9)))
        # A line rather than a mean, so that a pan keeps its speed at the ends of a shot.
        terms = np.stack([np.ones(len(near)), near - index], axis=1) * np.sqrt(weights)[:, None]
        values = path[near] * np.sqrt(weights)[:, None]
        result[index] = np.linalg.lstsq(terms, values, rcond=None)[0][0]
    return result


def shake_px(path: Array, shots: NDArray[np.int64]) -> float:
    """Rms change of the shift from one step to the next, px."""
    changes = np.diff(path[:, :2], n=2, axis=0)[shots[2:] == shots[:-2]]
    return float(np.sqrt(np.square(changes).sum(axis=1).mean())) if len(changes) else 0.0


def write_steady(video: str, out: Path, corrections: Array, zoom: float) -> int:
    """Second pass: each frame moved by its correction F 4; returns the number of broken frames."""
    broken, done = 0, 0
    with VideoWriter(out) as writer:
        for frame in frames_of(video):
            try:
                if frame.error is not None:
                    raise frame.error
                picture = to_rgb8(read(frame.source))
            except tiepoint.ImageError as error:
                print(error, file=sys.stderr)
                broken += 1
                continue
            height, width = picture.shape[:2]
            x, y, angle, log_zoom = corrections[done]
            middle = ((width - 1) / 2, (height - 1) / 2)
            scale = zoom * float(np.exp(log_zoom))
            matrix = cv2.getRotationMatrix2D(middle, -np.degrees(angle), scale)
            matrix[:, 2] += zoom * x, zoom * y
            steady = cv2.warpAffine(picture, matrix, (width, height), flags=cv2.INTER_LINEAR)
            writer.add(np.asarray(steady, np.uint8), frame.time_s)
            done += 1
    return broken


if __name__ == "__main__":
    sys.exit(main())
