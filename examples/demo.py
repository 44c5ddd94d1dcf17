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
    output: Path = parser.parse_args().output

    import skimage

    folder = Path(skimage.__file__).parent / "data"
    photographs = [str(folder / name) for name in PHOTOGRAPHS]
    command = [
        sys.executable,
        "-m",
        "tiepoint",
        "detect",
        *photographs,
        "-o",
        str(output),
        "--plot",
    ]
    print("tiepoint detect", *PHOTOGRAPHS, "-o", output, "--plot", flush=True)
    return subprocess.call([*command, "--overwrite"])


if __name__ == "__main__":
    sys.exit(main())
