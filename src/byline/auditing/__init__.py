"""Audits: which inferences are drawn, what a draw corrects, how far paid is from audited. Pure."""
