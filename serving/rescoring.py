"""Scores served tokens again, for a replay; nothing is settled and nothing is written.

python -m serving.rescoring --home HOME --tokens FILE --sha256 HASH --choice N
    --adapter REF --index REF
"""

import argparse
from pathlib import Path

from byline.artifacts import ArtifactStore
from byline.attribution import row_claims
from byline.canonical import Json
from byline.errors import ArtifactError
from byline.home import Home
from byline.served import line_of_hash, served_from
from serving.progress import json_lines
from serving.recipes import cores, share_cores


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description="Score served tokens again.")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--tokens", type=Path, required=True, help="a file with the served tokens")
    parser.add_argument("--sha256", required=True, help="of their line in it")
    parser.add_argument("--choice", type=int, default=0, help="which choice")
    parser.add_argument("--adapter", required=True, help="reference of an adapters artifact")
    parser.add_argument("--index", required=True, help="reference of its indexes artifact")
    parser.add_argument("--threads", type=int, default=cores(), help="torch threads")
    arguments = parser.parse_args()
    share_cores()
    from serving.attributor import Attributor, Taught
    from serving.fine_tuning import be_deterministic
    from serving.influence import read_manifest

    be_deterministic(arguments.threads)
    home = Home(arguments.home)
    store = ArtifactStore(home.artifacts)
    with json_lines() as lines:
        line = line_of_hash(arguments.tokens.read_bytes(), arguments.sha256)
        if line is None:
            raise ArtifactError(f"{arguments.tokens} has no served tokens of this hash")
        served = served_from(line)
        if not 0 <= arguments.choice < len(served.choices):
            raise ArtifactError(f"{arguments.tokens} has no choice {arguments.choice}")
        manifest = read_manifest(store.open("indexes", arguments.index).path)
        attributor = Attributor(home, store.open("base", manifest.base))
        taught = Taught(arguments.adapter, arguments.index)
        measured = attributor.measure(served, arguments.choice, taught)
        rows = measured.row_scores
        claims: Json = None if rows is None else dict(row_claims(rows))
        lines.result({
            "scores": dict(measured.scores), "claims": claims, "lift_nats": measured.lift_nats
        })  # fmt: skip


if __name__ == "__main__":
    main()
