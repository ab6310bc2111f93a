"""Keeps readings the plain way, one SQLite row each with an index by patient, code and time; prints bytes and rate.

Arguments: a directory of its own and a file of readings, each 20 bytes little-endian: series (u32), microseconds since
1970 (i64), value (f64). A commit takes 1,000 readings and is fsynced. Prints one line of JSON.
"""

import json
import pathlib
import sqlite3
import struct
import sys
import time

directory, readings_file = sys.argv[1:3]
readings = list(struct.iter_unpack("<Iqd", pathlib.Path(readings_file).read_bytes()))
database = pathlib.Path(directory) / "rows.db"
connection = sqlite3.connect(database, isolation_level=None)
connection.executescript(
    """PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -65536;
    CREATE TABLE reading(id BLOB PRIMARY KEY, patient INTEGER NOT NULL, code INTEGER NOT NULL, device INTEGER NOT NULL,
        at INTEGER NOT NULL, value REAL NOT NULL) WITHOUT ROWID;
    CREATE INDEX by_patient ON reading(patient, code, at);"""
)
# Ids in the order of time, as UUID version 7 are: random ones would cost four times as much.
rows = (
    (at.to_bytes(8, "big") + series.to_bytes(8, "big"), series >> 8, series & 255, series >> 8, at, value)
    for series, at, value in readings
)
began, batch, count = time.perf_counter(), [], 0
for row in rows:
    batch.append(row)
    if len(batch) == 1000:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO reading VALUES(?, ?, ?, ?, ?, ?)", batch)
        connection.execute("COMMIT")
        count += len(batch)
        batch = []
took = time.perf_counter() - began
connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
connection.close()
print(json.dumps({"bytes_per_reading": database.stat().st_size / count, "readings_per_s": count / took}))
