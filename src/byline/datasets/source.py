"""What the three sources have in common: a package to read, its contributions, its notice."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from byline.canonical import sha256_hex
from byline.datasets.packages import InstalledPackage
from byline.records import Example

USABLE_WORDS_MIN = 15  # a shorter answer says too little to be traced
USABLE_WORDS_MAX = 80  # a longer one costs training time that two cores do not have


@dataclass(frozen=True, slots=True)
class Contribution:
    """An example, and how its contributor is called where people read it."""

    example: Example
    display_name: str


@dataclass(frozen=True, slots=True)
class Source:
    """One origin of rows. `read` must yield in an order that only the package's bytes decide."""

    dataset: str
    package: str
    read: Callable[[InstalledPackage], Iterator[Contribution]]
    notice: Callable[[InstalledPackage], str]


def example_id(dataset: str, entry: str, completion: str) -> str:
    """An id that stays as long as the entry's text does, whatever release it is read from."""
    return f"{dataset}-{sha256_hex(f'{entry} {completion}'.encode())[:12]}"
