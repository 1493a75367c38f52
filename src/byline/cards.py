"""An adapter version's model card: what it was taught, by whom, how pay is found, how true that is.

Read from the home folder alone: artifacts, the audits' records, and the measurements of
`byline fidelity` on the dataset of that name. Nothing on a card is estimated here.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from byline.artifacts import ArtifactStore
from byline.auditing.audit import Audit, audit_from
from byline.auditing.gauges import Fidelity, Figure, fidelity_of
from byline.datasets import Dataset, read_dataset
from byline.errors import ArtifactError
from byline.home import Home
from byline.limits import PPB
from byline.records import AdapterVersion

MEASURED = ("tangent", "damped fisher", "forward audit")  # what a card tells of a report


@dataclass(frozen=True, slots=True)
class Measurement:
    """One report of `byline fidelity`: of the dataset, on adapters of its own recipe and rows."""

    study: str
    rows: int
    lds: Mapping[str, tuple[float, float, float]]  # method -> value, low, high of served answers


@dataclass(frozen=True, slots=True)
class Card:
    """One adapter version."""

    version: str
    base_model: str
    dataset: str
    index: str
    owner: str
    rows_by_contributor: Mapping[str, int]  # display name -> rows that teach
    copies: int
    licences: Sequence[str]
    losses: tuple[float, float]  # mean training loss, nats a token: first and last eight steps
    method: str
    reliability: float | None
    audits: Fidelity | None
    measurements: Sequence[Measurement]

    def fields(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "adapter": self.version, "base_model": self.base_model, "dataset": self.dataset,
            "index": self.index, "owner": self.owner,
            "rows_by_contributor": dict(self.rows_by_contributor), "copies": self.copies,
            "licences": list(self.licences), "losses": list(self.losses), "method": self.method,
            "reliability": self.reliability,
            "audits": None if self.audits is None else {
                "audits": self.audits.audits,
                "rank_correlation": _pair(self.audits.rank_correlation),
                "payout_error": _pair(self.audits.payout_error),
            },
            "measurements": [
                {"study": each.study, "rows": each.rows, "lds": {k: list(v) for k, v in
                 each.lds.items()}} for each in self.measurements
            ],
        }  # fmt: skip


def read_card(home: Home, adapter: AdapterVersion) -> Card:
    """The card of a served adapter version. Raises ArtifactError for what can't be read."""
    store = ArtifactStore(home.artifacts)
    trained = store.open("adapters", adapter.version)
    dataset = read_dataset(store.open("datasets", adapter.dataset))
    manifest = _read(store.open("indexes", adapter.index).path / "index.json")
    losses: list[float] = json.loads((trained.path / "losses.json").read_text())
    reliability = manifest.get("reliability_ppb")
    return Card(
        version=adapter.version,
        base_model=adapter.base_model,
        dataset=adapter.dataset,
        index=adapter.index,
        owner=adapter.owner,
        rows_by_contributor=_rows(dataset),
        copies=len(dataset.copies),
        licences=sorted({row.licence for row in dataset.canonical if row.licence}),
        losses=(_mean(losses[:8]), _mean(losses[-8:])),
        method=str(manifest["method"]),
        reliability=None if reliability is None else reliability / PPB,
        audits=fidelity_of(_audits(home.audits, adapter.version)),
        measurements=_measurements(home.fidelity, adapter.adapter),
    )


def _rows(dataset: Dataset) -> dict[str, int]:
    counts = Counter(row.contributor for row in dataset.canonical)
    return {dataset.contributors.get(who, who): rows for who, rows in counts.most_common()}


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


def _read(path: Path) -> dict[str, Any]:
    try:
        fields: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as problem:
        raise ArtifactError(f"{path} can't be read: {problem}") from problem
    return fields


def _audits(folder: Path, version: str) -> Iterable[Audit]:
    audits = (audit_from(path.read_text()) for path in sorted(folder.glob("*.json")))
    return [audit for audit in audits if audit.paid.adapter_version == version]


def _measurements(folder: Path, name: str) -> list[Measurement]:
    """Reports of studies of the dataset with the adapter's name, by study."""
    found = []
    for path in sorted(folder.glob(f"{name}-*/fidelity.json")):
        report = _read(path)
        methods = report["served"]["methods"]
        lds = {
            method: (each["lds"]["value"], each["lds"]["low"], each["lds"]["high"])
            for method, each in methods.items()
            if method in MEASURED
        }
        found.append(Measurement(str(report["dataset"]), int(report["rows"]), lds))
    return found


def _pair(figure: Figure) -> list[float]:
    return [figure.mean, figure.half_width]


def markdown(card: Card) -> str:
    """The card as a page."""
    reliability = "not measured" if card.reliability is None else f"{card.reliability:.0%}"
    lines = [
        f"# {card.version}",
        "",
        f"* base model: {card.base_model}; owner: {card.owner}",
        f"* dataset: {card.dataset}, {sum(card.rows_by_contributor.values())} rows that teach, "
        f"{card.copies} left out as copies; licence: {', '.join(card.licences) or 'not said'}",
        f"* training loss, nats a token: {card.losses[0]:.2f} at first, {card.losses[1]:.2f} last",
        f"* index: {card.index}; contributors are scored by `{card.method}`, reliability under "
        f"other training orders: {reliability}",
        "",
        "| contributor | rows |",
        "|---|---|",
        *(f"| {who} | {rows} |" for who, rows in card.rows_by_contributor.items()),
        "",
        "## How true its shares are",
        "",
        *_truth(card),
    ]
    return "\n".join(lines) + "\n"


def _truth(card: Card) -> list[str]:
    lines = []
    if card.audits is None:
        lines.append("* No answer of this version was audited (`byline counterfactuals`).")
    else:
        rank, error = card.audits.rank_correlation, card.audits.payout_error
        lines.append(
            f"* {card.audits.audits} audits: contributors' ranks as paid and as retraining has "
            f"them correlate at {_told(rank)}; {_told(error)} of the pool would go elsewhere."
        )
    for each in card.measurements:
        figures = ", ".join(
            f"{method} {value:.2f} [{low:.2f}, {high:.2f}]"
            for method, (value, low, high) in each.lds.items()
        )
        lines.append(
            f"* LDS measured on {each.rows} rows of the dataset ({each.study}): {figures}."
        )
    if not card.measurements:
        lines.append("* Its dataset's fidelity was not measured here (`byline fidelity`).")
    lines.append(
        "* Retraining is the yardstick; causes beyond it are not shown by any figure here."
    )
    return lines


def _told(figure: Figure) -> str:
    return f"{figure.mean:.2f} ± {figure.half_width:.2f}"
