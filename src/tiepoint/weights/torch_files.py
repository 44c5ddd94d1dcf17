"""torch's files of others: checked first, then read with `weights_only=True`. No code is run.

`weights_only` keeps a file from running code. It does not keep it from declaring a tensor of 4 TB
with one number (`expand`), or from packing zeros. So the names that its pickle uses and the number
of its steps are checked first. Then it is read without its numbers, and the sizes are compared with
that of the file.
"""

from __future__ import annotations

import os
import pickletools
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from tiepoint.files.reading import open_regular

MAX_BYTES = 256_000_000
MAX_PICKLE_BYTES, MAX_PICKLE_STEPS = 4_000_000, 300_000
"""Limits of the part that names the tensors; a file of 1,000 tensors takes 60,000 steps."""
MAX_ENTRIES = 20_000

_ZIP = b"PK\x03\x04"
_PICKLES_BEFORE_ZIP = 5
"""Magic number, version, system, content and keys, in files of torch before 1.6."""

_STORAGES = ("Float", "Half", "BFloat16", "Double", "Long", "Int", "Short", "Char", "Byte", "Bool")
_ALLOWED = {
    "collections OrderedDict", "collections Counter", "torch Size", "torch device",
    "torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter", "torch.nn.parameter Parameter",
    *(f"torch{place} {kind}Storage" for kind in _STORAGES for place in ("", ".cuda")),
    *(f"torch {name}" for name in ("float16", "bfloat16", "float32", "float64", "int64", "int32")),
}  # fmt: skip
"""Names in a pickle of dense tensors, numbers, texts, lists and dicts."""


_ENCODE = "_codecs encode"
"""Makes bytes in a pickle of protocol 2, which is torch's; see `_EncodedBytes`."""


class UnsafeFileError(ValueError):
    """A file that asks for more than plain tensors, or for more memory than it has bytes."""


def load(path: Path) -> Any:
    """What `torch.save` wrote, of dense tensors and plain values.

    Raises:
        UnsafeFileError: Other contents, or sizes beyond the file's own.
        OSError: As `bounded.open_regular`.
        Exception: torch's own errors, of a dozen types, for damaged files.
    """
    import torch

    with open_regular(path) as file:
        file_bytes = os.fstat(file.fileno()).st_size
        if file_bytes > MAX_BYTES:
            raise UnsafeFileError(f"{file_bytes} bytes, the limit is {MAX_BYTES}")
        if file.read(len(_ZIP)) == _ZIP:
            for data in _pickles_of_zip(file, file_bytes):
                _check_pickles(BytesIO(data), 1)
        else:
            file.seek(0)
            _check_pickles(BytesIO(file.read(MAX_PICKLE_BYTES)), _PICKLES_BEFORE_ZIP)
        file.seek(0)
        _check_tensors(torch.load(file, map_location="meta", weights_only=True), file_bytes)
        file.seek(0)
        return torch.load(file, map_location="cpu", weights_only=True)


def _pickles_of_zip(file: BinaryIO, file_bytes: int) -> list[bytes]:
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if len(entries) > MAX_ENTRIES or any(e.compress_type for e in entries):
            raise UnsafeFileError("its archive is packed, or has too many entries")
        if sum(one.file_size for one in entries) > file_bytes:
            raise UnsafeFileError(f"its entries overlap in a file of {file_bytes} bytes")
        # torch's reader finds a name in capitals too.
        pickles = [one for one in entries if one.filename.lower().endswith(".pkl")]
        if any(one.file_size > MAX_PICKLE_BYTES for one in pickles):
            raise UnsafeFileError(f"a pickle of more than {MAX_PICKLE_BYTES} bytes")
        return [archive.read(one) for one in pickles]


def _check_pickles(stream: BinaryIO, count: int) -> None:
    """Raise for pickles with too many steps, or with other names than those of dense tensors."""
    steps = 0
    for _ in range(count):
        encoded = _EncodedBytes()
        for step, argument, _ in pickletools.genops(stream):
            steps += 1
            encoded.follow(step.name, argument)
            if steps > MAX_PICKLE_STEPS:
                raise UnsafeFileError(f"a pickle of more than {MAX_PICKLE_STEPS} steps")
            if step.name == "GLOBAL" and argument not in (*_ALLOWED, _ENCODE):
                raise UnsafeFileError(f"it uses {argument}")


class _EncodedBytes:
    """Follows the steps of a pickle, and refuses `encode` unless it makes bytes of latin1.

    Protocol 2 has no bytes: it stores encode(text, "latin1"). Other codecs would be imported by
    their name, and "punycode" takes hours for a long text.
    """

    def __init__(self) -> None:
        self._memo: dict[int, str] = {}
        self._last = ""
        self._waits: list[str] = []

    def follow(self, step: str, argument: Any) -> None:
        """Take one step; raises UnsafeFileError for another use of `encode`."""
        if step in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            self._memo[len(self._memo) if argument is None else int(argument)] = self._last
            return
        if step in ("BINGET", "LONG_BINGET", "GET"):
            self._last = self._memo.get(int(argument), "")
        elif step == "GLOBAL":
            self._last = "encode" if argument == _ENCODE else ""
        elif step in ("BINUNICODE", "SHORT_BINUNICODE", "UNICODE"):
            self._last = "latin1" if argument == "latin1" else "text"
        else:
            self._last = step
        if self._waits:
            wanted = self._waits.pop(0)
            if self._last != wanted and not (wanted == "text" and self._last == "latin1"):
                raise UnsafeFileError(f"it uses {_ENCODE} for other things than bytes")
        elif self._last == "encode":
            self._waits = ["text", "latin1", "TUPLE2", "REDUCE"]


def _check_tensors(content: Any, file_bytes: int) -> None:
    """Raise unless the tensors, on the device "meta", need as much memory as the file has."""
    import torch

    needed = 0
    for tensor in _leaves(content):
        if isinstance(tensor, torch.Tensor):
            if tensor.layout != torch.strided or tensor.is_quantized:
                raise UnsafeFileError(f"it holds a tensor of layout {tensor.layout}")
            needed += tensor.numel() * tensor.element_size()
    if needed > 2 * file_bytes:
        raise UnsafeFileError(f"its tensors need {needed} bytes, the file has {file_bytes}")


def _leaves(content: Any) -> Iterator[Any]:
    """Every value inside dicts, lists and tuples, each container once."""
    waiting, seen = [content], set[int]()
    while waiting:
        value = waiting.pop()
        if not isinstance(value, dict | list | tuple | set):
            yield value
        elif id(value) not in seen:
            seen.add(id(value))
            waiting += value.values() if isinstance(value, dict) else value
