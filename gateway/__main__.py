"""`python -m gateway`: settings, then the server, until SIGTERM or SIGINT."""

import gc
import logging
import resource
import signal
import sys
import time
from types import FrameType

import uvicorn
import uvloop
from pydantic import ValidationError

from byline.api_keys import ApiKeys
from byline.delivery.spool import Spool
from byline.errors import BylineError
from byline.home import Home
from byline.ledger.shards import Shards
from byline.quotas.quotas import Quotas
from gateway.app import build_app
from gateway.archive_reads import ArchiveReads
from gateway.connections import BoundedConnection
from gateway.engines.engines import EngineBounds, Engines
from gateway.engines.shared_places import SharedPlaces
from gateway.logs import Logs
from gateway.operator_log import log_to_stderr
from gateway.releases import read_serving
from gateway.services import Limits, Services
from gateway.settings import GatewaySettings
from gateway.telemetry import Telemetry
from gateway.tracing import Tracing

log = logging.getLogger("gateway")

OPEN_FILES = 65_536  # a client's connection is one, and each request's to its engine another
YOUNG_OBJECTS = 20_000  # made since the collector's last look; Python's own bound is 700


def clock_ms() -> int:
    """The time in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


async def open_services(settings: GatewaySettings) -> Services:
    """Everything the gateway needs, opened and loaded. Raises what keeps it from starting."""
    home = Home(settings.home)
    serving = read_serving(home)
    telemetry = Telemetry()
    archive = ArchiveReads(settings.archive_url or home.archive_url)
    return Services(
        shards=await Shards.open(
            settings.redis_url,
            settings.ledgers,
            placed=settings.placed,
            observe=telemetry.ledger_post,
            replicas=settings.ledger_replicas,
        ),
        spools={
            name: Spool.open(home.spool_of(name), bytes_max=settings.spool_bytes_max)
            for name in settings.ledgers
        },
        archive=archive,
        logs=Logs(home, archive),
        keys=await ApiKeys.open(settings.redis_url),
        quotas=Quotas.of(settings.redis_url),
        engines=Engines.open(
            settings.engine_urls,
            serving.release,
            home.artifacts,
            telemetry.registry,
            bounds=EngineBounds(loras_max=settings.engine_loras_max),
            shared=SharedPlaces.of(settings.redis_url),
        ),
        release=serving.release,
        aliases=serving.aliases,
        router=serving.router,
        home=home,
        served_folder=home.served,
        telemetry=telemetry,
        clock_ms=clock_ms,
        tracing=Tracing.open() if settings.otel_exporter_otlp_endpoint else None,
        limits=Limits(
            request_bytes_max=settings.request_bytes_max,
            hold_seconds=settings.hold_seconds,
            shutdown_seconds=settings.shutdown_seconds,
            inline_seconds=settings.inline_seconds,
        ),
    )


def spare_the_collector() -> None:
    """Keep Python's collector off what lives as long as the program.

    Else each full collection walks hundreds of thousands of objects, mostly modules, while every
    answer waits; requests leave few cycles behind.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 20, 20)


def allow_connections() -> None:
    """Have as many open files as the system lets this program have, up to OPEN_FILES.

    A shell's own bound is often 1,024: so many idle clients would keep all others out.
    """
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if most == resource.RLIM_INFINITY else min(OPEN_FILES, most)
    if now != resource.RLIM_INFINITY and now < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


async def serve(settings: GatewaySettings) -> None:
    """Serve until a signal; answers under way are finished, then their captures."""
    app = build_app(await open_services(settings))
    spare_the_collector()
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=BoundedConnection,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nothing here asks who the client is
        timeout_graceful_shutdown=settings.shutdown_seconds,
    )
    await uvicorn.Server(config).serve()


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


def main() -> int:
    """Run the gateway; answers the process's exit status."""
    try:
        settings = GatewaySettings()
    except ValidationError as problem:
        for error in problem.errors():  # never the value: an address may carry a password
            name = str(error["loc"][0]).upper()
            prefix = "" if name.startswith("OTEL_") else "BYLINE_GATEWAY_"
            sys.stderr.write(f"{prefix}{name} is not valid: {error['msg']}\n")
        return 2
    log_to_stderr(settings.log_level)
    allow_connections()
    # Before uvicorn listens for these, and when it raises them once more after a clean stop.
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, _stop)
    try:
        uvloop.run(serve(settings))
    except BylineError as problem:
        log.critical("the gateway did not start: %s", problem)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
