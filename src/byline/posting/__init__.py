"""How a post gets to the ledger: what it says, its script, the connections, the answers."""
