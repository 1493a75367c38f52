"""The ledger: its operations, its journal, the check of its books; several of them as shards."""
