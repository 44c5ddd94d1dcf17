"""COLMAP's database (SQLite): images, cameras, keypoints, matches, two-view geometries.

Needs Python's standard library only. Positions and matrices are converted to COLMAP's px on the way
in: centres at +0.5, in the image as its file stores it, because COLMAP does not apply the EXIF
orientation. Tables of our own keep what COLMAP has no place for: score, covariance and descriptor
of each keypoint, and how each pair was matched.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from os import PathLike
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiepoint.errors import FormatError, OutputError
from tiepoint.features import Features
from tiepoint.files.lock import WriteLock
from tiepoint.files.paths import exists, is_file
from tiepoint.files.writing import behind_links, unwritable
from tiepoint.formats import colmap_sqlite as sql
from tiepoint.formats import colmap_tables as tables
from tiepoint.formats import fields
from tiepoint.formats.colmap_tables import Camera, array_of, blob, pair_id_of
from tiepoint.formats.fields import Summary, damaged
from tiepoint.geometry import Matrix, SizeHW, apply_homography, stored_matrix

PARTIAL = ".partial"
"""Ending of a new database until it is complete."""


@dataclass(frozen=True, eq=False)
class TwoViewRow:
    """The verified geometry of two images, in px of the stored images, centres at whole numbers.

    Attributes:
        config: COLMAP's number of the configuration.
        pairs: I 2, index in A and in B: the inliers.
        fundamental, essential, homography: 3x3 from A to B, or None.
        pose: Rotation 3x3 and translation 3 of X_B = R X_A + t, or None.
    """

    config: int
    pairs: NDArray[np.int64]
    fundamental: Matrix | None = None
    essential: Matrix | None = None
    homography: Matrix | None = None
    pose: tuple[Matrix, NDArray[np.float64]] | None = None

    def reversed(self) -> TwoViewRow:
        """The same from B to A."""
        fundamental, essential, homography = self.fundamental, self.essential, self.homography
        pose = None
        if self.pose is not None:
            back = self.pose[0].T
            pose = back, -back @ self.pose[1]
        return TwoViewRow(
            self.config,
            self.pairs[:, ::-1],
            None if fundamental is None else fundamental.T,
            None if essential is None else essential.T,
            None if homography is None else np.asarray(np.linalg.inv(homography), np.float64),
            pose,
        )


class ColmapDatabase:
    """A database of COLMAP's, open for writing.

    Each image and each pair is one transaction: an interruption leaves none half written. A new
    database grows as `<name>.partial`, which a later run continues; closing gives it its name.

    Args:
        path: The file; an existing one is extended.
        share_cameras: Images of one folder with equal cameras share one; else each has its own.

    Raises:
        FormatError: A file that is no database of COLMAP's.
        OutputError: It cannot be written, another run is writing it, or another program holds it.
    """

    def __init__(self, path: str | PathLike[str], *, share_cameras: bool = True) -> None:
        self.path = behind_links(path)
        self._lock = WriteLock(self.path)
        try:
            self._is_new = not exists(self.path)
            self._file = self.path
            if self._is_new:
                self._file = self.path.with_name(self.path.name + PARTIAL)
            # Empty if a full disk or a kill ended the run that made it.
            is_unmade = self._is_new and is_file(self._file) and not self._file.stat().st_size
            create = is_unmade or not exists(self._file)
            self._connection = sql.connect(self._file, create=create)
            with sql.sqlite_errors(self._file):
                self._has_frames = sql.has_frames(self._connection)
            self._shared: dict[tuple[PurePosixPath, Camera], int] | None = None
            if share_cameras:
                self._shared = self._cameras_by_folder()
        except BaseException:
            self._lock.release()
            raise

    def close(self) -> None:
        """Complete the database: a new one with images gets its name.

        Raises:
            OutputError: Another file has appeared in its place.
        """
        has_images = bool(self.names())
        self._connection.close()
        try:
            if self._is_new and not has_images:
                self._file.unlink(missing_ok=True)
            elif self._is_new:
                if exists(self.path):
                    raise OutputError(
                        f"{self.path}: another program made this file in the meantime; the "
                        f"results are in {self._file.name}"
                    )
                try:
                    self._file.replace(self.path)
                except OSError as error:
                    raise unwritable(self.path, error) from error
        finally:
            self._lock.release()

    def suspend(self) -> None:
        """Stop without completing a new database; harmless after `close`."""
        with suppress(sqlite3.Error, FormatError, OutputError):
            if self._is_new and not self.names():
                self._connection.close()
                self._file.unlink(missing_ok=True)
        self._connection.close()
        self._lock.release()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with sql.sqlite_errors(self._file):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                raise

    def _rows(self, query: str, *values: object) -> list[Any]:
        with sql.sqlite_errors(self._file):
            return self._connection.execute(query, values).fetchall()

    def _cameras_by_folder(self) -> dict[tuple[PurePosixPath, Camera], int]:
        query = (
            "SELECT name, camera_id, model, width, height, params, prior_focal_length "
            "FROM images JOIN cameras USING (camera_id) ORDER BY image_id DESC"
        )
        return {
            (PurePosixPath(name).parent, sql.camera_of_row(row, f"{self._file}: {name}")): number
            for name, number, *row in self._rows(query)
        }

    def names(self) -> list[str]:
        """Names of all images, sorted."""
        return [name for (name,) in self._rows("SELECT name FROM images ORDER BY name")]

    def names_with_features(self) -> list[str]:
        """Names of the images with features of tiepoint's, sorted."""
        query = (
            "SELECT name FROM images JOIN keypoints USING (image_id) "
            "JOIN tiepoint_keypoints USING (image_id) ORDER BY name"
        )
        return [name for (name,) in self._rows(query)]

    def camera(self, name: str) -> Camera | None:
        """The camera of an image; None if there is no such image.

        Raises:
            FormatError: A damaged row.
        """
        query = (
            "SELECT model, width, height, params, prior_focal_length FROM images "
            "LEFT JOIN cameras USING (camera_id) WHERE name = ?"
        )
        rows = self._rows(query, name)
        return sql.camera_of_row(rows[0], f"{self._file}: {name}") if rows else None

    def has_keypoints(self, name: str) -> bool:
        """Whether an image has keypoints, of any program."""
        query = "SELECT 1 FROM images JOIN keypoints USING (image_id) WHERE name = ?"
        return bool(self._rows(query, name))

    def summarise(self, name: str) -> Summary:
        """Count, size of the upright image and `meta`; no `meta` for keypoints of others."""
        where = f"{self._file}: {name}"
        query = (
            "SELECT keypoints.rows, own.rows, own.meta FROM images JOIN keypoints USING (image_id) "
            "LEFT JOIN tiepoint_keypoints AS own USING (image_id) WHERE name = ?"
        )
        ((count, own_count, text),) = self._rows(query, name)
        camera = self.camera(name)
        assert camera is not None
        if own_count != count or not isinstance(text, str):
            return Summary(count, camera.size_wh[::-1], {})
        meta = fields.parse_meta(text, where)
        return Summary(count, tables.turned(camera.size_wh[::-1], orientation_of(meta)), meta)

    def read(self, name: str, *, descriptors: bool = True) -> Features:
        """The features of an image, in px of the image as its file stores it.

        Raises:
            FormatError: They are damaged, or of another program.
        """
        where = f"{self._file}: {name}"
        column = "own.descriptors" if descriptors else "NULL"
        query = (
            "SELECT keypoints.rows, keypoints.cols, keypoints.data, own.rows, scores, covariance, "
            f"own.cols, {column}, meta, width, height FROM images JOIN keypoints USING (image_id) "
            "JOIN tiepoint_keypoints AS own USING (image_id) "
            "JOIN cameras USING (camera_id) WHERE name = ?"
        )
        rows = self._rows(query, name)
        if not rows:
            raise damaged(where, "has no features of tiepoint's")
        count, cols, data, own_count, scores, covariance, length, local, text, *size_wh = rows[0]
        if count != own_count or cols not in (2, 4, 6) or not isinstance(text, str):
            raise damaged(where, f"has {count} keypoints, of which tiepoint knows {own_count}")
        xy = array_of(data, (count, cols), where)[:, :2] - np.float32(tables.CENTRE)
        spread = described = None
        if covariance is not None:
            spread = array_of(covariance, (count, 3), where)[:, [0, 1, 1, 2]].reshape(count, 2, 2)
        if local is not None:
            described = array_of(local, (count, length), where)
        return fields.features_from(
            where,
            xy=xy,
            scores=array_of(scores, (count, 1), where)[:, 0],
            descriptors=described,
            size_hw=size_wh[::-1],
            meta=fields.parse_meta(text, where),
            covariance=spread,
        )

    def add(self, name: str, features: Features, camera: Camera) -> None:
        """Store the features of one image; they replace earlier ones and their matches.

        Args:
            name: Path of the image relative to the images' folder, with `/`.
            features: Features of the upright image; `meta` has its EXIF orientation.
            camera: Camera of an image that the database does not have; another keeps its own.

        Raises:
            FormatError: Values that are not finite, or an image of this name with another size.
            OutputError: The database cannot be written, or another program holds it.
        """
        fields.check_finite(features)
        text, orientation = fields.meta_text(features), orientation_of(features.meta)
        stored = self.camera(name) or camera
        self.check_size(name, stored, tables.turned(features.size_hw, orientation))
        matrix = stored_matrix(features.size_hw, orientation)
        xy = apply_homography(matrix, features.xy) + tables.CENTRE  # N 2
        own: dict[str, object] = {"scores": blob(features.scores), "meta": text}
        if features.covariance is not None:
            turn = matrix[:2, :2]
            turned = (turn @ features.covariance @ turn.T).reshape(-1, 4)  # N 4
            own["covariance"] = blob(turned[:, [0, 1, 3]])
        if features.descriptors is not None:
            own["cols"] = features.descriptors.shape[1]
            own["descriptors"] = blob(features.descriptors)
        with self._transaction() as connection:
            image_id, camera_id = self._image(connection, name, camera)
            row: dict[str, object] = {"image_id": image_id, "rows": len(xy)}
            sql.replace_row(connection, "keypoints", {**row, "cols": 2, "data": blob(xy)})
            sql.replace_row(connection, "tiepoint_keypoints", {**row, **own})
        if self._shared is not None:
            self._shared.setdefault((PurePosixPath(name).parent, stored), camera_id)

    def check_size(self, name: str, camera: Camera, stored_hw: SizeHW) -> None:
        """Raise FormatError unless an image has the size of its camera."""
        if camera.size_wh != stored_hw[::-1]:
            held, given = ("x".join(map(str, wh)) for wh in (camera.size_wh, stored_hw[::-1]))
            raise FormatError(
                f"{self.path}: {name} is {held} px there, the image file {given} px: other images "
                "have the same names; name another database, or restore the images"
            )

    def _image(self, connection: sqlite3.Connection, name: str, camera: Camera) -> tuple[int, int]:
        """The numbers of an image, without keypoints, and of its camera."""
        query = (
            "SELECT images.image_id, camera_id, keypoints.image_id FROM images "
            "LEFT JOIN keypoints USING (image_id) WHERE name = ?"
        )
        rows = connection.execute(query, (name,)).fetchall()
        if rows:
            image_id, camera_id, has_keypoints = rows[0]
            if has_keypoints is not None:
                sql.forget(connection, image_id)
            return image_id, camera_id
        camera_id = None
        if self._shared is not None:
            camera_id = self._shared.get((PurePosixPath(name).parent, camera))
        if camera_id is None:
            camera_id = sql.add_camera(connection, camera)
        statement = "INSERT INTO images (name, camera_id) VALUES (?, ?)"
        image_id = int(connection.execute(statement, (name, camera_id)).lastrowid or 0)
        if self._has_frames:  # COLMAP 4 asks for a frame of each image then
            sql.add_frame(connection, image_id, camera_id)
        return image_id, camera_id

    def _ids(self, name_a: str, name_b: str) -> tuple[int, int]:
        ids = []
        for name in (name_a, name_b):
            rows = self._rows("SELECT image_id FROM images WHERE name = ?", name)
            if not rows:
                raise FormatError(f"{self.path}: there is no image {name!r}")
            ids.append(int(rows[0][0]))
        return ids[0], ids[1]

    def pair_meta(self, name_a: str, name_b: str) -> dict[str, Any] | None:
        """The `meta` of a pair that tiepoint matched; None for all other pairs."""
        pair_id = pair_id_of(*self._ids(name_a, name_b))
        rows = self._rows("SELECT meta FROM tiepoint_pairs WHERE pair_id = ?", pair_id)
        return fields.parse_meta(rows[0][0], f"{self._file}: {name_a}, {name_b}") if rows else None

    def has_matches(self, name_a: str, name_b: str) -> bool:
        """Whether a pair has matches, of any program."""
        pair_id = pair_id_of(*self._ids(name_a, name_b))
        return bool(self._rows("SELECT 1 FROM matches WHERE pair_id = ?", pair_id))

    def geometry(self, name_a: str, name_b: str) -> tuple[int, int] | None:
        """COLMAP's number of the configuration, and the inliers; None for a pair without them."""
        pair_id = pair_id_of(*self._ids(name_a, name_b))
        query = "SELECT config, rows FROM two_view_geometries WHERE pair_id = ?"
        rows = self._rows(query, pair_id)
        return (int(rows[0][0]), int(rows[0][1])) if rows else None

    def add_pair(
        self,
        name_a: str,
        name_b: str,
        pairs: NDArray[np.int64],
        geometry: TwoViewRow,
        meta: Mapping[str, Any],
    ) -> None:
        """Store the matches and the geometry of two images; they replace earlier ones.

        Args:
            name_a, name_b: Images of the database.
            pairs: M 2, index in A and in B: all matches.
            geometry: Verified geometry from A to B.
            meta: How they were made, JSON values.

        Raises:
            FormatError: An unknown image.
            OutputError: The database cannot be written, or another program holds it.
        """
        id_a, id_b = self._ids(name_a, name_b)
        if id_a > id_b:
            pairs, geometry = pairs[:, ::-1], geometry.reversed()
        f, h, pose = geometry.fundamental, geometry.homography, geometry.pose
        key: dict[str, object] = {"pair_id": pair_id_of(id_a, id_b)}
        matches = {**key, "rows": len(pairs), "cols": 2, "data": blob(pairs, "<u4")}
        row = {
            **key,
            "rows": len(geometry.pairs),
            "cols": 2,
            "data": blob(geometry.pairs, "<u4"),
            "config": geometry.config,
            "F": sql.blob_or_none(None if f is None else tables.moved_fundamental(f)),
            "E": sql.blob_or_none(geometry.essential),
            "H": sql.blob_or_none(None if h is None else tables.moved_homography(h)),
            "qvec": sql.blob_or_none(None if pose is None else tables.quaternion_of(pose[0])),
            "tvec": sql.blob_or_none(None if pose is None else pose[1]),
        }
        own = {**key, "meta": json.dumps(fields.as_json(meta))}
        with self._transaction() as connection:
            sql.replace_row(connection, "matches", matches)
            sql.replace_row(connection, "two_view_geometries", row)
            sql.replace_row(connection, "tiepoint_pairs", own)


def orientation_of(meta: Mapping[str, Any]) -> int:
    """The EXIF orientation in the `meta` of features; 1 if there is none."""
    value = meta.get("exif_orientation", 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
