"""A spool without room says so before it is asked to keep more: where it is full, where
its disk is, and where that can't sync."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from byline.delivery.spool import Spool
from byline.errors import SpoolFull
from byline.posting.postings import Posting
from tests.byline.cases import NOW_MS, a_posting
from tests.byline.spools import SMALL, files_of, full_disk, opened

pytestmark = pytest.mark.anyio


async def fill(spool: Spool, put: list[Posting], before: Callable[[], None] = lambda: None) -> None:
    """Put what is put, until something is refused."""
    for _ in range(1_000):
        before()
        posting = a_posting()
        await spool.put(posting, time_ms=NOW_MS)
        put.append(posting)


async def test_a_full_spool_takes_no_more_and_stops_holds_before(tmp_path: Path) -> None:
    put: list[Posting] = []
    async with opened(tmp_path, bytes_max=SMALL) as spool:
        with pytest.raises(SpoolFull, match="is full"):
            await fill(spool, put)
        with pytest.raises(SpoolFull, match="wait for the ledger"):
            spool.require_room()
        assert spool.postings() == put
        assert sum(path.stat().st_size for path in files_of(tmp_path)) <= SMALL
        for posting in put:
            spool.done(posting.key)
        await spool.tidy()
        spool.require_room()
        await spool.put(a_posting(), time_ms=NOW_MS)


async def test_holds_stop_while_there_is_room_for_answers_under_way(tmp_path: Path) -> None:
    async with opened(tmp_path, bytes_max=SMALL) as spool:
        with pytest.raises(SpoolFull):
            await fill(spool, [], before=spool.require_room)
        await spool.put(a_posting(), time_ms=NOW_MS)


async def test_a_full_disk_is_a_full_spool_until_there_is_room_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        first, second, third = (a_posting() for _ in range(3))
        await spool.put(first, time_ms=NOW_MS)
        with full_disk(room=files_of(tmp_path)[0].stat().st_size + 100):
            with pytest.raises(SpoolFull, match="can't be written"):
                await spool.put(second, time_ms=NOW_MS)
            with pytest.raises(SpoolFull, match="can't be written"):
                spool.require_room()
            with pytest.raises(SpoolFull):
                await spool.tidy()
            with pytest.raises(SpoolFull, match="refusal can't be noted"):
                await spool.refuse(a_posting(), "x" * 10_000)
        await spool.tidy()
        spool.require_room()
        await spool.put(third, time_ms=NOW_MS)
        assert spool.postings() == [first, third]
    async with opened(tmp_path) as spool:  # half a line was written, and taken back
        assert spool.postings() == [first, third]


async def test_a_mark_that_finds_no_room_is_only_a_posting_sent_again(tmp_path: Path) -> None:
    first, second = a_posting(), a_posting()
    async with opened(tmp_path) as spool:
        for posting in (first, second):
            await spool.put(posting, time_ms=NOW_MS)
        with full_disk(room=10):
            spool.done(first.key)
            await spool.tidy()
        assert spool.postings() == [second]
    async with opened(tmp_path, bytes_max=16) as spool:
        assert spool.postings() == [first, second]
        with full_disk(room=10):
            spool.done(first.key)
            await spool.tidy()
    async with opened(tmp_path) as spool:
        assert spool.postings() == [first, second]


async def test_a_disk_that_can_not_sync_is_a_full_spool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: int) -> None:
        raise OSError(5, "Input/output error")

    posting = a_posting()
    async with opened(tmp_path) as spool:
        await spool.write(posting, time_ms=NOW_MS)
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", broken)
            for _ in range(2):  # the second has no file to sync, and yet does not succeed
                with pytest.raises(SpoolFull, match="Input/output error"):
                    await spool.sync()
        assert spool.postings() == [posting]
        await spool.tidy()
        spool.require_room()
