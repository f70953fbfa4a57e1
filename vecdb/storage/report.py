"""What a check of a data directory tells."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Severity(StrEnum):
    """How bad a finding is."""

    NOTE = "note"
    """Nothing is lost, and nothing needs doing."""
    REPAIRED = "repaired"
    """Put right, and nothing was lost by it."""
    LOST = "lost"
    """Given up by this repair: set aside, and no longer part of the database."""
    DAMAGE = "damage"
    """Something that was written cannot be read."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about one file that is worth telling."""

    severity: Severity
    file: str
    message: str


@dataclass(slots=True)
class CheckReport:
    """What `check_directory` found.

    Attributes
    ----------
    location
        The directory.
    files, bytes
        How many were read.
    findings
        In the order of the walk.
    """

    location: str
    files: int = 0
    bytes: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether everything that belongs to the database can be read."""
        return not self._found(Severity.DAMAGE)

    @property
    def lost(self) -> bool:
        """Whether this repair gave something up."""
        return bool(self._found(Severity.LOST))

    def __str__(self) -> str:
        """Return the report as text for a terminal."""
        lines = [f"{f.severity}: {f.message}" for f in self.findings]
        damaged, lost = len(self._found(Severity.DAMAGE)), len(self._found(Severity.LOST))
        verdict = "everything that was written can be read"
        if lost:
            verdict = f"{lost} given up, as named above; everything else can be read"
        if damaged:
            verdict = (
                f"{damaged} damaged: restore what is named above from a backup, or see what "
                "`vecdb check --repair` can do"
            )
        lines.append(f"{self.location}: {self.files} files, {self.bytes} bytes read; {verdict}")
        return "\n".join(lines)

    def add(self, severity: Severity, file: str, message: str) -> None:
        """Append a finding."""
        self.findings.append(Finding(severity, file, message))

    def _found(self, severity: Severity) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity is severity]
