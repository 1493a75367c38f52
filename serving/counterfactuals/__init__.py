"""Deterministic retrainings that differ in the contributors' loss weights alone."""
