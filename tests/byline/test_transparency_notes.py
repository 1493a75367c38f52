"""Notes, heads, policies and proof files: what is signed is read back, nothing else believed."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byline.errors import ProofRefused
from byline.transparency.heads import TreeHead, parse_hash, parse_head, signed_head
from byline.transparency.notes import (
    COSIGNATURE,
    SIGNATURE,
    SigningKey,
    parse_note,
    parse_vkey,
    signed_note,
)
from byline.transparency.policies import Policy, parse_policy
from byline.transparency.proofs import LeafProof, parse_proof, proof_text
from byline.transparency.receipts import receipt_fields, receipt_key_name, receipt_text
from byline.transparency.witnessing import (
    AddCheckpoint,
    parse_add_checkpoint,
    with_cosignatures,
)

LOG = SigningKey("log.example/usd", SIGNATURE, b"l" * 32)
OTHER = SigningKey("log.example/usd", SIGNATURE, b"o" * 32)
WITNESSES = [SigningKey(f"w{n}.example", COSIGNATURE, bytes([n]) * 32) for n in range(3)]
HEAD = TreeHead("log.example/usd", 1_234, b"r" * 32)
CHECKPOINT = signed_head(HEAD, [LOG])

# Of the specification (signed-note): a note that others made.
SPECIFIED_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
SPECIFIED_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngot"
    "pRZb6KE6RyyBwJnAM=\n"
)


def test_a_note_of_the_go_implementation_verifies() -> None:
    key = parse_vkey(SPECIFIED_VKEY)
    assert parse_note(SPECIFIED_NOTE).signers([key]) == [key]
    with pytest.raises(ProofRefused, match="does not verify"):
        parse_note(SPECIFIED_NOTE.replace("don't", "do")).signers([key])


@pytest.mark.parametrize("key", [LOG, *WITNESSES])
def test_a_vkey_is_read_back_and_no_changed_one_is(key: SigningKey) -> None:
    text = key.verifier.text()
    assert parse_vkey(text) == key.verifier
    for at in range(len(text)):
        changed = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
        with pytest.raises(ProofRefused, match="no Ed25519 vkey"):
            parse_vkey(changed)


@given(st.data())
def test_no_changed_head_keeps_its_signature(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(CHECKPOINT) - 1))
    to = data.draw(st.sampled_from("A1\n— \x00é+"))
    changed = CHECKPOINT[:at] + to + CHECKPOINT[at + 1 :]
    if changed == CHECKPOINT:
        return
    try:
        head, note = parse_head(changed)
        assert not note.signers([LOG.verifier]) or head == HEAD
    except ProofRefused:
        pass


def test_a_signature_of_an_unknown_key_is_no_news_and_a_wrong_one_of_a_known_key_is() -> None:
    note = parse_note(signed_note(HEAD.text(), [OTHER, LOG]))
    assert note.signers([LOG.verifier]) == [LOG.verifier]
    forged = CHECKPOINT + parse_line(OTHER, LOG)
    with pytest.raises(ProofRefused, match="does not verify"):
        parse_note(forged).signers([LOG.verifier])


def parse_line(signing: SigningKey, named: SigningKey) -> str:
    """A line that says it is of `named`, and was signed by another."""
    seal = named.verifier.id + signing.sign(HEAD.text().encode())
    return f"— {named.name} {base64.b64encode(seal).decode()}\n"


@pytest.mark.parametrize(
    "text",
    [
        "log.example\n12\n", "log.example\n012\nAAAA\n", "\n12\nAAAA\n", "a\n-1\nAAAA\n",
        f"a\n12\n{base64.b64encode(b'r' * 31).decode()}\n",
        f"a\n12\n{base64.b64encode(b'r' * 32).decode()}\nextension\n",
    ],
)  # fmt: skip
def test_what_is_no_head_is_refused(text: str) -> None:
    with pytest.raises(ProofRefused):
        parse_head(signed_note(text, [LOG]))


@pytest.mark.parametrize(
    "note", ["", "a\n", "a\n\n", "a\n\nno line\n", "a\n\n— x AA==\n", "a\tb\n\n— x AAAAAAA=\n",
             "a\n\n— x AAAAAAA=", "a\n\n" + "— x AAAAAAA=\n" * 65],
)  # fmt: skip
def test_what_is_no_note_is_refused(note: str) -> None:
    with pytest.raises(ProofRefused):
        parse_note(note)


def cosigned(*witnesses: SigningKey, head: TreeHead = HEAD) -> str:
    lines = [witness.line(head.text(), time_seconds=1_700_000_000) for witness in witnesses]
    return with_cosignatures(signed_head(head, [LOG]), lines)


def policy_text(rule: str) -> str:
    keys = "".join(f"witness w{n} {w.verifier.text()} http://w\n" for n, w in enumerate(WITNESSES))
    return f"# whom we trust\nlog {LOG.verifier.text()}\n{keys}{rule}\n"


@pytest.mark.parametrize(
    ("rule", "needed"),
    [
        ("quorum none", 0), ("quorum w0", 1), ("group g any w0 w1 w2\nquorum g", 1),
        ("group g 2 w0 w1 w2\nquorum g", 2), ("group g all w0 w1 w2\nquorum g", 3),
        ("group a any w1 w2\ngroup g all w0 a\nquorum g", 2),
    ],
)  # fmt: skip
def test_a_quorum_is_reached_by_as_many_as_it_says(rule: str, needed: int) -> None:
    policy = parse_policy(policy_text(rule))
    for count in range(4):
        checkpoint = cosigned(*WITNESSES[:count])
        if count >= needed:
            assert policy.head(checkpoint) == HEAD
        else:
            with pytest.raises(ProofRefused, match="did not cosign"):
                policy.head(checkpoint)


def test_a_cosignature_of_another_head_spoils_the_note() -> None:
    other = TreeHead(HEAD.origin, HEAD.size, b"x" * 32)
    line = WITNESSES[0].line(other.text(), time_seconds=5)
    with pytest.raises(ProofRefused, match="does not verify"):
        parse_policy(policy_text("quorum w0")).head(with_cosignatures(CHECKPOINT, [line]))


def test_a_bare_vkey_trusts_that_log_alone() -> None:
    policy = parse_policy(LOG.verifier.text() + "\n")
    assert policy == Policy((LOG.verifier,))
    both = parse_policy(f"{OTHER.verifier.text()}\n{LOG.verifier.text()}\n")
    assert both.head(CHECKPOINT) == both.head(signed_head(HEAD, [OTHER])) == HEAD
    assert policy.head(CHECKPOINT) == HEAD
    with pytest.raises(ProofRefused, match="no trusted key"):
        policy.head(signed_head(HEAD, [OTHER]))


@pytest.mark.parametrize(
    "rule",
    [
        "", "quorum x", "quorum w0\nquorum w0", "group g 4 w0 w1 w2\nquorum g",
        "group g 0 w0\nquorum g", "group g 1 w0 w0\nquorum g", "group g any x\nquorum g",
        "group w0 any w1\nquorum w0", "group none any w1\nquorum none", "what is this",
        "group g any w0\ngroup h any w0\nquorum h", f"log {LOG.verifier.text()}\nquorum none",
        f"log {WITNESSES[0].verifier.text()}\nquorum none", "group g\nquorum none",
    ],
)  # fmt: skip
def test_a_policy_that_could_be_misread_is_refused(rule: str) -> None:
    with pytest.raises(ProofRefused):
        parse_policy(policy_text(rule))


def test_a_proof_file_is_read_back() -> None:
    proof = LeafProof(7, (b"a" * 32, b"b" * 32))
    text = proof_text({"v": 1, "object": "leaf", "leaf": "{}"}, proof, CHECKPOINT)
    assert parse_proof(text) == ({"v": 1, "object": "leaf", "leaf": "{}"}, proof, CHECKPOINT)
    lines = text.splitlines()
    assert lines[0] == "c2sp.org/tlog-proof@v1"
    assert lines[2] == "index 7"
    changes = (("extra ", "extra\t"), ("index 7", "index 07"), ("extra ", "extra %"))
    for wrong in ("", text[1:], *(text.replace(*change) for change in changes)):
        with pytest.raises(ProofRefused):
            parse_proof(wrong)


def test_an_add_checkpoint_request_is_read_back() -> None:
    request = AddCheckpoint(5, (b"a" * 32,), CHECKPOINT)
    assert parse_add_checkpoint(request.text()) == request
    nothing = AddCheckpoint(0, (), CHECKPOINT)
    assert parse_add_checkpoint(nothing.text()) == nothing
    for wrong in ("", "old 5\n", f"old 05\n\n{CHECKPOINT}", f"new 5\n\n{CHECKPOINT}",
                  f"old 5\nx\n\n{CHECKPOINT}"):  # fmt: skip
        with pytest.raises(ProofRefused):
            parse_add_checkpoint(wrong)
    with pytest.raises(ProofRefused, match="no signature line"):
        with_cosignatures(CHECKPOINT, ["what"])


def test_a_private_key_is_not_shown() -> None:
    assert "llll" not in repr(LOG)
    assert SigningKey.new("a").private != SigningKey.new("a").private
    with pytest.raises(ProofRefused):
        parse_hash("A")


def test_a_receipt_is_read_back_under_its_own_key_alone() -> None:
    key = SigningKey.new(receipt_key_name(HEAD.origin))
    text = receipt_text({"v": 1, "charge": "900"}, key)
    assert receipt_fields(text, key.verifier) == {"v": 1, "charge": "900"}
    with pytest.raises(ProofRefused, match="does not verify"):
        receipt_fields(text.replace("900", "100"), key.verifier)
    for wrong in (CHECKPOINT, signed_note(HEAD.text(), [key])):
        with pytest.raises(ProofRefused, match="no receipt"):
            receipt_fields(wrong, key.verifier)
