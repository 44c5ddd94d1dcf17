"""Registrations as a section: a table of all pairs, and figures and pictures of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2

from tiepoint.errors import TiepointError
from tiepoint.files.paths import exists
from tiepoint.images.reading import read
from tiepoint.registration.models import PLANE_MODELS
from tiepoint.registration.record import Record
from tiepoint.reports import thumbnails
from tiepoint.reports.pieces import (
    Facts,
    Message,
    Note,
    Picture,
    Piece,
    Section,
    Table,
    Verdict,
)
from tiepoint.reports.plain import flat, number, percent, text
from tiepoint.reports.words import Words

MOST_ROWS = 1000
"""Pairs in the table."""
MOST_DETAILS = 100
"""Pairs with a section of their own."""
MOST_PICTURE_BYTES = 4_000_000
"""Size of all pictures, bytes before base64."""


class RegisteredPair(NamedTuple):
    """A registration, and the file it was read from."""

    record: Record
    file: Path
    file_date: str


def registrations_section(
    pairs: Sequence[RegisteredPair], words: Words, *, pictures: bool = True
) -> Section:
    """The section of all registrations.

    Args:
        pairs: In the order given.
        words: Language.
        pictures: Draw pictures, for which the images must be where they were.
    """
    done = sum(pair.record.registration.success for pair in pairs)
    rows = [_row(pair.record, words) for pair in pairs[:MOST_ROWS]]
    headings = [
        words(name)
        for name in (
            "pair", "verdict", "inliers", "matches", "median error, px",
            "standard deviation over the overlap, px", "coverage", "reason",
        )
    ]  # fmt: skip
    table = Table(words("Pairs"), headings, rows, left_out=max(0, len(pairs) - MOST_ROWS))
    parts, left_bytes, undrawn = [], MOST_PICTURE_BYTES, 0
    for pair in pairs[:MOST_DETAILS]:
        drawn: list[Piece] = []
        if pictures and left_bytes > 0:
            drawn = _pictures(pair, words)
            left_bytes -= sum(len(one.jpeg) for one in drawn if isinstance(one, Picture))
        else:
            undrawn += 1
        parts.append(_part(pair, drawn, words))
    pieces: list[Piece] = [table]
    undrawn += max(0, len(pairs) - MOST_DETAILS)
    if undrawn and pictures:
        left_out = "Pictures of {count} more pairs are left out to keep the file small."
        pieces.append(Note(words(left_out, count=undrawn)))
    summary = words("{done} of {count} pairs registered", done=done, count=len(pairs))
    return Section(words("Registrations"), pieces, summary=summary, parts=parts)


def _row(record: Record, words: Words) -> list[str | Verdict]:
    one = record.registration
    return [
        _title(record),
        _verdict(record, words),
        str(record.inliers),
        str(record.matches),
        number(one.reprojection_px.median),
        number(one.overlap_sd_px),
        percent(one.coverage),
        Message("" if one.success else one.reason),
    ]


def _title(record: Record) -> str:
    return f"{Path(record.a).name} → {Path(record.b).name}"


def _verdict(record: Record, words: Words) -> Verdict:
    if record.registration.success:
        return Verdict(words("registered"), "good")
    return Verdict(words("not registered"), "bad")


def _part(pair: RegisteredPair, drawn: Sequence[Piece], words: Words) -> Section:
    record = pair.record
    one = record.registration
    figures = [
        (words("model"), one.model),
        (words("keypoints"), " / ".join(map(str, record.keypoints))),
        (words("matches"), str(record.matches)),
        (words("inliers"), str(record.inliers)),
        (words("median error, px"), number(one.reprojection_px.median)),
        (words("rms error, px"), number(one.reprojection_px.rms)),
        (words("standard deviation over the overlap, px"), number(one.overlap_sd_px)),
        (words("coverage"), percent(one.coverage)),
        (words("agreement"), percent(one.agreement)),
    ]
    if not one.success:
        figures.insert(0, (words("reason"), Message(one.reason)))
    if one.matrix is not None:
        lines = ("  ".join(f"{value:.6g}" for value in line) for line in one.matrix)
        figures.append((words("matrix"), "; ".join(lines)))
    pieces: list[Piece] = [Facts(words("Figures"), figures), *drawn]
    pieces.append(Facts(words("What was run"), _made(pair, words)))
    settings = [*flat(record.settings or {}), *flat(_detection(record))]
    if settings:
        pieces.append(Facts(words("Settings"), settings, folded=True))
    return Section(_title(record), pieces, _verdict(record, words))


def _made(pair: RegisteredPair, words: Words) -> list[tuple[str, str]]:
    record, unknown = pair.record, words("not recorded")
    made: Mapping[str, object] = record.provenance or {}
    rows = [
        (words("image A"), record.a),
        (words("image B"), record.b),
        (words("checkpoint"), text(made.get("checkpoint", unknown))),
        ("SHA-256", text(made.get("weights_sha256", unknown))),
        (words("engine"), text(made.get("engine", unknown))),
        (words("precision of the network"), text(made.get("precision", unknown))),
        (words("version"), record.version or unknown),
    ]
    if record.date is None:
        rows.append((words("date of the file"), pair.file_date))
    else:
        rows.append((words("date"), record.date))
    return [*rows, (words("file"), str(pair.file))]


def _detection(record: Record) -> Mapping[str, object]:
    settings = (record.provenance or {}).get("settings")
    return {"detection": settings} if isinstance(settings, Mapping) else {}


def _pictures(pair: RegisteredPair, words: Words) -> list[Piece]:
    """Overlay, matches and residuals; or the reason why there are none."""
    record = pair.record
    one = record.registration
    try:
        images = [read(_place(name, pair.file)) for name in (record.a, record.b)]
        sizes = one.features_a.size_hw, one.features_b.size_hw
        for image, size_hw in zip(images, sizes, strict=True):
            if image.size_hw != size_hw:
                held, known = (f"{w}x{h}" for h, w in (image.size_hw, size_hw))
                return [Note(f"{words('No pictures')}: {image.name}: {held} px, {known} px")]
        return _drawn(thumbnails.small(images[0], images[1], one), record, words)
    except (TiepointError, cv2.error, ValueError, MemoryError) as error:  # a damaged record's too
        return [Note(Message(f"{words('No pictures')}: {error}"))]


def _drawn(pair: thumbnails.Small, record: Record, words: Words) -> list[Piece]:
    one, pieces = pair.registration, list[Piece]()
    is_plane = one.matrix is not None and one.model in PLANE_MODELS
    if is_plane:
        caption = words("A aligned with B: A in red over B in cyan. Aligned parts are grey.")
        alt = words("Overlay of image A on image B")
        pieces.append(_picture(thumbnails.overlay(pair), alt, caption))
    if not record.has_points:
        if record.matches:
            advice = (
                "The file has no matched points; `tiepoint register --json --points` adds them."
            )
            pieces.append(Note(words(advice)))
        return pieces
    if is_plane:
        picture, zoom = thumbnails.residuals(pair)
        longer = "Residuals of the inliers on image B, {zoom} times as long as they are."
        alt = words("Arrows from the predicted to the matched position of each inlier")
        pieces.append(_picture(picture, alt, words(longer, zoom=zoom)))
    fit = "Matches that fit the model: {count}, at most {limit} lines. A is on the left."
    caption = words(fit, count=int(one.inliers.sum()), limit=thumbnails.MOST_LINES)
    alt = words("Images A and B side by side with lines between the inliers")
    pieces.append(_picture(thumbnails.matches(pair), alt, caption))
    return pieces


def _picture(pixels: thumbnails.RGB, alt: str, caption: str) -> Picture:
    height, width = pixels.shape[:2]
    return Picture(thumbnails.jpeg(pixels), (width, height), alt, caption)


def _place(name: str, file: Path) -> Path:
    """Where the image is: as it was named, or next to the file. URLs are no files, so not read."""
    return Path(name) if exists(name) else file.parent / name
