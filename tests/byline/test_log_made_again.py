"""A leaf's data is kept once; what was published and lost is made again, the same bytes or none."""

import shutil
from pathlib import Path

import pytest
from sqlalchemy import update

from byline.archive.tables import entries
from byline.errors import ArchiveUnavailable, LogMismatch
from byline.notary.folder import CHECKPOINT
from byline.notary.remaking import Remaking
from byline.notary.source import Source
from byline.notary.state import State
from byline.transparency.tiles import WIDTH
from byline.transparency.tree import leaf_hash
from tests.byline.logs import ORIGIN, Log, a_log, published

pytestmark = pytest.mark.anyio

LEAVES_MIN = 2 * WIDTH


@pytest.fixture
async def log(tmp_path: Path) -> Log:
    """Published, archived, and longer than two bundles."""
    made = a_log(tmp_path, inferences=150)
    await made.export()
    await made.notarise(entries_max=100)
    assert published(made.folder)[0].size > LEAVES_MIN
    return made


def files(log: Log) -> dict[str, bytes]:
    """What is under the published folder."""
    root = log.folder.root
    paths = [path for path in root.rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def require_same(log: Log, before: dict[str, bytes]) -> None:
    """The published log is whole, and no file is another; older partial ones may be gone."""
    after = files(log)
    assert after[CHECKPOINT] == before[CHECKPOINT]
    assert after.items() <= before.items()
    published(log.folder)


def change_in_archive(log: Log, seq: int) -> None:
    entry = log.journal.texts[seq - 1]
    with log.archive.writing() as connection:
        connection.execute(
            update(entries)
            .where(entries.c.seq == seq)
            .values(text=entry.replace('"time_ms":', '"time_ms":1'))
        )


async def test_what_full_published_bundles_hold_is_not_in_the_state(log: Log) -> None:
    head, _ = published(log.folder)
    state = State.read(log.openings)
    full = head.size // WIDTH * WIDTH
    for leaf in range(full):
        assert state.unpublished(leaf, leaf + 1) is None
    assert state.unpublished(full, head.size) is not None
    state.close()


@pytest.mark.parametrize("kept", [True, False])
async def test_lost_files_are_made_again_byte_for_byte(log: Log, kept: bool) -> None:
    """With the tree head still there, and without it."""
    before = files(log)
    shutil.rmtree(log.folder.root / "tile")
    if not kept:
        (log.folder.root / CHECKPOINT).unlink()
    await log.notarise()
    require_same(log, before)


async def test_each_leaf_is_made_again_by_itself(log: Log) -> None:
    """Also where a range ends between a manifest's leaf and the entry that pays by it."""
    state = State.read(log.openings)
    remaking = Remaking(Source(log.journal, log.archive, "usd"), state)
    head, _ = published(log.folder)
    for leaf in range(head.size):
        (data,) = remaking.data(leaf, leaf + 1)
        assert leaf_hash(data) == log.folder.nodes(head.size)(0, leaf)
    state.close()


async def test_what_another_archive_would_make_is_not_published(log: Log) -> None:
    change_in_archive(log, 3)
    for lost in ("tile", CHECKPOINT):
        path = log.folder.root / lost
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        checkpoint = log.folder.checkpoint()
        with pytest.raises(LogMismatch, match="don't continue"):
            await log.notary().once()
        assert log.folder.checkpoint() == checkpoint
        shutil.rmtree(log.folder.root / "tile", ignore_errors=True)


async def test_leaves_wait_for_the_archive_that_lacks_their_entries(tmp_path: Path) -> None:
    made = a_log(tmp_path, inferences=150)
    await made.notarise(entries_max=100)
    before = files(made)
    shutil.rmtree(made.folder.root / "tile")
    with pytest.raises(ArchiveUnavailable, match="entry 1 is not in the archive"):
        await made.notary().once()
    await made.export()
    await made.notarise()
    require_same(made, before)


async def test_an_archive_that_was_changed_proves_nothing(log: Log) -> None:
    change_in_archive(log, 4)
    with pytest.raises(LogMismatch, match="not the one that was logged"):
        log.reader().entry(4)


async def test_the_head_of_another_log_is_not_made_into_this_one(log: Log) -> None:
    state = State.open(log.openings, ORIGIN)
    head = state.published()
    state.forget(0, type(head)(head.origin, head.size, bytes(32)))
    state.close()
    shutil.rmtree(log.folder.root)
    with pytest.raises(LogMismatch, match="don't continue"):
        await log.notary().once()
