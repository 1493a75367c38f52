"""What another process left in a spool's folder is taken over once it is dead, whatever state its
files are in, and never while it lives."""

import fcntl
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from byline.delivery import spool_files
from byline.delivery.spool_files import Kept, kept_line
from tests.byline.cases import NOW_MS, a_posting, event_id
from tests.byline.spools import files_of, opened

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]


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
