"""Fixtures that several tests share."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

from support.hub_server import FakeHub, running

settings.register_profile("house", deadline=None)  # no test may fail for want of a quick machine
settings.load_profile("house")

REPOSITORY = Path(__file__).resolve().parent.parent


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as under `make test &`: children inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Photographs and real pairs that are not part of the repository."""
    folder = Path(os.environ.get("TIEPOINT_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no {folder}: set TIEPOINT_SHARED to the folder with photos/ and eval/")
    return folder


@pytest.fixture(scope="session")
def photographs() -> list[NDArray[np.uint8]]:
    """Real photographs that scikit-image ships: colour and grey, of four sizes."""
    data = pytest.importorskip("skimage.data", reason="photographs need scikit-image")
    return [data.camera(), data.astronaut()[:301, :407], data.coffee(), data.cat()]


@pytest.fixture(scope="module")
def small_frames() -> Iterator[None]:
    """Only the smallest frames of noise: runs of a few steps shall not wait for the others."""
    from tiepoint.evaluation import noise_floor

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(noise_floor, "SIZES_HW", noise_floor.SIZES_HW[:1])
        yield


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the working folder too."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """A Hub that huggingface_hub talks to, with an empty cache and nobody logged in."""
    from huggingface_hub import constants

    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    with running() as server:
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        yield server
