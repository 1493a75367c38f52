"""The archive: everything the ledgers have posted, for ever, in SQL.

`exporter` fills it, one transaction a page of the journal; `earnings`, `usage` and `history` ask
it. The ledgers stay the authority for what may be posted; the archive is the record that is kept.
"""
