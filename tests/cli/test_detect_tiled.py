"""`tiepoint detect --tile`: the keypoints of the whole image, in bounded memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

import tiepoint
from tiepoint.cli import app
from tiepoint.images.samples import sample_views

PHOTO = str(sample_views()[0])
SMALL = ("-c", "small", "--precision", "f32")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["detect", *arguments])


def test_a_photo_in_tiles_has_the_keypoints_of_the_whole(tmp_path: Path) -> None:
    for name, more in (
        ("whole", ["--max-side", "none"]),
        ("tiled", ["--tile", "--tile-px", "256"]),
    ):
        result = run(PHOTO, *SMALL, *more, "-o", str(tmp_path / f"{name}.npz"))
        assert result.exit_code == 0, result.output
    whole, tiled = (tiepoint.load(tmp_path / f"{name}.npz") for name in ("whole", "tiled"))
    np.testing.assert_allclose(tiled.xy, whole.xy, atol=2e-3)
    assert tiled.meta["tile_px"] == 256
    assert tiled.provenance is not None and tiled.provenance.settings["max_side"] is None


def test_a_store_takes_tiled_images_and_resumes(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    store = str(tmp_path / "features.store")
    for expected in ("1 done", "1 skipped"):
        result = run(PHOTO, *SMALL, "--tile", "-o", store)
        assert result.exit_code == 0 and expected in result.output


def test_another_channel_is_another_setting(tmp_path: Path) -> None:
    bands = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
    image = tmp_path / "bands.png"
    Image.fromarray(bands.repeat(8, 0).repeat(8, 1)).save(image)
    out = str(tmp_path / "a.npz")
    found = []
    for channels in ("0", "0,2", "1"):
        options = [str(image), *SMALL, "--tile", "--channels", channels, "-o", out]
        if found:
            refused = run(*options)
            assert refused.exit_code == 1 and "settings.channels" in refused.output
        result = run(*options, "--overwrite")
        assert result.exit_code == 0 and "1 done" in result.output
        found.append(tiepoint.load(out))
    assert found[1].provenance is not None
    assert found[1].provenance.settings["channels"] == [0, 2]
    assert not np.array_equal(found[0].xy, found[2].xy)
    again = run(str(image), *SMALL, "--tile", "--channels", "1", "-o", out)
    assert "1 skipped" in again.output
    assert run(str(image), "--tile", "--channels", "3", "-o", out, "--overwrite").exit_code == 3


@pytest.mark.parametrize(
    "option", [["--tile-px", "512"], ["--on-damage", "skip"], ["--channels", "0"]]
)
def test_options_of_tiles_need_tiles(tmp_path: Path, option: list[str]) -> None:
    result = run(PHOTO, *option, "-o", str(tmp_path / "a.npz"))
    assert result.exit_code == 2 and f"{option[0]} needs --tile" in result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-side", "800"], "--max-side is 800, but tiles show an image at its native size"),
        (["--spread", "--max-keypoints", "9"], "--spread is not possible in tiles"),
        (["--tile-px", "100"], "--tile-px is 100, expected a multiple of 8"),
        (["--channels", "red"], "--channels is 'red', expected numbers from 0 on"),
    ],
    ids=str,
)
def test_what_tiles_cannot_do_is_wrong_usage(
    tmp_path: Path, options: list[str], message: str
) -> None:
    result = run(PHOTO, "--tile", *options, "-o", str(tmp_path / "a.npz"))
    assert result.exit_code == 2 and message in result.output
