"""Audit records on the disk: one file a choice, written once, whoever is first.

What is posted is what the file says: an auditor that dies between scoring and posting is followed
by one that posts the same, to the last digit.
"""

import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from byline.auditing.audit import Audit, audit_from
from byline.errors import ArtifactError
from byline.posting.postings import event_ms

logger = logging.getLogger("byline.auditor")


class AuditStore:
    """A folder of audit records."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, inference: str, ordinal: int) -> Audit | None:
        """The audit of this choice, if there is one. Raises ArtifactError for a damaged record."""
        try:
            return audit_from(self._path(inference, ordinal).read_text())
        except FileNotFoundError:
            return None

    def write(self, audit: Audit) -> Audit:
        """Keep the audit, durably; answers the one that is kept, which may be another's."""
        path = self._path(audit.paid.inference, audit.paid.ordinal)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{uuid.uuid4().hex}")
        try:
            with aside.open("w") as file:
                file.write(audit.text())
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(aside, path)
        finally:
            aside.unlink(missing_ok=True)
        _sync(path.parent)
        return audit_from(path.read_text())

    def of(self, inference: str) -> list[Audit]:
        """The audits of this inference's choices. Raises ArtifactError for a damaged record."""
        event_ms(inference)
        return [audit_from(path.read_text()) for path in self.root.glob(f"{inference}-*.json")]

    def newest(self, limit: int) -> Iterator[Audit]:
        """The audits of the newest inferences first; one whose record is damaged is left out."""
        names = sorted((path.name for path in self.root.glob("[!.]*.json")), reverse=True)
        for name in names[:limit]:
            try:
                yield audit_from((self.root / name).read_text())
            except ArtifactError as problem:
                logger.error("%s: %s", name, problem)  # noqa: TRY400

    def _path(self, inference: str, ordinal: int) -> Path:
        event_ms(inference)  # refuses what is no id: it becomes a path
        return self.root / f"{inference}-{ordinal}.json"


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
