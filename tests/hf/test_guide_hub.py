"""The guide's classes with Hub ids, against a small Hub on this machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the guide's classes need the extra torch")

from support.guide_models import EXACT_RULES, TRANSFORMERS_RULES, make_model, make_processor  # noqa: E402
from support.hub_server import FakeHub  # noqa: E402
from tiepoint import (  # noqa: E402
    AutoImageProcessor,
    Detector,
    SuperPointConfig,
    SuperPointForKeypointDetection,
)
from tiepoint.errors import CheckpointError  # noqa: E402

ID, TOKEN = "someone/new-points", "hf_writer"


@pytest.mark.parametrize("rules", [EXACT_RULES, TRANSFORMERS_RULES])
def test_what_is_pushed_loads_by_its_id(hub: FakeHub, rules: str, tmp_path: Path) -> None:
    hub.write_token = TOKEN
    model, processor = make_model(rules), make_processor(rules)
    first = model.push_to_hub(ID, token=TOKEN, commit_message="weights")
    second = processor.push_to_hub(ID, token=TOKEN)
    repo = hub.repos[ID]
    last_two = list(repo.commits)[-2:]
    assert [first.endswith(last_two[0]), second.endswith(last_two[1])] == [True, True]
    assert set(repo.commits[last_two[1]]) >= {
        "config.json", "model.safetensors", "preprocessor_config.json"
    }  # fmt: skip

    where = {"cache_dir": tmp_path / "mine"}
    loaded = SuperPointForKeypointDetection.from_pretrained(ID, dtype="float16", **where)
    assert loaded.dtype == torch.float16 and loaded.config.rules == rules
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.half())
    assert AutoImageProcessor.from_pretrained(ID, **where).size == processor.size
    assert SuperPointConfig.from_pretrained(ID, **where) == SuperPointConfig.from_dict(
        {**model.config.to_dict(), "dtype": "float32",
         "architectures": ["SuperPointForKeypointDetection"]}
    )  # fmt: skip
    asked = len(hub.log)
    offline = SuperPointForKeypointDetection.from_pretrained(ID, local_files_only=True, **where)
    assert offline.config.rules == rules and len(hub.log) == asked
    assert len(Detector(ID)(np.asarray(torch.rand(64, 80)))) > 0


def test_a_revision_picks_a_commit(hub: FakeHub) -> None:
    hub.write_token = TOKEN
    make_model(EXACT_RULES, max_keypoints=1).push_to_hub(ID, token=TOKEN)
    old = hub.repos[ID].refs["main"]
    make_model(EXACT_RULES, max_keypoints=2).push_to_hub(ID, token=TOKEN)
    load = SuperPointForKeypointDetection.from_pretrained
    assert load(ID).config.max_keypoints == 2
    assert load(ID, revision=old).config.max_keypoints == 1


def test_a_private_repository_needs_its_token_for_each_part(hub: FakeHub) -> None:
    hub.write_token = TOKEN
    make_model(EXACT_RULES).push_to_hub(ID, token=TOKEN, private=True)
    make_processor(EXACT_RULES).push_to_hub(ID, token=TOKEN)
    for load in (
        SuperPointForKeypointDetection.from_pretrained,
        AutoImageProcessor.from_pretrained,
    ):
        with pytest.raises(CheckpointError, match="private"):
            load(ID)
    assert AutoImageProcessor.from_pretrained(ID, token=TOKEN).rules == "exact"
    assert SuperPointForKeypointDetection.from_pretrained(ID, token=TOKEN).config.rules == "exact"


def test_pushing_without_permission_says_so(hub: FakeHub) -> None:
    hub.write_token = TOKEN
    for part in (make_model(EXACT_RULES), make_processor(EXACT_RULES)):
        with pytest.raises(CheckpointError, match="no permission to write"):
            part.push_to_hub(ID, token="hf_reader")
