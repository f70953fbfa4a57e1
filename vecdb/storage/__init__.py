"""Bytes that last: write-ahead log, immutable files, manifests, and the one door to the disk.

The formats are described byte by byte in ``FORMAT.md``, beside this file.
"""

from vecdb.storage.base import AppendFile, HeldLock, Store, Writer
from vecdb.storage.check import check_directory
from vecdb.storage.descriptors import allow_many_files
from vecdb.storage.fileref import FileRef, digest_of, file_refs
from vecdb.storage.ids import IdBatch
from vecdb.storage.lock import DirectoryLock
from vecdb.storage.manifest import Manifest, ManifestLog
from vecdb.storage.operations import Delete, Upsert, decode_operation, encode_operation
from vecdb.storage.report import CheckReport, Finding, Severity
from vecdb.storage.sections import Sections, open_sections, write_sections
from vecdb.storage.segment import SegmentFile, read_tombstones, rows_if_known, write_tombstones
from vecdb.storage.segment_writer import (
    FileRows,
    ListedRows,
    RowSource,
    Step,
    write_rows,
    write_segment,
)
from vecdb.storage.store import Durability, PosixStore
from vecdb.storage.wal import TornTail, Wal, WalRecord
from vecdb.storage.wal_file import RECORD_BYTES_LIMIT

__all__ = [
    "RECORD_BYTES_LIMIT",
    "AppendFile",
    "CheckReport",
    "Delete",
    "DirectoryLock",
    "Durability",
    "FileRef",
    "FileRows",
    "Finding",
    "HeldLock",
    "IdBatch",
    "ListedRows",
    "Manifest",
    "ManifestLog",
    "PosixStore",
    "RowSource",
    "Sections",
    "SegmentFile",
    "Severity",
    "Step",
    "Store",
    "TornTail",
    "Upsert",
    "Wal",
    "WalRecord",
    "Writer",
    "allow_many_files",
    "check_directory",
    "decode_operation",
    "digest_of",
    "encode_operation",
    "file_refs",
    "open_sections",
    "read_tombstones",
    "rows_if_known",
    "write_rows",
    "write_sections",
    "write_segment",
    "write_tombstones",
]
