"""What the bytes of a spool's file say: all that was written whole, and never what was changed."""

from hypothesis import given
from hypothesis import strategies as st

from byline.delivery.spool_files import Kept, done_line, kept_line, read_contents
from byline.posting.postings import Posting
from tests.byline.cases import a_posting

words = st.text(max_size=20)
some_postings = st.builds(
    Posting,
    script=words, inference=st.uuids().map(str), operation=words, ordinal=st.integers(0, 7),
    payload=words, entry=st.tuples(words, words, words, words),
    arguments=st.lists(words, max_size=4).map(tuple),
)  # fmt: skip
Operation = tuple[str, Posting]
histories = st.lists(st.tuples(st.sampled_from(["put", "put", "done"]), some_postings), max_size=12)


def written(history: list[Operation]) -> tuple[list[bytes], list[dict[str, Kept]]]:
    """The lines of a history, and what waits after each; `done` is of the oldest that waits."""
    lines: list[bytes] = []
    states: list[dict[str, Kept]] = [{}]
    for number, (what, posting) in enumerate(history):
        waiting = dict(states[-1])
        if what == "put":
            waiting.pop(posting.key, None)
            waiting[posting.key] = kept = Kept(posting, number)
            lines.append(kept_line(kept))
        elif waiting:
            lines.append(done_line(done := next(iter(waiting))))
            del waiting[done]
        else:
            continue
        states.append(waiting)
    return lines, states


@given(histories, st.data())
def test_a_file_cut_anywhere_tells_the_state_after_its_last_whole_line(
    history: list[Operation], data: st.DataObject
) -> None:
    lines, states = written(history)
    whole = b"".join(lines)
    cut = data.draw(st.integers(0, len(whole)))
    ends = [sum(map(len, lines[: count + 1])) for count in range(len(lines))]
    survived = sum(end <= cut for end in ends)
    contents = read_contents(whole[:cut])
    assert list(contents.kept.items()) == list(states[survived].items())
    assert contents.damaged == 0
    assert contents.whole_bytes == (ends[survived - 1] if survived else 0)


def test_every_cut_of_the_last_line_drops_that_line_alone() -> None:
    first, second = Kept(a_posting(), 1), Kept(a_posting(), 2)
    head, tail = kept_line(first), kept_line(second)
    for cut in range(len(tail)):
        contents = read_contents(head + tail[:cut])
        assert list(contents.kept.values()) == [first]
        assert contents.damaged == 0


def test_every_changed_byte_is_noticed() -> None:
    """A changed line is damaged, or torn if it was the last line's end; it is never read."""
    kept = [Kept(a_posting(), number) for number in range(3)]
    whole = b"".join(kept_line(each) for each in kept)
    for place in range(len(whole)):
        for flip in (0x01, 0x20, 0x80, whole[place] ^ 0x0A):
            if not flip:
                continue
            changed = bytearray(whole)
            changed[place] ^= flip
            contents = read_contents(bytes(changed))
            assert contents.damaged or contents.whole_bytes < len(whole)
            assert all(each in kept for each in contents.kept.values())
            assert len(contents.kept) >= 1
