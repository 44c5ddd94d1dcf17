"""Any source -> an upright image and its mask.

Sources are files, URLs, bytes, file objects, PIL images, NumPy arrays and torch tensors. `read`
loads on first use, because it needs libraries that names and lists of files do without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tiepoint.images.reading import SourceImage as SourceImage
    from tiepoint.images.reading import read as read


def __getattr__(name: str) -> Any:
    if name not in ("SourceImage", "read"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tiepoint.images import reading

    return getattr(reading, name)
