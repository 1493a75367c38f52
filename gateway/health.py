"""Probes, and the metrics page. None of them takes a key: keep them on an internal network."""

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import JSONResponse, Response

from gateway.deliveries import Deliveries
from gateway.releases import Releases
from gateway.services import Services


def health_routes(services: Services, deliveries: Deliveries, releases: Releases) -> APIRouter:
    """GET /healthz, /readyz and /metrics."""
    routes = APIRouter()

    @routes.get("/healthz", response_model=None)
    async def alive() -> JSONResponse:
        return JSONResponse({"status": "alive"})

    @routes.get("/readyz", response_model=None)
    async def ready() -> JSONResponse:
        await deliveries.ping()
        await services.engines.probe()
        engines, release = services.engines.described(), releases.described()
        return JSONResponse({"status": "ready", "engines": engines, "release": release})

    @routes.get("/metrics", response_model=None)
    async def metrics() -> Response:
        return Response(services.telemetry.exposition(), media_type=CONTENT_TYPE_LATEST)

    return routes
