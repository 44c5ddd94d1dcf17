"""Formats: endings in folders, HEIF by its extra, openers that the user registers with Pillow."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from support.image_files import encode, exif_block
from tiepoint.errors import ImageError
from tiepoint.images import openers, photographs
from tiepoint.images.photographs import advice_for, image_endings, is_image_name
from tiepoint.images.reading import read

PICTURE = Image.fromarray(
    np.kron(
        np.random.default_rng(1).integers(0, 256, (6, 8, 3), dtype=np.uint8),
        np.ones((8, 8, 1), np.uint8),
    )
)
HEIC_HEADER = b"\0\0\0\x1cftypheic\0\0\0\0mif1heic" + bytes(40)


@pytest.mark.parametrize(
    "name", ["a.jfif", "a.jpe", "a.MPO", "a.j2k", "a.qoi", "a.avif", "a.JPG", "a.tiff"]
)
def test_files_with_the_endings_of_images_are_taken_in_folders(name: str, tmp_path: Path) -> None:
    formats = {"j2k": "JPEG2000", "qoi": "QOI", "avif": "AVIF", "mpo": "MPO", "tiff": "TIFF"}
    path = tmp_path / name
    PICTURE.save(path, formats.get(name[2:].lower(), "JPEG"))
    (tmp_path / "notes.txt").touch()
    assert photographs.list_photos(tmp_path, "all") == [path]
    assert read(path).pixels.shape == (48, 64, 3)


def test_every_ending_of_a_folder_belongs_to_a_format_that_is_read() -> None:
    openers.openers()
    extensions = Image.registered_extensions()
    for ending in photographs.IMAGE_ENDINGS:
        assert extensions[ending] in (*openers.FORMATS, "MPO")


@pytest.mark.parametrize(
    ("ending", "advice"),
    [(".heic", "tiepoint[heif]"), (".cr2", "raw photograph"), (".mov", "frames"), (".txt", None)],
)
def test_endings_of_other_pictures_have_advice(ending: str, advice: str | None) -> None:
    found = advice_for(ending)
    assert found is None if advice is None else found and advice in found


def test_heif_files_are_read_by_pillow_heif_upright(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    before = set(Image.OPEN)
    path = tmp_path / "a.heic"
    data = io.BytesIO()
    pillow_heif.from_pillow(PICTURE).save(data, quality=95, exif=exif_block(6).tobytes())
    path.write_bytes(data.getvalue())
    for source in (path, data.getvalue()):
        image = read(source)
        assert image.size_hw == (64, 48)
        turned = np.rot90(np.asarray(PICTURE), -1).astype(int)
        assert np.abs(image.pixels - turned).mean() < 12
    assert is_image_name("IMG_1.HEIC")
    assert set(Image.OPEN) == before  # nothing is registered for the user


def test_damaged_heif_files_are_refused(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pillow_heif")
    with pytest.raises(ImageError, match="damaged or unsupported HEIF"):
        read(HEIC_HEADER)
    assert capfd.readouterr() == ("", "")


def test_without_its_extra_a_heif_file_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openers, "_heif_opener", lambda: None)
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)  # imageio registers it
    with pytest.raises(ImageError, match=r"a HEIF file, .*pip install .tiepoint\[heif\]"):
        read(HEIC_HEADER)
    monkeypatch.setattr(photographs, "find_spec", lambda name: None)
    photographs._endings.cache_clear()
    assert ".heic" not in image_endings()
    photographs._endings.cache_clear()


class OwnFile(ImageFile.ImageFile):
    """A format of the user: a signature, two sizes of a byte each, grey pixels."""

    format = "OWN"

    def _open(self) -> None:
        assert self.fp is not None
        head = self.fp.read(6)
        if not b"OWN!".startswith(head[:4]):
            raise SyntaxError("another format")
        self._mode, self._size = "L", (head[4], head[5])
        self.tile = [ImageFile._Tile("raw", (0, 0, *self.size), 6, ("L", 0, 1))]


@pytest.fixture
def own_format() -> Iterator[None]:
    Image.register_open("OWN", OwnFile, lambda prefix: prefix.startswith(b"OWN!"))
    Image.register_extension("OWN", ".own")
    yield
    Image.ID.remove("OWN")
    del Image.OPEN["OWN"], Image.EXTENSION[".own"]


@pytest.mark.usefixtures("own_format")
def test_an_opener_that_the_user_registers_with_pillow_is_used(tmp_path: Path) -> None:
    path = tmp_path / "a.own"
    path.write_bytes(b"OWN!\x03\x02" + bytes(range(6)))
    assert read(path).pixels.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert is_image_name("a.OWN")
    path.write_bytes(b"OWN!\x03\x02")
    with pytest.raises(ImageError, match="damaged or truncated OWN"):
        read(path)


@pytest.mark.usefixtures("own_format")
@pytest.mark.parametrize("accept", [None, lambda prefix: 1, lambda prefix: prefix[:3]])
def test_an_opener_of_the_user_is_tried_as_pillow_does(
    accept: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(Image.OPEN, "OWN", (OwnFile, accept))
    assert read(b"OWN!\x03\x02" + bytes(range(6))).pixels.tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(ImageError, match="not an image in a known format"):
        read(b"OWN")  # too short for it: an IndexError
    with pytest.raises(ImageError, match="damaged or unsupported PNG"):
        read(encode(PICTURE, "PNG")[:20])


@pytest.mark.usefixtures("own_format")
@pytest.mark.parametrize("answer", [None, False, 0, "install the plugin"])
def test_an_opener_of_the_user_that_declines_a_file_is_passed_over(
    answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(Image.OPEN, "OWN", (OwnFile, lambda prefix: answer))
    with pytest.raises(ImageError, match="not an image in a known format"):
        read(b"OWN!\x03\x02" + bytes(range(6)))


def test_formats_may_be_registered_while_the_openers_are_listed() -> None:
    code = (
        "import sys, threading; sys.setswitchinterval(1e-6); from PIL import Image; "
        "from tiepoint.images import openers, photographs; openers.openers()\n"
        "def register():\n"
        "  for i in range(60000):\n"
        "    Image.OPEN[f'X{i % 500}'] = (Image.Image, bool)\n"
        "    Image.EXTENSION[f'.x{i % 500}'] = 'X'\n"
        "    if i % 500 == 499:\n"
        "      for k in range(500): del Image.OPEN[f'X{k}'], Image.EXTENSION[f'.x{k}']\n"
        "thread = threading.Thread(target=register); thread.start()\n"
        "while thread.is_alive(): openers.openers(); photographs._endings.__wrapped__(1)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_formats_of_pillow_that_accept_any_bytes_stay_refused() -> None:
    targa = encode(PICTURE, "TGA")
    with pytest.raises(ImageError, match="not an image in a known format"):
        read(targa)
    assert not is_image_name("a.tga")


def test_the_list_of_endings_loads_neither_pillow_nor_pillow_heif() -> None:
    code = (
        "import sys; from tiepoint.images.photographs import is_image_name as f; "
        "assert f('a.jpg') and not f('a.txt'); "
        "print([m for m in ('PIL', 'pillow_heif', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
