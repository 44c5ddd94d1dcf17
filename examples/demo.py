"""`make demo`: keypoints of five photographs that scikit-image ships, and a registration.

Prints a table and writes a features file and an overlay for each photograph. Then registers one of
them to a second view, and writes the aligned photograph, an overlay and a checkerboard.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

PHOTOGRAPHS = ("camera.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png")
REGISTERED = "coffee.png"
HOMOGRAPHY = ((0.9, 0.12, 40.0), (-0.1, 0.95, 30.0), (1e-4, 5e-5, 1.0))
"""Photograph -> second view, px."""
BRIGHTNESS = 0.7
"""Brightness of the second view, relative to the photograph."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo-out"))
    output: Path = parser.parse_args().output.resolve()

    import skimage

    photographs = Path(skimage.__file__).parent / "data"
    arguments = ["detect", *PHOTOGRAPHS, "-o", str(output), "--plot"]
    print("tiepoint", *arguments, flush=True)
    command = [sys.executable, "-m", "tiepoint", *arguments, "--overwrite"]
    status = subprocess.call(command, cwd=photographs)
    print(f"Features (.npz) and overlays (.png) are in {output}")
    return status or register(photographs / REGISTERED, output)


def register(photograph: Path, output: Path) -> int:
    """Register a photograph to a darker second view; returns the exit status."""
    write_second_view(photograph, output / "view.png")
    pictures = ["view_aligned.png", "--overlay", "view_overlay.png"]
    pictures += ["--checkerboard", "view_checkerboard.png"]
    arguments = ["register", str(photograph), "view.png", "-o", *pictures, "--overwrite"]
    print("\ntiepoint", *arguments, flush=True)
    status = subprocess.call([sys.executable, "-m", "tiepoint", *arguments], cwd=output)
    print(f"The views align where {output / 'view_overlay.png'} is grey")
    return status


def write_second_view(photograph: Path, view: Path) -> None:
    image = cv2.imread(str(photograph))
    size_wh = image.shape[1], image.shape[0]
    warped = cv2.warpPerspective(
        image, np.array(HOMOGRAPHY), size_wh, borderMode=cv2.BORDER_REFLECT
    )
    cv2.imwrite(str(view), cv2.convertScaleAbs(warped, alpha=BRIGHTNESS))


if __name__ == "__main__":
    sys.exit(main())
