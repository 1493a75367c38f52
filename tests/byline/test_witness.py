"""A witness cosigns what continues the head that it cosigned last, and nothing else."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path

import pytest

from byline.errors import StartFailed, WitnessesAway
from byline.notary import cosigning
from byline.notary.cosigning import Cosigning, post_to
from byline.notary.log_keys import witness_key
from byline.transparency.heads import TreeHead, parse_head, signed_head
from byline.transparency.notes import SIGNATURE, SigningKey
from byline.transparency.policies import parse_policy
from byline.transparency.tree import consistency, leaf_hash, nodes_over, root_of
from byline.transparency.witnessing import AddCheckpoint, with_cosignatures
from byline.witness.witness import Answer, Witness

LOG = SigningKey("log.example/usd", SIGNATURE, b"l" * 32)
STRANGER = SigningKey("log.example/usd", SIGNATURE, b"s" * 32)
NODES = nodes_over([leaf_hash(bytes([n])) for n in range(40)])
FORK = nodes_over([leaf_hash(bytes([n, n])) for n in range(40)])


@pytest.fixture
def witness(tmp_path: Path) -> Witness:
    return a_witness(tmp_path)


def a_witness(folder: Path) -> Witness:
    return Witness(witness_key(folder, "w.example"), [LOG.verifier], folder)


def head(size: int, *, origin: str = LOG.name, forked: bool = False) -> TreeHead:
    return TreeHead(origin, size, root_of(size, FORK if forked else NODES))


def ask(
    witness: Witness, old: int, size: int, *, key: SigningKey = LOG, forked: bool = False
) -> Answer:
    path = consistency(old, size, FORK if forked else NODES) if old <= size else []
    signed = signed_head(head(size, origin=key.name, forked=forked), [key])
    return witness.add_checkpoint(AddCheckpoint(old, tuple(path), signed).text(), time_seconds=9)


def test_it_cosigns_each_head_that_continues_the_last(witness: Witness, tmp_path: Path) -> None:
    key = witness_key(tmp_path, "w.example").verifier
    for old, size in ((0, 0), (0, 5), (5, 5), (5, 13), (13, 40)):
        answer = ask(witness, old, size)
        assert answer.status == HTTPStatus.OK
        checkpoint = with_cosignatures(signed_head(head(size), [LOG]), [answer.text])
        assert parse_head(checkpoint)[1].signers([key]) == [key]


def test_it_remembers_across_a_restart(witness: Witness, tmp_path: Path) -> None:
    assert ask(witness, 0, 13).status == HTTPStatus.OK
    again = a_witness(tmp_path)
    assert ask(again, 0, 20) == Answer(HTTPStatus.CONFLICT, "13\n", is_size=True)
    assert ask(again, 13, 20).status == HTTPStatus.OK


def test_it_never_cosigns_a_fork(witness: Witness) -> None:
    assert ask(witness, 0, 13).status == HTTPStatus.OK
    assert ask(witness, 13, 20, forked=True).status == HTTPStatus.UNPROCESSABLE_ENTITY
    same_size = ask(witness, 13, 13, forked=True)
    assert (same_size.status, same_size.text) == (HTTPStatus.CONFLICT, "13\n")
    assert ask(witness, 13, 20).status == HTTPStatus.OK


def test_it_goes_back_for_nobody(witness: Witness) -> None:
    assert ask(witness, 0, 20).status == HTTPStatus.OK
    assert ask(witness, 0, 13) == Answer(HTTPStatus.CONFLICT, "20\n", is_size=True)
    assert ask(witness, 20, 13).status == HTTPStatus.BAD_REQUEST


def test_it_cosigns_only_what_a_known_key_of_a_known_log_signed(witness: Witness) -> None:
    assert ask(witness, 0, 5, key=STRANGER).status == HTTPStatus.FORBIDDEN
    unknown = SigningKey("other.example", SIGNATURE, b"l" * 32)
    assert ask(witness, 0, 5, key=unknown).status == HTTPStatus.NOT_FOUND
    assert witness.add_checkpoint("what", time_seconds=9).status == HTTPStatus.BAD_REQUEST
    request = AddCheckpoint(0, (), signed_head(head(5), [LOG])).text()
    forged = request.replace("\n5\n", "\n6\n")
    assert witness.add_checkpoint(forged, time_seconds=9).status == HTTPStatus.FORBIDDEN


def test_a_memory_that_cant_be_read_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "heads.json").write_text("{")
    with pytest.raises(StartFailed, match="nothing is cosigned"):
        a_witness(tmp_path)


def test_a_log_learns_from_a_witness_which_size_it_has(tmp_path: Path) -> None:
    """A notary that was started again has forgotten it; the witness says it, and is asked again."""
    witness = a_witness(tmp_path)
    vkey = witness_key(tmp_path, "w.example").verifier.text()
    policy = parse_policy(f"witness w {vkey} http://w\nquorum w\n")
    asked: list[bytes] = []

    def post(_: str, body: bytes) -> tuple[int, str]:
        asked.append(body)
        answer = witness.add_checkpoint(body.decode(), time_seconds=9)
        return answer.status.value, answer.text

    assert ask(witness, 0, 13).status == HTTPStatus.OK
    cosigning = Cosigning(policy, post)
    for size, requests in ((20, 2), (25, 1), (40, 1)):
        asked.clear()
        checkpoint = signed_head(head(size), [LOG])
        found = cosigning.cosigned(checkpoint, head(size), NODES)
        assert found.startswith(checkpoint)
        assert len(asked) == requests


def test_a_quorum_that_nobody_is_asked_for_is_not_reached(tmp_path: Path) -> None:
    vkey = witness_key(tmp_path, "w.example").verifier.text()
    policy = parse_policy(f"witness w {vkey}\nquorum w\n")  # without an address
    with pytest.raises(WitnessesAway, match="none of them"):
        Cosigning(policy).cosigned(signed_head(head(5), [LOG]), head(5), NODES)


def test_a_witness_that_answers_with_another_signature_has_not_cosigned(tmp_path: Path) -> None:
    vkey = witness_key(tmp_path, "w.example").verifier.text()
    policy = parse_policy(f"witness w {vkey} http://w\nquorum w\n")
    stranger = witness_key(tmp_path / "other", "w.example")
    line = stranger.line(head(5).text(), time_seconds=9)
    for status, text in ((200, line), (200, ""), (500, "no"), (409, "7\n")):
        cosigning = Cosigning(policy, lambda *_, status=status, text=text: (status, text))
        with pytest.raises(WitnessesAway):
            cosigning.cosigned(signed_head(head(5), [LOG]), head(5), NODES)


@contextmanager
def answering(say: Callable[[socket.socket], None]) -> Iterator[str]:
    """A witness of somebody's own making, and its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection, suppress(OSError):
                        connection.recv(65_536)
                        say(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


def drip(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(b"x")
        time.sleep(0.05)


def say_what(answer: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(answer)


BAD_ANSWERS = {
    "garbage": say_what(b"what\r\n\r\n"),
    "nothing": say_what(b""),
    "cut": say_what(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nx"),
    "no text": say_what(b"HTTP/1.1 200 OK\r\n\r\n\xff"),
    "a size too long": say_what(b"HTTP/1.1 409 No\r\n\r\n" + b"9" * 5_000),
    "a size in other digits": say_what(b"HTTP/1.1 409 No\r\n\r\n" + "\u0663".encode()),
    "for ever": drip,
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_a_bad_witness_neither_ends_nor_holds_up_the_log(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The good one, asked beside it, makes the quorum of any."""
    monkeypatch.setattr(cosigning, "ANSWER_SECONDS", 0.5)
    good = a_witness(tmp_path)
    vkeys = [witness_key(tmp_path / each, "w.example").verifier.text() for each in ("", "bad")]
    with answering(BAD_ANSWERS[name]) as url:
        policy = parse_policy(
            f"witness good {vkeys[0]} http://good\nwitness bad {vkeys[1]} {url}\n"
            "group one any good bad\nquorum one\n"
        )

        def post(asked: str, body: bytes) -> tuple[int, str]:
            if asked == url:
                return post_to(asked, body)
            answer = good.add_checkpoint(body.decode(), time_seconds=9)
            return answer.status.value, answer.text

        checkpoint, began = signed_head(head(5), [LOG]), time.monotonic()
        found = Cosigning(policy, post).cosigned(checkpoint, head(5), NODES)
    assert found.startswith(checkpoint)
    assert found.count("w.example") == 1
    assert time.monotonic() - began < 10


def test_an_address_that_is_none_is_no_crash(tmp_path: Path) -> None:
    vkey = witness_key(tmp_path, "w.example").verifier.text()
    for url in ("w.example", "ftp://w.example", "http://", "http://w.example:port"):
        policy = parse_policy(f"witness w {vkey} {url}\nquorum w\n")
        with pytest.raises(WitnessesAway):
            Cosigning(policy).cosigned(signed_head(head(5), [LOG]), head(5), NODES)
