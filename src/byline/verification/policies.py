"""Whom one trusts: logs by their keys, witnesses by theirs (C2SP tlog-policy, tlog-cosignature)."""

import re

from .proof import Head, Key, Refused, parse_key, require


class Witness(Key):
    """A key of type 4, which cosigns tree heads."""

    __slots__ = ()

    def require_signed(self, message: bytes, signature: bytes) -> None:
        """The signature must be good, over the time that it names and the message."""
        seconds = int.from_bytes(signature[:8])
        dated = f"cosignature/v1\ntime {seconds}\n".encode() + message
        super().require_signed(dated, signature[8:])


class Policy:
    """Whom one trusts: logs, and how many of which witnesses."""

    def __init__(self, policy: str) -> None:
        """From a policy's text, or from vkeys, one a line, with no witness asked for."""
        self.logs: list[Key] = []
        self.witnesses: dict[str, Witness] = {}
        self.groups: dict[str, tuple[int, list[str]]] = {}
        self.quorum: str | None = None
        lines = [line.split() for line in policy.split("\n")]
        lines = [words for words in lines if words and not words[0].startswith("#")]
        if lines and all(len(words) == 1 for words in lines):
            lines = [*(["log", vkey] for [vkey] in lines), ["quorum", "none"]]
        members: list[str] = []
        for words in lines:
            members += self._line(words, members)
        keys = [key.public for key in [*self.logs, *self.witnesses.values()]]
        require(self.logs and self.quorum, "a policy needs a log and a quorum line")
        require(len(set(keys)) == len(keys), "the policy has a key twice")

    def _line(self, words: list[str], taken: list[str]) -> list[str]:
        """Read one line; answers the members of a group."""
        known = [*self.witnesses, *self.groups]
        match words:
            case ["log", vkey] | ["log", vkey, _]:
                self.logs.append(parse_key(vkey))
            case ["witness", name, vkey, *url] if name not in [*known, "none"] and len(url) < 2:
                self.witnesses[name] = Witness(*parse_key(vkey, 4))
            case ["group", name, needed, *members] if name not in [*known, "none"]:
                counts = {"all": len(members), "any": 1}
                count = int(needed) if re.fullmatch("[0-9]{1,3}", needed) else counts.get(needed, 0)
                is_good = {*members} <= {*known} and not {*members} & {*taken}
                is_good = is_good and len({*members}) == len(members)
                require(is_good and 0 < count <= len(members), f"the group '{name}' is wrong")
                self.groups[name] = (count, members)
                return members
            case ["quorum", name] if self.quorum is None and name in [*known, "none"]:
                self.quorum = name
            case _:
                raise Refused(f"the policy's line '{' '.join(words)}' can't be read")
        return []

    def keys_of(self, origin: str) -> list[Key]:
        """The trusted keys of one log."""
        return [key for key in self.logs if key.name == origin]

    def require_quorum(self, head: Head) -> list[str]:
        """The witnesses' quorum must be reached; answers who cosigned."""
        signed = head.note.signers(self.witnesses.values())
        reached = {name for name, key in self.witnesses.items() if key in signed}
        for name, (count, members) in self.groups.items():  # each names only what stands before it
            reached |= {name} if len(reached.intersection(members)) >= count else set()
        is_reached = self.quorum in {*reached, "none"}
        require(is_reached, f"the witnesses' quorum '{self.quorum}' did not cosign the tree head")
        return [key.name for key in signed]
