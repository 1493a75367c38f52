"""The gateways we stand beside: where each is installed, and how it is started with one process.

All of them in their plainest form: no keys, no budgets, no database. `make peers` installs them
outside the repository; what is not there is left out of the comparison, with its why.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from loadtests.gateway_bench.upstream import MODEL

PEERS = Path.home() / ".cache" / "byline-peers"
NATIVE, LITELLM, PORTKEY = PEERS / "native", PEERS / "litellm", PEERS / "portkey"

NGINX = """daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr crit;
events {{ worker_connections 1024; }}
http {{ access_log off; client_body_temp_path {folder}/bodies; proxy_temp_path {folder}/proxied;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  keepalive_requests 100000000;
  upstream engine {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 100000000; }}
  server {{ listen 127.0.0.1:{port};
    location / {{ proxy_pass http://engine; proxy_http_version 1.1; proxy_buffering off;
      proxy_set_header Connection ""; }} }} }}
"""
ENVOY = """static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network\
.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          route_config:
            virtual_hosts:
            - {{name: all, domains: ["*"], routes: [{{match: {{prefix: /}},
                route: {{cluster: engine, timeout: 0s}}}}]}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters:
  - name: engine
    load_assignment: {{cluster_name: engine, endpoints: [{{lb_endpoints: [{{endpoint: {{address:
      {{socket_address: {{address: 127.0.0.1, port_value: {upstream}}}}}}}}}]}}]}}
"""
LITELLM_CONFIG = """model_list:
- model_name: {model}
  litellm_params:
    {{model: openai/{model}, api_base: "http://127.0.0.1:{upstream}/v1", api_key: none}}
"""
TENSORZERO_CONFIG = """[models.{model}]
routing = ["engine"]
[models.{model}.providers.engine]
type = "openai"
model_name = "{model}"
api_base = "http://127.0.0.1:{upstream}/v1/"
api_key_location = "none"
[gateway]
observability.enabled = false
"""
# Its gateway runs inside a Python process; its address is known when it has started.
TENSORZERO_PROGRAM = """import sys, time, openai, tensorzero
client = tensorzero.patch_openai_client(
    openai.OpenAI(api_key="none"), config_file=sys.argv[1], async_setup=False)
print("ADDRESS", str(client.base_url).split("/openai")[0], flush=True)
time.sleep(1_000_000)
"""


@dataclass(frozen=True, slots=True)
class Command:
    """How one peer is started, and how it is asked."""

    argv: list[str]
    env: Mapping[str, str] = field(default_factory=dict)  # beside this process's
    path: str = "/v1/chat/completions"
    model: str = MODEL
    headers: Mapping[str, str] = field(default_factory=dict)
    says_address: bool = False  # in its output, after the word ADDRESS


@dataclass(frozen=True, slots=True)
class Peer:
    """A gateway that others wrote."""

    name: str
    program: Callable[[], Path | None]  # None: not installed
    command: Callable[[Path, Path, int, int], Command]  # program, folder, port, upstream's port


def _nginx(program: Path, folder: Path, port: int, upstream: int) -> Command:
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port, upstream=upstream))
    return Command([str(program), "-c", str(config), "-p", str(folder), "-e", "stderr"])


def _envoy(program: Path, folder: Path, port: int, upstream: int) -> Command:
    config = folder / "envoy.yaml"
    config.write_text(ENVOY.format(port=port, upstream=upstream))
    options = ["--concurrency", "1", "--log-level", "error", "--disable-hot-restart"]
    return Command([str(program), "-c", str(config), *options])


def _vllm_router(program: Path, folder: Path, port: int, upstream: int) -> Command:
    worker = f"http://127.0.0.1:{upstream}"
    where = ["--host", "127.0.0.1", "--port", str(port), "--log-dir", str(folder)]
    options = ["--worker-urls", worker, "--policy", "round_robin", "--log-level", "error"]
    # Its metrics' port has a default of its own, which another run may have.
    return Command([str(program), *where, *options, "--prometheus-port", str(port + 1_000)])


def _tensorzero(program: Path, folder: Path, _port: int, upstream: int) -> Command:
    config, script = folder / "tensorzero.toml", folder / "tensorzero_gateway.py"
    config.write_text(TENSORZERO_CONFIG.format(model=MODEL, upstream=upstream))
    script.write_text(TENSORZERO_PROGRAM)
    return Command(
        [str(program), str(script), str(config)],
        path="/openai/v1/chat/completions",
        model=f"tensorzero::model_name::{MODEL}",
        says_address=True,
    )


def _portkey(program: Path, _folder: Path, port: int, upstream: int) -> Command:
    node = shutil.which("node")
    assert node is not None
    return Command(
        [node, str(program), f"--port={port}", "--headless"],
        headers={
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": f"http://127.0.0.1:{upstream}/v1",
            "authorization": "Bearer none",
        },
    )


def _litellm(program: Path, folder: Path, port: int, upstream: int) -> Command:
    config = folder / "litellm.yaml"
    config.write_text(LITELLM_CONFIG.format(model=MODEL, upstream=upstream))
    options = ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    env = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        "LITELLM_LOG": "ERROR",
    }
    return Command([str(program), "--config", str(config), *options], env)


def _file(path: Path) -> Callable[[], Path | None]:
    return lambda: path if path.exists() else None


def _nginx_program() -> Path | None:
    found = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    return Path(found) if found else None


def _tensorzero_program() -> Path | None:
    installed = list(NATIVE.glob("lib/python3*/site-packages/tensorzero"))
    return NATIVE / "bin" / "python" if installed else None


def _portkey_program() -> Path | None:
    script = PORTKEY / "node_modules/@portkey-ai/gateway/build/start-server.js"
    return script if script.exists() and shutil.which("node") else None


ALL = (
    Peer("nginx", _nginx_program, _nginx),
    Peer("envoy", _file(NATIVE / "bin" / "envoy"), _envoy),
    Peer("vllm_router", _file(NATIVE / "bin" / "vllm-router"), _vllm_router),
    Peer("tensorzero", _tensorzero_program, _tensorzero),
    Peer("portkey", _portkey_program, _portkey),
    Peer("litellm", _file(LITELLM / "bin" / "litellm"), _litellm),
)
