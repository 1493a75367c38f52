"""A second writer of logs and proofs, from docs/proofs.md alone: it imports nothing of Byline.

What this one writes and `byline.verification` reads has been understood twice in the same way.
"""

import hmac
import json
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ORIGIN = "log.example/usd"
ADAPTER = "law@0123456789ab"
ZEROS = "00" * 32
CENT, POOL = 10**7, 40_040_000  # a third of this pool is more than a cent, and no whole number
STARTS_MS, DAY_MS = 1_790_812_800_000, 86_400_000  # 2026-10-01; the entries are a day apart
UNDECIDED = ("deposit", "hold", "void", "expire")
Node = tuple[bytes, int, int, int]


def canonical(value: object) -> str:
    """RFC 8785 for ASCII keys, texts and integers."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def h(*parts: bytes) -> bytes:
    return sha256(b"".join(parts)).digest()


def b64(raw: bytes) -> str:
    return b64encode(raw).decode()


class Signer:
    """A key whose private half is made of its name: the same in every run."""

    def __init__(self, name: str, kind: int = 1, seed: str = "") -> None:
        self.name, self.kind = name, kind
        self.key = Ed25519PrivateKey.from_private_bytes(h(f"{name} {kind} {seed}".encode()))
        self.public = self.key.public_key().public_bytes_raw()
        self.id = h(name.encode(), b"\n", bytes([kind]), self.public)[:4]
        self.vkey = f"{name}+{self.id.hex()}+{b64(bytes([kind]) + self.public)}"

    def line(self, text: str, seconds: int = 1_795_000_000) -> str:
        if self.kind == 4:
            seal = self.key.sign(f"cosignature/v1\ntime {seconds}\n{text}".encode())
            seal = seconds.to_bytes(8) + seal
        else:
            seal = self.key.sign(text.encode())
        return f"— {self.name} {b64(self.id + seal)}\n"


def top(hashes: Sequence[Any], join: Callable[[Any, Any], Any]) -> Any:
    """MTH of RFC 6962."""
    if len(hashes) == 1:
        return hashes[0]
    k = 1 << ((len(hashes) - 1).bit_length() - 1)
    return join(top(hashes[:k], join), top(hashes[k:], join))


def path(index: int, hashes: Sequence[Any], join: Callable[[Any, Any], Any]) -> list[Any]:
    """PATH of RFC 6962."""
    if len(hashes) == 1:
        return []
    k = 1 << ((len(hashes) - 1).bit_length() - 1)
    if index < k:
        return [*path(index, hashes[:k], join), top(hashes[k:], join)]
    return [*path(index - k, hashes[k:], join), top(hashes[:k], join)]


def subproof(old: int, hashes: Sequence[bytes], whole: bool = True) -> list[bytes]:
    """SUBPROOF of RFC 6962."""
    if old == len(hashes):
        return [] if whole else [top(hashes, node)]
    k = 1 << ((len(hashes) - 1).bit_length() - 1)
    if old <= k:
        return [*subproof(old, hashes[:k], whole), top(hashes[k:], node)]
    return [*subproof(old - k, hashes[k:], False), top(hashes[:k], node)]


def node(left: bytes, right: bytes) -> bytes:
    return h(b"\x01", left, right)


def sums(of: Node) -> bytes:
    return b"".join(part.to_bytes(8) for part in of[1:])


def leg_join(left: Node, right: Node) -> Node:
    hashed = h(b"\x03", left[0], sums(left), right[0], sums(right))
    return (hashed, left[1] + right[1], left[2] + right[2], left[3] + right[3])


@dataclass
class Written:
    """One entry as it was written."""

    index: int
    header: dict[str, Any]
    accounts: list[str]
    texts: list[str]
    nodes: list[Node]
    manifest: tuple[str, str, str] | None  # SHA-256, salt, text


@dataclass
class Writer:
    """A log in memory."""

    keys: list[Signer] = field(default_factory=lambda: [Signer(ORIGIN)])
    witnesses: list[Signer] = field(default_factory=lambda: [Signer("w.example/1", 4)])
    receipts: Signer = field(default_factory=lambda: Signer(f"{ORIGIN}/receipts"))
    leaves: list[str] = field(default_factory=list)
    entries: list[Written] = field(default_factory=list)
    chains: dict[str, list[tuple[Written, str, int]]] = field(default_factory=dict)
    key_leaves: list[int] = field(default_factory=list)
    newest_alone: bool = False  # tree heads are signed by the newest key only
    # A dishonest operator's hand, before anything is hashed.
    leg_hand: Callable[[dict[str, Any]], dict[str, Any]] = lambda leg: leg
    entry_hand: Callable[[dict[str, Any]], dict[str, Any]] = lambda entry: entry
    statements: dict[tuple[str, str], tuple[int, str, str, list[Written]]] = field(
        default_factory=dict
    )

    @property
    def policy(self) -> str:
        names = [f"w{number}" for number, _ in enumerate(self.witnesses)]
        lines = [f"log {key.vkey}" for key in (self.keys[0], self.receipts)]
        lines += [f"witness {n} {w.vkey}" for n, w in zip(names, self.witnesses, strict=True)]
        return "\n".join([*lines, f"group all-of-them all {' '.join(names)}",
                          "quorum all-of-them", ""])  # fmt: skip

    def salt(self, *words: str, secret: bytes = b"a secret") -> str:
        return hmac.digest(secret, "\0".join(words).encode(), "sha256").hex()

    def leaf(self, **fields: Any) -> int:
        self.leaves.append(canonical({"v": 1, **fields}))
        return len(self.leaves) - 1

    def add(
        self, key: str, legs: dict[str, int], *, manifest: str | None = None, charge: int = 0,
        shares: dict[str, int] | None = None, kind: str | None = None,
        inference: str | None = None, undecided: bool = False,
    ) -> Written:  # fmt: skip
        seq, kind = len(self.entries) + 1, kind or key.split("/")[1]
        shown = commitment = manifest_index = None
        own = bytes.fromhex(self.salt("entry", key))
        if manifest is None and kind not in UNDECIDED and not undecided:
            manifest = "{}"
        if manifest is not None:
            salt = self.salt("manifest", secret=own)
            shown = (h(manifest.encode()).hex(), salt, manifest)
            raw = bytes.fromhex(salt) + bytes.fromhex(shown[0])
            commitment = h(b"\x04", raw).hex()
        if kind == "settle":
            manifest_index = self.leaf(type="manifest", key=key, manifest=commitment or ZEROS)
        texts, nodes = [], []
        for account, nano in legs.items():
            chain = self.chains.setdefault(account, [])
            is_chained = not account.startswith(("hold:", "open:"))
            texts.append(canonical(self.leg_hand({
                "account": account, "nano": str(nano), "seq": seq,
                "n": len(chain) + 1 if is_chained else 0,
                "prev": chain[-1][1] if is_chained and chain else ZEROS,
                "ppb": (shares or {}).get(account), "salt": self.salt("leg", account, secret=own),
            })))  # fmt: skip
            paid = 0 if account.startswith(("app:", "hold:")) else max(nano, 0)
            amounts = (max(-nano, 0), max(nano, 0), paid)
            assert min(amounts) >= 0
            hashed = h(b"\x02", sums((b"", *amounts)), texts[-1].encode())
            nodes.append((hashed, *amounts))
        root = top(nodes, leg_join) if nodes else (h(), 0, 0, 0)
        has_inference = kind not in ("deposit", "adjust", "release", "payout")
        header = {
            "type": "entry", "seq": seq, "key": key, "kind": kind, "policy": "2026-11",
            "inference": inference or (key.split("/", maxsplit=1)[0] if has_inference else None),
            "adapter_version": ADAPTER if kind in ("capture", "settle") else None,
            "time_ms": STARTS_MS + seq * DAY_MS, "charge": str(charge), "manifest": commitment,
            "manifest_index": manifest_index,
            "legs": {"count": len(nodes), "root": root[0].hex(), "debits": str(root[1]),
                     "credits": str(root[2]), "paid": str(root[3])},
        }  # fmt: skip
        header = self.entry_hand(header)
        written = Written(self.leaf(**header), header, [*legs], texts, nodes, shown)
        self.entries.append(written)
        for account, hashed_node in zip(legs, nodes, strict=True):
            self.chains[account].append((written, hashed_node[0].hex(), legs[account]))
        return written

    def rotate(self, seed: str) -> None:
        """Announce a new key by the newest one."""
        new = Signer(ORIGIN, 1, seed)
        signed = self.keys[-1].key.sign(f"byline-key/v1\n{ORIGIN}\n{new.vkey}\n".encode())
        self.key_leaves.append(self.leaf(
            type="key", origin=ORIGIN, old=self.keys[-1].vkey, new=new.vkey, signature=b64(signed)
        ))  # fmt: skip
        self.keys.append(new)

    def close(
        self, account: str, month: str, first: int, last: int, *, off: int = 0, table_off: int = 0
    ) -> None:
        """A statement of the account's legs `first` to `last`; `off` by some nano-USD."""
        chain = self.chains[account]
        opening = sum(nano for _, _, nano in chain[: first - 1]) + off
        mine = chain[first - 1 : last]
        closing = opening + sum(nano for _, _, nano in mine)
        table = canonical({
            "object": "statement", "v": 1, "account": account, "month": month,
            "opening_nano": opening, "closing_nano": closing + table_off,
            "lines": [{**{k: w.header[k] for k in ("seq", "key", "kind")}, "nano": nano}
                      for w, _, nano in mine],
        })  # fmt: skip
        text = canonical({
            "account": account, "month": month, "salt": self.salt("statement", account, month),
            "first_n": first, "last_n": last,
            "before": chain[first - 2][1] if first > 1 else ZEROS,
            "head": chain[last - 1][1] if last else ZEROS,
            "opening": str(opening), "closing": str(closing), "sha256": h(table.encode()).hex(),
        })  # fmt: skip
        commitment = h(b"\x05", text.encode()).hex()
        at = self.leaf(type="statement", month=month, commitment=commitment)
        self.statements[account, month] = (at, text, table, [written for written, _, _ in mine])

    # --- what is handed out

    def hashes(self, size: int | None = None) -> list[bytes]:
        return [h(b"\x00", leaf.encode()) for leaf in self.leaves[:size]]

    def head(self, size: int | None = None, *, keys: Sequence[Signer] = ()) -> str:
        size = len(self.leaves) if size is None else size
        text = f"{ORIGIN}\n{size}\n{b64(top(self.hashes(size), node) if size else h())}\n"
        signers = keys or (self.keys[-1:] if self.newest_alone else self.keys)
        return text + "\n" + "".join(key.line(text) for key in (*signers, *self.witnesses))

    def at(self, index: int) -> dict[str, Any]:
        return {"index": index, "path": [b64(each) for each in path(index, self.hashes(), node)]}

    def further(self, *indexes: int) -> list[dict[str, Any]]:
        return [{**self.at(i), "leaf": self.leaves[i]} for i in (*indexes, *self.key_leaves)]

    def opening(self, name: str, index: int, **fields: Any) -> dict[str, Any]:
        return {"v": 1, "object": name, "leaf": self.leaves[index], **fields}

    def line_opening(self, written: Written, account: str) -> dict[str, Any]:
        index = written.accounts.index(account)
        siblings = path(index, written.nodes, leg_join)
        leg = {"text": written.texts[index], "index": index,
               "path": [[each[0].hex(), *map(str, each[1:])] for each in siblings]}  # fmt: skip
        return self.opening("line", written.index, leg=leg)

    def proof(self, index: int, opening: dict[str, Any]) -> str:
        found = self.at(index)
        lines = "".join(f"{each}\n" for each in found["path"])
        extra = b64(json.dumps(opening).encode())
        return f"c2sp.org/tlog-proof@v1\nextra {extra}\nindex {index}\n{lines}\n{self.head()}"

    def line(self, written: Written, account: str, *, show: bool = False) -> str:
        opening = self.line_opening(written, account)
        return self.proof(written.index, self._with(opening, written, show))

    def entry(self, written: Written, shown: Sequence[str], *, show: bool = True) -> str:
        legs = [
            {"text": text} if account in shown
            else {"hash": n[0].hex(), "debits": str(n[1]), "credits": str(n[2]), "paid": str(n[3])}
            for account, text, n in zip(written.accounts, written.texts, written.nodes, strict=True)
        ]  # fmt: skip
        opening = self.opening("entry", written.index, legs=legs)
        return self.proof(written.index, self._with(opening, written, show))

    def _with(self, opening: dict[str, Any], written: Written, show: bool) -> dict[str, Any]:
        if show and written.manifest:
            opening["manifest"] = self.shown(written)
        manifest_index = written.header["manifest_index"]
        further = self.further(*([] if manifest_index is None else [manifest_index]))
        return {**opening, "with": further} if further else opening

    def statement(self, account: str, month: str) -> tuple[str, str]:
        """Its `.tlog-proofs` and its JSON."""
        at, text, table, lines = self.statements[account, month]
        manifests = [w.header["manifest_index"] for w in lines]
        head = {"v": 1, "object": "proofs", "checkpoint": self.head(),
                "with": self.further(*(at for at in manifests if at is not None))}  # fmt: skip
        openings = [(at, self.opening("statement", at, opening=text))]
        openings += [(each.index, self.line_opening(each, account)) for each in lines]
        rows = [head, *({**self.at(i), "opening": opening} for i, opening in openings)]
        return "".join(json.dumps(row) + "\n" for row in rows), table

    def consistency(self, old: int) -> str:
        proof = "".join(f"{b64(each)}\n" for each in (subproof(old, self.hashes()) if old else ()))
        return f"old {old}\n{proof}\n{self.head()}"

    def openings(self) -> list[dict[str, Any]]:
        """Of every leaf that hides something, in the log's order."""
        found: list[dict[str, Any]] = [
            {"index": written.index, "legs": [{"text": text} for text in written.texts]}
            | ({"manifest": self.shown(written)} if written.manifest else {})
            for written in self.entries
        ]
        found += [{"index": at, "opening": text} for at, text, _, _ in self.statements.values()]
        return sorted(found, key=lambda each: int(each["index"]))

    def shown(self, written: Written) -> dict[str, str]:
        assert written.manifest
        return dict(zip(("sha256", "salt", "text"), written.manifest, strict=True))

    def files(self) -> dict[str, bytes]:
        """The published log, and its openings: an export. Less than 256 leaves."""
        size = len(self.leaves)
        leaves = [leaf.encode() for leaf in self.leaves]
        bundle = b"".join(len(leaf).to_bytes(2) + leaf for leaf in leaves)
        openings = "".join(json.dumps(each) + "\n" for each in self.openings())
        return {
            "checkpoint": self.head().encode(), f"tile/entries/000.p/{size}": bundle,
            f"tile/0/000.p/{size}": b"".join(self.hashes()), "openings.jsonl": openings.encode(),
        }  # fmt: skip

    def receipt(self, inference: str, capture: Written, settles: Sequence[Written]) -> str:
        assert capture.manifest
        body = canonical({
            "v": 1, "inference": inference, "application": "demo", "model": "law", "index": None,
            "served_by": ADAPTER, "adapter_version": ADAPTER, "base_model": "base@1",
            "policy": "2026-11", "prompt_tokens": 12, "completion_tokens": [7],
            "charge": capture.header["charge"], "state": "settled", "time_ms": 1,
            "capture": {"key": capture.header["key"], "manifest_sha256": capture.manifest[0]},
            "settles": [{"key": each.header["key"], "state": "done",
                         "manifest_sha256": each.manifest and each.manifest[0]}
                        for each in settles],
        })  # fmt: skip
        text = f"byline-receipt/v1\n{body}\n"
        return f"{text}\n{self.receipts.line(text)}"


def opened(writer: Writer, key: str, pool: int = POOL) -> Written:
    """Hold and capture: the charge is twice the pool."""
    hold, held = f"hold:{key}", 3 * pool
    writer.add(f"{key}/hold/0", {"app:demo": -held, hold: held})
    legs = {hold: -held, "app:demo": held - 2 * pool, "platform": pool, f"open:{key}": pool}
    manifest = canonical({"inference": key})
    return writer.add(f"{key}/capture/0", legs, charge=2 * pool, manifest=manifest)


def attribution(key: str, shares: dict[str, int], pool: int = POOL) -> str:
    """A manifest by which a pool is shared out; the shares in ppb, the rest is nobody's."""
    return canonical({
        "inference": key, "adapter_version": ADAPTER, "pool_nano": pool,
        "shares": [{"contributor": name, "share_ppb": ppb} for name, ppb in shares.items()],
        "unattributed_ppb": 10**9 - sum(shares.values()),
    })  # fmt: skip


def inference(writer: Writer, number: int, payees: dict[str, int]) -> tuple[Written, Written]:
    """Hold, capture and settle; payees' shares in ppb of a pool."""
    key = f"019a0000-0000-7000-8000-{number:012}"
    capture = opened(writer, key)
    shares = {f"contrib:{name}": ppb for name, ppb in payees.items()}
    shares[f"unattributed:{ADAPTER}"] = 10**9 - sum(payees.values())
    legs = {account: POOL * ppb // 10**9 for account, ppb in shares.items()}
    legs[f"unattributed:{ADAPTER}"] += POOL - sum(legs.values())
    settle = writer.add(
        f"{key}/settle/0", {f"open:{key}": -POOL, **legs}, manifest=attribution(key, payees),
        shares=shares,
    )  # fmt: skip
    return capture, settle


def operation(number: int, kind: str) -> str:
    return f"019a0000-0000-7000-9000-{number:012}/{kind}/0"


def payout(writer: Writer, number: int, account: str, **decided: Any) -> Written:
    nano = decided["nano"]
    amounts = {k: str(v) if k in ("nano", "opening_nano", "lines_nano") else v
               for k, v in decided.items()}  # fmt: skip
    decision = canonical({"account": account, "reference": "bank 1", **amounts})
    legs = {account: -nano, "payout": nano}
    return writer.add(operation(number, "payout"), legs, manifest=decision)


def a_written_log(writer: Writer | None = None) -> Writer:
    """A log of 50 entries: of every kind, with a rotated key, statements and payouts of alice."""
    log = writer or Writer()
    log.add(operation(1, "deposit"), {"funding": -(10**10), "app:demo": 10**10})
    for number in range(1, 8):  # entries 2 to 22
        inference(log, number, {"alice": 333_333_333, "bob": 250_000_000})
    earned = sum(nano for _, _, nano in log.chains["contrib:alice"])
    log.close("contrib:alice", "2026-10", 1, 7)
    payout(log, 2, "contrib:alice", nano=8 * CENT, statement="contrib:alice/2026-10", first_seq=1,
           last_seq=22, opening_nano=0, lines_nano=earned)  # fmt: skip
    log.rotate("second")
    for number in range(8, 14):  # entries 24 to 41
        inference(log, number, {"alice": 100_000_000, "carol": 600_000_000})
    log.add(operation(3, "adjust"), {"contrib:alice": -7, "platform": 7})
    log.close("contrib:alice", "2026-11", 8, 15)
    gone = "019a0000-0000-7000-8000-000000000099"
    log.add(f"{gone}/hold/0", {"app:demo": -50, f"hold:{gone}": 50})
    log.add(f"{gone}/void/0", {f"hold:{gone}": -50, "app:demo": 50})
    log.add(f"{gone[:-1]}8/hold/0", {"app:demo": -50, f"hold:{gone[:-1]}8": 50})
    log.add(f"{gone[:-1]}8/expire/0", {f"hold:{gone[:-1]}8": -50, "app:demo": 50})
    log.add(f"{gone[:-1]}7/capture/0", {}, kind="capture_late")
    log.add(operation(4, "release"), {f"unattributed:{ADAPTER}": -9, "contrib:carol": 9})
    log.add(f"{operation(5, 'refund')}", {"platform": -5, "app:demo": 5}, inference=gone)
    rest = sum(nano for _, _, nano in log.chains["contrib:alice"]) - (earned - 8 * CENT)
    payout(log, 6, "contrib:alice", nano=3 * CENT, statement="contrib:alice/2026-11", first_seq=23,
           last_seq=42, opening_nano=earned - 8 * CENT, lines_nano=rest)  # fmt: skip
    assert len(log.entries) == 50
    return log
