"""`tiepoint export`."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from support.checkpoints import random_checkpoint
from support.onnx_graphs import run_model
from tiepoint import ConfigError, EngineError, MissingExtraError, OutputError
from tiepoint.cli import app
from tiepoint.export import check, runtimes, write

pytest.importorskip("onnx", reason="needs the extra onnx")
pytest.importorskip("onnxruntime", reason="needs the extra onnx")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def test_the_file_finds_keypoints_in_images_of_any_size(here: Path) -> None:
    import numpy as np

    result = run(
        "small.onnx", "-c", "small", "--count", "2", "--max-keypoints", "50", "--threads", "2"
    )
    assert result.exit_code == 0, result.output
    assert "ONNX Runtime: 100 of 100 keypoints are those of Detector" in result.stdout
    assert result.stdout.endswith("wrote small.onnx\n")
    data = Path("small.onnx").read_bytes()
    image = np.random.default_rng(0).random((2, 3, 61, 83), dtype=np.float32)
    outputs = run_model(data, image=image)
    assert list(outputs) == ["keypoints", "scores", "descriptors", "count"]
    assert outputs["keypoints"].shape == (2, 50, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.pb"], "the ending picks the format, one of .onnx, .pt2"),
        (["there.onnx"], "give --overwrite"),
        (["model.onnx", "--scales", "2"], "expected scales up to 1"),
        (["model.onnx", "-c", "nowhere"], "nowhere"),
        (["model.onnx", "--phases", "3"], "expected 1, 2 or 4"),
        (["model.onnx", "--layers", "2"], "needs --matcher"),
        (["model.onnx", "--matcher", "there", "--nms-radius", "2"], "--nms-radius cannot be given"),
        (["model.onnx", "--matcher", "nowhere"], "nowhere"),
        (["model.pt2", "--profile", "colmap"], "profile colmap is a contract of ONNX files"),
        (["model.pt2", "--matcher", "there"], "a matcher is exported as an ONNX file"),
    ],
)
def test_wrong_usage_writes_nothing(here: Path, arguments: list[str], message: str) -> None:
    Path("there.onnx").write_bytes(b"mine")
    result = run(*arguments)
    assert result.exit_code == 2 and message in result.output
    assert Path("there.onnx").read_bytes() == b"mine"
    assert not Path("model.onnx").exists() and not Path("model.pt2").exists()


def test_a_file_with_other_keypoints_is_not_written(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = [check.Agreement("ONNX Runtime", 200, 198, 0.004)]
    monkeypatch.setattr(write, "compare", lambda *_, **__: wrong)
    result = run("model.onnx", "-c", "small")
    assert result.exit_code == 1
    assert "198 of 200 keypoints" in result.stderr and not Path("model.onnx").exists()


def test_a_runtime_that_moves_keypoints_is_caught(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    load = runtimes.onnx_runtime

    def shifted(data: bytes, threads: int | None) -> runtimes.Runtime:
        exact = load(data, threads)

        def run(inputs: runtimes.Arrays) -> runtimes.Arrays:
            outputs = dict(exact(inputs))
            return outputs | {"keypoints": outputs["keypoints"] + np.float32(0.5)}

        return run

    monkeypatch.setattr(runtimes, "onnx_runtime", shifted)
    image = np.random.default_rng(0).integers(0, 256, (60, 80), dtype=np.uint8)
    with pytest.raises(EngineError, match="ONNX Runtime: 0 of"):
        write.export_onnx("model.onnx", random_checkpoint(), images=[image])
    assert not Path("model.onnx").exists()


def test_a_comparison_without_keypoints_writes_nothing(here: Path) -> None:
    import numpy as np

    for images in ((), (np.zeros((40, 48), np.uint8),)):
        with pytest.raises(EngineError, match="no keypoints to compare"):
            write.export_onnx("model.onnx", "small", images=images)
    assert not Path("model.onnx").exists()


def test_without_the_extra_its_name_is_stated(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "is_installed", lambda name: name != "onnx")
    with pytest.raises(MissingExtraError, match=r"tiepoint\[onnx\]"):
        write.export_onnx("model.onnx")


def test_unknown_settings_and_endings_are_refused(here: Path) -> None:
    checkpoint = random_checkpoint()
    with pytest.raises(ConfigError, match="unknown option max_side"):
        write.export_onnx("model.onnx", checkpoint, max_side=100)
    with pytest.raises(ConfigError, match=r"ending in \.onnx"):
        write.export_onnx("model.pt", checkpoint)
    with pytest.raises(ConfigError, match="expected one of generic, colmap, opencv"):
        write.export_onnx("model.onnx", checkpoint, profile="other")  # type: ignore[arg-type]
    with pytest.raises(OutputError, match="no-folder"):
        write.export_onnx("no-folder/model.onnx", checkpoint)


def test_a_matcher_is_exported_in_place_of_the_detector(here: Path) -> None:
    from support.learned_matchers import random_tensors
    from tiepoint.matching.learned.architecture import MatcherConfig
    from tiepoint.matching.learned.folder import save_matcher
    from tiepoint.weights.checkpoint import load_checkpoint

    small = load_checkpoint("small")
    config = MatcherConfig(small.network.descriptor_decoder_dim, width=24, heads=2, layers=3)
    save_matcher("mine", config, random_tensors(config), small)
    result = run(
        "m.onnx", "--matcher", "mine", "--layers", "2", "--threshold", "1e-6", "--count", "1"
    )
    assert result.exit_code == 0, result.output
    assert "matches are those of tiepoint" in result.stdout
    assert result.stdout.endswith("wrote m.onnx\n") and Path("m.onnx").is_file()
