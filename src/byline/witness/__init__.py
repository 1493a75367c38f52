"""A witness: cosigns a log's tree heads while they are one history (C2SP tlog-witness).

`python -m byline.witness` runs it. Run by somebody else than the log's operator it makes a second
history impossible to sign; run by the operator it makes one detectable.
"""
