"""Which dataset taught which adapter version: taken from the release, kept for ever."""

from byline.archive.bulk import insert_rows
from byline.archive.database import Archive
from byline.archive.tables import adapters
from byline.records import Release


def keep_adapters(archive: Archive, release: Release) -> None:
    """Remember the adapter versions of a release; those of earlier ones stay."""
    rows = [
        {"adapter_version": each.version, "adapter": each.adapter, "dataset": each.dataset}
        for each in release.adapters
    ]
    known = {"adapter": "excluded.adapter", "dataset": "excluded.dataset"}
    with archive.writing() as connection:
        insert_rows(connection, adapters, rows, known=known)
