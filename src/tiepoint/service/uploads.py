"""Multipart requests -> uploaded images and texts. Nothing of a request outlives it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import PurePath
from typing import BinaryIO, NamedTuple

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from tiepoint.images.reading import NamedBytes
from tiepoint.service.limits import too_many_bytes
from tiepoint.service.problems import ProblemError
from tiepoint.service.root import Root

MULTIPART = "multipart/form-data"
MOST_FILES, MOST_FIELDS, LONGEST_FIELD_BYTES = 8, 64, 4096
LONGEST_NAME = 200
PATH_SUFFIX = "_path"
"""The field `image_path` names a file below the root in place of the upload `image`."""


class Upload(NamedTuple):
    """An image of a request: a temporary file without a name, or a file below the root.

    Attributes:
        part: Name of the part of the request.
        name: The client's name of the file, without folders.
        file: Its bytes.
    """

    part: str
    name: str
    file: BinaryIO

    def read(self, most_bytes: int) -> NamedBytes:
        """The bytes, with the name for results and messages.

        Raises:
            ProblemError: More bytes than the limit.
        """
        data = self.file.read(most_bytes + 1)
        if len(data) > most_bytes:
            raise too_many_bytes(most_bytes)
        return NamedBytes(data, self.name)


class Form(NamedTuple):
    """A request: its images by part, and its texts by field."""

    images: Mapping[str, Upload]
    texts: Mapping[str, str]


@asynccontextmanager
async def form_of(
    request: Request,
    *,
    images: Collection[str],
    fields: Collection[str],
    root: Root | None,
) -> AsyncIterator[Form]:
    """The form of a request; its files are closed, and with that deleted, at the end.

    Args:
        images: Names of the parts that are images; see `required_of`.
        fields: Names of the fields that are texts.
        root: Folder whose files may be named in place of uploads; None refuses them.

    Raises:
        ProblemError: No multipart request, a broken one, or other parts than these.
    """
    opened: list[BinaryIO] = []
    try:
        uploads: dict[str, Upload] = {}
        texts: dict[str, str] = {}
        for name, value in await _parts(request, opened):
            _check_part(name, value, images, fields, uploads, texts)
            if isinstance(value, UploadFile):
                uploads[name] = Upload(name, _clean(value.filename or name), value.file)
            elif name in fields:
                texts[name] = value
            else:
                part = name.removesuffix(PATH_SUFFIX)
                uploads[part] = _named(part, value, root)
                opened.append(uploads[part].file)
        missing = [name for name in required_of(images) if name not in uploads]
        if missing:
            raise ProblemError(
                422,
                "missing_image",
                f"no part named {' and '.join(missing)}, expected an image file in each",
                parts=missing,
            )
        yield Form(uploads, texts)
    finally:
        for file in opened:
            file.close()


def required_of(images: Iterable[str]) -> list[str]:
    """The images that a request must have: all but the masks."""
    return [name for name in images if not name.startswith("mask")]


class _Parser(MultiPartParser):
    """Starlette's parser, which also notices a body that was cut off."""

    has_ended = False

    def on_end(self) -> None:
        self.has_ended = True


async def _parts(request: Request, opened: list[BinaryIO]) -> list[tuple[str, UploadFile | str]]:
    headers: Headers = request.headers
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != MULTIPART:
        raise ProblemError(
            415,
            "not_multipart",
            f"content type is {kind[:100] or 'missing'}, expected {MULTIPART}, as curl -F sends",
        )
    parser = _Parser(
        headers,
        request.stream(),
        max_files=MOST_FILES,
        max_fields=MOST_FIELDS,
        max_part_size=LONGEST_FIELD_BYTES,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise ProblemError(400, "broken_multipart", error.message) from error
    except UnicodeError as error:
        raise ProblemError(
            400, "broken_multipart", "the charset does not decode the form; send UTF-8"
        ) from error
    parts = form.multi_items()
    opened += [value.file for _, value in parts if isinstance(value, UploadFile)]
    if not parser.has_ended:
        raise ProblemError(
            400, "broken_multipart", "the body ends before its last boundary; send it whole"
        )
    return parts


def _check_part(
    name: str,
    value: UploadFile | str,
    images: Collection[str],
    fields: Collection[str],
    *given: Mapping[str, object],
) -> None:
    """Raise for a part that is unknown, of the wrong kind, or given twice."""
    is_file = isinstance(value, UploadFile)
    part = name.removesuffix(PATH_SUFFIX)
    if any(one in group for one in (name, part) for group in given):
        raise ProblemError(422, "given_twice", f"{_shown(name)} is given twice, expected once")
    if name in images and not is_file:
        raise ProblemError(
            422,
            "not_a_file",
            f"{name} is a text, expected a file: with curl, -F {name}=@photo.jpg",
            part=name,
        )
    if name in fields and is_file:
        raise ProblemError(
            422, "not_a_text", f"{name} is a file, expected a text: -F {name}=VALUE", setting=name
        )
    if name in images or name in fields or (part != name and part in images and not is_file):
        return
    known = ", ".join([*images, *fields])
    raise ProblemError(
        422,
        "unknown_field",
        f"unknown field {_shown(name)}; there are {known}",
        setting=name[:LONGEST_NAME],
        expected=[*images, *fields],
    )


def _named(part: str, path: str, root: Root | None) -> Upload:
    if root is None:
        raise ProblemError(
            403, "no_root", f"{part}{PATH_SUFFIX}: this service reads no files; upload the image"
        )
    return Upload(part, _clean(path), root.open(path, f"{part}{PATH_SUFFIX}"))


def _clean(name: str) -> str:
    """The last part of a client's name of a file, printable and not too long."""
    last = PurePath(name.replace("\\", "/")).name
    return "".join(c if c.isprintable() else "_" for c in last)[:LONGEST_NAME] or "image"


def _shown(name: str) -> str:
    return repr(name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}...")
