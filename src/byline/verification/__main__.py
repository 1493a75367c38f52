"""Checks Byline's proofs offline: lines, entries, statements, payouts, receipts, one history.

This folder runs without Byline, wherever Python 3.11 and the package `cryptography` are:

    python verification FILE... (--key VKEY | --policy FILE) [--against OLDER] [--json]
    python verification --replay EXPORT (--key VKEY | --policy FILE) [--against OLDER] [--json]

Every file is taken for hostile: nothing in it is believed but what a signature or a hash leads to.
Read proof first: it answers for one line by itself, and runs alone (`python proof.py FILE VKEY`).
Then trees, policies, entries, files, together, and replay if you have an export; docs/proofs.md has
the formats.
"""

import sys
from importlib import import_module
from pathlib import Path

if __name__ == "__main__":
    folder = Path(__file__).resolve().parent
    if not __package__:  # it was started as a folder
        sys.path.append(str(folder.parent))
    sys.exit(import_module(".program", __package__ or folder.name).main())
