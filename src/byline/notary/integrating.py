"""From journal entries to leaves: which leaf stands where, which leg follows which. Pure."""

import json
from collections.abc import Mapping, Sequence

from byline.archive.rows import Found
from byline.canonical import sha256_hex
from byline.errors import LogMismatch
from byline.notary.state import Addition, NewLeaf
from byline.transparency.leaves import (
    UNCHAINED,
    ChainHead,
    Salts,
    entry_leaf,
    heads_after,
    manifest_leaf,
    places_of,
    shares_of,
)

SETTLE = "settle"


def chained_accounts(page: Sequence[Found]) -> list[str]:
    """The accounts whose chains the entries lengthen."""
    accounts = {leg.account for found in page for leg in found.entry.legs}
    return sorted(account for account in accounts if not account.startswith(UNCHAINED))


def addition_of(
    page: Sequence[Found], size: int, chains: Mapping[str, ChainHead], salts: Salts
) -> Addition:
    """The leaves of some consecutive entries, beginning at leaf `size`.

    An attribution's leaf stands right before the settle that pays by it. Raises LogMismatch where a
    manifest's text does not have the hash that its entry names.
    """
    addition = Addition(size, chains=dict(chains))
    for found in page:
        entry, manifest_index = found.entry, None
        if found.manifest is not None and (
            sha256_hex(found.manifest.encode()) != entry.manifest_sha256
        ):
            raise LogMismatch(f"the text behind journal entry {entry.seq} was changed")
        shares: Mapping[str, int] = {}
        if entry.kind == SETTLE and entry.manifest_sha256 is not None:
            manifest_index = addition.next_leaf
            addition.leaves.append(NewLeaf("manifest", manifest_leaf(entry, salts)))
            shares = {} if found.manifest is None else shares_of(json.loads(found.manifest))
        places = places_of(entry, addition.chains, shares)
        leaf = entry_leaf(entry, places, salts, manifest_index=manifest_index)
        addition.leaves.append(NewLeaf("entry", leaf.data, entry.seq, places))
        addition.chains.update(heads_after(entry, leaf))
    if page:
        addition.seq = page[-1].entry.seq
        addition.entry_sha256 = sha256_hex(page[-1].text.encode())
    return addition
