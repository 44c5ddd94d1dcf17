"""The file next to a checkpoint's weights with the matrix that rotates its descriptors."""

from __future__ import annotations

import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import CheckpointError
from tiepoint.files.reading import parse_json
from tiepoint.weights.checkpoint import Checkpoint, decode_tensors, locate
from tiepoint.weights.folder import ROTATION_FILE, read_bytes, write_file

Float32 = NDArray[np.float32]

_TENSOR, _WEIGHTS = "eighth_turn", "weights_sha256"


def save_rotation(folder: Path, matrix: Float32, weights_sha256: str) -> Path:
    """Store a rotation matrix, D D from `training.fit_rotation`, next to its weights.

    Returns:
        The file.

    Raises:
        OutputError: The folder is not writable.
    """
    from safetensors.numpy import save

    data = save({_TENSOR: matrix}, metadata={_WEIGHTS: weights_sha256})
    return write_file(folder, ROTATION_FILE, data)


def load_rotation(
    checkpoint: str, weights_sha256: str, length: int, revision: str | None = None
) -> Float32 | None:
    """Load a checkpoint's rotation matrix, D D; None without a file, or for other weights.

    Args:
        checkpoint: A bundled name, a folder or a Hub id, for which only the local cache is used.
        length: Descriptor size D.
        revision: Branch, tag or commit of a Hub id; None is `main`.

    Raises:
        CheckpointError: The file is damaged.
    """
    try:
        path = locate(checkpoint, revision=revision, local_files_only=True) / ROTATION_FILE
    except CheckpointError:
        return None  # features outlive the folder of their checkpoint
    try:
        changed = path.stat().st_mtime_ns
    except FileNotFoundError:
        return None
    path = path if path.is_absolute() else path.resolve()
    return _read_rotation(path, changed, weights_sha256, length)


def rotation_crc32(checkpoint: Checkpoint) -> str | None:
    """CRC of the rotation matrix of a checkpoint, hexadecimal; None if it has none."""
    length = checkpoint.network.descriptor_decoder_dim
    matrix = load_rotation(checkpoint.name, checkpoint.sha256, length, checkpoint.revision)
    return None if matrix is None else crc32(matrix)


def crc32(matrix: Float32) -> str:
    """CRC of a matrix, hexadecimal."""
    return f"{zlib.crc32(matrix.tobytes()):08x}"


@lru_cache(maxsize=16)
def _read_rotation(path: Path, changed_ns: int, weights_sha256: str, length: int) -> Float32 | None:
    """`load_rotation` from its file; a changed file is a cache miss."""
    try:
        data = read_bytes(path)
        matrix = decode_tensors(data, path)[_TENSOR]
        # The header is sound, because the tensors could be read.
        header = parse_json(data[8 : 8 + int.from_bytes(data[:8], "little")].decode())
    except (CheckpointError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path}: not readable ({error}); run tiepoint fit-rotation again"
        ) from error
    if header.get("__metadata__", {}).get(_WEIGHTS) != weights_sha256:
        return None
    if matrix.shape != (length, length) or not np.isfinite(matrix).all():
        raise CheckpointError(
            f"{path}: holds a matrix of shape {matrix.shape}, expected ({length}, {length}) and "
            "finite values; run tiepoint fit-rotation again"
        )
    return matrix
