"""Every single change of a proof file: each field, line, hash, pair of lines, one at a time."""

import json
from base64 import b64decode, b64encode
from collections.abc import Iterator
from itertools import combinations
from typing import Any

# Texts of JSON within JSON, whose own fields are changed one by one.
NESTED = ("leaf", "text", "opening")
# What may be left out: without it a file claims less, and what it still claims is true.
OPTIONAL = ("manifest", "with", "text")
HEX = set("0123456789abcdef")


def changed_text(text: str) -> Iterator[str]:
    """Another text of the same kind, at least one."""
    if text.lstrip("-").isdecimal():
        yield str(int(text) + 1)
        yield str(int(text) - 1)
        yield str(-int(text) - 1)
    elif len(text) >= 64 and set(text) <= HEX:
        yield "0123456789abcdef"[(int(text[0], 16) + 1) % 16] + text[1:]
        yield text[:-2]
        yield text.upper() if text.upper() != text else text[:-1] + "g"
    else:
        yield text + "x"
        yield ("y" if text[:1] == "x" else "x") + text[1:]
        yield text[:-1] if text else "z"


def changed(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:  # noqa: C901 - by kind
    """Each single change in a JSON value, with the place of the change."""
    if isinstance(value, dict):
        for key, part in value.items():
            for place, other in changed(part, key):
                yield f".{key}{place}", {**value, key: other}
            if key not in OPTIONAL:
                yield f"-{key}", {k: v for k, v in value.items() if k != key}
    elif isinstance(value, list):
        for at, part in enumerate(value):
            for place, other in changed(part):
                yield f"[{at}]{place}", [*value[:at], other, *value[at + 1 :]]
        if name != "with":  # in any order, and with fewer, they are the same leaves
            yield from changed_order(value)
    elif name in NESTED and isinstance(value, str) and value.startswith("{"):
        yield from changed_json(value)
    else:
        for other in [*changed_text(value)] if isinstance(value, str) else changed_number(value):
            yield f"={other}", other


def changed_json(value: str) -> Iterator[tuple[str, str]]:
    """Each field of a JSON text, all of them twice, and the same with other bytes."""
    for place, other in changed(json.loads(value)):
        text = json.dumps(other, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        yield f"(){place}", text
    yield "() again", value[:-1] + "," + value[1:]
    yield "() spaced", value + " "


def changed_order(value: list[Any]) -> Iterator[tuple[str, list[Any]]]:
    """One element less, one twice, each two exchanged."""
    for at, part in enumerate(value):
        yield f"-[{at}]", [*value[:at], *value[at + 1 :]]
        yield f"+[{at}]", [*value[:at], part, *value[at:]]
    for a, b in combinations(range(len(value)), 2):
        if value[a] != value[b]:
            swapped = list(value)
            swapped[a], swapped[b] = value[b], value[a]
            yield f"[{a}]<>[{b}]", swapped


def changed_number(value: int | None) -> list[Any]:
    """Other numbers, and what is none."""
    if value is None:
        return ["1", 1]
    return [value + 1, -value - 1, str(value), float(value), 10**30, None]


def changed_base64(text: str) -> Iterator[str]:
    raw = b64decode(text)
    for at in (0, len(raw) // 2, len(raw) - 1):
        yield b64encode(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]).decode()
    yield b64encode(raw[:-1]).decode()


def changed_note(note: str) -> Iterator[tuple[str, str]]:
    """Each line of a note changed, left out, or swapped with the next; signatures have no order."""
    lines = note.split("\n")[:-1]
    gap = len(lines) - 1 - lines[::-1].index("")
    for at, line in enumerate(lines):
        without = [*lines[:at], *lines[at + 1 :]]
        yield f"-line {at}", "\n".join([*without, ""])
        others = changed_text(line)
        if at == 2 and gap == 3:
            others = changed_base64(line)
        if at > gap:
            start, _, signed = line.rpartition(" ")
            others = iter([f"{start} {other}" for other in changed_base64(signed)])
        for other in others:
            yield f"line {at}", "\n".join([*lines[:at], other, *lines[at + 1 :], ""])
        if at < min(gap, len(lines) - 2):
            swapped = [*lines[:at], lines[at + 1], line, *lines[at + 2 :], ""]
            yield f"line {at}<>{at + 1}", "\n".join(swapped)


def changed_proof(proof: str) -> Iterator[tuple[str, str]]:
    """Each change of a `.tlog-proof`."""
    first, _, checkpoint = proof.partition("\n\n")
    lines = first.split("\n")
    opening = json.loads(b64decode(lines[1].removeprefix("extra ")))

    def whole(*lines: str) -> str:
        return "\n".join(lines) + f"\n\n{checkpoint}"

    for place, other in changed(opening):
        extra = b64encode(json.dumps(other).encode()).decode()
        yield place, whole(lines[0], f"extra {extra}", *lines[2:])
    index = int(lines[2].removeprefix("index "))
    for other in (index + 1, index - 1, f"0{index}", 10**18, 10**30, ""):
        yield f"index {other}", whole(*lines[:2], f"index {other}", *lines[3:])
    for at in range(len(lines)):
        yield f"-line {at}", whole(*lines[:at], *lines[at + 1 :])
        if at > 2:
            for other in changed_base64(lines[at]):
                yield f"hash {at}", whole(*lines[:at], other, *lines[at + 1 :])
    for a, b in combinations(range(len(lines)), 2):
        swapped = list(lines)
        swapped[a], swapped[b] = lines[b], lines[a]
        yield f"lines {a}<>{b}", whole(*swapped)
    for place, other in changed_note(checkpoint):
        yield f"head {place}", f"{first}\n\n{other}"


def changed_set(proofs: str) -> Iterator[tuple[str, str]]:
    """Each change of a `.tlog-proofs`: in each line, and of the lines."""
    lines = proofs.splitlines(keepends=True)
    for at, line in enumerate(lines):
        fields = json.loads(line)
        checkpoint = fields.pop("checkpoint", None)
        for place, other in changed(fields):
            head = {} if checkpoint is None else {"checkpoint": checkpoint}
            text = json.dumps({**other, **head}) + "\n"
            yield f"{at}{place}", "".join([*lines[:at], text, *lines[at + 1 :]])
        for place, note in changed_note(checkpoint) if checkpoint else ():
            text = json.dumps({**fields, "checkpoint": note}) + "\n"
            yield f"head {place}", "".join([text, *lines[1:]])
        if at != 1:  # without the statement they are lines alone, and no statement is claimed
            yield f"-line {at}", "".join([*lines[:at], *lines[at + 1 :]])
        yield f"+line {at}", "".join([*lines[:at], line, *lines[at:]])
    for a, b in combinations(range(len(lines)), 2):
        swapped = list(lines)
        swapped[a], swapped[b] = lines[b], lines[a]
        yield f"lines {a}<>{b}", "".join(swapped)


def changed_consistency(source: str) -> Iterator[tuple[str, str]]:
    """Each change of a `.consistency`."""
    first, _, checkpoint = source.partition("\n\n")
    lines = first.split("\n")
    for other in (*changed_text(lines[0][4:]), "x", "0"):
        yield f"old {other}", "\n".join([f"old {other}", *lines[1:]]) + f"\n\n{checkpoint}"
    for at in range(1, len(lines)):
        for one in [[], [lines[at]] * 2, *([other] for other in changed_base64(lines[at]))]:
            yield (
                f"hash {at}",
                "\n".join([*lines[:at], *one, *lines[at + 1 :]]) + f"\n\n{checkpoint}",
            )
    for a, b in combinations(range(1, len(lines)), 2):
        swapped = list(lines)
        swapped[a], swapped[b] = lines[b], lines[a]
        yield f"hashes {a}<>{b}", "\n".join(swapped) + f"\n\n{checkpoint}"
    for place, other in changed_note(checkpoint):
        yield f"head {place}", f"{first}\n\n{other}"


def changed_receipt(receipt: str) -> Iterator[tuple[str, str]]:
    """Each change of a `.receipt`."""
    lines = receipt.split("\n")
    for place, other in changed(json.loads(lines[1])):
        yield place, "\n".join([lines[0], json.dumps(other), *lines[2:]])
    for place, other in changed_note(receipt):
        yield place, other


def changed_table(table: str) -> Iterator[tuple[str, str]]:
    """Each change of a statement's JSON."""
    for place, other in changed(json.loads(table)):
        yield place, json.dumps(other, sort_keys=True, separators=(",", ":"))
    yield "spaced", table + " "
