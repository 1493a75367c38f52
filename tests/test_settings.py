"""No program prints the value of a setting that is wrong: it may hold a password."""

import importlib
import inspect
from pathlib import Path

import pytest
from pydantic import ValidationError
from pydantic_settings import BaseSettings

ROOT = Path(__file__).parent.parent
ROOMS = {"gateway": ROOT, "serving": ROOT, "src/byline": ROOT / "src"}


def settings_classes() -> list[type[BaseSettings]]:
    """Every settings class of the three rooms, wherever it stands."""
    found: dict[str, type[BaseSettings]] = {}
    for room, base in ROOMS.items():
        for path in (ROOT / room).rglob("*.py"):
            if "Settings):" in path.read_text():
                name = ".".join(path.relative_to(base).with_suffix("").parts)
                for _, each in inspect.getmembers(importlib.import_module(name), inspect.isclass):
                    if issubclass(each, BaseSettings) and each is not BaseSettings:
                        found[each.__qualname__] = each
    return list(found.values())


def test_every_program_has_its_settings() -> None:
    names = {each.__name__ for each in settings_classes()}
    programs = {"Gateway", "Engine", "Worker", "Archive", "Bookkeeper", "Notary", "Witness"}
    assert names >= {f"{program}Settings" for program in programs}


@pytest.mark.parametrize("settings", settings_classes())
def test_a_wrong_value_is_named_and_not_shown(settings: type[BaseSettings]) -> None:
    wrong = dict.fromkeys(settings.model_fields, "x=redis//user:secret@host")
    with pytest.raises(ValidationError) as caught:
        settings(**wrong)  # type: ignore[arg-type]
    assert "secret" not in str(caught.value)
