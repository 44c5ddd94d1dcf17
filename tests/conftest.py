"""Fixtures that several tests share."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

from tiepoint.config import DetectionConfig, NetworkConfig
from tiepoint.weights import Checkpoint

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


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the working folder too."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def random_checkpoint(
    seed: int = 0,
    widths: tuple[int, int, int, int] = (8, 8, 16, 16),
    hidden: int = 24,
    length: int = 16,
) -> Checkpoint:
    """A network of any widths whose random weights do find points."""
    config = NetworkConfig(widths, hidden, 65, length)
    random = np.random.default_rng(seed)
    tensors = {}
    for layer in config.layers():
        side = layer.kernel_px
        fan_in = layer.in_channels * side * side
        shape = (layer.out_channels, layer.in_channels, side, side)
        gain = 12 if layer.name.endswith("score_b") else 1.4
        weight = random.normal(0, gain / np.sqrt(fan_in), shape)
        tensors[f"{layer.name}.weight"] = weight.astype(np.float32)
        bias = random.normal(0, 0.05, layer.out_channels)
        tensors[f"{layer.name}.bias"] = bias.astype(np.float32)
    detection = DetectionConfig(threshold=0.02)
    return Checkpoint(f"random-{seed}", "0" * 64, config, detection, "exact", tensors)
