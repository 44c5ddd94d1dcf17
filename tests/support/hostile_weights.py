"""Checkpoint folders and torch's files that attack their readers; see `hostile_files`."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

from support.hostile_files import DIGITS, Write
from tiepoint.weights.checkpoint import BUNDLED, DEFAULT

# Checkpoints


def checkpoint(**changes: Any) -> Write:
    """A folder like the bundled checkpoint with changed files and settings.

    Args:
        changes: Name of a file with _ for . -> its text, or `config` -> changed settings.
    """

    def write(folder: Path) -> None:
        folder.mkdir()
        for path in filter(Path.is_file, (BUNDLED / DEFAULT).iterdir()):
            if path.is_file() and path.name != "manifest.json":
                (folder / path.name).write_bytes(path.read_bytes())
        for name, change in changes.items():
            path = folder / f"{name}.json"
            if callable(change):
                path = folder / name.replace("_safetensors", ".safetensors")
                path.unlink(missing_ok=True)
                change(path)
            elif isinstance(change, dict):
                values = json.loads(path.read_text()) if path.exists() else {}
                path.write_text(json.dumps(values | change))
            else:
                path.write_bytes(change if isinstance(change, bytes) else change.encode())

    return write


def config(**values: Any) -> Write:
    return checkpoint(config=values)


def ours(**values: Any) -> Write:
    return config(tiepoint={"version": 1, "rules": "exact", **values})


def hostile_safetensors(header: bytes, declared: int | None = None, data: bytes = b"") -> Write:
    size = len(header) if declared is None else declared
    return lambda path: path.write_bytes(size.to_bytes(8, "little") + header + data) and None


def sparse_file(path: Path) -> None:
    with path.open("wb") as file:
        file.write((300).to_bytes(8, "little") + b"{")
        file.truncate(20_000_000_000)


def huge_safetensors(path: Path) -> None:
    save_file({"a": np.zeros((5000, 5000, 2), np.float16)}, path)


_ROW = b'{"a":{"dtype":"F32","shape":[%d,%d],"data_offsets":[0,8]}}'
CHECKPOINTS: dict[str, Write] = {
    "config nested 10^5 deep": checkpoint(config="[" * 100_000),
    "config with 1e400": checkpoint(config='{"keypoint_threshold": 1e400}'),
    "config of 5,000 digits": checkpoint(config=f'{{"nms_radius": {DIGITS}}}'),
    "config not UTF-8": checkpoint(config=b'{"a": "\xff"}'),
    "config of 10^5 scales": ours(scales=[1 + n / 10**6 for n in range(100_000)]),
    "config of an NMS radius of 10^9": config(nms_radius=10**9),
    "config of a border of 10^18": config(border_removal_distance=10**18),
    "config of a covariance scale of 1e300": ours(covariance_scale=1e300),
    "config of widths of 10^9": config(encoder_hidden_sizes=[10**9] * 4),
    "config of text widths": config(encoder_hidden_sizes="abcd", nms_radius="x"),
    "config that is a FIFO": checkpoint(**{"config.json": os.mkfifo}),
    "weights are a FIFO": checkpoint(model_safetensors=os.mkfifo),
    "weights of 20 GB, sparse": checkpoint(model_safetensors=sparse_file),
    "weights of a header of 2^63": checkpoint(
        model_safetensors=hostile_safetensors(b"{}", declared=2**63)
    ),
    "weights of a header of 50 MB": checkpoint(
        model_safetensors=hostile_safetensors(b"[" * 50_000_000)
    ),
    "weights of a shape of 2^63": checkpoint(
        model_safetensors=hostile_safetensors(_ROW % (2**63, 2), data=bytes(8))
    ),
    "weights of overlapping offsets": checkpoint(
        model_safetensors=hostile_safetensors(_ROW % (10**9, 2), data=bytes(8))
    ),
    "weights of another shape": checkpoint(model_safetensors=huge_safetensors),
}
ROTATIONS: dict[str, Write] = {
    "rotation is a FIFO": checkpoint(rotation_safetensors=os.mkfifo),
    "rotation of a header of 50 MB": checkpoint(
        rotation_safetensors=hostile_safetensors(b"[" * 50_000_000)
    ),
    "rotation of 20 GB, sparse": checkpoint(rotation_safetensors=sparse_file),
}
PROCESSORS: dict[str, Write] = {
    "processor nested 10^5 deep": checkpoint(preprocessor_config="[" * 100_000),
    "processor of a size of 5": checkpoint(preprocessor_config={"size": 5.5}),
    "processor of a size of 10^9": checkpoint(
        preprocessor_config={"size": {"height": 10**9, "width": 10**9}}
    ),
    "processor of a text as factor": checkpoint(preprocessor_config={"rescale_factor": "x"}),
    "processor of a mark that is a number": checkpoint(preprocessor_config={"tiepoint": 5}),
    "processor with a setting named as a method": checkpoint(
        preprocessor_config={"to_dict": 1, "__class__": 2}
    ),
    "processor of filter 10^9": checkpoint(preprocessor_config={"resample": 10**9}),
}
GUIDE_CONFIGS: dict[str, Write] = {
    "guide's config with a setting named as a method": config(detection=1),
    "guide's config of a number as widths": config(encoder_hidden_sizes=5),
    "guide's config of a number as mark": config(tiepoint=5),
    "guide's config of a text as deviation": config(initializer_range="x"),
}


# torch's files


def torch_file(content: Any, **options: Any) -> Write:
    return lambda path: torch.save(content(), path, **options)


def itself() -> dict[str, Any]:
    state: dict[str, Any] = {}
    state["model"] = state
    return state


def expanded() -> dict[str, Any]:
    return {"conv1a.weight": torch.zeros(1).expand(10**9)}


def packed_torch(path: Path) -> None:
    """Repacked, so that the numbers of 200 MB take 200 KB."""
    plain = path.with_suffix(".plain")
    torch.save({"a": torch.zeros(50_000_000)}, plain)
    with (
        zipfile.ZipFile(plain) as old,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    plain.unlink()


class _Resized:
    """Rebuilds a tensor of 10^9 numbers over a storage of one."""

    def __reduce__(self) -> Any:
        return torch._utils._rebuild_tensor_v2, (
            torch.zeros(1).storage(), 0, (10**9,), (1,), False, {},
        )  # fmt: skip


class _Bytes:
    def __reduce__(self) -> Any:
        return bytearray, (10**10,)


def resized(path: Path) -> None:
    """As `torch.save` would write a tensor whose declared size is larger than its storage."""
    plain = path.with_suffix(".plain")
    torch.save({"a": torch.zeros(1)}, plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith("data.pkl"):  # the shape (1,) after the offset 0
                data = data.replace(
                    b"K\x00K\x01\x85", b"K\x00J" + (10**9).to_bytes(4, "little") + b"\x85"
                )
            new.writestr(name, data)
    plain.unlink()


def many_steps(path: Path) -> None:
    plain = path.with_suffix(".plain")
    torch.save({"a": torch.zeros(1)}, plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = b"\x80\x02(" + b"]" * 20_000_000 + b"l."
            new.writestr(name, data if name.endswith("data.pkl") else old.read(name))
    plain.unlink()


TORCH: dict[str, Write] = {
    "pth of an expanded tensor": torch_file(expanded),
    "pth of an expanded tensor, old": torch_file(expanded, _use_new_zipfile_serialization=False),
    "pth of itself": torch_file(itself),
    "pth of a sparse tensor": torch_file(
        lambda: {"conv1a.weight": torch.sparse_coo_tensor([[0]], [1.0], (10**9,))}
    ),
    "pth of a meta tensor": torch_file(
        lambda: {"conv1a.weight": torch.zeros(10**9, device="meta")}
    ),
    "pth of packed zeros": packed_torch,
    "pth of a size above its storage": resized,
    "pth of a bytearray of 10^10": torch_file(lambda: {"a": _Bytes()}),
    "pth of 2*10^7 steps": many_steps,
    "pth of code": lambda path: path.write_bytes(pickle.dumps(print)) and None,
    "pth of 20 GB, sparse": sparse_file,
    "pth is a FIFO": os.mkfifo,
}
