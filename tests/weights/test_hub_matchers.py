"""Learned matchers from and to the Hub, beside the checkpoint that they belong to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from support.hub_server import FakeHub
from tiepoint.errors import ConfigError
from tiepoint.matching.learned import choice
from tiepoint.matching.learned.choice import matcher_of
from tiepoint.weights import hub as hub_module
from tiepoint.weights.checkpoint import BUNDLED, DEFAULT, load_checkpoint
from tiepoint.weights.folder import CONFIG_FILE, MANIFEST_FILE, MATCHER_FOLDER, WEIGHTS_FILE

FOLDER = BUNDLED / DEFAULT
ID = "someone/points-v1"


def test_a_matcher_is_pushed_and_fetched_when_it_is_needed(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.write_token = "hf_writer"
    folder = tmp_path / "mine"
    shutil.copytree(FOLDER, folder)
    hub_module.push(folder, ID, token="hf_writer")
    commit = hub.repos[ID].refs["main"]
    assert f"{MATCHER_FOLDER}/{WEIGHTS_FILE}" in hub.repos[ID].commits[commit]

    checkpoint = load_checkpoint(ID)
    assert not any(MATCHER_FOLDER in line for line in hub.downloads())
    monkeypatch.setattr(choice, "bundled_checkpoints", lambda: ())  # these weights are bundled
    found = matcher_of(checkpoint).checkpoint
    assert found.detector_sha256 == checkpoint.sha256
    assert Path(found.name).parent.name == commit
    hub.log.clear()
    assert matcher_of(checkpoint).checkpoint is found
    assert not hub.log


def test_a_repository_without_a_matcher_says_so(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(ID, FOLDER, leave_out=(MANIFEST_FILE, MATCHER_FOLDER))
    monkeypatch.setattr(choice, "bundled_checkpoints", lambda: ())
    with pytest.raises(ConfigError, match=f"no learned matcher for checkpoint '{ID}'"):
        matcher_of(load_checkpoint(ID))


def test_a_matcher_on_the_hub_for_other_weights_is_refused(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        f"{MATCHER_FOLDER}/{name}": (BUNDLED / "small" / MATCHER_FOLDER / name).read_bytes()
        for name in (CONFIG_FILE, WEIGHTS_FILE)
    }
    hub.add(ID, FOLDER, leave_out=(MANIFEST_FILE, MATCHER_FOLDER))
    hub.repos[ID].commit(files)
    monkeypatch.setattr(choice, "bundled_checkpoints", lambda: ())
    small = load_checkpoint("small").sha256
    with pytest.raises(ConfigError, match=f"is for {small}: train one"):
        matcher_of(load_checkpoint(ID))
