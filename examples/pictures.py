"""`make pictures`: draw the pictures of the documents, and the two sample views of the package.

All come from photographs that scikit-image ships, whose licence allows it. Without `--views` the
sample views stay as they are, because tests and figures depend on them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tiepoint import Features, Matches

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "src" / "tiepoint" / "images" / "samples"
PHOTOGRAPH = "coffee.png"
JPEG_QUALITY = 88
SHOWN_MATCHES = 60
ROW_HEIGHT_PX, GAP_PX = 240, 6


class View(NamedTuple):
    """One camera's view of the photograph."""

    name: str
    size_wh: tuple[int, int]
    corners: tuple[tuple[int, int], ...]
    """The view's corners in px of the photograph, clockwise from the top left."""
    exposure: float
    gamma: float
    tint_rgb: tuple[float, float, float]
    noise: float


VIEWS = (
    View(
        "coffee_a.jpg", (540, 360), ((8, 12), (560, 4), (572, 380), (0, 396)),
        exposure=1.0, gamma=1.0, tint_rgb=(1.0, 1.0, 1.0), noise=0.004,
    ),
    View(
        "coffee_b.jpg", (480, 400), ((150, 6), (594, 70), (540, 394), (40, 330)),
        exposure=0.8, gamma=1.15, tint_rgb=(1.08, 1.0, 0.86), noise=0.012,
    ),
)  # fmt: skip


def homography(view: View) -> NDArray[np.float64]:
    """Photograph -> view, px."""
    width, height = view.size_wh
    corners = [[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]]
    from_px, to_px = (np.array(points, np.float32) for points in (view.corners, corners))
    return np.asarray(cv2.getPerspectiveTransform(from_px, to_px), np.float64)


def draw_view(photograph: NDArray[np.uint8], view: View, seed: int) -> NDArray[np.uint8]:
    """The view, with its own exposure, white balance and noise."""
    warped = cv2.warpPerspective(
        photograph, homography(view), view.size_wh, flags=cv2.INTER_LANCZOS4
    )
    light = (warped / 255) ** view.gamma * view.exposure * np.array(view.tint_rgb)
    light += np.random.default_rng(seed).normal(0, view.noise, light.shape)
    return np.asarray(np.clip(np.rint(light * 255), 0, 255), np.uint8)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--views", action="store_true", help="draw the sample views again")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images")
    options = parser.parse_args(arguments)
    if options.views:
        draw_views(SAMPLES)
    draw_pictures(options.output)
    return 0


def draw_views(folder: Path) -> None:
    import skimage

    photograph = read(Path(skimage.__file__).parent / "data" / PHOTOGRAPH)
    for seed, view in enumerate(VIEWS, start=1):
        write(folder / view.name, draw_view(photograph, view, seed))


def draw_pictures(folder: Path) -> None:
    """Each picture of the documents, with the bundled weights."""
    import tiepoint
    from tiepoint.registration.warping import checkerboard

    folder.mkdir(parents=True, exist_ok=True)
    views = tiepoint.sample_views()
    detector = tiepoint.Detector(precision="f32")  # the same on every machine
    a, b = detector(views)
    write(folder / "keypoints.jpg", tiepoint.plot(a, views[0]))
    fitting = inlier_matches(a, b)
    write(folder / "matches.jpg", tiepoint.plot_matches(*views, a, b, fitting.top(SHOWN_MATCHES)))

    registration = tiepoint.register(*views)
    pictures = [read(view) for view in views]
    write(folder / "views.jpg", in_a_row(pictures))
    pictures.append(tiepoint.warp(views[0], registration))
    pictures.append(checkerboard(*views, registration))
    write(folder / "registration.jpg", in_a_row(pictures))
    for view in views:
        draw_as_in_the_guide(view, folder / f"guide_{view.name}")
    draw_tracks(folder / "tracks.jpg")
    draw_panorama(folder / "panorama.jpg")


def draw_tracks(path: Path) -> None:
    """Trails of the points of a moving camera: frames 2, 12 and 22."""
    import tiepoint
    from tiepoint.tracking.drawing import TrailPainter
    from tiepoint.tracking.track import tracking_detector

    photograph = read(tiepoint.sample_views()[0])
    frames = []
    for step in range(23):
        matrix = cv2.getRotationMatrix2D((270, 180), 10 * np.sin(step / 8), 1.25 + 0.01 * step)
        matrix[:, 2] += -70 - 3 * step + 33, -50 - 10 * np.sin(step / 5)
        frames.append(cv2.warpAffine(photograph, matrix, (400, 260), flags=cv2.INTER_CUBIC))
    paint, pictures = TrailPainter(), []
    detector = tracking_detector(precision="f32")
    for frame in tiepoint.track(frames, detector=detector, max_tracks=120):
        picture = paint(frame)
        assert picture is not None
        pictures.append(picture)
    write(path, in_a_row(pictures[2::10]))


def draw_panorama(path: Path) -> None:
    """Three views of the photograph, the middle one darker, and what `stitch` makes of them."""
    import tiepoint

    photograph = read(tiepoint.sample_views()[0])
    parts = []
    for degrees, left, gain in ((-6, 0, 1.0), (4, 130, 0.75), (-3, 260, 1.0)):
        matrix = cv2.getRotationMatrix2D((left + 140, 180), degrees, 1)
        matrix[:, 2] -= left, 30
        part = cv2.warpAffine(photograph, matrix, (280, 300), borderMode=cv2.BORDER_REFLECT)
        parts.append(np.asarray(part * gain, np.uint8))
    write(path, in_a_row([*parts, tiepoint.stitch(parts).picture]))


def inlier_matches(a: Features, b: Features) -> Matches:
    import tiepoint

    matches = tiepoint.match(a, b)
    i, j = matches.pairs.T
    _, fitting = cv2.findHomography(a.xy[i], b.xy[j], cv2.USAC_MAGSAC, 1.5)
    return matches.take(fitting.ravel().astype(bool))


def draw_as_in_the_guide(view: Path, picture: Path) -> None:
    """Keypoints as the last step of the guide draws them."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import torch
    from PIL import Image

    from tiepoint import AutoImageProcessor, SuperPointForKeypointDetection

    image = Image.open(view)
    processor = AutoImageProcessor.from_pretrained()
    model = SuperPointForKeypointDetection.from_pretrained()
    with torch.no_grad():
        outputs = model(**processor(image, return_tensors="pt"))
    (result,) = processor.post_process_keypoint_detection(outputs, [(image.height, image.width)])
    plt.figure(figsize=(4, 4 * image.height / image.width))
    plt.axis("off")
    plt.imshow(image)
    x, y = result["keypoints"][:, 0], result["keypoints"][:, 1]
    plt.scatter(x, y, c=result["scores"] * 100, s=result["scores"] * 50, alpha=0.8)
    plt.savefig(
        picture, dpi=150, bbox_inches="tight", pad_inches=0, pil_kwargs={"quality": JPEG_QUALITY}
    )
    plt.close()


def in_a_row(pictures: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Pictures side by side at one height, with a white gap."""
    scaled = []
    for picture in pictures:
        width = round(picture.shape[1] * ROW_HEIGHT_PX / picture.shape[0])
        scaled.append(cv2.resize(picture, (width, ROW_HEIGHT_PX), interpolation=cv2.INTER_AREA))
        scaled.append(np.full((ROW_HEIGHT_PX, GAP_PX, 3), 255, np.uint8))
    return np.hstack(scaled[:-1])


def read(path: Path) -> NDArray[np.uint8]:
    """A picture's RGB pixels."""
    return np.asarray(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB), np.uint8)


def write(path: Path, picture_rgb: NDArray[np.uint8]) -> None:
    bgr = cv2.cvtColor(picture_rgb, cv2.COLOR_RGB2BGR)
    if not cv2.imwrite(str(path), bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]):
        raise SystemExit(f"cannot write {path}")
    print(f"{path}: {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    sys.exit(main())
