"""The cache of features: what was computed for photos to predict, kept for the next time in one file.

An SQLite database, as it is what a bounded cache by key needs and every Python has: one small file
to open however often it was written, rows found without reading others, readers beside a writer,
short transactions that a kill at any instant leaves whole, and the oldest rows dropped in place.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from breeds.config import FeatureConfig
from breeds.errors import BreedsError
from breeds.text import mention

#: How large the cache may become unless told otherwise, in bytes: some 110,000 photos of Xception.
CACHE_BYTES = 10**9

_NAME = "features.sqlite"
_SCHEMA = "CREATE TABLE features (id BLOB NOT NULL UNIQUE, feature BLOB NOT NULL)"
# Rows are committed when there are so many, or when the last commit is so many seconds ago.
_ROWS, _SECONDS = 128, 10
_WAIT_SECONDS = 5
_ASKED_AT_ONCE = 500
_CHECKSUM_BYTES = 4
# What a row takes in the file beside its feature, and the most that are dropped in one transaction.
_ROW_OVERHEAD, _DROPPED_AT_ONCE = 600, 4096
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class FeatureCache:
    """Features by config and photo; whatever is wrong with the file, prediction goes on without.

    Parameters
    ----------
    folder
        Where the file is, or is made when there is something to keep.
    limit
        How large the file may become, in bytes; the rows kept longest are dropped first.
    """

    def __init__(self, folder: Path, limit: int = CACHE_BYTES) -> None:
        self._path, self._journal = folder / _NAME, folder / f"{_NAME}-journal"
        self._limit = limit
        self._database: sqlite3.Connection | None = None
        self._given_up = False
        self._rows: dict[bytes, bytes] = {}
        self._committed = time.monotonic()

    def __enter__(self) -> FeatureCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.commit()
        if self._database is not None:
            self._database.close()

    def get(self, config: FeatureConfig, keys: Iterable[str]) -> dict[str, NDArray[np.float32]]:
        """Return the features of the photos `keys` that are here and intact, float32 (width,) each."""
        identities = {_identity(config, key): key for key in keys}
        length = config.width * 4 + _CHECKSUM_BYTES
        found = {}
        pending = [(identity, self._rows[identity]) for identity in identities if identity in self._rows]
        for identity, row in [*pending, *self._stored(list(identities), length)]:
            feature, checksum = row[:-_CHECKSUM_BYTES], row[-_CHECKSUM_BYTES:]
            if _checksum(identity, feature) == checksum:
                found[identities[identity]] = np.frombuffer(feature, dtype="<f4")
        return found

    def _stored(self, identities: list[bytes], length: int) -> list[tuple[bytes, bytes]]:
        found: list[tuple[bytes, bytes]] = []
        try:
            database = self._open(create=False)
            for start in range(0, len(identities) if database else 0, _ASKED_AT_ONCE):
                some = identities[start : start + _ASKED_AT_ONCE]
                marks = ",".join("?" * len(some))
                # A row of another length is none of ours: it is not even read.
                query = f"SELECT id, feature FROM features WHERE id IN ({marks}) AND length(feature) = ?"
                found += database.execute(query, (*some, length)).fetchall()  # type: ignore[union-attr]
        except (sqlite3.Error, OSError, BreedsError) as error:
            self._give_up(error)
        return found

    def add(self, config: FeatureConfig, key: str, feature: NDArray[np.float32]) -> None:
        """Keep the feature of a photo, float32 (width,); some are committed together."""
        identity, data = _identity(config, key), feature.astype("<f4").tobytes()
        self._rows[identity] = data + _checksum(identity, data)
        if len(self._rows) >= _ROWS or time.monotonic() - self._committed > _SECONDS:
            self.commit()

    def commit(self) -> None:
        """Commit what has been added; from then on it survives a kill at any instant."""
        self._committed = time.monotonic()
        try:
            database = self._open(create=True) if self._rows else None
            if database is not None:
                self._make_room(database)
                with _transaction(database):
                    database.executemany("INSERT OR REPLACE INTO features VALUES (?, ?)", self._rows.items())
        except (sqlite3.Error, OSError, BreedsError) as error:
            self._give_up(error)
        self._rows.clear()

    def _make_room(self, database: sqlite3.Connection) -> None:
        """Drop what was kept longest until what has been added fits into the limit."""
        page, pages = (
            database.execute(f"PRAGMA {what}").fetchone()[0] for what in ("page_size", "page_count")
        )
        wanted = sum(len(row) + _ROW_OVERHEAD for row in self._rows.values())
        while True:
            free = database.execute("PRAGMA freelist_count").fetchone()[0]
            excess = (pages - free) * page + wanted - self._limit
            if excess <= 0:
                break
            count = min(_DROPPED_AT_ONCE, 1 + excess * len(self._rows) // wanted)
            with _transaction(database):
                oldest = "SELECT rowid FROM features ORDER BY rowid LIMIT ?"
                dropped = database.execute(f"DELETE FROM features WHERE rowid IN ({oldest})", (count,))
            if not dropped.rowcount:
                break
        if pages * page > self._limit:  # the limit was lowered: give the room back
            database.executescript("PRAGMA incremental_vacuum")  # `execute` frees one page

    def _open(self, create: bool) -> sqlite3.Connection | None:
        """Return the database, opened and checked the first time; None if there is none, or none to use."""
        if self._database is not None or self._given_up:  # given up: there is none
            return self._database
        for path in (self._path, self._journal):
            with suppress(FileNotFoundError):  # others' journals come and go: looked at once
                if not stat.S_ISREG(os.lstat(path).st_mode):
                    raise BreedsError(f"{path} is not a regular file; move it away")
        if not create and not self._path.exists():
            return None
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # The consumer of answers may go from thread to thread, one at a time.
        database = sqlite3.connect(
            self._path, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False
        )
        self._database = database
        for setting in ("trusted_schema = OFF", "cell_size_check = ON"):
            database.execute(f"PRAGMA {setting}")
        if not _schema(database):
            database.execute("PRAGMA auto_vacuum = INCREMENTAL")
            with _transaction(database):
                if not _schema(database):
                    database.execute(_SCHEMA)
        if _schema(database) != [_SCHEMA]:
            raise BreedsError(f"{self._path} is a database of something else; move it away")
        return database

    def _give_up(self, error: Exception) -> None:
        """Go on without the cache, and say so once; only bytes that are none of SQLite's are set aside."""
        self._given_up = True
        if self._database is not None:
            with suppress(sqlite3.Error):
                self._database.close()
            self._database = None
        reason = str(error) if isinstance(error, BreedsError) else f"{self._path}: {error}"
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE:
            aside = self._path.with_suffix(".damaged")
            with suppress(OSError):
                os.replace(self._path, aside)
                reason += f"; set aside as {aside}"
            with suppress(OSError):  # it belongs to the damaged file, and must not meet the next one
                self._journal.unlink()
        mention(f"features of this run are not kept: {reason}")


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    """Hold a transaction: others may read until it commits, and who wants to write waits for its end."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def _schema(database: sqlite3.Connection) -> list[str]:
    return [sql for (sql,) in database.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")]


def _identity(config: FeatureConfig, key: str) -> bytes:
    """Return what a row is found by: a digest of the config's and the photo's."""
    return hashlib.sha256(f"{config.digest} {key}".encode()).digest()


def _checksum(identity: bytes, feature: bytes) -> bytes:
    return zlib.crc32(identity + feature).to_bytes(_CHECKSUM_BYTES, "big")
