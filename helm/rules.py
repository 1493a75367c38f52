"""What every rendered manifest of the chart must keep, beyond being valid: our own rules.

Each rule takes the whole rendering and yields sentences about what breaks it.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Manifest = Mapping[str, Any]
Rule = Callable[[Sequence[Manifest]], Iterator[str]]

WORKLOADS = ("Deployment", "StatefulSet")
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
SECRET_NAME = re.compile(r"PASSWORD|SECRET|TOKEN|AUTH|API_KEY")
COMPONENT = "app.kubernetes.io/component"
NOTARY = "Deployment/byline-notary"
LOG_KEYS = "/var/lib/byline/notary"


def broken_rules(manifests: Sequence[Manifest]) -> list[str]:
    """Every sentence of every rule; empty is good."""
    rules: tuple[Rule, ...] = (
        names_are_unique,
        containers_are_probed_and_bounded,
        containers_are_confined,
        pods_are_confined,
        secrets_come_by_reference,
        references_exist,
        services_reach_pods,
        the_network_is_closed,
        the_logs_keys_are_the_notarys,
        a_stopping_pod_has_time_to_drain,
    )
    return [sentence for rule in rules for sentence in rule(manifests)]


def names_are_unique(manifests: Sequence[Manifest]) -> Iterator[str]:
    """No two manifests of one kind have one name."""
    seen = set()
    for manifest in manifests:
        if title(manifest) in seen:
            yield f"{title(manifest)} is there twice"
        seen.add(title(manifest))


def containers_are_probed_and_bounded(manifests: Sequence[Manifest]) -> Iterator[str]:
    """Each container has its three probes, requests, a memory limit and a pinned image."""
    for name, container in _containers(manifests):
        for probe in PROBES:
            if probe not in container:
                yield f"{name} has no {probe}"
        resources = container.get("resources", {})
        if not {"cpu", "memory"} <= resources.get("requests", {}).keys():
            yield f"{name} does not request cpu and memory"
        if "memory" not in resources.get("limits", {}):
            yield f"{name} has no memory limit"
        tag = container["image"].rpartition("/")[2].rpartition(":")[2]
        if tag in (container["image"], "", "latest"):
            yield f"{name} runs an image without a tag of its own: {container['image']}"


def containers_are_confined(manifests: Sequence[Manifest]) -> Iterator[str]:
    """No container can write its image, gain rights or keep a capability."""
    for name, container in _containers(manifests):
        security = container.get("securityContext", {})
        expected = {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        }
        for key, value in expected.items():
            if security.get(key) != value:
                yield f"{name}: securityContext.{key} is not {value}"


def pods_are_confined(manifests: Sequence[Manifest]) -> Iterator[str]:
    """No pod runs as root, without seccomp, with an API token or with service links."""
    for name, pod in _pods(manifests):
        security = pod.get("securityContext", {})
        if not (security.get("runAsNonRoot") and security.get("runAsUser", 0) > 0):
            yield f"{name} may run as root"
        if security.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{name} has no seccomp profile"
        for switch in ("automountServiceAccountToken", "enableServiceLinks"):
            if pod.get(switch) is not False:
                yield f"{name}: {switch} is not off"


def secrets_come_by_reference(manifests: Sequence[Manifest]) -> Iterator[str]:
    """No manifest holds a secret, and each address with a password takes it from a Secret."""
    for manifest in manifests:
        if manifest["kind"] == "Secret":
            yield f"{title(manifest)} would put a secret into the rendering"
    for name, container in _containers(manifests):
        for variable in container.get("env", ()):
            value = variable.get("value", "")
            if SECRET_NAME.search(variable["name"]) and "valueFrom" not in variable:
                yield f"{name}: {variable['name']} is not taken from a Secret"
            if re.search(r"://[^/@]*:(?!\$\()[^/@]*@", value):
                yield f"{name}: {variable['name']} holds a password"


def references_exist(manifests: Sequence[Manifest]) -> Iterator[str]:
    """Each ConfigMap, service account and mounted volume is there."""
    titles = {title(manifest) for manifest in manifests}
    for name, pod in _pods(manifests):
        if f"ServiceAccount/{pod['serviceAccountName']}" not in titles:
            yield f"{name} names a service account that is not there"
        volumes = {volume["name"]: volume for volume in pod.get("volumes", ())}
        for volume in volumes.values():
            source = volume.get("configMap")
            if source and f"ConfigMap/{source['name']}" not in titles:
                yield f"{name} names a ConfigMap that is not there: {source['name']}"
        claimed = _claim_templates(manifests, name)
        for container in pod["containers"]:
            for mount in container.get("volumeMounts", ()):
                if mount["name"] not in volumes.keys() | claimed:
                    yield f"{name} mounts {mount['name']}, which is not there"


def services_reach_pods(manifests: Sequence[Manifest]) -> Iterator[str]:
    """Each Service selects one workload, and its target port is one of that workload's."""
    for service in _of_kind(manifests, "Service"):
        selected = [
            manifest
            for manifest in _of_kind(manifests, *WORKLOADS)
            if service["spec"]["selector"].items() <= _pod_labels(manifest).items()
        ]
        if len(selected) != 1:
            yield f"{title(service)} selects {len(selected)} workloads"
            continue
        containers = selected[0]["spec"]["template"]["spec"]["containers"]
        ports = {port["name"] for container in containers for port in container["ports"]}
        for port in service["spec"]["ports"]:
            if port["targetPort"] not in ports:
                yield f"{title(service)} targets {port['targetPort']}, which nobody opens"


def the_network_is_closed(manifests: Sequence[Manifest]) -> Iterator[str]:
    """Where there are policies, each pod has one, and engine and ledger have only their callers."""
    policies = {
        policy["spec"]["podSelector"]["matchLabels"][COMPONENT]: policy["spec"]
        for policy in _of_kind(manifests, "NetworkPolicy")
    }
    if not policies:
        return
    for manifest in _of_kind(manifests, *WORKLOADS):
        component = _pod_labels(manifest)[COMPONENT]
        if set(policies.get(component, {}).get("policyTypes", ())) != {"Ingress", "Egress"}:
            yield f"{title(manifest)} has no network policy for both directions"
    ledger_callers = {"gateway", "worker", "archive", "bookkeeper", "notary", "auditor"}
    engine_callers = {"gateway", "auditor"}
    for component, callers in (("engine", engine_callers), ("redis", ledger_callers)):
        found = _callers(policies[component]) if component in policies else callers
        if found != callers:
            yield f"{component} may be reached by {sorted(found)}, not only {sorted(callers)}"


def the_logs_keys_are_the_notarys(manifests: Sequence[Manifest]) -> Iterator[str]:
    """What signs the log lies on a claim that no other pod has, for a user that none runs as."""
    pods = dict(_pods(manifests))
    notary = pods.pop(NOTARY)
    (container,) = notary["containers"]
    keys = [m["name"] for m in container["volumeMounts"] if m["mountPath"] == LOG_KEYS]
    claims = [_claim(volume) for volume in notary["volumes"] if volume["name"] in keys]
    if not claims:
        yield f"{NOTARY} has no volume for {LOG_KEYS}"
    for name, pod in pods.items():
        if {_claim(volume) for volume in pod.get("volumes", ())} & set(claims):
            yield f"{name} has the volume of the log's keys"
        if _user(pod) == _user(notary):
            yield f"{name} runs as the notary's user"


def a_stopping_pod_has_time_to_drain(manifests: Sequence[Manifest]) -> Iterator[str]:
    """A gateway's grace period covers its pause, its answers and its captures."""
    for name, pod in _pods(manifests):
        for container in pod["containers"]:
            pause = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {})
            env = {variable["name"]: variable.get("value") for variable in container["env"]}
            shutdown = int(env.get("BYLINE_GATEWAY_SHUTDOWN_SECONDS") or 0)
            needed = pause.get("seconds", 0) + 2 * shutdown
            if pod["terminationGracePeriodSeconds"] <= needed:
                yield f"{name} is killed before its {needed} s of draining are over"


def title(manifest: Manifest) -> str:
    """`Kind/name`."""
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def _of_kind(manifests: Sequence[Manifest], *kinds: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def _pods(manifests: Sequence[Manifest]) -> Iterator[tuple[str, Manifest]]:
    for manifest in _of_kind(manifests, *WORKLOADS):
        yield title(manifest), manifest["spec"]["template"]["spec"]


def _pod_labels(workload: Manifest) -> Mapping[str, str]:
    labels: Mapping[str, str] = workload["spec"]["template"]["metadata"]["labels"]
    return labels


def _containers(manifests: Sequence[Manifest]) -> Iterator[tuple[str, Manifest]]:
    for name, pod in _pods(manifests):
        for container in [*pod["containers"], *pod.get("initContainers", ())]:
            yield f"{name}/{container['name']}", container


def _claim(volume: Mapping[str, Any]) -> str | None:
    name: str | None = volume.get("persistentVolumeClaim", {}).get("claimName")
    return name


def _user(pod: Manifest) -> int | None:
    user: int | None = pod.get("securityContext", {}).get("runAsUser")
    return user


def _claim_templates(manifests: Sequence[Manifest], workload: str) -> set[str]:
    return {
        template["metadata"]["name"]
        for manifest in manifests
        if title(manifest) == workload
        for template in manifest["spec"].get("volumeClaimTemplates", ())
    }


def _callers(policy: Mapping[str, Any]) -> set[str]:
    """The components a policy lets in; `anyone` for whatever is not one of ours."""
    callers = set()
    for rule in policy["ingress"]:
        for peer in rule.get("from") or [{}]:
            selector = peer.get("podSelector", {}) if peer.keys() == {"podSelector"} else {}
            callers.add(selector.get("matchLabels", {}).get(COMPONENT, "anyone"))
    return callers
