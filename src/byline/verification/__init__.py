"""Checks proofs without trusting whoever made them; nothing here imports the rest of Byline.

`verify.py` alone, or with `replay.py` beside it, runs wherever Python and `cryptography` are.
"""
