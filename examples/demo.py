"""`make demo`: keypoints of five photographs that scikit-image ships, and a registration.

Prints a table and writes a features file and an overlay for each photograph. Then registers the two
sample views of the package, and writes the aligned one, an overlay and a checkerboard.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

PHOTOGRAPHS = ("camera.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png")


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
    return status or register(output)


def register(output: Path) -> int:
    """Register the sample views; returns the exit status."""
    import tiepoint

    views = [str(path) for path in tiepoint.sample_views()]
    pictures = ["coffee_aligned.png", "--overlay", "coffee_overlay.png"]
    pictures += ["--checkerboard", "coffee_checkerboard.png"]
    arguments = ["register", *views, "-o", *pictures, "--overwrite"]
    print("\ntiepoint", *arguments, flush=True)
    status = subprocess.call([sys.executable, "-m", "tiepoint", *arguments], cwd=output)
    print(f"The views align where {output / 'coffee_overlay.png'} is grey")
    return status


if __name__ == "__main__":
    sys.exit(main())
