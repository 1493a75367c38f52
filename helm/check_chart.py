"""Checks the chart with the real helm: `python -m helm.check_chart`; one JSON object at the end.

Lints strictly, renders the defaults and some other choices, holds each manifest against the
Kubernetes schemas and against our own `rules`, and checks that bad values are refused. What no
program can show without an API server, such as an installation, is not shown here.
"""

import functools
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from helm.get_tools import ToolsUnavailable, get_tools
from helm.rules import Manifest, broken_rules, title

CHART = Path(__file__).parent
KUBERNETES_VERSION = "1.37"
HELM_SECONDS_MAX = 60.0
# Kinds without a schema would go unchecked: none is expected.
KINDS_WITHOUT_SCHEMA: frozenset[str] = frozenset()

RENDERINGS: Mapping[str, Mapping[str, Any]] = {
    "defaults": {},
    "gpu": {
        "engine": {
            "resources": {"limits": {"memory": "24Gi", "nvidia.com/gpu": 1}},
            "nodeSelector": {"accelerator": "nvidia"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
            "env": {"BYLINE_ENGINE_MAX_SEQUENCES": 256},
        }
    },
    "own ledger, own volume": {
        "redis": {"enabled": False},
        "home": {"existingClaim": "models"},
        "gateway": {"autoscaling": {"enabled": False}, "disruptionBudget": {"enabled": False}},
    },
    "closed": {
        "imagePullSecrets": [{"name": "pull"}],
        "home": {"storageClassName": "shared"},
        "redis": {"storage": {"storageClassName": "fast"}},
        "gateway": {"env": {"BYLINE_GATEWAY_LOG_LEVEL": "DEBUG"}},
        "networkPolicy": {
            "gatewayFrom": [{"namespaceSelector": {"matchLabels": {"name": "ingress"}}}],
            "metricsFrom": [{"podSelector": {"matchLabels": {"app": "prometheus"}}}],
            "tracesTo": [{"podSelector": {"matchLabels": {"app": "collector"}}}],
            "witnessesTo": [{"ipBlock": {"cidr": "192.0.2.0/24"}}],
        },
        "notary": {"origin": "log.example", "policy": "log log.example/usd+…\nquorum none\n"},
        "tracing": {"endpoint": "http://collector:4318"},
    },
    "bare": {
        "networkPolicy": {"enabled": False},
        "dashboards": {"enabled": False},
        "alerts": {"enabled": False},
    },
}
REFUSED: Mapping[str, Mapping[str, Any]] = {
    "an unknown value": {"gateway": {"replica": 3}},
    "an unknown part": {"auditors": {}},
    "a log without a name": {"notary": {"origin": ""}},
    "a password": {"ledgerSecret": {"password": "x"}},
    "the ledger's address": {"gateway": {"env": {"BYLINE_GATEWAY_REDIS_URL": "redis://x"}}},
    "another program's setting": {"worker": {"env": {"BYLINE_GATEWAY_PORT": "1"}}},
    "a container without a memory limit": {"engine": {"resources": {"limits": {"memory": None}}}},
    "no replicas": {"gateway": {"replicas": 0}},
}


class ChartBroken(Exception):
    """helm refused the chart or some values; its own words."""


@dataclass(frozen=True, slots=True)
class Helm:
    """The real helm, at one path."""

    path: Path

    def lint(self) -> None:
        """`helm lint --strict`. Raises ChartBroken."""
        self._run("lint", "--strict", str(CHART))

    def render(self, values: Mapping[str, Any]) -> list[Manifest]:
        """`helm template` with these values over the defaults. Raises ChartBroken."""
        arguments = ["template", "byline", str(CHART), "--namespace", "byline", "--values", "-"]
        text = self._run(*arguments, "--kube-version", KUBERNETES_VERSION, stdin=json.dumps(values))
        return [manifest for manifest in yaml.load_all(text, yaml.CSafeLoader) if manifest]

    def _run(self, *arguments: str, stdin: str = "") -> str:
        argv = [str(self.path), *arguments]
        done = subprocess.run(
            argv, input=stdin, capture_output=True, text=True, timeout=HELM_SECONDS_MAX, check=False
        )
        if done.returncode:
            raise ChartBroken(f"helm {arguments[0]}: {(done.stderr or done.stdout).strip()}")
        return done.stdout


def problems_of(manifests: Sequence[Manifest]) -> Iterator[str]:
    """What is wrong with one rendering: schemas first, then our own rules."""
    for manifest in manifests:
        try:
            _validate(json.dumps(manifest, sort_keys=True))
        except kubernetes_validate.ValidationError as problem:
            path = ".".join(str(part) for part in problem.path)
            yield f"{title(manifest)}: {path}: {problem.message}"
        except kubernetes_validate.SchemaNotFoundError as problem:
            if manifest["kind"] not in KINDS_WITHOUT_SCHEMA:
                yield f"{title(manifest)}: {problem.message}"
    yield from broken_rules(manifests)


@functools.cache  # most manifests are the same in every rendering, and a schema is slow to load
def _validate(manifest_json: str) -> None:
    kubernetes_validate.validate(json.loads(manifest_json), KUBERNETES_VERSION, strict=True)


def check(helm: Helm) -> dict[str, Any]:
    """Check everything; `problems` is empty where the chart is good."""
    began = time.monotonic()
    problems: list[str] = []
    counts = {}
    try:
        helm.lint()
    except ChartBroken as problem:
        problems.append(str(problem))
    for name, values in RENDERINGS.items():
        try:
            manifests = helm.render(values)
        except ChartBroken as problem:
            problems.append(f"{name}: {problem}")
            continue
        counts[name] = len(manifests)
        problems += [f"{name}: {found}" for found in problems_of(manifests)]
    for name, values in REFUSED.items():
        try:
            helm.render(values)
        except ChartBroken:
            continue
        problems.append(f"the schema of the values lets {name} pass")
    return {
        "problems": problems,
        "manifests": counts,
        "refused": len(REFUSED),
        "kubernetes": KUBERNETES_VERSION,
        "seconds": round(time.monotonic() - began, 2),
    }


def main() -> int:
    """Check, print the result as one JSON line, and answer the exit status."""
    try:
        report = check(Helm(get_tools()["helm"]))
    except ToolsUnavailable as problem:
        report = {"problems": [f"the chart was not checked: {problem}"]}
    for sentence in report["problems"]:
        sys.stderr.write(f"{sentence}\n")
    print(json.dumps(report))
    return 1 if report["problems"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
