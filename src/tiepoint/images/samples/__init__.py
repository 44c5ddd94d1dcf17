"""Two views of one table that come with the package; README.md names their source."""

from __future__ import annotations

from pathlib import Path


def sample_views() -> tuple[Path, Path]:
    """Two photographs of one scene that come with the package.

    Returns:
        The paths of two colour JPEGs, 540x360 and 480x400 px. A homography relates them; the second
        is darker, noisier and seen from another side.
    """
    folder = Path(__file__).resolve().parent
    return folder / "coffee_a.jpg", folder / "coffee_b.jpg"
