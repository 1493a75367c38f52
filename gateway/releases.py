"""Takes a new release over while the gateway runs: read, check, prefetch, switch, drain.

The home folder is looked at every 2 seconds. What is new there is read whole; its adapters and
indexes are held against their hashes; its adapters are loaded and checked on every engine that is
up. Only then do the names change, for all questions at once. An inference keeps the version that
it began with: the old adapters leave the engines when their last answers are out. Whatever goes
wrong before the switch leaves everything as it was, is said, and is tried again.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from hashlib import sha256

from byline.aliases import read_aliases
from byline.artifacts import ArtifactStore
from byline.errors import BylineError, StartFailed
from byline.home import Home
from byline.records import AdapterVersion, Release
from byline.registry import check_adapters, read_release
from byline.routing import Router
from gateway.background import Background
from gateway.engines.engine import AdapterState
from gateway.errors import clean
from gateway.models import Models, Serving, labels_of
from gateway.services import Services

log = logging.getLogger("gateway")

LOOK_SECONDS = 2.0
AGAIN_SECONDS = 30.0  # what was refused is tried again: an artifact may have arrived late
REFUSED = frozenset({AdapterState.FAILED, AdapterState.NOT_APPLIED})


def read_serving(home: Home) -> Serving:
    """The home folder's release, aliases and router. Raises StartFailed or ArtifactError."""
    release = read_release(home.release)
    check_adapters(release, home.artifacts)
    aliases = read_aliases(home.aliases, release)
    router = Router.load(ArtifactStore(home.artifacts).open("router", release.router))
    names = {*aliases, *(adapter.adapter for adapter in release.adapters)}
    if unknown := sorted({*router.arrays.adapters} - names):
        raise StartFailed(
            f"the router {release.router} sends to {', '.join(unknown)}, which the release lacks"
        )
    return Serving(release, router, aliases)


def new_adapters(new: Release, old: Release) -> list[AdapterVersion]:
    """Versions that only the new release has."""
    known = {adapter.version for adapter in old.adapters}
    return [adapter for adapter in new.adapters if adapter.version not in known]


def check_change(new: Release, old: Release, home: Home) -> None:
    """Raise StartFailed or ArtifactError for what can't be taken over while programs run."""
    for name in ("base_model", "base_path", "context_tokens"):
        if getattr(new, name) != getattr(old, name):
            raise StartFailed(
                f"the new release has another {name}: restart engine, worker and gateway for it"
            )
    store = ArtifactStore(home.artifacts)
    known = {(adapter.version, adapter.index) for adapter in old.adapters}
    for adapter in new.adapters:
        if (adapter.version, adapter.index) not in known:
            store.open("adapters", adapter.version)
            store.open("indexes", adapter.index)


class Releases:
    """Watches the home folder of one gateway."""

    def __init__(
        self,
        services: Services,
        models: Models,
        *,
        look_seconds: float = LOOK_SECONDS,
        again_seconds: float = AGAIN_SECONDS,
    ) -> None:
        self._services = services
        self._models = models
        self._look_seconds = look_seconds
        self._again_seconds = again_seconds
        self._seen: str | None = None  # the digest of what was read last
        self._next: Serving | None = None  # checked, its adapters on their way to the engines
        self._problem: str | None = None  # why the last one was refused, until one is served
        self._again_at: float | None = None
        self._background = Background()

    def start(self) -> None:
        """Look from now on, where there is a home folder to look at."""
        if self._services.home is not None:
            self._background.start(self._run(self._services.home))

    async def close(self) -> None:
        """Look no more."""
        await self._background.drain(0)

    def described(self) -> Mapping[str, object]:
        """What is served, what is on its way, and why a new one was refused: for `/readyz`."""
        return {
            "adapters": [adapter.version for adapter in self._models.release.adapters],
            "loading": [
                adapter.version
                for adapter in new_adapters(self._next.release, self._models.release)
            ] if self._next else [],
            "refused": self._problem,
        }  # fmt: skip

    async def _run(self, home: Home) -> None:
        while True:
            await self.look(home)
            await asyncio.sleep(self._look_seconds)

    async def look(self, home: Home) -> None:
        """One step: read what is new, or switch to it once the engines are ready for it."""
        try:
            found = await asyncio.to_thread(_digest, home)
            again = self._again_at is not None and time.monotonic() >= self._again_at
            if found != self._seen or again:
                await self._read(found, home)
            if self._next is not None and self._is_loaded(self._next.release):
                self._switch(self._next)
        except (BylineError, OSError) as problem:
            self._refuse(problem)

    async def _read(self, found: str, home: Home) -> None:
        """Check what is there now, and have its adapters loaded beside those that are served."""
        self._next, self._seen, self._again_at = None, found, None
        current = self._models.serving
        new = await asyncio.to_thread(read_serving, home)
        await asyncio.to_thread(check_change, new.release, current.release, home)
        self._next = new
        more = new_adapters(new.release, current.release)
        self._services.engines.want([*current.release.adapters, *more])

    def _is_loaded(self, new: Release) -> bool:
        """True once every engine that is up has every new adapter. Raises for one that can't."""
        versions = [a.version for a in new_adapters(new, self._models.release)]
        states = {version: self._services.engines.states(version) for version in versions}
        for version, found in states.items():
            if refused := found & REFUSED:
                raise StartFailed(f"an engine has {version} as '{min(refused)}'")
        return all(found == {AdapterState.READY} for found in states.values())

    def _switch(self, new: Serving) -> None:
        old = self._models.serving
        self._models.switch(new)
        # Inferences that began with the old names are still to be counted under them.
        self._services.telemetry.serve(labels_of(old.release) | labels_of(new.release))
        self._services.engines.want(new.release.adapters)
        self._next, self._problem = None, None
        self._services.telemetry.release_refused.set(0)
        if (new.release, new.aliases) != (old.release, old.aliases):
            served = ", ".join(adapter.version for adapter in new.release.adapters)
            log.info("a new release is served: %s", served or "the base model alone")

    def _refuse(self, problem: Exception) -> None:
        """Go on with what is served; engines need not keep what was meant to come."""
        self._next = None
        self._again_at = time.monotonic() + self._again_seconds
        self._services.engines.want(self._models.release.adapters)
        self._services.telemetry.release_refused.set(1)
        if self._problem != (said := clean(str(problem))):
            log.error("the new release is refused, the old one is still served: %s", problem)
        self._problem = said


def _digest(home: Home) -> str:
    """Of both files' bytes; a missing file is another thing than an empty one."""
    parts = [
        path.read_bytes() if path.exists() else b"none" for path in (home.release, home.aliases)
    ]
    return sha256(b"".join(sha256(part).digest() for part in parts)).hexdigest()
