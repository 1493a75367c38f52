"""The archive brought up to the journal, for tests that only need it to be so."""

from byline.archive.database import Archive
from byline.archive.exporter import Exporter
from byline.ledger.ledger import Ledger


async def export(ledger: Ledger, archive: Archive, name: str = "usd") -> None:
    """Copy every entry that the archive lacks."""
    exporter = Exporter(ledger, archive, name=name)
    while await exporter.once():
        pass
