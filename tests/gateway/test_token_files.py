"""Token ids are written at once where the folder is quick, in a thread where it is not."""

import threading
from pathlib import Path

import pytest
import uuid_utils

from byline.records import ServedTokens
from byline.served import ServedWriter, read_served
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

    def wrote(self) -> None:
        self.threads.append(threading.current_thread() is not threading.main_thread())
        self.now += self.takes


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Folder:
    slow, write = Folder(), ServedWriter.write

    def slowly(writer: ServedWriter, tokens: ServedTokens) -> str:
        slow.wrote()
        return write(writer, tokens)

    monkeypatch.setattr(ServedWriter, "write", slowly)
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
