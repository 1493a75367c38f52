"""One inference from its answer to its proofs: real server, gateway, exporter, notary, verifier.

The verifier runs as an outsider has it: a copied folder, the files, the keys, and nothing else. The
gateway's home never has the notary's own folder: the two share `log/` and `openings/` alone.
"""

import asyncio
import json
import shutil
import subprocess
import sys
import time
from base64 import b64decode
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uuid_utils

from byline.archive.database import Archive
from byline.archive.exporter import Exporter
from byline.canonical import canonical_text
from byline.home import Home
from byline.ledger.ledger import Ledger
from byline.limits import PPB
from byline.notary.folder import KEYS, RECEIPT_KEYS
from byline.notary.log_keys import RECEIPTS, receipt_keys, rotate
from byline.records import Attribution, AttributionState, Release, Share
from byline.redis_server import RedisServer, running_redis
from byline.transparency.notes import signed_note
from gateway.logs import Logs
from tests.byline.test_archive_program import ROOT
from tests.byline.test_notary_program import program
from tests.fake_engine import FakeEngine
from tests.gateway.conftest import (
    ANN,
    BOB,
    CHAT,
    OPERATOR,
    OTHER,
    SHOP,
    serving_engine,
    serving_gateway,
)
from tests.gateway.real_ledger import FUNDS, services_over
from tests.ports import free_port

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

COVERED_SECONDS = 5.0
PROOF = ".tlog-proof"


@dataclass
class Place:
    """A running installation, and how one asks it."""

    url: str
    http: aiohttp.ClientSession
    ledger: Ledger
    home: Home  # the gateway's
    notarys: Home
    release: Release
    folder: Path  # the outsider's

    async def get(self, path: str, key: str | None) -> tuple[int, bytes]:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        async with self.http.get(self.url + path, headers=headers) as answer:
            return answer.status, await answer.read()

    async def when_there(self, path: str, key: str) -> bytes:
        """What is answered in the place of 404 and 409, which must come within 5 seconds."""
        async with asyncio.timeout(COVERED_SECONDS):
            while True:
                status, body = await self.get(path, key)
                if status == 200:
                    return body
                assert status in (404, 409), body
                await asyncio.sleep(0.05)

    async def asked(self) -> str:
        """One inference that is captured; answers its id."""
        headers = {"authorization": f"Bearer {SHOP}"}
        async with self.http.post(
            f"{self.url}/v1/chat/completions", json=CHAT, headers=headers
        ) as answer:
            assert answer.status == 200
            inference = answer.headers["x-byline-receipt"].rpartition("/")[2]
        async with asyncio.timeout(5):
            while await self.ledger.inference(inference) is None:
                await asyncio.sleep(0.02)
        return inference

    async def settled(self, inference: str) -> None:
        """Two contributors are paid for it, 3 to 1."""
        record = await self.ledger.inference(inference)
        assert record is not None
        pool = record.capture.pools[0]
        bobs = pool // 4
        attribution = Attribution(
            inference=inference, ordinal=0, state=AttributionState.DONE,
            adapter_version=record.capture.adapter_version, index=record.capture.index,
            lift_nats=1.5, pool_nano=pool, tokens_sha256=record.capture.tokens_sha256,
            shares=(
                Share("ann", 0.75, PPB * (pool - bobs) // pool + 1, pool - bobs),
                Share("bob", 0.25, PPB * bobs // pool, bobs),
            ),
        )  # fmt: skip
        await self.ledger.settle(attribution, time_ms=time.time_ns() // 1_000_000)

    def verify(self, files: dict[str, bytes]) -> tuple[int, str]:
        """The verifier alone, in a process of its own: exit status and what it says."""
        for name, body in files.items():
            (self.folder / name).write_bytes(body)
        ran = subprocess.run(
            [sys.executable, "-I", "verification", *files, "--policy", "trusted.txt"],
            cwd=self.folder, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        return ran.returncode, ran.stdout + ran.stderr

    async def trust(self) -> None:
        """Take the keys from where everybody gets them."""
        keys = [(await self.get(f"/log/usd/{name}", None))[1] for name in (KEYS, RECEIPT_KEYS)]
        (self.folder / "trusted.txt").write_bytes(b"".join(keys))


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    home, notarys, outside = Home(tmp_path / "home"), Home(tmp_path / "own"), tmp_path / "outside"
    shutil.copytree(ROOT / "src/byline/verification", outside / "verification")
    server = RedisServer(tmp_path / "data", unix_socket=tmp_path / "s.sock")
    for name in ("log", "openings"):
        _made(home.root / name)
        (_made(notarys.root) / name).symlink_to(home.root / name)
    archive = Archive.open(home.archive_url)
    with running_redis(server):
        ledger = await Ledger.open(server.url)
        now_ms = time.time_ns() // 1_000_000
        await ledger.deposit(str(uuid_utils.uuid7()), "shop", FUNDS, time_ms=now_ms)
        stop = asyncio.Event()
        exporting = asyncio.create_task(Exporter(ledger, archive).run(stop))
        async with serving_engine(FakeEngine()) as engine, aiohttp.ClientSession() as http:
            services = await services_over(server.url, engine, home.root)
            services = replace(services, logs=Logs(home, services.archive))
            async with serving_gateway(services) as (url, _):
                with notary(notarys, home.archive_url, server.url):
                    yield Place(url, http, ledger, home, notarys, services.release, outside)
        stop.set()
        await exporting
        await ledger.close()
    archive.close()


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def notary(home: Home, archive_url: str, redis_url: str) -> Any:
    return program(
        "byline.notary", BYLINE_NOTARY_HOME=str(home.root), BYLINE_NOTARY_REDIS_URL=redis_url,
        BYLINE_NOTARY_ARCHIVE_URL=archive_url, BYLINE_NOTARY_ORIGIN="shop.example",
        BYLINE_NOTARY_METRICS_PORT=str(free_port()),
    )  # fmt: skip


async def proven(place: Place, inference: str) -> dict[str, bytes]:
    """The application's files, once its receipt says that all of it is covered."""
    async with asyncio.timeout(COVERED_SECONDS):
        while True:
            receipt = await place.when_there(f"/v1/receipts/{inference}.receipt", SHOP)
            if json.loads(receipt.split(b"\n")[1])["state"] == "proven":
                break
            await asyncio.sleep(0.05)
    url = f"/v1/receipts/{inference}{PROOF}"
    return {
        "one.receipt": receipt,
        "capture.tlog-proof": await place.when_there(url, SHOP),
        "settle.tlog-proof": await place.when_there(f"{url}?entry=settle/0", SHOP),
    }


async def line_of(place: Place, key: str) -> dict[str, Any]:
    async with asyncio.timeout(COVERED_SECONDS):
        while True:
            _, body = await place.get("/v1/contributors/me/earnings", key)
            if lines := json.loads(body).get("lines"):
                found: dict[str, Any] = lines[0]
                return found
            await asyncio.sleep(0.05)


async def test_an_inference_is_proven_to_its_application_and_to_its_contributor(
    place: Place,
) -> None:
    inference = await place.asked()
    first = await place.when_there(f"/v1/receipts/{inference}.receipt", SHOP)
    assert json.loads(first.split(b"\n")[1])["state"] == "captured"
    await place.when_there(f"/v1/receipts/{inference}{PROOF}", SHOP)  # within 5 seconds
    status, body = await place.get(f"/v1/receipts/{inference}{PROOF}?entry=settle/0", SHOP)
    assert (status, json.loads(body)["error"]["code"]) == (409, "proof_pending")
    await place.settled(inference)
    files = await proven(place, inference)
    await place.trust()
    status, said = place.verify(files)
    assert status == 0, said
    assert said.count("keeps what the receipt promised") == 2

    line = await line_of(place, ANN)
    mine = await place.when_there(line["proof"], ANN)
    status, said = place.verify({"mine.tlog-proof": mine})
    assert status == 0, said
    assert f"{line['nano']:,}" in said
    assert b"bob" not in mine
    everything = {**files, "mine.tlog-proof": mine}
    assert place.verify(everything)[0] == 0
    for name, body in everything.items():
        for tampered in changed(body):
            assert place.verify({name: tampered})[0] == 1, (name, tampered)


def changed(body: bytes) -> list[bytes]:
    """The file with a digit more, a signature of another text, and another's path."""
    lines = body.decode().split("\n")
    seal = lines.index("") + 1 if body.startswith(b"byline") else len(lines) - 2
    name, _, signature = lines[seal].rpartition(" ")
    swapped = f"{name} {signature[:20]}{'A' if signature[20] != 'A' else 'B'}{signature[21:]}"
    dearer = [line.replace('"charge":"', '"charge":"1') for line in lines]
    if body.startswith(b"c2sp"):
        dearer = [*lines[:2], f"index {int(lines[2][6:]) ^ 1}", *lines[3:]]
    sealed = [*lines[:seal], swapped, *lines[seal + 1 :]]
    return ["\n".join(each).encode() for each in (dearer, sealed)]


async def test_a_receipt_that_promises_less_than_was_charged_is_found_out(place: Place) -> None:
    """The operator signs another charge: the log has the real one."""
    inference = await place.asked()
    await place.settled(inference)
    files = await proven(place, inference)
    await place.trust()
    fields = json.loads(files["one.receipt"].split(b"\n")[1])
    fields["charge"] = str(int(fields["charge"]) - 1)
    keys = receipt_keys(place.home.openings_of("usd"), "shop.example/usd")
    lie = signed_note(f"byline-receipt/v1\n{canonical_text(fields)}\n", keys)
    status, said = place.verify({**files, "one.receipt": lie.encode()})
    assert status == 1
    assert "was promised" in said


async def test_a_receipt_says_what_was_served_charged_and_decided(place: Place) -> None:
    """Each field is the ledger's record; the manifests are those that the journal names."""
    inference = await place.asked()
    await place.settled(inference)
    receipt = (await proven(place, inference))["one.receipt"]
    record = await place.ledger.inference(inference)
    assert record is not None
    capture = record.capture
    named = {entry["key"]: entry["manifest_sha256"] for entry in await journal(place.ledger)}
    base = place.release.base_path.rpartition("/")[2]
    assert "@" in base
    assert capture.adapter_version is not None
    assert "@" in capture.adapter_version
    assert json.loads(receipt.split(b"\n")[1]) == {
        "v": 1, "inference": inference, "application": "shop", "model": capture.model,
        "served_by": capture.served_by, "adapter_version": capture.adapter_version,
        "index": capture.index, "base_model": base, "policy": capture.policy,
        "prompt_tokens": capture.usage.prompt_tokens,
        "completion_tokens": list(capture.usage.completion_tokens),
        "charge": str(capture.charge_nano), "late": False, "state": "proven",
        "time_ms": record.time_ms,
        "capture": {
            "key": f"{inference}/capture/0", "manifest_sha256": named[f"{inference}/capture/0"],
        },
        "settles": [{
            "key": f"{inference}/settle/0", "state": "done",
            "manifest_sha256": named[f"{inference}/settle/0"],
        }],
    }  # fmt: skip
    assert None not in (capture.index, named[f"{inference}/settle/0"])


async def journal(ledger: Ledger) -> list[dict[str, Any]]:
    return [json.loads(text) for _, text in await ledger.page(after_seq=0, limit=100)]


async def test_nobody_sees_anothers_receipt_or_proof(place: Place) -> None:
    inference = await place.asked()
    await place.settled(inference)
    await proven(place, inference)
    for ending in (".receipt", PROOF, f"{PROOF}?entry=settle/0"):
        path = f"/v1/receipts/{inference}{ending}"
        wanted = [(SHOP, 200), (OPERATOR, 200), (OTHER, 404), (ANN, 403), (None, 401)]
        assert [(await place.get(path, key))[0] for key, _ in wanted] == [s for _, s in wanted]
    line = await line_of(place, BOB)
    assert (await place.get(f"{line['proof']}?account=contrib:ann", BOB))[0] == 403
    for entry in ("settle/1", "settle/8", "hold/0", "capture/1"):
        status, _ = await place.get(f"/v1/receipts/{inference}{PROOF}?entry={entry}", SHOP)
        assert status in (400, 404)
    assert (await place.get("/v1/receipts/x.receipt", SHOP))[0] == 404


async def test_a_gateway_that_has_no_notarys_folder_proves_and_signs_receipts(place: Place) -> None:
    """Nor has it anywhere what signs heads or opens the entries to come."""
    inference = await place.asked()
    await place.settled(inference)
    files = await proven(place, inference)
    await place.trust()
    assert place.verify(files)[0] == 0
    assert {path.name for path in place.home.root.iterdir()} >= {"log", "openings"}
    assert not place.home.notary_of("usd").parent.exists()
    own = place.notarys.notary_of("usd")
    private = [(own / name).read_bytes().strip() for name in ("log-001.key", "salts.secret")]
    read = [path.read_bytes() for path in place.home.root.rglob("*") if path.is_file()]
    for each in private:
        assert not [1 for found in read if each in found or b64decode(each) in found]
    # A write-ahead log could not be read from a read-only mount.
    assert not list(place.home.openings_of("usd").glob("state.sqlite-*wal*"))


async def test_a_new_key_signs_receipts_only_once_it_is_published(place: Place) -> None:
    inference = await place.asked()
    path = f"/v1/receipts/{inference}.receipt"
    before = (await place.when_there(path, SHOP)).rsplit(b"\n", 2)[1]
    rotate(place.notarys.openings_of("usd"), RECEIPTS)
    assert (await place.get(path, SHOP))[1].rsplit(b"\n", 2)[1][:60] == before[:60]
