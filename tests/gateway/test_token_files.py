"""Token ids are written at once where the folder is quick, in a thread where it is not."""

import os
import threading
from pathlib import Path

import pytest
import uuid_utils

from byline.records import ServedTokens
from byline.served import read_served, write_served
from gateway.token_files import IN_THREAD_SECONDS, SLOW_SECONDS, TokenFiles

pytestmark = pytest.mark.anyio


def some_tokens() -> ServedTokens:
    return ServedTokens(str(uuid_utils.uuid7()), (1, 2), ((3,), ()))


class Folder:
    """A folder as slow as it is told to be, and the threads that wrote into it."""

    def __init__(self) -> None:
        self.now, self.takes = 100.0, 0.0
        self.threads: list[bool] = []

    def clock(self) -> float:
        return self.now

    def write(self, folder: Path, tokens: ServedTokens) -> str:
        self.threads.append(threading.current_thread() is not threading.main_thread())
        self.now += self.takes
        return write_served(folder, tokens)


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Folder:
    slow = Folder()
    monkeypatch.setattr("gateway.token_files.write_served", slow.write)
    return slow


async def test_what_is_kept_can_be_read_by_its_hash(tmp_path: Path) -> None:
    files, tokens = TokenFiles(tmp_path / "a" / "served"), some_tokens()
    sha256 = await files.keep(tokens)
    assert read_served(tmp_path / "a" / "served", tokens.inference, sha256) == tokens


async def test_a_slow_folder_is_left_to_a_thread_and_tried_again(
    tmp_path: Path, folder: Folder
) -> None:
    files = TokenFiles(tmp_path, clock=folder.clock)
    await files.keep(some_tokens())
    folder.takes = 2 * SLOW_SECONDS
    await files.keep(some_tokens())
    folder.takes = 0.0
    for _ in range(3):
        await files.keep(some_tokens())
    folder.now += IN_THREAD_SECONDS
    for _ in range(2):
        await files.keep(some_tokens())
    assert folder.threads == [False, False, True, True, True, False, False]


async def test_a_write_that_fails_says_so_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int, _data: bytes) -> int:
        raise OSError(28, "no space left")

    tokens = some_tokens()
    with monkeypatch.context() as patched:
        patched.setattr("byline.served.os.write", full)
        with pytest.raises(OSError, match="no space"):
            await TokenFiles(tmp_path).keep(tokens)
    assert not list(tmp_path.iterdir())


async def test_a_disk_that_takes_a_few_bytes_at_a_time_gets_them_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr("byline.served.os.write", lambda to, data: write(to, data[:7]))
    tokens = some_tokens()
    sha256 = await TokenFiles(tmp_path).keep(tokens)
    assert read_served(tmp_path, tokens.inference, sha256) == tokens
