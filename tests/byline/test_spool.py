"""The spool's theorem: what was put and not done is read again, in order and byte for byte, by this
process or the next; nothing else is; and what a changed byte has made of it is never sent."""

import asyncio
import fcntl
import json
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byline.delivery import spool_files
from byline.delivery.spool import REFUSED, Spool
from byline.delivery.spool_files import Kept, kept_line
from byline.errors import SpoolFull, StartFailed
from byline.limits import SPOOL_BYTES_MAX
from byline.posting.postings import Posting
from tests.byline.cases import NOW_MS, a_posting, event_id

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]
SMALL = 64 * 1024


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.spool"))


@asynccontextmanager
async def opened(folder: Path, bytes_max: int = SMALL * 16) -> AsyncIterator[Spool]:
    spool = Spool.open(folder, bytes_max=bytes_max)
    try:
        yield spool
    finally:
        await spool.close()


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


# --- bounds ---


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


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file of this process may grow beyond `room` bytes: a write stops short, the next fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


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


# --- what a crash leaves ---


async def test_a_damaged_line_is_kept_aside_and_the_others_are_sent(tmp_path: Path) -> None:
    put = [a_posting() for _ in range(3)]
    async with opened(tmp_path) as spool:
        for posting in put:
            await spool.put(posting, time_ms=NOW_MS)
    (path,) = files_of(tmp_path)
    data = path.read_bytes()
    changed = data.replace(put[1].inference.encode(), b"0" * 36)
    path.write_bytes(changed)
    async with opened(tmp_path) as spool:
        assert spool.postings() == [put[0], put[2]]
        for posting in spool.postings():
            spool.done(posting.key)
    assert not files_of(tmp_path)
    (damaged,) = tmp_path.glob("*.damaged")
    assert damaged.read_bytes().startswith(changed)
    async with opened(tmp_path) as spool:
        await spool.put(a_posting(), time_ms=NOW_MS)
        assert files_of(tmp_path)[0].name > damaged.name  # its number is never used again


async def test_a_line_of_another_version_is_kept_aside(tmp_path: Path) -> None:
    line = spool_files._line(b'{"time_ms":1,"posting":{"colour":"red"}}')
    (tmp_path / "00000001.spool").write_bytes(line)
    async with opened(tmp_path) as spool:
        assert spool.waiting == 0
    assert [path.read_bytes() for path in tmp_path.glob("*.damaged")] == [line]


async def test_a_posting_that_two_files_keep_waits_once(tmp_path: Path) -> None:
    line = kept_line(Kept(a_posting(), NOW_MS))
    for number in (1, 2):
        (tmp_path / f"0000000{number}.spool").write_bytes(line)
    async with opened(tmp_path) as spool:
        (posting,) = spool.postings()
        assert [path.name for path in files_of(tmp_path)] == ["00000001.spool"]
        spool.done(posting.key)
    assert not files_of(tmp_path)


async def test_a_torn_tail_does_not_spoil_what_is_marked_after_it(tmp_path: Path) -> None:
    put = [a_posting() for _ in range(2)]
    async with opened(tmp_path) as spool:
        for posting in put:
            await spool.put(posting, time_ms=NOW_MS)
    (path,) = files_of(tmp_path)
    with path.open("ab") as file:
        file.write(b"\0" * 100)
    async with opened(tmp_path) as spool:
        spool.done(put[0].key)
    async with opened(tmp_path) as spool:
        assert spool.postings() == put[1:]
    assert not list(tmp_path.glob("*.damaged"))


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.sampled_from(["put", "put", "done", "reopen"]), st.none())))
async def test_any_history_with_any_reopenings_keeps_what_is_not_done(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[str, None]]
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    waiting: list[Posting] = []
    spool = Spool.open(folder, bytes_max=SMALL)
    for what, _ in history:
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


# --- several processes ---

KEEPER = """
import asyncio, sys
from pathlib import Path
from byline.delivery.spool import Spool
from tests.byline.cases import a_posting

async def keep() -> None:
    spool = Spool.open(Path(sys.argv[1]))
    for inference in sys.argv[2:]:
        await spool.put(a_posting(inference), time_ms=1)
    spool.done(a_posting(sys.argv[2]).key)
    await spool.tidy()
    print("kept", flush=True)
    await asyncio.sleep(60)

asyncio.run(keep())
"""


@contextmanager
def keeper(folder: Path, inferences: list[str]) -> Iterator["subprocess.Popen[str]"]:
    """A process that has put these, the first of them done, and lives until the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", KEEPER, str(folder), *inferences],
        stdout=subprocess.PIPE, text=True, cwd=ROOT, env={"PYTHONPATH": "src:."},
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "kept\n"
        yield process
        process.kill()


async def test_what_a_killed_process_left_is_taken_over(tmp_path: Path) -> None:
    inferences = [event_id() for _ in range(3)]
    with keeper(tmp_path, inferences) as process:
        async with opened(tmp_path) as spool:
            assert spool.waiting == 0  # its process lives: nobody else reads it
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        async with opened(tmp_path) as spool:
            assert [posting.inference for posting in spool.postings()] == inferences[1:]
            assert spool.postings() == [a_posting(each) for each in inferences[1:]]
            for posting in spool.postings():
                spool.done(posting.key)
    assert not files_of(tmp_path)


async def test_two_live_spools_of_one_folder_never_read_each_others(tmp_path: Path) -> None:
    async with opened(tmp_path) as one:
        await one.put(mine := a_posting(), time_ms=NOW_MS)
        async with opened(tmp_path) as other:
            await other.put(theirs := a_posting(), time_ms=NOW_MS)
            assert (one.postings(), other.postings()) == ([mine], [theirs])
        async with opened(tmp_path) as third:
            assert third.postings() == [theirs]
            third.done(theirs.key)
            await one.put(more := a_posting(), time_ms=NOW_MS)
    async with opened(tmp_path) as spool:
        assert spool.postings() == [mine, more]


async def test_a_file_that_was_deleted_while_it_was_looked_at_is_nobodys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "00000001.spool"
    flock = fcntl.flock

    def deleted_first(descriptor: int, operation: int) -> None:
        path.unlink(missing_ok=True)
        if replaced:
            path.with_suffix(".new").rename(path)
        flock(descriptor, operation)

    for replaced in (False, True):  # noqa: B007 - `deleted_first` looks at it
        path.write_bytes(b"")
        path.with_suffix(".new").write_bytes(b"")
        with monkeypatch.context() as patched:
            patched.setattr(spool_files, "_locked", lambda _: nullcontext())
            patched.setattr(fcntl, "flock", deleted_first)
            assert spool_files.orphans(tmp_path) == []
    path.unlink()
    path.symlink_to(tmp_path / "gone")
    assert spool_files.orphans(tmp_path) == []
