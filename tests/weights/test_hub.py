"""Checkpoints from and to the Hub, against a small Hub on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from support.hub_server import FakeHub, Repo
from tiepoint.detector import Detector
from tiepoint.errors import CheckpointError
from tiepoint.weights import hub as hub_module
from tiepoint.weights.checkpoint import BUNDLED, DEFAULT, load_checkpoint, locate
from tiepoint.weights.folder import (
    CONFIG_FILE,
    MANIFEST_FILE,
    MATCHER_FOLDER,
    PREPROCESSOR_FILE,
    QUANTIZATION_FILE,
    ROTATION_FILE,
    WEIGHTS_FILE,
)

FOLDER = BUNDLED / DEFAULT
ID = "someone/points-v1"


@pytest.fixture
def stocked(hub: FakeHub) -> FakeHub:
    """With the bundled checkpoint on it, under `ID`."""
    hub.add(ID, FOLDER, leave_out=(MANIFEST_FILE, MATCHER_FOLDER))
    return hub


def test_a_hub_id_loads_as_the_same_weights_with_its_commit(stocked: FakeHub) -> None:
    loaded = load_checkpoint(ID)
    own = load_checkpoint()
    assert (loaded.name, loaded.sha256) == (ID, own.sha256)
    assert loaded.revision == stocked.repos[ID].refs["main"]
    assert loaded.network == own.network and loaded.rules == own.rules
    assert load_checkpoint(FOLDER).revision is None


def test_a_detector_takes_a_hub_id_and_its_features_name_it(stocked: FakeHub) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 80), dtype=np.uint8)
    features, own = Detector(ID, device="cpu")(image), Detector(device="cpu")(image)
    np.testing.assert_array_equal(features.xy, own.xy)
    assert features.provenance.checkpoint == ID
    assert features.provenance.revision == stocked.repos[ID].refs["main"]
    other = replace(features.provenance, revision="0" * 40)
    assert not features.provenance.differences(other)


def test_the_second_load_downloads_nothing(stocked: FakeHub) -> None:
    load_checkpoint(ID)
    assert len(stocked.downloads()) == 5
    stocked.log.clear()
    load_checkpoint(ID)
    assert [line.split()[0] for line in stocked.log] == ["HEAD"]


def test_loading_leaves_no_threads_behind(stocked: FakeHub, tmp_path: Path) -> None:
    before = set(threading.enumerate())
    for number in range(3):
        locate(ID, cache_dir=tmp_path / str(number))
    left = [t.name for t in set(threading.enumerate()) - before if "process_request" not in t.name]
    assert left == []


def test_a_manifest_is_not_fetched(hub: FakeHub) -> None:
    hub.add(ID, FOLDER)
    folder = locate(ID)
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        [
            CONFIG_FILE,
            WEIGHTS_FILE,
            PREPROCESSOR_FILE,
            ROTATION_FILE,
            QUANTIZATION_FILE,
        ]
    )


def test_a_repository_without_a_preprocessor_loads_and_is_not_asked_for_it_again(
    hub: FakeHub,
) -> None:
    hub.add(ID, FOLDER, leave_out=(PREPROCESSOR_FILE,))
    load_checkpoint(ID)
    hub.log.clear()
    load_checkpoint(ID)
    assert not any(PREPROCESSOR_FILE in line for line in hub.log)
    assert load_checkpoint(ID, local_files_only=True).name == ID


def test_with_the_hub_down_the_cache_serves(stocked: FakeHub) -> None:
    load_checkpoint(ID)
    stocked.status = 503
    assert load_checkpoint(ID).name == ID
    stocked.log.clear()
    assert load_checkpoint(ID, local_files_only=True).name == ID
    assert stocked.log == []


def test_a_new_commit_is_taken_and_an_old_one_stays_reachable(stocked: FakeHub) -> None:
    old = load_checkpoint(ID)
    config = json.loads((FOLDER / CONFIG_FILE).read_text())
    changed = json.dumps({**config, "nms_radius": 7}).encode()
    new = stocked.repos[ID].commit({CONFIG_FILE: changed})
    stocked.repos[ID].refs["v1"] = str(old.revision)
    assert load_checkpoint(ID).revision == new
    assert load_checkpoint(ID).detection.nms_radius == 7
    for revision in ("v1", old.revision):
        again = load_checkpoint(ID, revision=revision)
        assert (again.revision, again.detection.nms_radius) == (old.revision, config["nms_radius"])


def test_the_cache_folder_can_be_chosen(stocked: FakeHub, tmp_path: Path) -> None:
    folder = locate(ID, cache_dir=tmp_path / "mine")
    assert (tmp_path / "mine") in folder.parents
    with pytest.raises(CheckpointError, match="not in the local cache"):
        locate(ID, local_files_only=True)


def test_a_folder_wins_over_a_hub_id_of_the_same_text(
    stocked: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(ID).mkdir(parents=True)
    for file in filter(Path.is_file, FOLDER.iterdir()):
        (Path(ID) / file.name).write_bytes(file.read_bytes())
    assert load_checkpoint(ID).revision is None
    assert stocked.log == []
    with pytest.raises(CheckpointError, match="for a Hub id only"):
        load_checkpoint(ID, revision="v1")


@pytest.mark.parametrize("name", ["nothing", "a/b/c", "./a/b", "/a/b", "~/b", "a b/c", "a/../b"])
def test_what_has_not_the_form_of_an_id_asks_no_server(hub: FakeHub, name: str) -> None:
    with pytest.raises(CheckpointError, match="neither a bundled name.*nor a Hub id"):
        load_checkpoint(name)
    with pytest.raises(CheckpointError, match="neither"):
        load_checkpoint(Path("org/name"))  # a path is never an id
    assert hub.log == []


@pytest.mark.parametrize("bad", ["a--b/c", "a/b..c", "org/name-"])
def test_an_id_that_the_hub_forbids_is_refused(hub: FakeHub, bad: str) -> None:
    with pytest.raises(CheckpointError, match="[Rr]epo"):
        load_checkpoint(bad)


def test_a_repository_that_is_missing_says_so(hub: FakeHub) -> None:
    with pytest.raises(CheckpointError, match=r"no-one/none: .*no such repository.*token"):
        load_checkpoint("no-one/none")
    with pytest.raises(CheckpointError, match="no-one/none: no such repository"):
        load_checkpoint("no-one/none", token="hf_reader")


def test_a_private_repository_needs_its_token(stocked: FakeHub) -> None:
    stocked.repos[ID].token = "hf_reader"
    with pytest.raises(CheckpointError, match=r"private.*token=.*hf auth login"):
        load_checkpoint(ID)
    assert load_checkpoint(ID, token="hf_reader").name == ID


def test_a_gated_repository_says_where_to_ask(stocked: FakeHub) -> None:
    stocked.repos[ID].token, stocked.repos[ID].gated = "hf_friend", True
    for token in (None, "hf_stranger"):
        with pytest.raises(CheckpointError, match=rf"gated; ask for access at {stocked.url}/{ID}"):
            load_checkpoint(ID, token=token)
    assert load_checkpoint(ID, token="hf_friend").name == ID


def test_a_revision_that_is_missing_says_so(stocked: FakeHub) -> None:
    with pytest.raises(CheckpointError, match="has no revision 'v9'"):
        load_checkpoint(ID, revision="v9")
    load_checkpoint(ID)
    with pytest.raises(CheckpointError, match="has no revision 'v9'"):
        load_checkpoint(ID, revision="v9")


def test_a_repository_of_something_else_lists_what_it_holds(hub: FakeHub) -> None:
    hub.repos[ID] = Repo()
    hub.repos[ID].commit({"README.md": b"hello", "onnx/model.onnx": b"1"})
    with pytest.raises(CheckpointError, match=r"no model\.safetensors.*README\.md, onnx"):
        load_checkpoint(ID)
    hub.repos[ID].commit({WEIGHTS_FILE: b"1"})
    with pytest.raises(CheckpointError, match="a file of the checkpoint is missing"):
        load_checkpoint(ID)


def test_a_pickle_is_not_even_downloaded(hub: FakeHub) -> None:
    hub.add(ID, FOLDER, leave_out=(WEIGHTS_FILE,))
    hub.repos[ID].commit({"pytorch_model.bin": b"cos\nsystem\n"})
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin.*tiepoint convert"):
        load_checkpoint(ID)
    assert hub.downloads() == []


@pytest.mark.parametrize(("kept", "ranges"), [(0, True), (10_000, True), (10_000, False)])
def test_a_download_that_breaks_off_is_one_error_within_seconds(
    stocked: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int, ranges: bool
) -> None:
    from huggingface_hub import constants

    # So small that something arrives each time: huggingface_hub alone would then never give up.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    stocked.cut[WEIGHTS_FILE], stocked.ranges = kept, ranges
    start = time.monotonic()
    with pytest.raises(CheckpointError, match=ID):
        load_checkpoint(ID)
    assert time.monotonic() - start < 60  # seconds on any machine; left alone it never ends
    assert not list((tmp_path / "cache").rglob("*.incomplete"))
    stocked.cut.clear()
    assert load_checkpoint(ID).name == ID  # and the cache was not spoilt


def test_a_download_that_breaks_off_once_is_resumed(stocked: FakeHub) -> None:
    class Once(dict[str, int]):
        def get(self, name: str, default: object = None) -> int | None:
            return self.pop(name, None)

    stocked.cut = Once({WEIGHTS_FILE: 10_000})
    assert load_checkpoint(ID).sha256 == load_checkpoint().sha256


def test_a_damaged_file_in_the_cache_is_found_and_named(stocked: FakeHub) -> None:
    path = locate(ID) / WEIGHTS_FILE
    data = bytearray(path.read_bytes())
    data[-40] ^= 1  # one bit of one weight
    path.resolve().write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged; delete .*blobs"):
        load_checkpoint(ID)


@pytest.mark.parametrize("status", [500, 503, 418])
def test_a_hub_in_trouble_is_told_with_its_status(stocked: FakeHub, status: int) -> None:
    stocked.status = status
    with pytest.raises(CheckpointError, match=f"the Hub answers {status}"):
        load_checkpoint(ID)


def test_no_connection_and_nothing_cached_is_one_error_at_once(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    closed = "http://127.0.0.1:9"
    monkeypatch.setattr(constants, "ENDPOINT", closed)
    start = time.monotonic()
    with pytest.raises(CheckpointError, match=f"transfer failed .*connection to {closed}"):
        load_checkpoint(ID)
    assert time.monotonic() - start < 60
    with pytest.raises(CheckpointError, match="local_files_only.*or give a folder"):
        load_checkpoint(ID, local_files_only=True)


def test_offline_mode_asks_no_server(stocked: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE"):
        load_checkpoint(ID)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    load_checkpoint(ID)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    stocked.log.clear()
    assert load_checkpoint(ID).name == ID
    assert stocked.log == []


def test_a_process_of_its_own_finds_the_hub_by_its_environment_and_needs_no_torch(
    stocked: FakeHub, tmp_path: Path
) -> None:
    code = f"""
import sys, numpy as np, tiepoint
detector = tiepoint.Detector({ID!r}, device="cpu")
print(len(detector(np.zeros((40, 40), np.uint8))), "torch" in sys.modules)
"""
    environment = {
        **os.environ, "HF_ENDPOINT": stocked.url, "HF_HUB_CACHE": str(tmp_path / "other"),
        "HF_HOME": str(tmp_path / "home"),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["0", "False"], done.stderr
    assert len(stocked.downloads()) == 5


def test_loading_what_is_bundled_does_not_import_the_hubs_library() -> None:
    code = """
import sys
from tiepoint.weights.checkpoint import load_checkpoint
load_checkpoint()
print([*sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "huggingface_hub" not in done.stdout


def test_a_pushed_folder_comes_back(hub: FakeHub, tmp_path: Path) -> None:
    hub.write_token = "hf_writer"
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in (CONFIG_FILE, WEIGHTS_FILE, PREPROCESSOR_FILE):
        (folder / name).write_bytes((FOLDER / name).read_bytes())
    (folder / "notes.txt").write_text("not for others")
    (folder / "README.md").write_text("# Points\n")
    url = hub_module.push(folder, "someone/new", token="hf_writer", commit_message="first")
    files = hub.repos["someone/new"].commits[hub.repos["someone/new"].refs["main"]]
    assert url.endswith(hub.repos["someone/new"].refs["main"])
    assert "notes.txt" not in files and files["README.md"] == b"# Points\n"
    assert load_checkpoint("someone/new").sha256 == load_checkpoint().sha256
    assert hub.repos["someone/new"].token is None


def test_a_push_to_a_repository_that_is_there_adds_a_commit(hub: FakeHub) -> None:
    hub.write_token = "hf_writer"
    hub.repos[ID] = Repo(token="hf_writer")
    first = hub.repos[ID].commit({"README.md": b"old"})
    hub_module.push(FOLDER, ID, token="hf_writer", private=True)
    assert next(iter(hub.repos[ID].commits)) == first and len(hub.repos[ID].commits) == 2
    assert load_checkpoint(ID, token="hf_writer").name == ID


def test_a_new_repository_can_be_private(hub: FakeHub) -> None:
    hub.write_token = "hf_writer"
    hub_module.push(FOLDER, "someone/secret", token="hf_writer", private=True)
    with pytest.raises(CheckpointError, match="private"):
        load_checkpoint("someone/secret")


@pytest.mark.parametrize("token", [None, "hf_reader"])
def test_a_push_without_permission_says_so(hub: FakeHub, token: str | None) -> None:
    hub.write_token = "hf_writer"
    with pytest.raises(CheckpointError, match=f"{ID}: no permission to write"):
        hub_module.push(FOLDER, ID, token=token)


def test_a_push_of_what_is_no_checkpoint_asks_no_server(hub: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"lacks config\.json and model\.safetensors"):
        hub_module.push(tmp_path, ID, token="hf_writer")
    with pytest.raises(CheckpointError, match="org/name"):
        hub_module.push(FOLDER, "name", token="hf_writer")
    assert hub.log == []
