"""What must not be lost: kept in a spool on disk until the ledger has answered."""
