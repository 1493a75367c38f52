"""The domain: money, ledger, shares, artifacts, records. No web framework, no model library."""
