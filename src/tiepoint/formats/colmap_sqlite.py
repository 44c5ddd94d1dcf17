"""Rows of COLMAP's database as SQL, and the errors of SQLite as ours."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tiepoint.errors import FormatError, OutputError
from tiepoint.files.paths import exists, is_folder
from tiepoint.files.writing import special_kind, unwritable
from tiepoint.formats import colmap_tables as tables
from tiepoint.formats.colmap_tables import Camera, blob
from tiepoint.formats.fields import damaged

BUSY_S = 2.0
"""Time to wait for a program that is writing the same database, s."""

_DISK = {
    "SQLITE_FULL": errno.ENOSPC,
    "SQLITE_READONLY": errno.EROFS,
    "SQLITE_IOERR": errno.EIO,
    "SQLITE_CANTOPEN": errno.EACCES,
}
_HELD = ("SQLITE_BUSY", "SQLITE_LOCKED")
_EXPECTED = "expected a database of COLMAP's; name another file"
_HEADER = b"SQLite format 3\0"

_PAIRS = ("matches", "two_view_geometries", "tiepoint_pairs")
_OF_IMAGE = ("keypoints", "descriptors", "tiepoint_keypoints")


@contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    """Raise SQLite's errors as ours; those of the disk have an OSError as `__cause__`."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorname", None) or ""
        if code.startswith(_HELD):
            raise OutputError(
                f"{path}: another program holds this database; close it there and repeat this"
            ) from OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        number = next((no for name, no in _DISK.items() if code.startswith(name)), None)
        if number is not None:
            failed = OSError(number, os.strerror(number))
            raise unwritable(path, failed) from failed
        if code in ("SQLITE_NOTADB", "SQLITE_CORRUPT"):
            raise FormatError(f"{path}: damaged or not SQLite ({error}), {_EXPECTED}") from error
        raise FormatError(f"{path}: SQLite refused a step ({error}), {_EXPECTED}") from error
    except (UnicodeError, OverflowError) as error:
        raise FormatError(f"{path}: a value that SQLite cannot hold ({error})") from error


def connect(path: Path, *, create: bool) -> sqlite3.Connection:
    """Open a database for writing.

    Args:
        path: The file.
        create: Make the file, and the tables of one that has none: a kill leaves it so.

    Raises:
        FormatError: A file that is no database of COLMAP's.
        OutputError: It cannot be written, or another program holds it.
    """
    if not create or exists(path):
        _check_file(path, may_be_empty=create)
    with sqlite_errors(path):
        connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
        try:
            # Views and triggers in a file by others then run no functions with side effects.
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("BEGIN IMMEDIATE")  # refuses a database in use before any work
            if create and not connection.execute("SELECT 1 FROM sqlite_master").fetchall():
                _execute_all(connection, tables.SCHEMA)
            else:
                _check_tables(connection, path)
            _execute_all(connection, tables.OWN_SCHEMA)
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
    return connection


def _check_file(path: Path, *, may_be_empty: bool) -> None:
    """Raise unless a file starts as SQLite's do."""
    kind = special_kind(path) or ("a folder" if is_folder(path) else None)
    if kind:
        raise FormatError(f"{path}: {kind}, {_EXPECTED}")
    try:
        with path.open("rb") as file:
            start = file.read(len(_HEADER))
    except OSError as error:
        raise unwritable(path, error) from error
    if start != _HEADER and not (may_be_empty and not start):
        what = "an empty file" if not start else "not SQLite"
        raise FormatError(f"{path}: {what}, {_EXPECTED}")


def _check_tables(connection: sqlite3.Connection, path: Path) -> None:
    listing = "SELECT name FROM sqlite_master WHERE type = 'table'"
    held = {name for (name,) in connection.execute(listing)}
    for table, columns in tables.REQUIRED.items():
        if table not in held:
            raise FormatError(f"{path}: has no table {table!r}, {_EXPECTED}")
        if missing := columns - set(columns_of(connection, table)):
            lacking = ", ".join(sorted(missing))
            raise FormatError(f"{path}: table {table!r} lacks {lacking}, {_EXPECTED}")


def _execute_all(connection: sqlite3.Connection, script: str) -> None:
    for statement in script.split(";"):  # executescript would commit
        connection.execute(statement)


def columns_of(connection: sqlite3.Connection, table: str) -> list[str]:
    """Columns of a table; none if it does not exist."""
    return [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]


def has_frames(connection: sqlite3.Connection) -> bool:
    """Whether the images are in frames of rigs, as COLMAP 4's `import_images` has them."""
    if not columns_of(connection, "frames"):
        return False
    return bool(connection.execute("SELECT 1 FROM frames LIMIT 1").fetchall())


def add_camera(connection: sqlite3.Connection, camera: Camera) -> int:
    """Add a camera; returns its number."""
    statement = (
        "INSERT INTO cameras (model, width, height, params, prior_focal_length) "
        "VALUES (?, ?, ?, ?, ?)"
    )
    values = (camera.model, *camera.size_wh, camera.blob, int(camera.has_prior_focal))
    return int(connection.execute(statement, values).lastrowid or 0)


def add_frame(connection: sqlite3.Connection, image_id: int, camera_id: int) -> None:
    """Add the frame of one image, in a rig of its camera alone."""
    query = "SELECT rig_id FROM rigs WHERE ref_sensor_id = ? AND ref_sensor_type = 0"
    rows = connection.execute(query, (camera_id,)).fetchall()
    if rows:
        rig_id = rows[0][0]
    else:
        statement = "INSERT INTO rigs (ref_sensor_id, ref_sensor_type) VALUES (?, 0)"
        rig_id = connection.execute(statement, (camera_id,)).lastrowid
    statement = "INSERT INTO frames (rig_id) VALUES (?)"
    frame_id = connection.execute(statement, (rig_id,)).lastrowid
    statement = (
        "INSERT INTO frame_data (frame_id, data_id, sensor_id, sensor_type) VALUES (?, ?, ?, 0)"
    )
    connection.execute(statement, (frame_id, image_id, camera_id))


def forget(connection: sqlite3.Connection, image_id: int) -> None:
    """Remove the keypoints of an image, of any program, and all of its pairs."""
    for table in _OF_IMAGE:
        if columns_of(connection, table):
            connection.execute(f"DELETE FROM {table} WHERE image_id = ?", (image_id,))
    size = tables.MAX_IMAGE_ID
    for table in _PAIRS:
        where = f"pair_id / {size} = ? OR pair_id % {size} = ?"
        connection.execute(f"DELETE FROM {table} WHERE {where}", (image_id, image_id))


def replace_row(connection: sqlite3.Connection, table: str, row: dict[str, object]) -> None:
    """Insert a row, or replace the one with its key; columns that the table lacks are left out."""
    names = [name for name in columns_of(connection, table) if name in row]
    marks = ", ".join("?" * len(names))
    statement = f"INSERT OR REPLACE INTO {table} ({', '.join(names)}) VALUES ({marks})"
    connection.execute(statement, [row[name] for name in names])


def camera_of_row(row: tuple[object, ...], where: str) -> Camera:
    """model, width, height, params, prior_focal_length -> the camera.

    Raises:
        DamagedError: Values of another type, or too few parameters.
    """
    model, width, height, data, prior = row
    sizes = [value for value in (model, width, height) if type(value) is int]
    if len(sizes) != 3 or not isinstance(data, bytes) or len(data) % 8:
        raise damaged(where, "its camera has values of the wrong type")
    number, *size = sizes
    try:
        return Camera.from_blob(number, (size[0], size[1]), data, bool(prior))
    except ValueError as error:
        raise damaged(where, f"its camera has {error}") from error


def blob_or_none(array: object) -> bytes | None:
    """A 3x3 matrix or a vector as float64; None stays None."""
    import numpy as np

    return None if array is None else blob(np.asarray(array), "<f8")
