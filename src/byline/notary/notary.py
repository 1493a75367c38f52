"""Integrates one ledger's journal into its log: read, decide, write, sign, publish; in this order.

What is decided is committed before anything of it is published, and the head goes last. A notary
that dies between any two steps is started again: it writes the same files once more, signs the same
head, and goes on.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from byline.archive.rows import Found
from byline.errors import (
    ArchiveUnavailable,
    LedgerFenced,
    LedgerUnavailable,
    LogMismatch,
    WitnessesAway,
)
from byline.notary.cosigning import Cosigning
from byline.notary.folder import RECEIPT_KEYS, LogFolder
from byline.notary.integrating import addition_of, chained_accounts
from byline.notary.log_keys import LogKeys
from byline.notary.logged_statements import StatementLeaves
from byline.notary.remaking import Remaking
from byline.notary.source import Source
from byline.notary.state import Addition, NewLeaf, Standing, State
from byline.program import pause
from byline.transparency.heads import signed_head
from byline.transparency.leaves import has_manifest_leaf, key_leaf
from byline.transparency.tiles import WIDTH

log = logging.getLogger("byline.notary")

ENTRIES_AT_ONCE = 2_000
LEAVES_PUBLISHED_AT_ONCE = 20_000
IDLE_SECONDS = 0.2
AWAY_SECONDS = 1.0
STATEMENTS_SECONDS = 30.0  # between two looks for statements that were frozen


@dataclass(frozen=True, slots=True)
class Integrated:
    """One round: what got a leaf, and up to which entry and size the log is published."""

    entries: int
    seq: int
    size: int
    oldest_ms: int | None  # when the oldest entry of this round was posted
    without_shares: int = 0  # settlements whose attribution's record was not to be had


class Notary:
    """Keeps one log. `observe` is told of each round, also if it found nothing new."""

    def __init__(
        self,
        source: Source,
        state: State,
        folder: LogFolder,
        keys: LogKeys,
        *,
        cosigning: Cosigning | None = None,
        step: Callable[[str], None] = lambda _: None,
        observe: Callable[[Integrated], None] = lambda _: None,
    ) -> None:
        self._source = source
        self._state = state
        self._folder = folder
        self._keys = keys
        self._cosigning = cosigning or Cosigning()
        self._step = step
        self._observe = observe
        self._statements = StatementLeaves(source, state, keys.salts)
        self._remaking = Remaking(source, state)
        self._is_whole = False  # the folder has been looked at since the start
        self._next_look = 0.0
        self._noted: int | None = None  # how far the ledger has been told that it is logged

    async def once(self, *, entries_max: int = ENTRIES_AT_ONCE) -> int:
        """One round; answers how many leaves were added, 0 when there is nothing new.

        Raises LogMismatch where the journal, the state and the published log contradict each other,
        WitnessesAway where the quorum did not cosign, and what the stores raise when they are away.
        """
        await asyncio.to_thread(self._announce_keys)
        standing = self._state.standing()
        page = await self._source.page(standing.seq, standing.entry_sha256, entries_max)
        self._step("read")
        added = await asyncio.to_thread(self._integrate, page, standing.size) if page else 0
        if not page and time.monotonic() >= self._next_look:
            added += await asyncio.to_thread(self._statements.add_new)
            self._next_look = time.monotonic() + STATEMENTS_SECONDS
        await asyncio.to_thread(self._publish)
        standing = self._state.standing()
        oldest = page[0].entry.time_ms if page else None
        bare = sum(has_manifest_leaf(each.entry) and each.manifest is None for each in page)
        self._observe(Integrated(len(page), standing.seq, standing.size, oldest, bare))
        seq = standing.seq
        if seq != self._noted:
            await self._source.ledger.note_notarised(seq)
            self._noted = seq
            self._step("noted")
        return added

    async def run(self, stop: asyncio.Event) -> None:
        """Integrate until `stop`, waiting for what is away.

        Raises LogMismatch: what is wrong then does not pass by itself.
        """
        while not stop.is_set():
            seconds = 0.0
            try:
                if not await self.once():
                    seconds = IDLE_SECONDS
            except (LedgerUnavailable, LedgerFenced) as problem:
                log.warning("the journal can't be read now: %s", problem)
                seconds = AWAY_SECONDS
                with suppress(LedgerUnavailable, LedgerFenced):
                    await self._source.ledger.rejoin()
            except (ArchiveUnavailable, WitnessesAway) as problem:
                log.warning("nothing new is proven now: %s", problem)
                seconds = AWAY_SECONDS
            if seconds:
                await pause(stop, seconds)

    def _announce_keys(self) -> None:
        """Give each rotated-in key its leaf, signed by the key before it."""
        keys = self._keys.keys
        standing = self._state.standing()
        if not standing.key:
            self._state.trust(keys[0].verifier.text())
            standing = self._state.standing()
        vkeys = [key.verifier.text() for key in keys]
        if standing.key not in vkeys:
            raise LogMismatch(
                f"the newest key of the log '{standing.origin}' is {standing.key}, and it is not "
                "here: put its file back, or nobody could check what is signed"
            )
        for at in range(vkeys.index(standing.key), len(keys) - 1):
            size = self._state.standing().size
            leaf = key_leaf(standing.origin, keys[at], keys[at + 1].verifier)
            self._state.add(Addition(size, [NewLeaf(leaf)]), key=vkeys[at + 1])
        self._folder.publish_keys(vkeys)
        self._folder.publish_keys(
            (key.verifier.text() for key in self._keys.receipts), RECEIPT_KEYS
        )

    def _integrate(self, page: list[Found], size: int) -> int:
        """Decide the places of the entries' leaves."""
        chains = self._state.chains(chained_accounts(page))
        addition = addition_of(page, size, chains, self._keys.salts)
        self._state.add(addition)
        self._step("integrated")
        return len(addition.leaves)

    def _publish(self) -> None:
        """Publish what was decided and is not published yet."""
        standing = self._state.standing()
        if not self._is_whole:
            self._mend_folder(standing)
            self._is_whole = True
        while (old := self._folder.head(standing.origin)).size != standing.size:
            if old.size > standing.size:
                raise LogMismatch(
                    f"the published log has {old.size} leaves, this state {standing.size}: the "
                    "state is an older copy. Nothing is signed, or there would be two histories"
                )
            size = min(standing.size, old.size + LEAVES_PUBLISHED_AT_ONCE)
            self._write_bundles(old.size, size)
            self._step("bundles")
            self._folder.write_upper_tiles(old.size, size)
            self._step("tiles")
            self._folder.sync_folders(old.size, size)
            head = self._folder.head_of(old, size)
            checkpoint = signed_head(head, self._keys.keys)
            self._step("signed")
            checkpoint = self._cosigning.cosigned(checkpoint, head, self._folder.nodes(size))
            self._step("cosigned")
            self._folder.publish(checkpoint)
            self._step("published")
            if size // WIDTH > old.size // WIDTH:
                self._state.forget(size // WIDTH * WIDTH, head)
            self._folder.drop_partial(old.size, size)
            self._step("cleaned")

    def _mend_folder(self, standing: Standing) -> None:
        """Make published files again that are lost; they must have the root that was published."""
        known = [self._folder.head(standing.origin), self._state.published()]
        old = max(known, key=lambda head: head.size)
        if old.size > standing.size:
            return  # an older state is no matter of lost files
        if not self._folder.has_tiles(old.size):
            log.warning("files of the %d published leaves are lost: made again", old.size)
            self._write_bundles(0, old.size)
            self._folder.write_upper_tiles(0, old.size)
            self._folder.sync_folders(0, old.size)
        self._folder.head_of(old, old.size)

    def _write_bundles(self, old: int, size: int) -> None:
        """Write the bundles that a log of `size` leaves has and one of `old` had not."""
        for index in range(old // WIDTH, -(-size // WIDTH)):
            start, end = index * WIDTH, min((index + 1) * WIDTH, size)
            data = self._state.unpublished(start, end)
            if data is None:
                data = self._remaking.data(start, end)
            self._folder.write_bundle(index, data)
