"""What `make demo` runs: keypoints in real photographs that scikit-image ships.

Writes a feature file and an overlay for each photograph, and prints a table.
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

    folder = Path(skimage.__file__).parent / "data"
    arguments = ["detect", *PHOTOGRAPHS, "-o", str(output), "--plot"]
    print("tiepoint", *arguments, flush=True)
    command = [sys.executable, "-m", "tiepoint", *arguments, "--overwrite"]
    status = subprocess.call(command, cwd=folder)
    print(f"Pictures (.png) and features (.npz) of each photograph are in {output}")
    return status


if __name__ == "__main__":
    sys.exit(main())
