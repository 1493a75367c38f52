"""`build_app`: the only wiring of this program."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI

from gateway.attributions import attributions_routes
from gateway.charging import Charging
from gateway.contributors import contributors_routes
from gateway.deliveries import Deliveries
from gateway.embeddings import embeddings_routes
from gateway.errors import add_error_handlers
from gateway.health import health_routes
from gateway.history import history_routes
from gateway.inferences import Inferences, inference_routes
from gateway.log_files import log_files_routes
from gateway.middleware import LimitBody, ObserveRequests
from gateway.models import Models, labels_of, models_routes
from gateway.proofs import proofs_routes
from gateway.quotas import DRAIN_SECONDS, Admissions
from gateway.receipts import receipts_routes
from gateway.releases import Releases
from gateway.responses.routes import responses_routes
from gateway.services import Services
from gateway.signed_receipts import signed_receipts_routes
from gateway.statements import statements_routes
from gateway.tokens import Tokens, tokens_routes
from gateway.usage import usage_routes


def build_app(services: Services) -> FastAPI:
    """The gateway over these services. They are closed when the app shuts down."""
    models = Models(services.release, services.router, services.aliases, services.engines.serves)
    deliveries = Deliveries(
        services.shards, services.spools, refused=services.telemetry.post_refused
    )
    services.telemetry.watch(deliveries, services.clock_ms)
    services.telemetry.serve(labels_of(services.release))
    releases = Releases(services, models)
    admissions = Admissions(services)
    charging = Charging(services, deliveries, admissions)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        charging.start()
        admissions.start()
        await services.engines.start()
        releases.start()
        yield
        await releases.close()
        await charging.drain(services.limits.shutdown_seconds)
        await admissions.drain(DRAIN_SECONDS)
        await _close(services)

    # The API is described in docs/api.md; a generated page would load its scripts from elsewhere.
    app = FastAPI(
        title="Byline", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None
    )
    inferences = Inferences(services, models, charging, admissions)
    watched = health_routes(services, deliveries, releases)
    for routes in (*_routes(services, models, inferences), watched):
        app.include_router(routes)
    add_error_handlers(app)
    # The last one added is the outermost.
    app.add_middleware(LimitBody, bytes_max=services.limits.request_bytes_max)
    app.add_middleware(ObserveRequests, telemetry=services.telemetry)
    return app


def _routes(services: Services, models: Models, inferences: Inferences) -> tuple[APIRouter, ...]:
    """All but the probes'. A path that is another's with an ending comes before that one."""
    return (
        inference_routes(inferences),
        responses_routes(inferences),
        embeddings_routes(services, models),
        tokens_routes(Tokens(services, models)),
        signed_receipts_routes(services),
        receipts_routes(services),
        models_routes(models, services.keys),
        attributions_routes(services),
        contributors_routes(services),
        usage_routes(services),
        history_routes(services),
        proofs_routes(services, models),
        statements_routes(services, models),
        log_files_routes(services),
    )


async def _close(services: Services) -> None:
    await services.engines.close()
    await services.quotas.close()
    await services.keys.close()
    await services.shards.close()
    for spool in services.spools.values():
        await spool.close()
    await services.archive.close()
    if services.tracing is not None:
        await services.tracing.close()
