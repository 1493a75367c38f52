"""The chart renders with the real helm, and the rules that guard it notice what breaks them."""

import copy
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic_settings import BaseSettings
from uuid_utils import uuid7

from byline.archive.settings import ArchiveSettings
from byline.bookkeeping.settings import BookkeeperSettings
from byline.errors import LedgerMisconfigured
from byline.ledger.ledger import Ledger
from byline.notary.settings import NotarySettings
from byline.redis_server import bundled_server, stop
from gateway.settings import GatewaySettings
from helm.check_chart import RENDERINGS, Helm, check, problems_of
from helm.get_tools import get_tools
from helm.rules import WORKLOADS, broken_rules, title
from serving.settings import AuditorSettings, EngineSettings, WorkerSettings

pytestmark = pytest.mark.slow  # the first run fetches helm, 38 MB
Manifests = list[dict[str, Any]]


@pytest.fixture(scope="module")
def helm() -> Helm:
    """The real helm; where it can't be fetched, these tests fail with the reason."""
    return Helm(get_tools()["helm"])


@pytest.fixture(scope="module")
def rendered(helm: Helm) -> Manifests:
    """The chart with its default values."""
    return [dict(manifest) for manifest in helm.render({})]


def pod_of(manifests: Manifests, name: str) -> dict[str, Any]:
    """The pod of one workload."""
    workload = next(m for m in manifests if title(m) == name)
    pod: dict[str, Any] = workload["spec"]["template"]["spec"]
    return pod


def volume_of(manifests: Manifests, workload: str, name: str) -> dict[str, Any]:
    """One volume of a workload's pod."""
    volumes: list[dict[str, Any]] = pod_of(manifests, workload)["volumes"]
    return next(volume for volume in volumes if volume["name"] == name)


def policy_of(manifests: Manifests, name: str) -> dict[str, Any]:
    """The specification of one network policy."""
    policy = next(m for m in manifests if title(m) == f"NetworkPolicy/{name}")
    found: dict[str, Any] = policy["spec"]
    return found


def test_the_chart_has_no_problems(helm: Helm) -> None:
    report = check(helm)
    assert report["problems"] == []
    assert report["manifests"].keys() == RENDERINGS.keys()


def test_a_field_that_kubernetes_does_not_know_is_a_problem(rendered: Manifests) -> None:
    manifests = copy.deepcopy(rendered)
    pod_of(manifests, "Deployment/byline-gateway")["containers"][0]["livelinessProbe"] = {}
    assert any("livelinessProbe" in problem for problem in problems_of(manifests))


def test_a_kind_without_a_schema_is_a_problem(rendered: Manifests) -> None:
    unknown = {"apiVersion": "x.example/v1", "kind": "Unknown", "metadata": {"name": "x"}}
    assert any("Couldn't find schema" in problem for problem in problems_of([*rendered, unknown]))


BREAKS: dict[str, tuple[str, Callable[[Manifests], object]]] = {
    "a container without a probe": (
        "has no readinessProbe",
        lambda m: pod_of(m, "StatefulSet/byline-engine")["containers"][0].pop("readinessProbe"),
    ),
    "a container without a limit": (
        "has no memory limit",
        lambda m: pod_of(m, "Deployment/byline-worker")["containers"][0].pop("resources"),
    ),
    "a writable image": (
        "readOnlyRootFilesystem",
        lambda m: pod_of(m, "StatefulSet/byline-redis")["containers"][0].pop("securityContext"),
    ),
    "an image without a tag": (
        "without a tag",
        lambda m: pod_of(m, "StatefulSet/byline-engine")["containers"][0].update(image="engine"),
    ),
    "root": (
        "may run as root",
        lambda m: pod_of(m, "Deployment/byline-gateway").update(securityContext={}),
    ),
    "service links": (
        "enableServiceLinks is not off",
        lambda m: pod_of(m, "Deployment/byline-gateway").pop("enableServiceLinks"),
    ),
    "a password in a manifest": (
        "holds a password",
        lambda m: pod_of(m, "Deployment/byline-gateway")["containers"][0]["env"].append(
            {"name": "X", "value": "redis://:hunter2@ledger:6379/0"}
        ),
    ),
    "a secret as a plain value": (
        "is not taken from a Secret",
        lambda m: pod_of(m, "Deployment/byline-gateway")["containers"][0]["env"].append(
            {"name": "X_PASSWORD", "value": "hunter2"}
        ),
    ),
    "a missing volume": (
        "mounts tmp",
        lambda m: pod_of(m, "Deployment/byline-gateway").update(volumes=[]),
    ),
    "a grace period that is too short": (
        "is killed before",
        lambda m: pod_of(m, "Deployment/byline-gateway").update(terminationGracePeriodSeconds=300),
    ),
    "an engine that everybody reaches": (
        "engine may be reached by ['anyone'],",
        lambda m: policy_of(m, "byline-engine")["ingress"][0].pop("from"),
    ),
    "a ledger that the engine reaches": (
        "redis may be reached by ['anyone', 'archive', 'auditor', 'bookkeeper', 'gateway', 'n",
        lambda m: policy_of(m, "byline-redis")["ingress"][0]["from"].append(
            {"namespaceSelector": {}}
        ),
    ),
    "a pod without a policy": (
        "has no network policy",
        lambda m: policy_of(m, "byline-worker")["policyTypes"].remove("Egress"),
    ),
    "the log's keys on a volume that others have": (
        "Deployment/byline-gateway has the volume of the log's keys",
        lambda m: volume_of(m, "Deployment/byline-notary", "keys").update(
            volume_of(m, "Deployment/byline-gateway", "home"), name="keys"
        ),
    ),
    "the log's keys on no volume": (
        "has no volume for /var/lib/byline/notary",
        lambda m: volume_of(m, "Deployment/byline-notary", "keys").update(name="other"),
    ),
    "a gateway that is the notary's user": (
        "Deployment/byline-gateway runs as the notary's user",
        lambda m: pod_of(m, "Deployment/byline-gateway")["securityContext"].update(runAsUser=10002),
    ),
    "two of one name": ("is there twice", lambda m: m.append(m[0])),
}


@pytest.mark.parametrize("name", BREAKS)
def test_the_rules_notice(name: str, rendered: Manifests) -> None:
    says, break_it = BREAKS[name]
    manifests = copy.deepcopy(rendered)
    assert broken_rules(manifests) == []
    break_it(manifests)
    assert any(says in sentence for sentence in broken_rules(manifests)), broken_rules(manifests)


def test_every_setting_that_the_chart_makes_is_one_that_a_program_reads(
    rendered: Manifests,
) -> None:
    """A misspelt name would be ignored, and the program would keep its default."""
    classes: dict[str, type[BaseSettings]] = {
        "GATEWAY": GatewaySettings,
        "ENGINE": EngineSettings,
        "WORKER": WorkerSettings,
        "AUDITOR": AuditorSettings,
        "ARCHIVE": ArchiveSettings,
        "BOOKKEEPER": BookkeeperSettings,
        "NOTARY": NotarySettings,
    }
    for manifest in rendered:
        if manifest["kind"] not in WORKLOADS:
            continue
        (container,) = pod_of(rendered, title(manifest))["containers"]
        settings = classes.get(container["name"].upper())
        if settings is None:
            assert container["name"] == "redis"
            continue
        prefix = f"BYLINE_{container['name'].upper()}_"
        made = {v["name"].removeprefix(prefix).lower() for v in container["env"]}
        assert made - {"ledger_password", "home", "user", "hf_hub_offline"} <= set(
            settings.model_fields
        )


def test_the_gateway_knows_every_engine_by_a_name_of_its_own(helm: Helm) -> None:
    manifests = [dict(manifest) for manifest in helm.render({"engine": {"replicas": 3}})]
    (gateway,) = pod_of(manifests, "Deployment/byline-gateway")["containers"]
    env = {variable["name"]: variable.get("value", "") for variable in gateway["env"]}
    service = next(m for m in manifests if title(m) == "Service/byline-engines")
    assert service["spec"]["clusterIP"] == "None"
    engines = next(m for m in manifests if title(m) == "StatefulSet/byline-engine")
    assert engines["spec"]["serviceName"] == "byline-engines"
    assert env["BYLINE_GATEWAY_ENGINE_URLS"].split(",") == [
        f"http://byline-engine-{number}.byline-engines:8081" for number in range(3)
    ]


def test_there_is_one_notary_at_a_time_and_only_it_writes_the_log(
    helm: Helm, rendered: Manifests
) -> None:
    workload = next(m for m in rendered if title(m) == "Deployment/byline-notary")
    assert (workload["spec"]["replicas"], workload["spec"]["strategy"]["type"]) == (1, "Recreate")
    for manifest in rendered:
        if manifest["kind"] not in WORKLOADS or title(manifest) == "Deployment/byline-notary":
            continue
        for container in pod_of(rendered, title(manifest))["containers"]:
            writable = {
                m.get("subPath") for m in container["volumeMounts"] if not m.get("readOnly")
            }
            assert not writable & {"log", "openings"}, title(manifest)
    closed = [dict(manifest) for manifest in helm.render(RENDERINGS["closed"])]
    (container,) = pod_of(closed, "Deployment/byline-notary")["containers"]
    env = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert env["BYLINE_NOTARY_POLICY"] == "/etc/byline/policy"
    policy = next(m for m in closed if title(m) == "ConfigMap/byline-notary-policy")
    assert policy["data"] == {"policy": RENDERINGS["closed"]["notary"]["policy"]}


def test_the_auditor_reaches_its_engine_and_writes_records_pauses_and_tokens_alone(
    rendered: Manifests,
) -> None:
    workload = next(m for m in rendered if title(m) == "Deployment/byline-auditor")
    notes = workload["spec"]["template"]["metadata"]["annotations"]
    (container,) = pod_of(rendered, title(workload))["containers"]
    env = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert env["BYLINE_AUDITOR_ENGINE_URL"] == "http://byline-engine-0.byline-engines:8081"
    assert notes["prometheus.io/port"] == env["BYLINE_AUDITOR_METRICS_PORT"] == "8087"
    mounts = {m["mountPath"].removeprefix("/var/lib/byline"): m for m in container["volumeMounts"]}
    writable = {path for path, mount in mounts.items() if not mount.get("readOnly")}
    assert writable == {"/artifacts/served", "/audits", "/payment", "/tmp"}
    assert all(mounts[path]["subPath"] == path[1:] for path in writable - {"/tmp"})
    egress = policy_of(rendered, "byline-auditor")["egress"]
    assert {8081, 6379} <= {port["port"] for rule in egress for port in rule["ports"]}


def test_traces_are_sent_where_the_values_say_and_nowhere_by_default(
    helm: Helm, rendered: Manifests
) -> None:
    closed = [dict(manifest) for manifest in helm.render(RENDERINGS["closed"])]
    for manifests, endpoint in ((rendered, None), (closed, "http://collector:4318")):
        (container,) = pod_of(manifests, "Deployment/byline-gateway")["containers"]
        env = {variable["name"]: variable.get("value") for variable in container["env"]}
        assert env.get("OTEL_EXPORTER_OTLP_ENDPOINT") == endpoint
        egress = policy_of(manifests, "byline-gateway")["egress"]
        ports = {port["port"] for rule in egress for port in rule["ports"]}
        assert (4318 in ports) == (endpoint is not None)


def test_the_dashboard_and_the_alerts_are_in_the_chart_byte_for_byte(rendered: Manifests) -> None:
    folder = Path(__file__).parents[2] / "helm/dashboards"
    data = {title(m): m["data"] for m in rendered if m["kind"] == "ConfigMap"}
    dashboard = data["ConfigMap/byline-dashboard"]["byline.json"]
    assert dashboard.strip() == (folder / "byline.json").read_text().strip()
    alerts = data["ConfigMap/byline-alerts"]["byline.yaml"]
    assert alerts.strip() == (folder / "alerts.yaml").read_text().strip()


async def test_the_ledger_accepts_the_server_as_the_chart_starts_it(
    rendered: Manifests, tmp_path: Path
) -> None:
    """The chart's own script and configuration on a real server: strangers out, money safe."""
    data = next(m["data"] for m in rendered if title(m) == "ConfigMap/byline-redis")
    (tmp_path / "valkey-server").symlink_to(bundled_server())
    socket = tmp_path / "s"
    config = data["server.conf"].replace("port 6379", f"port 0\nunixsocket {socket}")
    (tmp_path / "server.conf").write_text(config.replace("/data", str(tmp_path)))
    script = data["start.sh"].replace("/etc/ledger", str(tmp_path))
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "LEDGER_PASSWORD": "p4ss"}
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(["sh", "-c", script], env=env, stdout=log, stderr=log)
    try:
        wait_until_it_listens(socket)
        with pytest.raises(LedgerMisconfigured, match="Authentication required"):
            await Ledger.open(f"unix://{socket}")
        ledger = await Ledger.open(f"unix://:p4ss@{socket}")
        await ledger.deposit(str(uuid7()), "shop", 5, time_ms=time.time_ns() // 1_000_000)
        assert await ledger.balance("app:shop") == 5
        await ledger.close()
    finally:
        stop(server)


def wait_until_it_listens(socket: Path) -> None:
    """Return once the server's socket is there."""
    deadline = time.monotonic() + 10
    while not socket.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
