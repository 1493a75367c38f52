"""The OpenAPI document, the program's routes and the program's answers agree.

Both directions for the routes; schemathesis, with a fixed seed, for the answers: no 5xx, no status
that is not in the document, and every error in OpenAI's shape with its type, code and param.
"""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.routing import Route

from byline.home import Home
from gateway.__main__ import open_services
from gateway.app import build_app
from gateway.settings import GatewaySettings
from tests.clients.installing import SCHEMATHESIS
from tests.gateway_program import ADAPTER, GatewayProgram, write_home
from tests.stand_in_engine import BASE

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "openapi.yaml"
SEED, SECONDS = "1", 60.0
ALL = ("--max-examples", "8", "--phases", "examples,coverage,fuzzing")
MONEY = ("--max-examples", "8", "--phases", "fuzzing", "--include-tag", "money")
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_headers_conformance,response_schema_conformance,ignored_auth,unsupported_method"
)


def document() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(DOCUMENT.read_text())
    return read


def in_the_document() -> Iterator[tuple[str, str]]:
    for path, operations in document()["paths"].items():
        for method in operations:
            yield method.upper(), path


async def in_the_program(settings: GatewaySettings) -> set[tuple[str, str]]:
    app = build_app(await open_services(settings))
    async with app.router.lifespan_context(app):
        return {
            (method, re.sub(r":\w+}", "}", route.path))
            for route in app.routes
            if isinstance(route, Route)
            for method in (route.methods or set()) - {"HEAD"}
        }


def test_the_document_has_the_programs_routes_and_no_others(
    program: GatewayProgram, tmp_path: Path
) -> None:
    home = Home(tmp_path / "home")
    write_home(home)
    settings = GatewaySettings(
        home=home.root, redis_url=program.redis_url, engine_urls=(program.engine.url,)
    )
    assert asyncio.run(in_the_program(settings)) == set(in_the_document())


def test_every_operation_says_how_it_refuses() -> None:
    operations = [each for path in document()["paths"].values() for each in path.values()]
    kept = [each for each in operations if each.get("security") != []]
    assert len(kept) == len(operations) - 4  # the probes, the metrics, the log take no key
    for operation in kept:
        assert {"400", "401", "403", "404", "500", "503"} <= operation["responses"].keys()


def for_fuzzing(folder: Path) -> Path:
    """The document with the names of models that there are: else nearly all is answered 404."""
    fields = document()
    fields["components"]["schemas"]["ModelName"]["enum"] = [BASE, ADAPTER, "auto"]
    path = folder / "openapi.json"
    path.write_text(json.dumps(fields))
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("role", "which"),
    [("shop", ALL), ("operator", MONEY), ("contributor", MONEY), ("owner", MONEY)],
    ids=["shop", "operator", "contributor", "owner"],
)
def test_schemathesis_finds_nothing(
    program: GatewayProgram, tmp_path: Path, role: str, which: tuple[str, ...]
) -> None:
    if not SCHEMATHESIS.folder.is_dir():
        pytest.skip("schemathesis is not installed: run `make clients`")
    argv = [
        sys.executable, "-m", "schemathesis.cli", "run", str(for_fuzzing(tmp_path)),
        "--url", program.url, "--header", f"Authorization: Bearer {getattr(program.keys, role)}",
        "--checks", CHECKS, "--seed", SEED, "--generation-database", "none",
        "--request-timeout", "10", "--no-color",
        "--continue-on-failure", "--no-shrink", *which,
    ]  # fmt: skip
    env = os.environ | {"PYTHONPATH": str(SCHEMATHESIS.folder)}
    ran = subprocess.run(
        argv, env=env, cwd=tmp_path, timeout=SECONDS, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout[-12_000:] + ran.stderr[-2_000:]
    assert "Fuzzing" in ran.stdout
    program.assert_quiet()
