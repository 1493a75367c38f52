"""Logs for tests: a journal in memory, its archive, a notary, and an outsider's check of it all."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from byline.archive.database import Archive
from byline.archive.exporter import Exporter
from byline.notary.cosigning import Cosigning
from byline.notary.folder import LogFolder
from byline.notary.log_keys import LogKeys, log_keys
from byline.notary.notary import Integrated, Notary
from byline.notary.reader import LogReader
from byline.notary.source import Source
from byline.notary.state import State
from byline.transparency.heads import TreeHead, parse_head
from byline.transparency.legs import SumNode, Sums, leg_node, root_of_legs, sums_of
from byline.transparency.tiles import ENTRIES, WIDTH, leaves_of, tile_path
from byline.transparency.tree import leaf_hash, nodes_over, root_of
from tests.byline.journals import FakeJournal, a_history

ORIGIN = "log.example/usd"


@dataclass
class Log:
    """A journal with its log."""

    root: Path
    journal: FakeJournal
    archive: Archive

    def __post_init__(self) -> None:
        self.folder = LogFolder(self.root / "log" / "usd")
        self.private = self.root / "notary" / "usd"
        self.openings = self.root / "openings" / "usd"
        self.rounds: list[Integrated] = []

    @property
    def keys(self) -> LogKeys:
        return log_keys(self.private, self.openings, ORIGIN)

    def notary(
        self, *, step: Callable[[str], None] = lambda _: None, cosigning: Cosigning | None = None
    ) -> Notary:
        state = State.open(self.openings, ORIGIN)
        source = Source(self.journal, self.archive, "usd")
        return Notary(
            source, state, self.folder, self.keys, cosigning=cosigning, step=step,
            observe=self.rounds.append,
        )  # fmt: skip

    async def export(self) -> None:
        exporter = Exporter(self.journal, self.archive)
        while await exporter.once():
            pass

    async def notarise(self, notary: Notary | None = None, *, entries_max: int = 7) -> None:
        made = notary or self.notary()
        while await made.once(entries_max=entries_max):
            pass

    def reader(self) -> LogReader:
        return LogReader.open(self.root, self.archive)


def a_log(root: Path, *, inferences: int = 12, seed: int = 1) -> Log:
    """A journal with a history, and no log of it yet."""
    journal = FakeJournal()
    a_history(journal, random.Random(seed), inferences=inferences)
    return Log(root, journal, Archive.open(f"sqlite:///{root}/archive.sqlite"))


def published(folder: LogFolder) -> tuple[TreeHead, list[dict[str, Any]]]:
    """Head and leaves as anybody reads them; the bundles must have the head's root."""
    checkpoint = folder.checkpoint()
    assert checkpoint is not None
    head, _ = parse_head(checkpoint)
    data: list[bytes] = []
    for index in range(-(-head.size // WIDTH)):
        width = min(head.size - index * WIDTH, WIDTH)
        bundle = folder.read(tile_path(ENTRIES, index, width))
        bundle = bundle or folder.read(tile_path(ENTRIES, index))
        assert bundle is not None
        data += leaves_of(bundle)[:width]
    hashes = [leaf_hash(each) for each in data]
    assert (
        root_of(head.size, nodes_over(hashes))
        == head.root
        == root_of(head.size, folder.nodes(head.size))
    )
    return head, [json.loads(each) for each in data]


def opened(legs: list[dict[str, str]]) -> SumNode:
    """The root over an `entry` opening's legs, closed ones too."""
    nodes = []
    for leg in legs:
        if "text" in leg:
            fields = json.loads(leg["text"])
            sums = sums_of(fields["account"], int(fields["nano"]))
            nodes.append(leg_node(leg["text"].encode(), sums))
        else:
            sums = Sums(int(leg["debits"]), int(leg["credits"]), int(leg["paid"]))
            nodes.append(SumNode(bytes.fromhex(leg["hash"]), sums))
    return root_of_legs(nodes)
