"""The notary: turns each ledger's journal into a transparency log with signed tree heads.

`python -m byline.notary` runs it. What a leaf says, and what is signed, is `byline.transparency`'s.
"""
