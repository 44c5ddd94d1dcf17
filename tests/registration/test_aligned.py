"""Files of aligned images: resolution, colour profile, EXIF and map position are the right ones."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms
from typer.testing import CliRunner

from tiepoint.cli import app
from tiepoint.errors import ConfigError, FormatError
from tiepoint.features import Features, Matches
from tiepoint.geometry import apply_homography
from tiepoint.images.encoding import encoded_picture, write_picture
from tiepoint.images.metadata import Metadata, metadata_of
from tiepoint.images.reading import read
from tiepoint.registration.aligned import save_aligned
from tiepoint.registration.result import Registration

A_HW, B_HW = (40, 60), (50, 70)
SHIFT = np.array([[1, 0, 6.0], [0, 1, 4], [0, 0, 1]])
TURN = np.array([[0.8, -0.6, 20], [0.6, 0.8, 3], [0, 0, 1]])
SCALE = 1.5 * np.eye(3) / [[1, 1, 1], [1, 1, 1], [1.5, 1.5, 1.5]]
AREA_KEYS = (1, 1, 0, 2, 1024, 0, 1, 1, 1025, 0, 1, 1)
POINT_KEYS = (1, 1, 0, 2, 1024, 0, 1, 1, 1025, 0, 1, 2)
FORMS: dict[str, dict[str, Any]] = {
    "scale": {"scale": (0.5, 0.25, 0), "tie": (3, 2, 0, 7e5, 5e6, 0)},
    "matrix": {"matrix": (0.5, 0.1, 0, 7e5, 0.1, -0.5, 0, 5e6, 0, 0, 0, 0, 0, 0, 0, 1)},
}
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def known(matrix: Any, model: str = "affine", a_hw: tuple[int, int] = A_HW) -> Registration:
    none = np.empty((0, 2), np.float32), np.empty(0, np.float32)
    a, b = (Features(*none, None, size) for size in (a_hw, B_HW))
    nothing = Matches(np.empty((0, 2), np.int64), np.empty(0, np.float32))
    return Registration(True, "ok", model, np.asarray(matrix), a, b, nothing, np.zeros(0, bool))


def pixels(size_hw: tuple[int, int], dtype: type = np.uint8, colours: int = 3) -> np.ndarray:
    shape = size_hw if colours == 1 else (*size_hw, colours)
    top = 1.0 if dtype is np.float32 else np.iinfo(dtype).max
    return (np.random.default_rng(0).uniform(0.2, 0.8, shape) * top).astype(dtype)


def camera_file(path: Path, orientation: int = 1, **options: Any) -> Path:
    """A photograph with all that a camera writes."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Orientation] = "Camera & Söhne", orientation
    exif[ExifTags.IFD.Exif] = {
        ExifTags.Base.ExposureTime: 0.004, ExifTags.Base.ExifImageWidth: 9999,
        ExifTags.Base.MakerNote: b"offsets", ExifTags.Base.DateTimeOriginal: "2024:01:02 03:04:05",
    }  # fmt: skip
    exif[ExifTags.IFD.GPSInfo] = {1: "N", 2: (47.0, 30.0, 0.0), 3: "E", 4: (9.0, 0.0, 0.0)}
    stored = (A_HW[1], A_HW[0]) if orientation >= 5 else A_HW
    image = Image.fromarray(pixels(stored))
    image.save(path, exif=exif.tobytes(), dpi=(300, 600), icc_profile=PROFILE, **options)
    return path


def geo_file(path: Path, size_hw: tuple[int, int], dtype: type = np.uint8, **tags: Any) -> Path:
    """A GeoTIFF file; `tags` are scale, tie, matrix and nodata."""
    keys = tags.get("keys", AREA_KEYS)
    extra = [(34735, 3, len(keys), keys, True)]
    for code, name in ((33550, "scale"), (33922, "tie"), (34264, "matrix")):
        if name in tags:
            extra.append((code, 12, len(tags[name]), tags[name], True))
    if "nodata" in tags:
        extra.append((42113, 2, len(tags["nodata"]) + 1, tags["nodata"].encode() + b"\0", True))
    colours = tags.get("colours", 1)
    kind = "minisblack" if colours == 1 else "rgb"
    picture = pixels(size_hw, dtype, colours)
    tifffile.imwrite(path, picture, photometric=kind, metadata=None, extratags=extra)
    return path


def map_xy(path: Path, xy: Any) -> np.ndarray:
    """Map coordinates of px, as a GIS computes them from the tags."""
    with tifffile.TiffFile(path) as file:
        tags = {tag.code: tag.value for tag in file.pages.first.tags.values()}
    shift = 0 if 2 in tags[34735][-1:] else 0.5
    x, y = (np.asarray(xy, float) + shift).T
    if 34264 in tags:
        m = np.reshape(tags[34264], (4, 4))
        return np.stack(
            [m[0, 0] * x + m[0, 1] * y + m[0, 3], m[1, 0] * x + m[1, 1] * y + m[1, 3]], 1
        )
    (sx, sy, _), (column, row, _, x0, y0, _) = tags[33550], tags[33922]
    return np.stack([x0 + (x - column) * sx, y0 - (y - row) * sy], axis=1)


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".tif"])
def test_what_a_camera_wrote_is_in_the_aligned_file(tmp_path: Path, ending: str) -> None:
    a, out = camera_file(tmp_path / "a.jpg"), tmp_path / f"out{ending}"
    b = tmp_path / "b.png"
    Image.fromarray(pixels(B_HW)).save(b)
    save_aligned(out, a, b, known(SHIFT))
    with Image.open(out) as image:
        image.load()
        assert image.size == B_HW[::-1]
        assert image.info["icc_profile"] == PROFILE
        exif = image.getexif()
        if ending != ".webp":
            np.testing.assert_allclose([float(v) for v in image.info["dpi"]], (300, 600), rtol=1e-3)
        assert [float(exif[tag]) for tag in (282, 283)] == [300, 600]
        assert exif.get(ExifTags.Base.Orientation, 1) == 1
        make = exif[ExifTags.Base.Make]
        assert make.rstrip("\0").startswith("Camera & S")
        held = exif.get_ifd(ExifTags.IFD.Exif)
        assert float(held[ExifTags.Base.ExposureTime]) == pytest.approx(0.004)
        assert held[ExifTags.Base.DateTimeOriginal] == "2024:01:02 03:04:05"
        assert (held[40962], held[40963]) == B_HW[::-1]
        assert ExifTags.Base.MakerNote not in held
        assert [float(v) for v in exif.get_ifd(ExifTags.IFD.GPSInfo)[2]] == [47, 30, 0]
        assert not exif.get_ifd(ExifTags.IFD.IFD1)
    assert metadata_of(out).exif.keys() == metadata_of(a).exif.keys()


@pytest.mark.parametrize("ending", [".jpg", ".png", ".tif"])
def test_a_turned_photograph_is_upright_with_its_resolutions_exchanged(
    tmp_path: Path, ending: str
) -> None:
    a = camera_file(tmp_path / f"a{ending}", orientation=6)
    assert read(a).size_hw == A_HW
    save_aligned(tmp_path / "out.jpg", a, pixels(B_HW), known(SHIFT))
    with Image.open(tmp_path / "out.jpg") as image:
        assert image.getexif().get(ExifTags.Base.Orientation, 1) == 1
        assert image.info["dpi"] == (600, 300)


def test_the_resolution_is_that_of_b_or_as_the_transform_scales_it(tmp_path: Path) -> None:
    a, b, out = camera_file(tmp_path / "a.jpg"), tmp_path / "b.png", tmp_path / "out.tif"
    for dpi, expected in (({"dpi": (200, 200)}, (200, 200)), ({}, (450, 900))):
        Image.fromarray(pixels(B_HW)).save(b, **dpi)
        save_aligned(out, a, b, known(SCALE))
        np.testing.assert_allclose(metadata_of(out).dpi, expected, rtol=1e-3)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("colours", [1, 3])
def test_a_geotiff_takes_the_grid_of_b_and_the_depth_of_a(
    tmp_path: Path, dtype: type, colours: int
) -> None:
    a = geo_file(tmp_path / "a.tif", A_HW, dtype, scale=(2, 2, 0), tie=(0, 0, 0, 0, 0, 0),
                 colours=colours)  # fmt: skip
    b = geo_file(tmp_path / "b.tif", B_HW, scale=(0.5, 0.5, 0), tie=(0, 0, 0, 7e5, 5e6, 0))
    save_aligned(tmp_path / "out.tif", a, b, known(TURN, "homography"))
    assert read(tmp_path / "out.tif").pixels.dtype == dtype
    assert read(tmp_path / "out.tif").pixels.ndim == (2 if colours == 1 else 3)
    points = [[0, 0], [69, 49], [10.5, 3]]
    np.testing.assert_array_equal(map_xy(tmp_path / "out.tif", points), map_xy(b, points))
    assert metadata_of(tmp_path / "out.tif").geo == metadata_of(b).geo


@pytest.mark.parametrize("keys", [AREA_KEYS, POINT_KEYS], ids=["area", "point"])
@pytest.mark.parametrize("form", ["scale", "matrix"])
@pytest.mark.parametrize("matrix", [SHIFT, TURN, SCALE], ids=["shift", "turn", "scale"])
def test_without_a_map_position_of_b_that_of_a_moves_with_it(
    tmp_path: Path, matrix: np.ndarray, form: str, keys: tuple[int, ...]
) -> None:
    """A point of A and its place in the aligned image have one position on the map."""
    a = geo_file(tmp_path / "a.tif", A_HW, keys=keys, **FORMS[form])
    save_aligned(tmp_path / "out.tif", a, pixels(B_HW, colours=1), known(matrix))
    points = np.array([[0, 0], [59, 39], [12.5, 30]])
    moved = apply_homography(matrix, points)
    np.testing.assert_allclose(map_xy(tmp_path / "out.tif", moved), map_xy(a, points), atol=1e-6)


def test_after_a_homography_the_map_position_of_a_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    a = geo_file(tmp_path / "a.tif", A_HW, scale=(1, 1, 0), tie=(0, 0, 0, 0, 0, 0))
    save_aligned(tmp_path / "out.tif", a, pixels(B_HW, colours=1), known(SHIFT, "homography"))
    assert metadata_of(tmp_path / "out.tif").geo == {} and "not affine" in caplog.text


@pytest.mark.parametrize("form", ["scale", "matrix"])
def test_a_canvas_for_both_keeps_the_map_position_of_b(tmp_path: Path, form: str) -> None:
    b = geo_file(tmp_path / "b.tif", B_HW, **FORMS[form])
    matrix = np.array([[1, 0, -15.0], [0, 1, -8], [0, 0, 1]])
    save_aligned(tmp_path / "out.tif", pixels(A_HW, colours=1), b, known(matrix), blended=True)
    points = np.array([[0, 0], [40, 20]])
    there = map_xy(tmp_path / "out.tif", points + np.array([15, 8]))
    np.testing.assert_allclose(there, map_xy(b, points), atol=1e-6)


def test_pixels_outside_have_the_value_asked_for_or_that_without_data(tmp_path: Path) -> None:
    b, out = pixels(B_HW, colours=1), tmp_path / "out.tif"
    a = geo_file(tmp_path / "a.tif", A_HW, np.float32, nodata="-9999")
    save_aligned(out, a, b, known(SHIFT))
    assert tifffile.imread(out)[0, 0] == -9999 and metadata_of(out).no_data == "-9999"
    assert not read(out).valid[0, 0] and read(out).valid[20, 20]
    save_aligned(out, a, b, known(SHIFT), fill=np.nan)
    assert np.isnan(tifffile.imread(out)[0, 0])
    save_aligned(tmp_path / "out.png", pixels(A_HW), b, known(SHIFT), fill=255)
    assert (read(tmp_path / "out.png").pixels[0, 0] == 255).all()
    save_aligned(tmp_path / "out.png", pixels(A_HW), b, known(SHIFT))
    assert (read(tmp_path / "out.png").pixels[0, 0] == 0).all()
    for wrong in (256, -1, 0.5, np.nan):
        with pytest.raises(ConfigError, match="fill is"):
            save_aligned(out, pixels(A_HW), b, known(SHIFT), fill=wrong)


def test_a_profile_of_other_colours_is_left_out(tmp_path: Path) -> None:
    cmyk = PROFILE[:16] + b"CMYK" + PROFILE[20:]
    for profile, picture, expected in (
        (cmyk, pixels(A_HW), None),
        (PROFILE, pixels(A_HW, colours=1), None),
        (PROFILE, pixels(A_HW), PROFILE),
    ):
        data = encoded_picture(picture, ".png", Metadata(icc_profile=profile))
        assert Image.open(io.BytesIO(data)).info.get("icc_profile") == expected


@pytest.mark.parametrize("ending", [".jpg", ".webp"])
def test_quality_decides_the_size_of_the_file(ending: str) -> None:
    picture = pixels((200, 200))
    sizes = [len(encoded_picture(picture, ending, quality=q)) for q in (20, 60, 95)]
    assert sizes == sorted(sizes) and sizes[0] < sizes[2] / 2
    for quality in (0, 101):
        with pytest.raises(ConfigError, match="quality"):
            encoded_picture(picture, ending, quality=quality)


@pytest.mark.parametrize(
    ("name", "picture"),
    [("a.jpg", pixels((9, 9), np.uint16)), ("a.webp", pixels((9, 9), np.float32)),
     ("a.jpg", np.zeros((1, 70_000), np.uint8)), ("a.webp", np.zeros((1, 20_000), np.uint8))],
)  # fmt: skip
def test_a_format_that_cannot_hold_the_image_is_refused(
    tmp_path: Path, name: str, picture: np.ndarray
) -> None:
    with pytest.raises(FormatError, match=r"write a \.(tif|png)"):
        write_picture(tmp_path / name, picture)
    assert not list(tmp_path.iterdir())


def test_damaged_metadata_cost_no_pixels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = camera_file(tmp_path / "a.jpg").read_bytes()
    at = data.index(b"Exif\0\0") + 10
    (tmp_path / "a.jpg").write_bytes(data[:at] + b"\xff" * 40 + data[at + 40 :])
    save_aligned(tmp_path / "out.jpg", tmp_path / "a.jpg", pixels(B_HW), known(SHIFT))
    assert metadata_of(tmp_path / "out.jpg").icc_profile == PROFILE
    assert metadata_of(tmp_path / "none.jpg") == Metadata()
    assert metadata_of("https://example.org/a.jpg") == metadata_of(pixels(A_HW)) == Metadata()


def test_the_command_writes_jpegs_with_a_quality_and_a_fill(
    tmp_path: Path, photographs: list[np.ndarray]
) -> None:
    photo = photographs[2]
    for name, part in (("a.jpg", photo[:, 40:]), ("b.jpg", photo[:, :-40])):
        Image.fromarray(part).save(tmp_path / name, quality=95, dpi=(240, 240))
    a, b, out = (str(tmp_path / name) for name in ("a.jpg", "b.jpg", "out.jpg"))
    command = ["register", a, b, "-o", out, "--model", "translation"]
    result = CliRunner().invoke(app, [*command, "--quality", "80", "--fill", "255"])
    assert result.exit_code == 0, result.output
    with Image.open(out) as image:
        assert image.info["dpi"] == (240, 240)
        assert np.asarray(image)[10:-10, :10].min() > 240


@pytest.mark.parametrize("dpi", [0.01, 0.4, 1.0, 300.0, 65_535.0, 101_600.0])
@pytest.mark.parametrize("ending", [".jpg", ".tif", ".webp"])
def test_any_resolution_stays_in_the_file(dpi: float, ending: str) -> None:
    data = encoded_picture(pixels(B_HW), ending, Metadata(dpi=(dpi, 2 * dpi)))
    with Image.open(io.BytesIO(data)) as image:
        exif = image.getexif()
        held = [exif[tag] for tag in (282, 283)] if 282 in exif else image.info["dpi"]
        assert [float(value) for value in held] == pytest.approx([dpi, 2 * dpi], rel=1e-3)
