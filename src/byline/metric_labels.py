"""How many names one label of a metric may have: a series each is kept for a program's whole life.

Names come from the installation, never from a client; but releases change, and may name thousands.
"""

from collections.abc import Iterable

OTHER = "other"
LABELS_MAX = 200


class Labels:
    """Gives the first names a label of their own; all later ones share `other`."""

    def __init__(self, labels_max: int = LABELS_MAX) -> None:
        self._labels_max = labels_max
        self._known: set[str] = set()

    def of(self, name: str) -> str:
        """The label for a name."""
        if name in self._known:
            return name
        if len(self._known) >= self._labels_max:
            return OTHER
        self._known.add(name)
        return name

    def known(self, names: Iterable[str]) -> frozenset[str]:
        """Those of the names that have a label of their own; the first in order get the last."""
        return frozenset(name for name in sorted(names) if self.of(name) == name)
