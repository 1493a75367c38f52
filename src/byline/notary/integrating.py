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
    has_manifest_leaf,
    heads_after,
    logged_leaf,
    manifest_leaf,
    places_of,
    shares_of,
)


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
        entry = found.entry
        if found.manifest is not None and (
            sha256_hex(found.manifest.encode()) != entry.manifest_sha256
        ):
            raise LogMismatch(f"the text behind journal entry {entry.seq} was changed")
        shares: Mapping[str, int] = {}
        its = salts.of_entry(entry.key)
        if has_manifest_leaf(entry):
            addition.leaves.append(NewLeaf(manifest_leaf(entry, its)))
            shares = {} if found.manifest is None else shares_of(json.loads(found.manifest))
        places = places_of(entry, addition.chains, shares)
        leaf = logged_leaf(entry, addition.next_leaf, places, its)
        addition.leaves.append(NewLeaf(leaf.data, entry.seq, places, its.secret))
        addition.chains.update(heads_after(entry, leaf))
    if page:
        addition.seq = page[-1].entry.seq
        addition.entry_sha256 = sha256_hex(page[-1].text.encode())
    return addition
