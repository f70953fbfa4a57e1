"""Walks every file of a data directory and says, in words, what is wrong with it.

What belongs in one is described in ``FORMAT.md``, "The directory".
"""

from __future__ import annotations

from typing import Any

from vecdb.errors import (
    CorruptFileError,
    NewerFormatError,
    StorageIOError,
    StoredFileNotFoundError,
    VecdbError,
)
from vecdb.storage.base import Store
from vecdb.storage.check_log import WAL, cut_log, read_log
from vecdb.storage.fileref import FileRef, digest_of, file_refs
from vecdb.storage.layout import CATALOG, MANIFEST, RESTORING, SEGMENTS, folder_number, top_folder
from vecdb.storage.manifest import (
    Manifest,
    ManifestLog,
    manifest_copy,
    manifest_name,
    manifest_numbers,
    read_manifest_file,
)
from vecdb.storage.mend import mend_bit
from vecdb.storage.quarantine import (
    QUARANTINE,
    QUARANTINED,
    give_up,
    keep_ids,
    lost_ids,
    set_aside,
)
from vecdb.storage.report import CheckReport, Severity
from vecdb.storage.sections import open_sections
from vecdb.storage.segment import TOMBSTONES_KIND, rows_if_known
from vecdb.storage.wal_file import TornTail, cut_tail

_DATA, _TOMBSTONES, _DERIVED = "data", "tombstones", "index"
_UNREADABLE = (CorruptFileError, NewerFormatError, StoredFileNotFoundError, StorageIOError)


def check_directory(store: Store, *, repair: bool = False, cut_wal: bool = False) -> CheckReport:
    """Read every file of a data directory, comparing all checksums and digests.

    Parameters
    ----------
    store
        The data directory; no other process may have it open. Without `repair` nothing is written
        to it, but a name in its lock file where that is possible.
    repair
        Also repair: write a manifest's second file again, cut off what a crash left at the end of
        a log, drop a damaged index (it is built again), and take damaged segments out of their
        collection. Nothing is deleted that held points: it is moved to the collection's
        ``quarantine/``, and the report says what was lost, if anything.
    cut_wal
        With `repair`, also cut a damaged write-ahead log before the first record that cannot be
        read, and give up the acknowledged writes from there on.

    Raises
    ------
    DirectoryLockedError
        If another process has the directory open.
    """
    held = store.lock() if repair else store.lock_for_reading()
    try:
        report = CheckReport(store.location())
        _Check(store, report, repair=repair, cut_wal=cut_wal).run()
        if held is None:
            told = "could not be locked, so this is right only if nobody wrote to it meanwhile"
            report.add(Severity.NOTE, "", f"{store.location()} {told}")
        return report
    finally:
        if held is not None:
            held.release()


class _Check:
    def __init__(self, store: Store, report: CheckReport, *, repair: bool, cut_wal: bool) -> None:
        self._store = store
        self._report = report
        self._repair = repair
        self._cut_wal = cut_wal

    def run(self) -> None:
        names = self._store.list()
        tops = {top_folder(name) for name in names if "/" in name}
        folders = {top for top in tops if folder_number(top) is not None}
        catalog = self._manifests(CATALOG)
        if catalog is not None and catalog.latest is not None:
            listed = self._listed(catalog.latest)
        elif RESTORING in names:
            advice = "run it again, or delete the directory"
            self._damage(
                RESTORING, f"a restore into {self._store.location()} was cut short: {advice}"
            )
            return
        elif folders:
            self._damage(CATALOG, f"{self._store.location(CATALOG)} has no readable manifest")
            listed = dict.fromkeys(sorted(folders), "an unlisted collection")
        elif not self._report.findings:
            self._note("", "holds no database")
            return
        else:
            return
        for folder, name in listed.items():
            self._collection(folder, name)
        for folder in sorted(folders - listed.keys()):
            self._note(folder, "is in no catalog; it is deleted when the database is opened")
        for name in names:
            if name == RESTORING:
                self._note(name, "was left by a restore; it is deleted when the database is opened")
            elif top_folder(name) not in folders | {CATALOG}:
                self._foreign(name)
        for name in self._store.unfinished():
            advice = "it is deleted when the database is opened"
            self._note(name, f"was being written when its process ended; {advice}")

    def _listed(self, catalog: Manifest) -> dict[str, str]:
        entries = catalog.body.get("collections")
        if not isinstance(entries, dict):
            self._damage(CATALOG, f"{self._store.location(CATALOG)} does not list collections")
            return {}
        found = {}
        for name, entry in entries.items():
            folder = entry.get("dir") if isinstance(entry, dict) else None
            if isinstance(folder, str) and folder_number(folder) is not None:
                found[folder] = f"collection {name!r}"
            else:
                self._damage(CATALOG, f"the catalog does not say where collection {name!r} lies")
        return found

    def _collection(self, folder: str, name: str) -> None:
        manifests = self._manifests(f"{folder}/{MANIFEST}")
        applied: object = 0
        if manifests is not None and manifests.latest is None:
            where = self._store.location(folder)
            advice = "restore its files from a backup, or drop the collection"
            self._damage(f"{folder}/{MANIFEST}", f"{where}, {name}, has no manifest: {advice}")
        if manifests is not None and manifests.latest is not None:
            body = manifests.latest.body
            applied = body.get("applied_seq", 0)
            try:
                for entry in body.get(QUARANTINED, []):
                    told = f"{entry['part']} was given up by an earlier repair ({entry['reason']})"
                    self._note(folder, f"{told}: {', '.join(entry['files'])}")
                if not manifests.damaged:
                    self._segments(folder, manifests)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                where = self._store.location(f"{folder}/{MANIFEST}")
                reason = f"{where}: the manifest does not describe a collection ({error!r})"
                self._damage(f"{folder}/{MANIFEST}", reason)
        self._log(folder, name, manifests, applied if isinstance(applied, int) else 0)
        if manifests is not None and not manifests.damaged:  # else what belongs to it is not known
            self._strays(folder, manifests)

    def _strays(self, folder: str, manifests: ManifestLog) -> None:
        """Tell of files that do not belong to the collection, and what opening it does to them."""
        latest = manifests.latest
        named = set() if latest is None else {ref.name for ref in file_refs(latest.body)}
        try:
            reachable = manifests.reachable()
        except _UNREADABLE:
            reachable = None
        store = self._store.within(folder)
        for name in store.list():
            file = f"{folder}/{name}"
            if name in named or top_folder(name) in (MANIFEST, WAL, QUARANTINE):
                continue
            if top_folder(name) != SEGMENTS:
                self._foreign(file)
            elif latest is None:
                self._damage(file, f"{store.location(name)} is there, and no manifest names it")
            elif reachable is None:
                self._note(file, "is left alone: an older manifest, which may name it, is unusable")
            elif name not in reachable:
                self._note(file, "is named by no manifest; it is deleted at the next opening")

    def _segments(self, folder: str, manifests: ManifestLog) -> None:
        """Read every file that the manifest names; with repair, do without the damaged ones."""
        store = self._store.within(folder)
        body = manifests.latest.body if manifests.latest is not None else {}
        kept: list[dict[str, Any]] = []
        lost: list[dict[str, Any]] = []
        dropped: list[str] = []
        for entry in body.get("segments", []):
            wrong = self._wrong_files(folder, entry)
            primary = [reason for role, reason in wrong.items() if role != _DERIVED]
            if primary and self._repair:
                lost.append(self._give_up(store, folder, entry, "; ".join(primary)))
                dropped += [entry[_DERIVED]["name"]] if entry[_DERIVED] else []
            elif _DERIVED in wrong and self._repair:
                kept.append({**entry, _DERIVED: None})
                dropped.append(entry[_DERIVED]["name"])
                self._repaired(folder, f"{wrong[_DERIVED]}: dropped, and built again from its data")
            else:
                kept.append(entry)
        if dropped or lost:
            give_up(manifests, lost, kept)
            for name in dropped:
                store.delete(name)

    def _wrong_files(self, folder: str, entry: dict[str, Any]) -> dict[str, str]:
        """Read the files of one segment; report and return what is wrong, by their roles."""
        wrong: dict[str, str] = {}
        for role in (_DATA, _TOMBSTONES, _DERIVED):
            if entry[role] is None:
                continue
            ref = FileRef.from_json(entry[role])
            file = f"{folder}/{ref.name}"
            try:
                reason = self._compare(file, ref)
                if reason is None and role == _TOMBSTONES:
                    reason = self._miscounted(file, entry["dead"])
            except NewerFormatError as error:
                self._damage(file, str(error))  # not damaged, and not ours to repair
                continue
            except VecdbError as error:
                reason = str(error)
            if reason is None or self._mended(folder, role, ref, reason):
                continue
            wrong[role] = reason
            if role == _DERIVED:
                advice = "it is derived and will be built again; searches are exact meanwhile"
                if not self._repair:
                    self._note(file, f"is unusable ({reason}); {advice}")
            elif not self._repair:
                self._damage(file, reason)
        return wrong

    def _mended(self, folder: str, role: str, ref: FileRef, reason: str) -> bool:
        """Try to put a file right that held what was written."""
        if not self._repair or role == _DERIVED:
            return False
        offset = mend_bit(self._store.within(folder), ref)
        if offset is None:
            return False
        told = f"{reason}: one bit at offset {offset} had flipped; put right, nothing lost"
        self._repaired(f"{folder}/{ref.name}", f"{told} (its SHA-256 is that of its manifest)")
        return True

    def _give_up(
        self, store: Store, folder: str, entry: dict[str, Any], reason: str
    ) -> dict[str, Any]:
        """Set a damaged segment aside; return what the manifest is to say of it."""
        refs = [FileRef.from_json(entry[r]) for r in (_DATA, _TOMBSTONES) if entry[r] is not None]
        ids = lost_ids(store, refs[0], refs[1] if len(refs) > 1 else None)
        rows = rows_if_known(store, refs[0])
        points = None if rows is None else rows - int(entry["dead"])
        points = points if ids is None else len(ids)
        part = f"segment {entry['id']}"
        files = [] if ids is None else [keep_ids(store, f"{entry['id']:010d}.ids", ids)]
        files += [name for ref in refs if (name := set_aside(store, ref.name)) is not None]
        count = "an unknown number of" if points is None else str(points)
        listed = "" if ids is None else f"; their ids are in {store.location(files[0])}"
        self._report.add(
            Severity.LOST,
            f"{folder}/{refs[0].name}",
            f"{part} with {count} points is given up ({reason}): its files are in "
            f"{store.location(QUARANTINE)}{listed}",
        )
        return {"part": part, "files": files, "reason": reason, "points": points}

    def _log(self, folder: str, name: str, manifests: ManifestLog | None, applied: int) -> None:
        store = self._store.within(folder)
        try:
            state = read_log(store, applied)
        except NewerFormatError as error:
            self._damage(f"{folder}/{WAL}", str(error))
            return
        for file in state.files:
            self._count(f"{folder}/{file}")
        damage, torn = state.damage, state.torn
        if damage is None:
            if torn is not None:
                self._torn(f"{folder}/{state.files[-1]}", torn)
            return
        file = f"{folder}/{damage.file or WAL}"
        if not state.needed:
            advice = "everything in it is in segments, and it is begun anew at opening"
            self._note(file, f"is damaged ({damage.reason}); {advice}")
        elif self._repair and self._cut_wal and manifests is not None and not manifests.damaged:
            self._report.add(Severity.LOST, file, cut_log(store, manifests, state, damage))
        else:
            advice = (
                f"records {damage.seq} and later of {name} cannot be used; when there is no backup "
                "to restore, `vecdb check --repair --cut-wal` gives them up and says which"
            )
            self._damage(file, f"{damage.reason}; {advice}")

    def _manifests(self, folder: str) -> ManifestLog | None:
        """Read every manifest of a folder, and its copy; with repair, delete older ones."""
        store = self._store.within(folder)
        numbers = manifest_numbers(store)
        try:
            log = ManifestLog.open(store, allow_damaged_newest=True)
        except _UNREADABLE:
            log = None  # each is reported below
        latest = None if log is None or log.damaged else log.latest
        for number in numbers:
            superseded = latest is not None and number < latest.number
            self._both_files(store, folder, number, superseded=superseded)
        if log is not None and self._repair:
            for name in log.heal():
                message = f"{store.location(name)} is written again from its copy; nothing lost"
                self._report.add(Severity.REPAIRED, f"{folder}/{name}", message)
            if latest is not None:
                log.prune(keep=1)
        return log

    def _both_files(self, store: Store, folder: str, number: int, *, superseded: bool) -> None:
        """Report what is wrong with a manifest's file and its copy; one of them is enough."""
        wrong: dict[str, str] = {}
        missing = set()
        for name in (manifest_name(number), manifest_copy(number)):
            try:
                self._count(f"{folder}/{name}")
                read_manifest_file(store, number, name)
            except StoredFileNotFoundError as error:
                missing.add(name)
                wrong[name] = str(error)
            except _UNREADABLE as error:
                wrong[name] = str(error)
        if missing == wrong.keys() == {manifest_copy(number)}:
            return  # as the first vecdb wrote it, or a crash came before the copy
        for name, reason in wrong.items():
            if superseded and self._repair:
                self._repaired(f"{folder}/{name}", f"{reason}; deleted: a newer one counts")
            elif superseded:
                advice = "a newer one counts, and `vecdb check --repair` deletes this one"
                self._note(f"{folder}/{name}", f"is unusable ({reason}); {advice}")
            elif len(wrong) < 2:
                advice = "the other file of the two is sound; this one is written again at opening"
                self._note(f"{folder}/{name}", f"is unusable ({reason}); {advice}")
            elif name not in missing:
                self._damage(f"{folder}/{name}", reason)

    def _compare(self, file: str, ref: FileRef) -> str | None:
        """Return what is wrong with a file that a manifest names, or None."""
        where = self._store.location(file)
        size = self._store.size(file)
        self._count(file)
        if size != ref.size:
            return f"{where} has {size} bytes; its manifest says {ref.size}"
        open_sections(self._store, file, kind=None)
        if digest_of(self._store, file, size) != ref.sha256:
            return f"{where} is not the file that its manifest names: its SHA-256 differs"
        return None

    def _miscounted(self, file: str, dead: object) -> str | None:
        """Return how many rows tombstones say are dead, where the manifest says otherwise."""
        there = open_sections(self._store, file, kind=TOMBSTONES_KIND).get("dead")
        count = 0 if there is None else int.from_bytes(there.tobytes()).bit_count()
        if count == dead:
            return None
        return f"{self._store.location(file)} has {count} dead rows; its manifest says {dead}"

    def _torn(self, file: str, torn: TornTail) -> None:
        what = f"{torn.where} ends, from offset {torn.offset} on, in {torn.length} bytes of a write"
        if not self._repair:
            advice = "it is cut off at the next opening, or by --repair"
            self._note(file, f"{what} that a crash cut short; {advice}")
            return
        cut_tail(self._store, file, torn.offset)
        message = f"{what} that a crash cut short and nobody was promised: cut off, nothing lost"
        self._report.add(Severity.REPAIRED, file, message)

    def _count(self, file: str) -> None:
        self._report.files += 1
        self._report.bytes += self._store.size(file)

    def _damage(self, file: str, message: str) -> None:
        self._report.add(Severity.DAMAGE, file, message)

    def _repaired(self, file: str, message: str) -> None:
        self._report.add(Severity.REPAIRED, file, message)

    def _foreign(self, file: str) -> None:
        self._note(file, "is none of vecdb's files")

    def _note(self, file: str, message: str) -> None:
        where = self._store.location(file)
        text = message if message.startswith(where) else f"{where} {message}"
        self._report.add(Severity.NOTE, file, text)
