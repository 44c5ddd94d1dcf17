"""The rotation matrix next to a checkpoint's weights: saved, loaded, missing, foreign, damaged."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from support.hub_server import FakeHub
from support.rotations import D, eighth
from tiepoint import Detector
from tiepoint.errors import CheckpointError, ConfigError, OutputError
from tiepoint.matching import descriptors
from tiepoint.matching.descriptors import rotation_matrix_of
from tiepoint.weights.checkpoint import BUNDLED, bundled_checkpoints, load_checkpoint
from tiepoint.weights.folder import MANIFEST_FILE, MATCHER_FOLDER, ROTATION_FILE
from tiepoint.weights.rotation import load_rotation, save_rotation

ID = "someone/points-v1"


def test_a_saved_matrix_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    path = save_rotation(tmp_path, eighth(), "abc")
    assert path == tmp_path / ROTATION_FILE
    loaded = load_rotation(str(tmp_path), "abc", D)
    assert loaded is not None
    assert loaded.dtype == np.float32
    assert np.array_equal(loaded, eighth())


def test_a_replaced_file_is_read_again(tmp_path: Path) -> None:
    save_rotation(tmp_path, eighth(), "abc")
    load_rotation(str(tmp_path), "abc", D)
    os.utime(save_rotation(tmp_path, np.eye(D, dtype=np.float32), "abc"), ns=(1, 1))
    assert np.array_equal(load_rotation(str(tmp_path), "abc", D), np.eye(D))


def test_no_file_no_folder_and_other_weights_give_none(tmp_path: Path) -> None:
    assert load_rotation(str(tmp_path), "abc", D) is None
    assert load_rotation(str(tmp_path / "gone"), "abc", D) is None
    save_rotation(tmp_path, eighth(), "abc")
    assert load_rotation(str(tmp_path), "of other weights", D) is None


def test_a_damaged_file_is_refused_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / ROTATION_FILE).write_bytes(b"\0" * 40)
    with pytest.raises(CheckpointError, match="not readable .* run tiepoint fit-rotation again"):
        load_rotation(str(tmp_path), "abc", D)


def test_a_matrix_of_another_size_is_refused(tmp_path: Path) -> None:
    save_rotation(tmp_path, eighth(), "abc")
    with pytest.raises(CheckpointError, match=r"\(16, 16\), expected \(32, 32\)"):
        load_rotation(str(tmp_path), "abc", 32)


def test_a_matrix_with_nan_is_refused(tmp_path: Path) -> None:
    save_rotation(tmp_path, np.full((D, D), np.nan, np.float32), "abc")
    with pytest.raises(CheckpointError, match="finite"):
        load_rotation(str(tmp_path), "abc", D)


def test_a_missing_folder_cannot_be_written_to(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        save_rotation(tmp_path / "gone", eighth(), "abc")


@pytest.mark.weights
def test_a_matrix_on_the_hub_is_that_of_the_commit_of_the_weights(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where main has other weights, and where it has the same ones in another commit."""
    left_out = (MANIFEST_FILE, MATCHER_FOLDER)
    hub.add(ID, BUNDLED / "base", left_out)
    names = [p.name for p in (BUNDLED / "small").iterdir() if p.is_file()]
    files = {n: (BUNDLED / "small" / n).read_bytes() for n in names if n not in left_out}
    commit = hub.repos[ID].commit(files, branch="v2")
    features = Detector(load_checkpoint(ID, revision="v2"))(np.zeros((64, 64), np.uint8))
    assert features.provenance is not None and features.provenance.revision == commit
    assert features.provenance.rotation_crc32 is not None
    monkeypatch.setattr(descriptors, "bundled_checkpoints", lambda: ())  # these are bundled
    assert rotation_matrix_of(features) is not None
    elsewhere = replace(features.provenance, revision="0" * 40)
    with pytest.raises(ConfigError, match="not found"):
        rotation_matrix_of(replace(features, provenance=elsewhere))
    hub.repos[ID].commit({**files, "README.md": b"new"})
    load_checkpoint(ID)
    assert rotation_matrix_of(replace(features, provenance=elsewhere)) is not None


@pytest.mark.weights
@pytest.mark.parametrize("name", bundled_checkpoints())
def test_bundled_checkpoints_have_an_orthogonal_matrix_of_their_weights(name: str) -> None:
    checkpoint = load_checkpoint(name)
    length = checkpoint.network.descriptor_decoder_dim
    matrix = load_rotation(name, checkpoint.sha256, length)
    assert matrix is not None
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(length), atol=1e-4)
