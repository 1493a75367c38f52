"""Whom one trusts: logs, witnesses and how many of them, in C2SP's policy file (tlog-policy)."""

from collections.abc import Callable
from dataclasses import dataclass

from byline.errors import ProofRefused
from byline.transparency.heads import TreeHead, parse_head
from byline.transparency.notes import COSIGNATURE, SIGNATURE, VerifierKey, parse_vkey

NONE = "none"
LINES_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Witness:
    """One cosigner; the address is where heads are sent, if one is known."""

    name: str
    key: VerifierKey
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """So many of its members, each a witness or a group, must have cosigned."""

    needed: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """A head is good if one of the logs signed it and the quorum is reached."""

    logs: tuple[VerifierKey, ...]
    witnesses: tuple[Witness, ...] = ()
    groups: tuple[tuple[str, Group], ...] = ()
    quorum: str = NONE

    def head(self, checkpoint: str) -> TreeHead:
        """The head in a checkpoint. Raises ProofRefused unless the policy trusts it."""
        head, note = parse_head(checkpoint)
        logs = [key for key in self.logs if key.name == head.origin]
        if not note.signers(logs):
            raise ProofRefused(f"no trusted key of '{head.origin}' signed the tree head")
        signed = note.signers(witness.key for witness in self.witnesses)
        if not self.is_reached(signed):
            raise ProofRefused(f"the witnesses' quorum '{self.quorum}' did not cosign")
        return head

    def is_reached(self, signed: list[VerifierKey]) -> bool:
        """Do these witnesses make the quorum?"""
        cosigned = {witness.name for witness in self.witnesses if witness.key in signed}
        for name, group in self.groups:  # each names only what stands before it
            if len(cosigned.intersection(group.members)) >= group.needed:
                cosigned.add(name)
        return self.quorum == NONE or self.quorum in cosigned


def parse_policy(text: str) -> Policy:
    """The policy in a file's text; bare vkeys trust those logs alone. Raises ProofRefused."""
    lines = [line.split() for line in text.splitlines()]
    lines = [words for words in lines if words and not words[0].startswith("#")]
    if lines and all(len(words) == 1 for words in lines):
        lines = [*(["log", vkey] for [vkey] in lines), ["quorum", NONE]]
    if len(lines) > LINES_MAX:
        raise ProofRefused(f"the policy has more than {LINES_MAX} lines")
    reading = _Reading()
    for words in lines:
        reading.read(words)
    return reading.policy()


class _Reading:
    """A policy, line by line."""

    def __init__(self) -> None:
        self._logs: list[VerifierKey] = []
        self._witnesses: dict[str, Witness] = {}
        self._groups: dict[str, Group] = {}
        self._members: set[str] = set()
        self._quorum: str | None = None

    def read(self, words: list[str]) -> None:
        kinds: dict[str, tuple[int, int, Callable[..., None]]] = {
            "log": (1, 2, self._log),
            "witness": (2, 3, self._witness),
            "group": (3, LINES_MAX, self._group),
            "quorum": (1, 1, self._set_quorum),
        }
        least, most, take = kinds.get(words[0], (1, 0, self._log))
        if not least <= len(words) - 1 <= most:
            raise ProofRefused(f"the policy's line '{' '.join(words)[:80]}' can't be read")
        take(*words[1:])

    def policy(self) -> Policy:
        if self._quorum is None:
            raise ProofRefused("the policy has no quorum line: `quorum none` asks for no witness")
        witnesses = tuple(self._witnesses.values())
        return Policy(tuple(self._logs), witnesses, tuple(self._groups.items()), self._quorum)

    def _log(self, vkey: str, _url: str = "") -> None:
        key = _key(vkey, SIGNATURE)
        self._require_new(key)
        self._logs.append(key)

    def _witness(self, name: str, vkey: str, url: str | None = None) -> None:
        key = _key(vkey, COSIGNATURE)
        self._require_new(key)
        self._define(name)
        self._witnesses[name] = Witness(name, key, url)

    def _group(self, name: str, needed: str, *members: str) -> None:
        counts = {"all": len(members), "any": 1}
        count = counts.get(needed, int(needed) if needed.isdecimal() and needed.isascii() else 0)
        unknown = [member for member in members if not self._is_known(member)]
        again = self._members.intersection(members) or len(set(members)) != len(members)
        if unknown or again or not 1 <= count <= len(members):
            raise ProofRefused(f"the policy's group '{name}' can't be as it is written")
        self._define(name)
        self._members.update(members)
        self._groups[name] = Group(count, members)

    def _set_quorum(self, name: str) -> None:
        if self._quorum is not None or not (name == NONE or self._is_known(name)):
            raise ProofRefused("the policy needs one quorum line, of what stands before it")
        self._quorum = name

    def _is_known(self, name: str) -> bool:
        return name in self._witnesses or name in self._groups

    def _define(self, name: str) -> None:
        if name == NONE or self._is_known(name):
            raise ProofRefused(f"the policy names '{name}' twice")

    def _require_new(self, key: VerifierKey) -> None:
        known = [*self._logs, *(witness.key for witness in self._witnesses.values())]
        if any(key.public == other.public for other in known):
            raise ProofRefused(f"the policy has the key of {key.name} twice")


def _key(vkey: str, kind: int) -> VerifierKey:
    key = parse_vkey(vkey)
    if key.kind != kind:
        raise ProofRefused(f"the key of {key.name} is not of the kind that its line asks for")
    return key
