"""The measurement of long statements measures all three forms."""

from pathlib import Path

from loadtests.bench_statements import measured, opened


def test_each_form_is_measured(tmp_path: Path) -> None:
    with opened(f"sqlite:///{tmp_path}/archive.sqlite") as archive:
        found = measured(archive, 1_500)
    assert found["lines"] == 1_500
    assert {"json", "csv", "pdf", "memory_mib_max"} < found.keys()
