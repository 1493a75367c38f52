"""Served token ids: one segment for many answers, each read by its hash and erased by itself."""

import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import uuid_utils
from hypothesis import given, settings
from hypothesis import strategies as st

from byline.canonical import sha256_hex
from byline.errors import ArtifactError
from byline.limits import SERVED_TOKENS_DAYS_MAX
from byline.records import ServedTokens
from byline.served import (
    CLOSED_SECONDS,
    SEGMENT_BYTES_MAX,
    SEGMENT_SECONDS,
    ServedWriter,
    delete_old_served,
    erase_served,
    line_of_hash,
    read_served,
    served_bytes,
    served_inferences,
    write_served,
)

BORN_MS = 1_700_000_000_000


def some_tokens(*completion: int) -> ServedTokens:
    return ServedTokens(str(uuid_utils.uuid7()), (1, 2), (completion, ()), salt="ab" * 16)


def id_at(ms: int) -> str:
    digits = f"{ms:012x}"
    return f"{digits[:8]}-{digits[8:]}-7000-8000-000000000001"


def segments(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_many_answers_share_a_segment_and_each_is_read_by_its_hash(tmp_path: Path) -> None:
    kept = [some_tokens(3, number) for number in range(50)]
    with ServedWriter(tmp_path / "a" / "served") as writer:
        hashes = [writer.write(tokens) for tokens in kept]
    folder = tmp_path / "a" / "served"
    assert len(segments(folder)) == 1
    assert segments(folder)[0].stat().st_mode & 0o777 == 0o660
    assert hashes == [sha256_hex(served_bytes(tokens)) for tokens in kept]
    for tokens, sha256 in zip(kept, hashes, strict=True):
        assert read_served(folder, tokens.inference, sha256) == tokens
        with pytest.raises(ArtifactError, match="not what their hash says"):
            read_served(folder, tokens.inference, hashes[0][::-1])


def test_what_is_erased_is_gone_from_the_disk_and_nothing_else_is(tmp_path: Path) -> None:
    one, two = some_tokens(777), some_tokens(888)
    with ServedWriter(tmp_path) as writer:
        hashes = writer.write(one), writer.write(two)
        erase_served(tmp_path, one.inference)
        erase_served(tmp_path, one.inference)
        (segment,) = segments(tmp_path)
        text = segment.read_text()
        assert one.inference not in text
        assert "777" not in text
        with pytest.raises(ArtifactError, match="are gone"):
            read_served(tmp_path, one.inference, hashes[0])
        assert read_served(tmp_path, two.inference, hashes[1]) == two
        three = some_tokens(999)
        assert read_served(tmp_path, three.inference, writer.write(three)) == three
    assert served_inferences(tmp_path) == [two.inference, three.inference]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["write", "erase", "later"]), st.integers(0, 30)), max_size=40
    )
)
def test_whatever_comes_in_whatever_order_what_is_kept_is_what_was_not_erased(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    folder, now = tmp_path_factory.mktemp("served"), [0.0]
    writers = [ServedWriter(folder, clock=lambda: now[0]) for _ in range(2)]
    kept: dict[str, tuple[str, ServedTokens]] = {}
    for step, number in steps:
        if step == "write":
            tokens = some_tokens(*range(number))
            kept[tokens.inference] = (writers[number % 2].write(tokens), tokens)
        elif step == "erase" and kept:
            inference = sorted(kept)[number % len(kept)]
            erase_served(folder, inference)
            del kept[inference]
        elif step == "later":
            now[0] += number
    for writer in writers:
        writer.close()
    assert served_inferences(folder) == sorted(kept)
    for inference, (sha256, tokens) in kept.items():
        assert read_served(folder, inference, sha256) == tokens
    last = max((int(p.stem[:8] + p.stem[9:13], 16) for p in folder.iterdir()), default=0) / 1e3
    delete_old_served(folder, now=last + CLOSED_SECONDS + 1)
    assert served_inferences(folder) == sorted(kept)
    assert all(path.read_bytes().strip() for path in folder.iterdir())


def test_a_segment_is_closed_with_its_time_and_its_size(tmp_path: Path) -> None:
    now = [100.0]
    with ServedWriter(tmp_path, clock=lambda: now[0]) as writer:
        writer.write(some_tokens(1))
        now[0] += SEGMENT_SECONDS
        writer.write(some_tokens(1))
        assert len(segments(tmp_path)) == 1
        now[0] += 1
        writer.write(some_tokens(*[1] * SEGMENT_BYTES_MAX))
        assert len(segments(tmp_path)) == 2
        writer.write(some_tokens(1))
        assert len(segments(tmp_path)) == 3


def test_an_empty_segment_goes_once_it_is_surely_closed_and_a_full_one_with_its_days(
    tmp_path: Path,
) -> None:
    for inference, born_ms in ((id_at(BORN_MS), BORN_MS), (id_at(BORN_MS + 1), BORN_MS + 1)):
        line = served_bytes(ServedTokens(inference, (1,), ((2,),)))
        (tmp_path / f"{id_at(born_ms)}.tokens").write_bytes(line + b"\n")
    erase_served(tmp_path, id_at(BORN_MS))
    born = BORN_MS / 1_000
    assert delete_old_served(tmp_path, now=born + CLOSED_SECONDS - 1) == 0
    assert delete_old_served(tmp_path, now=born + CLOSED_SECONDS + 1) == 1
    assert served_inferences(tmp_path) == [id_at(BORN_MS + 1)]
    days = SERVED_TOKENS_DAYS_MAX * 86_400
    assert delete_old_served(tmp_path, now=born + days - 1) == 0
    assert delete_old_served(tmp_path, now=born + days + 1) == 1
    assert not segments(tmp_path)


def test_an_earlier_versions_file_goes_with_its_days(tmp_path: Path) -> None:
    left = tmp_path / f"{id_at(BORN_MS)}.json"
    left.write_text("{}")
    written, days = left.stat().st_mtime, SERVED_TOKENS_DAYS_MAX * 86_400
    assert delete_old_served(tmp_path, now=written + days - 1) == 0
    assert left.is_file()
    assert delete_old_served(tmp_path, now=written + days + 1) == 1
    assert not left.exists()


def test_a_writer_whose_segment_was_deleted_while_it_slept_loses_nothing(tmp_path: Path) -> None:
    with ServedWriter(tmp_path) as writer:
        writer.write(some_tokens(1))
        segments(tmp_path)[0].unlink()
        tokens = some_tokens(2)
        assert read_served(tmp_path, tokens.inference, writer.write(tokens)) == tokens


def test_what_was_written_before_a_clock_was_set_back_is_found(tmp_path: Path) -> None:
    tokens = ServedTokens(id_at(BORN_MS), (1,), ((2,),))
    early = tmp_path / f"{id_at(BORN_MS - 10**7)}.tokens"
    early.write_bytes(served_bytes(tokens) + b"\n")
    assert read_served(tmp_path, tokens.inference, sha256_hex(served_bytes(tokens))) == tokens


@pytest.mark.parametrize("cut", [1, 20, 100])
def test_a_line_that_a_killed_program_left_half_written_is_nobodys(
    tmp_path: Path, cut: int
) -> None:
    whole, half = some_tokens(1), some_tokens(2)
    sha256 = write_served(tmp_path, whole)
    (segment,) = segments(tmp_path)
    with segment.open("ab") as file:
        file.write(served_bytes(half)[:-cut])
    assert read_served(tmp_path, whole.inference, sha256) == whole
    with pytest.raises(ArtifactError, match="are gone"):
        read_served(tmp_path, half.inference, sha256_hex(served_bytes(half)))
    erase_served(tmp_path, half.inference)  # nothing to do
    other = some_tokens(3)
    assert read_served(tmp_path, other.inference, write_served(tmp_path, other)) == other


def test_a_write_that_fails_says_so_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        if len(data) > 20:
            return write(descriptor, data[:20])
        raise OSError(28, "no space left")

    one, two = some_tokens(1), some_tokens(2)
    with ServedWriter(tmp_path) as writer:
        sha256 = writer.write(one)
        before = segments(tmp_path)[0].read_bytes()
        with monkeypatch.context() as patched:
            patched.setattr("byline.served.os.write", full)
            with pytest.raises(OSError, match="no space"):
                writer.write(two)
        assert [path.read_bytes() for path in segments(tmp_path)] == [before]
        assert read_served(tmp_path, two.inference, writer.write(two)) == two
    assert read_served(tmp_path, one.inference, sha256) == one


def test_a_disk_that_takes_a_few_bytes_at_a_time_gets_them_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr("byline.served.os.write", lambda to, data: write(to, data[:7]))
    tokens = some_tokens(1)
    assert read_served(tmp_path, tokens.inference, write_served(tmp_path, tokens)) == tokens


def test_threads_write_read_and_erase_at_once(tmp_path: Path) -> None:
    problems: list[BaseException] = []

    def alone(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                work()
            except BaseException as problem:  # noqa: BLE001 - told below
                problems.append(problem)

        return run

    with ServedWriter(tmp_path) as writer:

        def work() -> None:
            for number in range(40):
                tokens = some_tokens(*range(number))
                sha256 = writer.write(tokens)
                assert read_served(tmp_path, tokens.inference, sha256) == tokens
                erase_served(tmp_path, tokens.inference)

        threads = [threading.Thread(target=alone(work)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not problems
    assert not served_inferences(tmp_path)


def test_a_line_is_found_by_its_hash_in_a_segment_and_by_itself(tmp_path: Path) -> None:
    kept = [some_tokens(number) for number in range(3)]
    with ServedWriter(tmp_path) as writer:
        hashes = [writer.write(tokens) for tokens in kept]
    data = segments(tmp_path)[0].read_bytes()
    assert [line_of_hash(data, sha256) for sha256 in hashes] == [*map(served_bytes, kept)]
    assert line_of_hash(served_bytes(kept[1]), hashes[1]) == served_bytes(kept[1])
    assert line_of_hash(data, "0" * 64) is None


@pytest.mark.parametrize("name", ["../secret", "", "0192f000-0000-4000-8000-000000000001", "*"])
def test_what_is_no_inference_id_reaches_no_path(tmp_path: Path, name: str) -> None:
    for call in (
        lambda: read_served(tmp_path, name, "0" * 64),
        lambda: erase_served(tmp_path, name),
        lambda: write_served(tmp_path, ServedTokens(name, (1,), ((2,),))),
    ):
        with pytest.raises(ArtifactError, match=re.escape(f"'{name}' is no inference id")):
            call()
    assert not segments(tmp_path)
