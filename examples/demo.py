"""What `make demo` runs: keypoints in real photographs that scikit-image ships, and two views of
one of them brought into line.

Writes a feature file and an overlay for each photograph, and prints a table; then the first view
laid over the second, and an overlay and a checkerboard by which the eye judges.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

VIEWED = "coffee.png"
HOMOGRAPHY = ((0.9, 0.12, 40.0), (-0.1, 0.95, 30.0), (1e-4, 5e-5, 1.0))  # of the second view

PHOTOGRAPHS = ("camera.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo-out"))
    output: Path = parser.parse_args().output.resolve()

    import skimage

    folder = Path(skimage.__file__).parent / "data"
    arguments = ["detect", *PHOTOGRAPHS, "-o", str(output), "--plot"]
    print("tiepoint", *arguments, flush=True)
    command = [sys.executable, "-m", "tiepoint", *arguments, "--overwrite"]
    status = subprocess.call(command, cwd=folder)
    print(f"Pictures (.png) and features (.npz) of each photograph are in {output}")
    return status or registered(folder / VIEWED, output)


def registered(photograph: Path, output: Path) -> int:
    """Register a photograph with a darker view of it from elsewhere."""
    view = output / "view.png"
    photo = cv2.imread(str(photograph))
    size = photo.shape[1], photo.shape[0]
    seen = cv2.warpPerspective(photo, np.array(HOMOGRAPHY), size, borderMode=cv2.BORDER_REFLECT)
    cv2.imwrite(str(view), cv2.convertScaleAbs(seen, alpha=0.7))
    names = ["view_aligned.png", "--overlay", "view_overlay.png"]
    names += ["--checkerboard", "view_checkerboard.png"]
    arguments = ["register", str(photograph), view.name, "-o", *names, "--overwrite"]
    print("\ntiepoint", *arguments, flush=True)
    status = subprocess.call([sys.executable, "-m", "tiepoint", *arguments], cwd=output)
    print(f"What lines up is grey in {output / 'view_overlay.png'}")
    return status


if __name__ == "__main__":
    sys.exit(main())
