"""Files of a folder that a run does not take, by ending and count, for the report at its end."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePath

from tiepoint.images.photographs import advice_for

LINKED_FOLDERS, NO_ENDING = "links to folders", "without ending"

COMPANIONS = frozenset(
    {
        # texts and tables
        *(".txt", ".md", ".rst", ".log", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".xmp"),
        *(".yaml", ".yml", ".toml", ".ini", ".cfg", ".html", ".htm", ".css", ".js", ".pdf"),
        *(".doc", ".docx", ".xls", ".xlsx", ".py", ".sh", ".bat", ".url", ".lnk"),
        # what cameras, drones and GIS write beside a photograph
        *(".thm", ".lrf", ".lrv", ".srt", ".mrk", ".nav", ".obs", ".bin", ".gpx", ".kml", ".kmz"),
        *(".geojson", ".prj", ".tfw", ".tifw", ".jgw", ".jpgw", ".pgw", ".pngw", ".wld", ".ovr"),
        *(".shp", ".shx", ".dbf", ".cpg", ".pp3", ".aae", ".dop", ".cos"),
        # results, of this program and of others
        *(".npz", ".npy", ".h5", ".hdf5", ".db", ".parquet", ".partial", ".lock", ".tiles"),
        *(".mat", ".pkl", ".pt", ".pth", ".safetensors", ".onnx", ".ply", ".las", ".laz", ".obj"),
        *(".mtl", ".zip", ".tar", ".tgz", ".gz", ".7z", ".rar", ".md5", ".sha256", ".bak", ".tmp"),
    }
)
"""Endings of files that are no pictures. They are left out without a word."""

SYSTEM_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini"})

NAMED = 8
"""Endings that are named, the most frequent first."""


def kind_of(name: str) -> str | None:
    """The ending under which a file counts as ignored; None for one that is no picture.

    A file of an unknown ending counts, because it may be a picture.
    """
    lower = name.lower()
    ending = PurePath(lower).suffix
    if lower.startswith(".") or lower in SYSTEM_FILES or ending in COMPANIONS:
        return None
    return ending or NO_ENDING


def sentence(ignored: Counter[str]) -> str | None:
    """What was not taken, such as "3 ignored: .heic 2, .cr2 1; .heic: pip install ..."."""
    if not ignored:
        return None
    named = sorted(ignored.items(), key=lambda item: (-item[1], item[0]))
    parts = [f"{kind} {count}" for kind, count in named[:NAMED]]
    if len(named) > NAMED:
        parts.append(f"other endings {sum(count for _, count in named[NAMED:])}")
    return "; ".join([f"{ignored.total()} ignored: {', '.join(parts)}", *_advice(ignored)])


def _advice(ignored: Counter[str]) -> list[str]:
    """One sentence for all endings that share an advice."""
    endings: dict[str, list[str]] = {}
    for ending in sorted(ignored):
        if (advice := advice_for(ending)) is not None:
            endings.setdefault(advice, []).append(ending)
    sentences = [f"{', '.join(those)}: {advice}" for advice, those in endings.items()]
    if LINKED_FOLDERS in ignored:
        sentences.append("name linked folders themselves")
    return sentences
