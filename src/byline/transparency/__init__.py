"""The transparency log: its tree, its leaves, its signatures and its proofs. Pure.

Nothing here knows where a log lies or who runs it. docs/proofs.md says every byte of what is made.
"""
