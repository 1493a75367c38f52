"""The spool's theorem: what was put and not done is read again, in order and byte for byte, by this
process or the next; nothing else is; and what a changed byte has made of it is never sent."""

import asyncio
import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byline.delivery.spool import REFUSED, Spool
from byline.errors import SpoolFull, StartFailed
from byline.limits import SPOOL_BYTES_MAX
from byline.posting.postings import Posting
from tests.byline.cases import NOW_MS, a_posting
from tests.byline.spools import SMALL, files_of, full_disk, opened

pytestmark = pytest.mark.anyio


async def test_what_was_put_is_read_again_byte_for_byte(tmp_path: Path) -> None:
    put = [a_posting() for _ in range(5)]
    async with opened(tmp_path) as spool:
        for number, posting in enumerate(put):
            await spool.put(posting, time_ms=NOW_MS + number)
        assert (spool.waiting, spool.oldest_ms, spool.postings()) == (5, NOW_MS, put)
    async with opened(tmp_path) as spool:
        assert (spool.waiting, spool.oldest_ms, spool.postings()) == (5, NOW_MS, put)


async def test_what_is_done_is_not_read_again(tmp_path: Path) -> None:
    put = [a_posting() for _ in range(3)]
    async with opened(tmp_path) as spool:
        for posting in put:
            await spool.put(posting, time_ms=NOW_MS)
        spool.done(put[0].key)
        spool.done("no such key")
        await spool.tidy()
        assert spool.postings() == put[1:]
    async with opened(tmp_path) as spool:
        assert spool.postings() == put[1:]
        for posting in put[1:]:
            spool.done(posting.key)
        assert spool.oldest_ms is None
    assert not files_of(tmp_path)


async def test_a_key_waits_once_however_often_it_is_put(tmp_path: Path) -> None:
    posting = a_posting()
    async with opened(tmp_path) as spool:
        for _ in range(2):
            await spool.put(posting, time_ms=NOW_MS)
        assert spool.waiting == 1
        spool.done(posting.key)
        await spool.put(posting, time_ms=NOW_MS + 1)  # its mark stands before it in the file
    async with opened(tmp_path) as spool:
        assert (spool.postings(), spool.oldest_ms) == ([posting], NOW_MS + 1)


async def test_files_and_folder_are_the_owners_alone(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    async with opened(folder) as spool:
        await spool.put(a_posting(), time_ms=NOW_MS)
        await spool.refuse(a_posting(), "no")
        modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.iterdir()]}
    assert modes.pop(folder) == 0o700
    assert len(modes) == 3  # the spool, the refusals, the lock
    assert set(modes.values()) == {0o600}


async def test_finished_files_are_deleted_while_others_wait(tmp_path: Path) -> None:
    async with opened(tmp_path, bytes_max=SMALL) as spool:  # two captures fill one of its files
        stuck = a_posting()
        await spool.put(stuck, time_ms=NOW_MS)
        for _ in range(200):
            posting = a_posting()
            await spool.put(posting, time_ms=NOW_MS)
            spool.done(posting.key)
        await spool.tidy()
        assert len(files_of(tmp_path)) == 2  # the one with the stuck posting, and the last
        spool.require_room()
    async with opened(tmp_path) as spool:
        assert spool.postings() == [stuck]


async def test_puts_that_wait_share_one_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    fsync = os.fsync

    def counted(descriptor: int) -> None:
        synced.append(descriptor)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", counted)
    async with opened(tmp_path, bytes_max=SPOOL_BYTES_MAX) as spool:
        await spool.put(a_posting(), time_ms=NOW_MS)
        synced.clear()
        await asyncio.gather(*(spool.put(a_posting(), time_ms=NOW_MS) for _ in range(50)))
        assert len(synced) <= 2
        await spool.write(a_posting(), time_ms=NOW_MS)
        assert len(synced) <= 2
        await spool.sync()
        assert len(synced) <= 3


async def test_what_is_being_put_at_the_end_is_kept(tmp_path: Path) -> None:
    posting = a_posting()
    spool = Spool.open(tmp_path)
    putting = asyncio.create_task(spool.put(posting, time_ms=NOW_MS))
    await asyncio.sleep(0)
    await spool.close()
    await putting
    async with opened(tmp_path) as spool:
        assert spool.postings() == [posting]


async def test_a_put_whose_caller_goes_away_is_kept(tmp_path: Path) -> None:
    posting = a_posting()
    async with opened(tmp_path) as spool:
        putting = asyncio.create_task(spool.put(posting, time_ms=NOW_MS))
        await asyncio.sleep(0)
        putting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await putting
        await spool.sync()
        with full_disk(room=10):
            failing = asyncio.create_task(spool.put(a_posting(), time_ms=NOW_MS))
            await asyncio.sleep(0)
            failing.cancel()
            with pytest.raises(SpoolFull):
                await spool.put(a_posting(), time_ms=NOW_MS)
    async with opened(tmp_path) as spool:
        assert spool.postings() == [posting]


async def test_a_sync_is_of_all_files_that_were_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path, bytes_max=SMALL) as spool:
        for _ in range(8):
            await spool.write(a_posting(), time_ms=NOW_MS)
        synced: list[int] = []
        monkeypatch.setattr(os, "fsync", synced.append)
        await spool.sync()
        assert len(synced) == len(files_of(tmp_path)) > 1
        await spool.sync()
        assert len(synced) == len(files_of(tmp_path))


async def test_without_anything_to_write_no_file_is_made(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await spool.sync()
        await spool.tidy()
        assert not files_of(tmp_path)


def test_a_folder_that_is_none_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartFailed, match="can't be opened"):
        Spool.open(tmp_path / "file")


async def test_what_is_refused_lies_in_a_file_with_its_reason(tmp_path: Path) -> None:
    posting = a_posting()
    async with opened(tmp_path) as spool:
        await spool.put(posting, time_ms=NOW_MS)
        await spool.refuse(posting, "KeyConflict: another payload")
        assert spool.waiting == 0
    (line,) = (tmp_path / REFUSED).read_text().splitlines()
    fields = json.loads(line)
    assert fields["reason"] == "KeyConflict: another payload"
    assert fields["posting"]["payload"] == posting.payload
    async with opened(tmp_path) as spool:
        assert spool.waiting == 0


@settings(deadline=None, max_examples=25)
@given(st.lists(st.sampled_from(["put", "put", "done", "reopen"])))
async def test_any_history_with_any_reopenings_keeps_what_is_not_done(
    tmp_path_factory: pytest.TempPathFactory, history: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    waiting: list[Posting] = []
    spool = Spool.open(folder, bytes_max=SMALL)
    for what in history:
        if what == "put":
            waiting.append(a_posting())
            await spool.put(waiting[-1], time_ms=NOW_MS)
        elif what == "done" and waiting:
            spool.done(waiting.pop(0).key)
        elif what == "reopen":
            await spool.close()
            spool = Spool.open(folder, bytes_max=SMALL)
        assert spool.postings() == waiting
    await spool.close()
