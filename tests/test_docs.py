"""What the documents must not forget: every setting, route, metric, error code and subcommand."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


def documents() -> list[Path]:
    return [*ROOT.glob("*.md"), *DOCS.glob("*.md"), *ROOT.glob("[hl]*/README.md")]


def headings(document: Path) -> set[str]:
    """What a link's anchor may be."""
    found = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def test_links_between_the_documents_lead_somewhere() -> None:
    for document in documents():
        for path, anchor in re.findall(
            r"\]\((?!http)([^)#\s]*)#?([^)\s]*)\)", document.read_text()
        ):
            target = document.parent / path if path else document
            assert target.exists(), f"{document.name}: {path}"
            assert not anchor or anchor in headings(target), f"{document.name}: {path}#{anchor}"


def commands_in(document: Path) -> Iterator[list[str]]:
    """The words after `byline` of each command that is quoted, or stands in a line of code."""
    for text in re.findall(r"(?:^|`|\$ |bin/)byline ([a-z][^`\n|]*)", document.read_text(), re.M):
        yield text.split()


def reached(words: list[str]) -> tuple[Any, list[str]]:
    """The command that these words name, and the words behind its name."""
    command: Any = get_command(app)
    while words and words[0] in getattr(command, "commands", ()):
        command, words = command.commands[words[0]], words[1:]
    return command, words


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_in_a_document_is_one_and_has_the_options_that_it_shows(
    document: Path,
) -> None:
    for words in commands_in(document):
        command, rest = reached(words)
        shown = f"{document.name}: byline {' '.join(words)}"
        assert rest != words, shown
        if hasattr(command, "commands") and command.name != "attribution":  # it takes an id, too
            assert not re.match("[a-z]", " ".join(rest)), shown
        if command.name != "verify":  # it reads its own options
            known = {option for each in command.params for option in each.opts} | {"--help"}
            assert set(re.findall(r"--[a-z-]+", " ".join(rest))) <= known, shown


def test_decisions_stand_newest_first_and_each_names_its_room() -> None:
    text = (DOCS / "decisions.md").read_text()
    rooms = re.search(r"names its room \(([^)]+)\)", text)
    assert rooms
    dates = []
    for heading in re.findall("^## (.*)$", text, re.MULTILINE):
        found = re.fullmatch(r"(\d{4}-\d\d-\d\d) · (\w+) · .+", heading)
        assert found, f"not 'date · room · question': {heading}"
        assert found[2] in re.split(r",\s+", rooms[1]), heading
        dates.append(found[1])
    assert dates == sorted(dates, reverse=True)
