"""The measurement of proofs measures all that its bars and its table need."""

from argparse import Namespace
from pathlib import Path

import pytest

from loadtests.bench_proof import BARS, measure

POSTS = 60


@pytest.mark.slow
def test_each_part_is_measured(tmp_path: Path) -> None:
    found = measure(tmp_path, Namespace(rate=POSTS, seconds=1.0, lines=60))
    assert found.keys() > BARS.keys()
    assert found["posts"] >= POSTS
    assert found["entries"] >= found["posts"]
    assert found["entries_integrated_per_second"] > 0
    waits = [found[f"post_to_proof_{name}_seconds"] for name in ("p50", "p99", "max")]
    assert 0 < waits[0] <= waits[1] <= waits[2]
    assert found["statement_lines"] == 60
    for proof in ("contributor_proof_bytes_max", "receipt_proof_bytes_max", "line_proof_bytes"):
        assert found[proof] > 1_000, proof
    seconds = found["verify_one_line_seconds"], found["verify_statement_seconds"]
    assert min(seconds) > 0
    for part in ("tile", "bundle", "state"):
        assert found[f"{part}_bytes_per_million_entries"] > 1_000_000
