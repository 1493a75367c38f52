"""Checks proofs without trusting whoever made them; nothing here imports the rest of Byline."""
