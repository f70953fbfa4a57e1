"""Files and folders into a collection: readers, chunks with stable ids, a resumable ingest."""

from vecdb.ingest.chunks import IngestOptions
from vecdb.ingest.files import SkippedFile, find_files, read_document
from vecdb.ingest.ingest import IngestReport, Target, ingest

__all__ = [
    "IngestOptions",
    "IngestReport",
    "SkippedFile",
    "Target",
    "find_files",
    "ingest",
    "read_document",
]
