"""`tiepoint convert`: weights of other projects in, a checkpoint out, and no code run."""

from __future__ import annotations

import builtins
import codecs
import json
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

from support.checkpoints import random_checkpoint
from tiepoint.cli import app
from tiepoint.detector import Detector
from tiepoint.errors import CheckpointError, ConfigError, MissingExtraError
from tiepoint.weights.checkpoint import BUNDLED, DEFAULT, load_checkpoint
from tiepoint.weights.convert import MAGIC_LEAP, convert
from tiepoint.weights.folder import CONFIG_FILE, MANIFEST_FILE, PREPROCESSOR_FILE, WEIGHTS_FILE

torch = pytest.importorskip("torch")

ORIGINAL = {new: old for old, new in MAGIC_LEAP.items()}


def magic_leap(seed: int = 0, **widths: Any) -> dict[str, np.ndarray]:
    """A random network under Magic Leap's names."""
    found = {}
    for name, array in random_checkpoint(seed, **widths).tensors.items():
        layer, _, kind = name.rpartition(".")
        found[f"{ORIGINAL[layer]}.{kind}"] = array
    return found


def as_torch(tensors: dict[str, np.ndarray]) -> OrderedDict[str, Any]:
    return OrderedDict((name, torch.from_numpy(array.copy())) for name, array in tensors.items())


def test_magic_leaps_names_are_the_published_ones() -> None:
    expected = ["1a", "1b", "2a", "2b", "3a", "3b", "4a", "4b", "Pa", "Pb", "Da", "Db"]
    assert list(MAGIC_LEAP) == [f"conv{name}" for name in expected]


@pytest.mark.parametrize(
    "widths",
    [{}, {"widths": (64, 64, 128, 128), "hidden": 256, "length": 256},
     {"widths": (4, 6, 10, 12), "hidden": 20, "length": 9}],
)  # fmt: skip
def test_a_magic_leap_file_becomes_a_checkpoint_that_detects(tmp_path: Path, widths: Any) -> None:
    torch.save(as_torch(magic_leap(3, **widths)), tmp_path / "superpoint_v1.pth")
    folder = convert(tmp_path / "superpoint_v1.pth", tmp_path / "새 폴더" / "sp")
    made, original = load_checkpoint(folder), random_checkpoint(3, **widths)
    assert made.network == original.network
    assert (made.rules, made.sampling) == ("transformers", "superpoint")
    for name, array in original.tensors.items():
        np.testing.assert_array_equal(made.tensors[name], array)
    image = np.random.default_rng(0).integers(0, 256, (64, 80), dtype=np.uint8)
    assert len(Detector(folder, device="cpu")(image)) > 0
    assert not list(folder.parent.glob(".*"))


def test_transformers_loads_the_folder_with_the_same_weights(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.save(as_torch(magic_leap()), tmp_path / "v1.pth")
    folder = convert(tmp_path / "v1.pth", tmp_path / "out")
    model = transformers.SuperPointForKeypointDetection.from_pretrained(folder)
    state = model.state_dict()
    for name, array in random_checkpoint().tensors.items():
        np.testing.assert_array_equal(state[name].numpy(), array)
    config = json.loads((folder / CONFIG_FILE).read_text())
    assert "tiepoint" not in config and config["keypoint_threshold"] == 0.005
    processor = json.loads((folder / PREPROCESSOR_FILE).read_text())
    assert processor["image_processor_type"] == "SuperPointImageProcessor"
    assert "tiepoint" not in processor


@pytest.mark.parametrize(
    "wrap",
    [lambda s: {"epoch": 3, "state_dict": s}, lambda s: {"model_state_dict": s, "lr": 0.1},
     lambda s: {"model": {"state_dict": s}},
     lambda s: {f"module.{k}": v for k, v in s.items()},
     lambda s: {"state_dict": {f"module.model.{k}": v for k, v in s.items()}}],
)  # fmt: skip
def test_wrappers_and_prefixes_of_training_are_taken_off(tmp_path: Path, wrap: Any) -> None:
    torch.save(wrap(as_torch(magic_leap())), tmp_path / "last.ckpt")
    made = load_checkpoint(convert(tmp_path / "last.ckpt", tmp_path / "out"))
    assert made.network == random_checkpoint().network


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_precisions_become_float32(tmp_path: Path, dtype: str) -> None:
    narrow = {n: t.to(getattr(torch, dtype)) for n, t in as_torch(magic_leap()).items()}
    torch.save(narrow, tmp_path / "v1.pth")
    made = load_checkpoint(convert(tmp_path / "v1.pth", tmp_path / "out"))
    for name, array in made.tensors.items():
        layer, _, kind = name.rpartition(".")
        expected = narrow[f"{ORIGINAL[layer]}.{kind}"].float().numpy()
        np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("names", ["magic leap", "transformers"])
@pytest.mark.parametrize("file", ["a.safetensors", "b.pth"])
def test_both_names_in_both_kinds_of_file_give_the_same_weights(
    tmp_path: Path, names: str, file: str
) -> None:
    original = random_checkpoint().tensors
    tensors = magic_leap() if names == "magic leap" else dict(original)
    if file.endswith("pth"):
        torch.save(as_torch(tensors), tmp_path / file)
    else:
        save_file(tensors, tmp_path / file)
    made = load_checkpoint(convert(tmp_path / file, tmp_path / "out"))
    assert all(np.array_equal(made.tensors[name], original[name]) for name in original)
    assert made.rules == "transformers"


def test_safetensors_need_no_torch_and_a_pth_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(magic_leap(), tmp_path / "a.safetensors")
    torch.save(as_torch(magic_leap()), tmp_path / "b.pth")
    real = builtins.__import__

    def without_torch(name: str, *rest: Any, **more: Any) -> Any:
        if name == "torch":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without_torch)
    convert(tmp_path / "a.safetensors", tmp_path / "out")
    with pytest.raises(MissingExtraError, match=r"tiepoint\[torch\]"):
        convert(tmp_path / "b.pth", tmp_path / "other")


def test_a_config_beside_transformers_weights_is_kept(tmp_path: Path) -> None:
    for name in (CONFIG_FILE, PREPROCESSOR_FILE):
        text = (BUNDLED / DEFAULT / name).read_text()
        (tmp_path / name).write_text(text)
    tensors = {n: torch.from_numpy(a.copy()) for n, a in load_checkpoint().tensors.items()}
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    made, own = (
        load_checkpoint(convert(tmp_path / "pytorch_model.bin", tmp_path / "out")),
        load_checkpoint(),
    )
    assert (made.rules, made.detection, made.network) == (own.rules, own.detection, own.network)
    kept = json.loads((tmp_path / "out" / PREPROCESSOR_FILE).read_text())
    assert kept == json.loads((tmp_path / PREPROCESSOR_FILE).read_text())
    (tmp_path / CONFIG_FILE).write_text('{"model_type": "superpoint", "nms_radius": "far"}')
    with pytest.raises((CheckpointError, ConfigError)):
        convert(tmp_path / "pytorch_model.bin", tmp_path / "other")


def test_missing_and_unexpected_keys_are_listed(tmp_path: Path) -> None:
    tensors = magic_leap()
    tensors["conv9z.weight"] = tensors.pop("convPb.bias")
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"missing: convPb\.bias; unexpected: conv9z\.weight"):
        convert(tmp_path / "a.safetensors", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_foreign_network_lists_a_few_names_and_counts_the_rest(tmp_path: Path) -> None:
    save_file({f"layer{i}": np.zeros(1, "f4") for i in range(50)}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"missing: conv1a\.bias.*unexpected: .*and 42 more"):
        convert(tmp_path / "a.safetensors", tmp_path / "out")


def test_batch_norm_after_relu_is_refused_with_the_reason(tmp_path: Path) -> None:
    state = {}
    for name in ("backbone.0.0", "backbone.0.1", "detector.0", "descriptor.1"):
        state[f"{name}.conv.weight"] = torch.zeros(8, 1, 3, 3)
        for part in ("weight", "bias", "running_mean", "running_var"):
            state[f"{name}.bn.{part}"] = torch.zeros(8)
        state[f"{name}.bn.num_batches_tracked"] = torch.tensor(7)
    torch.save(state, tmp_path / "superpoint_v6.pth")
    with pytest.raises(CheckpointError, match=r"batch norm after each ReLU.*rpautrat.*folded"):
        convert(tmp_path / "superpoint_v6.pth", tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [("convPb.weight", lambda a: a[:64], "conv_score_b.weight has shape"),
     ("convPb.bias", lambda a: a[:64], "64 values per cell, expected 65"),
     ("conv2a.weight", lambda a: a[:, :3], "conv_blocks.1.conv_a.weight has shape"),
     ("convDa.bias", lambda a: a[:2], "conv_descriptor_a.* shape"),
     ("conv1a.bias", lambda a: a[0], "shape"),
     ("conv1a.weight", lambda a: a * np.float32("nan"), "NaN")],
)  # fmt: skip
def test_tensors_that_do_not_fit_each_other_are_refused(
    tmp_path: Path, name: str, change: Any, message: str
) -> None:
    tensors = magic_leap()
    tensors[name] = np.ascontiguousarray(change(tensors[name]))
    torch.save(as_torch(tensors), tmp_path / "v1.pth")
    with pytest.raises(CheckpointError, match=message):
        convert(tmp_path / "v1.pth", tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Malicious:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["zip", "legacy", "raw"])
def test_a_malicious_pickle_is_refused_and_runs_nothing(tmp_path: Path, kind: str) -> None:
    bait, file = tmp_path / "touched", tmp_path / "evil.pth"
    payload = {**as_torch(magic_leap()), "extra": Malicious(bait)}
    if kind == "raw":
        file.write_bytes(pickle.dumps({"a": Malicious(bait)}))
    else:
        torch.save(payload, file, _use_new_zipfile_serialization=kind == "zip")
    assert zipfile.is_zipfile(file) == (kind == "zip")
    with pytest.raises(CheckpointError, match="without running code"):
        convert(file, tmp_path / "out")
    assert not bait.exists() and not (tmp_path / "out").exists()
    torch.load(file, weights_only=False) if kind != "raw" else pickle.loads(file.read_bytes())
    assert bait.exists()  # so the file really was a trap


def test_a_pickled_model_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Conv2d(1, 2, 3), tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="state_dict"):
        convert(tmp_path / "model.pt", tmp_path / "out")


@pytest.mark.parametrize("held", [[1, 2], {"state_dict": 5}, {}, {"a": "text"}, 7])
def test_a_file_without_tensors_by_name_is_refused(tmp_path: Path, held: Any) -> None:
    torch.save(held, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="expected a state dict"):
        convert(tmp_path / "a.pth", tmp_path / "out")


@pytest.mark.parametrize(
    "data", [b"", b"PK\x03\x04rubbish", b"\x80\x04", b"<html>not found</html>"]
)
@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_a_damaged_file_is_refused(tmp_path: Path, data: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        convert(tmp_path / name, tmp_path / "out")


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path: Path, part: float) -> None:
    torch.save(as_torch(magic_leap()), tmp_path / "v1.pth")
    data = (tmp_path / "v1.pth").read_bytes()
    (tmp_path / "v1.pth").write_bytes(data[: int(part * len(data))])
    with pytest.raises(CheckpointError, match="damaged"):
        convert(tmp_path / "v1.pth", tmp_path / "out")


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        convert(tmp_path / "none.pth", tmp_path / "out")


def test_a_checkpoint_that_is_there_is_replaced_only_if_asked(tmp_path: Path) -> None:
    save_file(magic_leap(1), tmp_path / "one.safetensors")
    save_file(magic_leap(2), tmp_path / "two.safetensors")
    out = convert(tmp_path / "one.safetensors", tmp_path / "out")
    first = load_checkpoint(out).sha256
    (out / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"holds .*config\.json already.*--overwrite"):
        convert(tmp_path / "two.safetensors", out)
    assert load_checkpoint(out).sha256 == first
    (out / MANIFEST_FILE).write_text(json.dumps({"sha256": first}))
    convert(tmp_path / "two.safetensors", out, overwrite=True)
    assert load_checkpoint(out).sha256 != first
    assert (out / "notes.txt").read_text() == "mine"


def test_an_output_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    save_file(magic_leap(), tmp_path / "one.safetensors")
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(CheckpointError, match="is a file"):
        convert(tmp_path / "one.safetensors", tmp_path / "taken")
    with pytest.raises(Exception, match="cannot be written"):
        convert(tmp_path / "one.safetensors", tmp_path / "taken" / "below")


def test_the_command_converts_and_its_mistakes_end_in_one_line(tmp_path: Path) -> None:
    torch.save(as_torch(magic_leap()), tmp_path / "v1.pth")
    arguments = ["convert", str(tmp_path / "v1.pth"), str(tmp_path / "out")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "encoder 8, 8, 16, 16; heads 24; descriptors 16" in done.output
    assert load_checkpoint(tmp_path / "out" / ".").network == random_checkpoint().network
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 2 and "--overwrite" in again.output
    assert "Traceback" not in again.output
    assert CliRunner().invoke(app, [*arguments, "--overwrite"]).exit_code == 0
    assert (tmp_path / "out" / WEIGHTS_FILE).is_file()


def test_bytes_next_to_the_tensors_are_no_reason_to_refuse_a_file(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    content = {"state_dict": as_torch(magic_leap()), "name": b"abc", "more": [b"x\xff", b"abd"]}
    torch.save(content, tmp_path / "x.pth")
    convert(tmp_path / "x.pth", tmp_path / "out")
    assert load_checkpoint(tmp_path / "out").tensors


class Encoded:
    """Becomes a call of encode when it is pickled."""

    def __init__(self, *arguments: object) -> None:
        self.arguments = arguments

    def __reduce__(self) -> Any:
        return codecs.encode, self.arguments


@pytest.mark.parametrize(
    "arguments", [("a" * 50, "punycode"), ("a",), ("latin1", "rot13"), (b"a", "zlib_codec")]
)
def test_other_encodings_than_those_of_bytes_are_refused(tmp_path: Path, arguments: Any) -> None:
    torch = pytest.importorskip("torch")
    content = {"state_dict": as_torch(magic_leap()), "bytes": b"abc", "x": Encoded(*arguments)}
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="uses _codecs encode for other things than bytes"):
        convert(tmp_path / "x.pth", tmp_path / "out")
