"""Which model answers, and the list of models: names a client may use, never a path."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse

from byline.aliases import Alias
from byline.api_keys import ApiKeys
from byline.errors import InvalidInput
from byline.records import AdapterVersion, Release
from byline.registry import AUTO, find_adapter
from gateway.auth import caller_of
from gateway.wire import Question


class Routed(Protocol):
    """Where the router sends a text."""

    @property
    def adapter(self) -> str | None:
        """The adapter's name; None below the confidence floor, where the base model answers."""

    @property
    def confidence(self) -> float:
        """How sure the router is, from 0 to 1."""

    @property
    def runner_up(self) -> str | None:
        """The adapter that came second."""


class TextRouter(Protocol):
    """Chooses an adapter for a text: `byline.routing.Router`, in a millisecond."""

    def route(self, text: str) -> Routed:
        """The adapter for `text`."""


@dataclass(frozen=True, slots=True)
class Target:
    """What answers one question."""

    label: str  # the adapter's or the base model's name: a closed set, for metrics
    served_by: str  # the engine's name for it: the adapter version, or the base model's name
    adapter: AdapterVersion | None
    routed: Routed | None = None


@dataclass(frozen=True, slots=True)
class Serving:
    """What the names stand for, all of one moment: a release, its router, the aliases."""

    release: Release
    router: TextRouter
    aliases: Mapping[str, Alias] = field(default_factory=dict)


def labels_of(release: Release) -> frozenset[str]:
    """Every label that a target of this release can have."""
    return frozenset({release.base_model, *(adapter.adapter for adapter in release.adapters)})


class Models:
    """The models of the release that is being served.

    A question is answered from one `Serving`, read once; so a switch is one assignment.
    """

    def __init__(
        self,
        release: Release,
        router: TextRouter,
        aliases: Mapping[str, Alias] | None = None,
        serves: Callable[[str], bool] | None = None,
    ) -> None:
        self.serving = Serving(release, router, aliases or {})
        self._serves = serves  # whether an engine has a version ready

    @property
    def release(self) -> Release:
        """The release that is being served now."""
        return self.serving.release

    def switch(self, serving: Serving) -> None:
        """From the next question on these."""
        self.serving = serving

    def target(self, question: Question, inference: str) -> Target:
        """What answers `question`. Raises NotFound for a name that is not served.

        An alias draws by the inference's id; where what it draws is not loaded, its fallbacks are
        tried in their order. Without any, the request is refused later: nothing takes its place.
        """
        serving = self.serving
        if question.model != AUTO:
            return self._found(serving, question.model, inference)
        if question.route_text is None:
            raise InvalidInput(f"Model '{AUTO}' needs a user's text to route by.", param="model")
        routed = serving.router.route(question.route_text)
        name = routed.adapter or serving.release.base_model
        return self._found(serving, name, inference, routed)

    def listing(self) -> list[dict[str, object]]:
        """OpenAI's list of models; what is ours stands under `byline`."""
        release, aliases = self.serving.release, self.serving.aliases
        base: dict[str, object] = {"kind": "base", "context_tokens": release.context_tokens}
        auto: dict[str, object] = {"kind": "router", "router": release.router}
        return [
            _model(release.base_model, "base", base),
            *(
                _model(a.adapter, a.owner, _adapter_facts(a))
                for a in release.adapters
                if a.adapter not in aliases
            ),
            *(_model(a.name, "byline", _alias_facts(a)) for a in aliases.values()),
            _model(AUTO, "byline", auto),
        ]

    def described(self, name: str) -> dict[str, object]:
        """One entry of the list; an exact version is described too. Raises NotFound."""
        if name == AUTO:
            return self.listing()[-1]
        if alias := self.serving.aliases.get(name):
            return _model(name, "byline", _alias_facts(alias))
        adapter = find_adapter(self.release, name)
        if adapter is None:
            return self.listing()[0]
        return _model(name, adapter.owner, _adapter_facts(adapter))

    def _found(
        self, serving: Serving, name: str, inference: str, routed: Routed | None = None
    ) -> Target:
        alias = serving.aliases.get(name)
        if alias is None:
            return _named(serving.release, name, routed)
        names = (alias.drawn(inference), *alias.fallback)
        targets = [_named(serving.release, name, routed) for name in names]
        served = (t for t in targets if self._is_served(t))
        return next(served, targets[0])

    def _is_served(self, target: Target) -> bool:
        if target.adapter is None or self._serves is None:
            return True
        return self._serves(target.served_by)


def _named(release: Release, name: str, routed: Routed | None) -> Target:
    adapter = find_adapter(release, name)
    if adapter is None:
        return Target(release.base_model, release.base_model, None, routed)
    return Target(adapter.adapter, adapter.version, adapter, routed)


def _model(name: str, owner: str, facts: dict[str, object]) -> dict[str, object]:
    # OpenAI's clients require `created`; a release has no time of its own.
    return {"id": name, "object": "model", "created": 0, "owned_by": owner, "byline": facts}


def _alias_facts(alias: Alias) -> dict[str, object]:
    return {"kind": "alias", "weights": dict(alias.weights), "fallback": list(alias.fallback)}


def _adapter_facts(adapter: AdapterVersion) -> dict[str, object]:
    return {
        "kind": "adapter",
        "version": adapter.version,
        "owner": adapter.owner,
        "base_model": adapter.base_model,
        "dataset": adapter.dataset,
        "index": adapter.index,
    }


def models_routes(models: Models, keys: ApiKeys) -> APIRouter:
    """GET /v1/models and GET /v1/models/{name}."""
    routes = APIRouter()

    @routes.get("/v1/models", response_model=None)
    async def list_models(request: Request) -> JSONResponse:
        await caller_of(request, keys)
        return JSONResponse({"object": "list", "data": models.listing()})

    @routes.get("/v1/models/{name:path}", response_model=None)
    async def describe_model(request: Request, name: str) -> JSONResponse:
        await caller_of(request, keys)
        return JSONResponse(models.described(name))

    return routes
