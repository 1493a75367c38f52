"""What the documents must not forget: every setting, route, metric, error code and subcommand."""

import re
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings
from typer.main import get_command

from byline.archive.settings import ArchiveSettings
from byline.bookkeeping.settings import BookkeeperSettings
from byline.command.__main__ import app
from byline.notary.settings import NotarySettings
from byline.witness.settings import WitnessSettings
from gateway.settings import GatewaySettings
from serving.settings import AuditorSettings, EngineSettings, WorkerSettings

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
ROUTE = r'"(/(?:v1/|healthz|readyz|metrics)[^"]*)"'


@pytest.mark.parametrize(
    "settings",
    [
        GatewaySettings,
        EngineSettings,
        WorkerSettings,
        AuditorSettings,
        ArchiveSettings,
        BookkeeperSettings,
        NotarySettings,
        WitnessSettings,
    ],
)
def test_every_setting_is_in_the_operating_guide(settings: type[BaseSettings]) -> None:
    guide = (DOCS / "operating.md").read_text()
    names = [name.upper() for name in settings.model_fields]
    assert not [name for name in names if f"`{name}`" not in guide]


def test_every_route_and_error_code_is_in_the_api_document() -> None:
    document = (DOCS / "api.md").read_text()
    texts = [path.read_text() for path in sorted((ROOT / "gateway").rglob("*.py"))]
    routes = {r for text in texts for r in re.findall(ROUTE, text)}
    assert len(routes) >= 9
    assert not [route for route in sorted(routes) if route.split("{")[0] not in document]
    codes = set(re.findall(r'"([a-z]+(?:_[a-z]+)+)"', (ROOT / "gateway/errors.py").read_text()))
    assert "model_not_found" in codes
    assert not [code for code in sorted(codes) if code not in document]


def test_the_glossary_defines_the_words_that_name_the_central_modules() -> None:
    glossary = (DOCS / "glossary.md").read_text().lower()
    for word in ("adapter", "artifact", "attribution", "ledger", "release", "router", "recipe"):
        assert f"**{word}**" in glossary


def test_the_readme_shows_the_two_commands_and_every_room() -> None:
    readme = (ROOT / "README.md").read_text()
    for text in (
        "make up",
        "make test",
        "gateway/",
        "serving/",
        "src/byline/",
        "loadtests/",
        "helm/",
    ):
        assert text in readme


def test_every_subcommand_says_what_it_does() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    assert not [name for name, command in commands.items() if not command.help]


def test_links_between_the_documents_lead_somewhere() -> None:
    for document in [ROOT / "README.md", *DOCS.glob("*.md")]:
        for target in re.findall(r"\]\(((?!http|#)[^)#\s]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
