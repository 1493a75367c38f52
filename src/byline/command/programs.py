"""The programs of one installation: how each is started, and how it shows that it is ready."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from byline.home import Home
from byline.redis_server import ALLOCATOR, RedisServer

ENGINE_READY_SECONDS = 300.0  # loading and warming a CPU engine on a busy machine
READY_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Ports:
    """Seven consecutive loopback ports, the gateway's first."""

    gateway: int

    @property
    def engine(self) -> int:
        """The engine's port."""
        return self.gateway + 1

    @property
    def redis(self) -> int:
        """The ledger's Redis-protocol port."""
        return self.gateway + 2

    @property
    def worker(self) -> int:
        """The attribution worker's metrics port."""
        return self.gateway + 3

    @property
    def archive(self) -> int:
        """The exporter's metrics port."""
        return self.gateway + 4

    @property
    def bookkeeper(self) -> int:
        """The bookkeeper's metrics port."""
        return self.gateway + 5

    @property
    def notary(self) -> int:
        """The notary's metrics port."""
        return self.gateway + 6

    @property
    def auditor(self) -> int:
        """The auditor's metrics port, where there is an auditor."""
        return self.gateway + 7

    @property
    def gateway_url(self) -> str:
        """Where applications connect."""
        return f"http://127.0.0.1:{self.gateway}"

    @property
    def engine_url(self) -> str:
        """Where the gateway finds the engine."""
        return f"http://127.0.0.1:{self.engine}"

    @property
    def redis_url(self) -> str:
        """Where the gateway and the worker find the ledger."""
        return f"redis://127.0.0.1:{self.redis}/0"

    @property
    def worker_url(self) -> str:
        """Where Prometheus finds the worker."""
        return f"http://127.0.0.1:{self.worker}"

    @property
    def archive_url(self) -> str:
        """Where Prometheus finds the exporter."""
        return f"http://127.0.0.1:{self.archive}"

    @property
    def bookkeeper_url(self) -> str:
        """Where Prometheus finds the bookkeeper."""
        return f"http://127.0.0.1:{self.bookkeeper}"

    @property
    def notary_url(self) -> str:
        """Where Prometheus finds the notary."""
        return f"http://127.0.0.1:{self.notary}"


@dataclass(frozen=True, slots=True)
class Program:
    """One program to start: `ready_url` answers 200 once it is ready."""

    name: str
    argv: list[str]
    env: Mapping[str, str]
    ready_url: str | None
    ready_seconds: float


def redis_program(home: Home, ports: Ports) -> Program:
    """The Redis-protocol server that keeps the ledger; its readiness is a PING."""
    home.ledger.mkdir(parents=True, exist_ok=True)
    argv = RedisServer(home.ledger.resolve(), port=ports.redis).argv()
    return Program("redis", argv, ALLOCATOR | os.environ, None, READY_SECONDS)


def programs(home: Home, ports: Ports) -> list[Program]:
    """The engine, the worker, the ledger's three companions and the gateway, slowest first."""
    root = str(home.root.resolve())
    engine = {"BYLINE_ENGINE_HOME": root, "BYLINE_ENGINE_PORT": str(ports.engine)}
    worker = {
        "BYLINE_WORKER_HOME": root,
        "BYLINE_WORKER_REDIS_URL": ports.redis_url,
        "BYLINE_WORKER_METRICS_PORT": str(ports.worker),
    }
    archive = {
        "BYLINE_ARCHIVE_HOME": root,
        "BYLINE_ARCHIVE_URL": home.archive_url,
        "BYLINE_ARCHIVE_REDIS_URL": ports.redis_url,
        "BYLINE_ARCHIVE_METRICS_PORT": str(ports.archive),
    }
    bookkeeper = {
        "BYLINE_BOOKKEEPER_ARCHIVE_URL": home.archive_url,
        "BYLINE_BOOKKEEPER_REDIS_URL": ports.redis_url,
        "BYLINE_BOOKKEEPER_METRICS_PORT": str(ports.bookkeeper),
    }
    notary = {
        "BYLINE_NOTARY_HOME": root,
        "BYLINE_NOTARY_REDIS_URL": ports.redis_url,
        "BYLINE_NOTARY_METRICS_PORT": str(ports.notary),
    }
    gateway = {
        "BYLINE_GATEWAY_HOME": root,
        "BYLINE_GATEWAY_PORT": str(ports.gateway),
        "BYLINE_GATEWAY_REDIS_URL": ports.redis_url,
        "BYLINE_GATEWAY_ENGINE_URLS": ports.engine_url,
        "BYLINE_GATEWAY_ARCHIVE_URL": home.archive_url,
    }
    auditor = {
        "BYLINE_AUDITOR_HOME": root,
        "BYLINE_AUDITOR_REDIS_URL": ports.redis_url,
        "BYLINE_AUDITOR_ENGINE_URL": ports.engine_url,
        "BYLINE_AUDITOR_METRICS_PORT": str(ports.auditor),
    }
    audits = _python(
        "auditor", "serving.auditor", auditor, f"http://127.0.0.1:{ports.auditor}/healthz"
    )
    return [
        _python("engine", "serving.launcher", engine, f"{ports.engine_url}/health"),
        _python("worker", "serving.worker", worker, f"{ports.worker_url}/healthz"),
        _python("archive", "byline.archive", archive, f"{ports.archive_url}/healthz"),
        _python("bookkeeper", "byline.bookkeeping", bookkeeper, f"{ports.bookkeeper_url}/healthz"),
        _python("notary", "byline.notary", notary, f"{ports.notary_url}/healthz"),
        *([audits] if home.audit_plan.is_file() else []),
        _python("gateway", "gateway", gateway, f"{ports.gateway_url}/readyz"),
    ]


def _python(name: str, module: str, env: Mapping[str, str], ready_url: str) -> Program:
    argv = [sys.executable, "-m", module]
    return Program(name, argv, python_env(env), ready_url, ENGINE_READY_SECONDS)


def python_env(extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of a program: ours, offline towards model hubs, and its own settings."""
    root = Path(__file__).resolve().parents[3]  # the checkout, where gateway/ and serving/ lie
    paths = [str(root), str(root / "src"), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "PYTHONUNBUFFERED": "1",
        **extra,
    }
