"""Write requirements/*.txt anew: resolve pyproject's extras with pip, keep `name==version` lines.

    python requirements/pin.py            (in a throw-away virtual environment)

Each list is complete, so `pip install --no-deps -r` installs exactly it. torchvision, torchaudio
and torchcodec are left out of the CPU list on purpose: the engine asks for them, only CUDA builds
exist, and torchvision without CUDA breaks `import transformers`. triton is 1 GB that a CPU never
uses. No address gets into a list.
"""

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.utils import canonicalize_name

HERE = Path(__file__).parent
LEFT_OUT_OF_CPU = {"torchvision", "torchaudio", "torchcodec", "triton"}
BUILD = ["hatchling==1.28.0", "editables"]


def resolve(wanted: Iterable[str], *, wheels_here: bool = True) -> dict[str, str]:
    """What pip would install for these requirements: canonical name -> version.

    `wheels_here=False` overlooks wheels that this machine offers by itself: a CPU build of torch
    would hide the CUDA packages that a GPU needs.
    """
    environment = dict(os.environ)
    if not wheels_here:
        environment.pop("PIP_FIND_LINKS", None)
        environment["PIP_CONFIG_FILE"] = os.devnull
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"]
        subprocess.run(
            [*command, "-qq", "--report", str(report), *wanted], check=True, env=environment
        )
        installs = json.loads(report.read_text())["install"]
    return {
        canonicalize_name(item["metadata"]["name"]): item["metadata"]["version"].split("+")[0]
        for item in installs
    }


def write(name: str, pins: dict[str, str], without: Iterable[str] = ()) -> None:
    """One list, sorted, without what another list already has."""
    skip = set(without)
    lines = [f"{package}=={pins[package]}\n" for package in sorted(pins) if package not in skip]
    (HERE / f"{name}.txt").write_text("".join(lines))
    print(f"{name}: {len(lines)} packages")


def main() -> None:
    """Resolve what the CPU machine gets in one go, so that the lists agree with each other."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    everything = resolve([*project["dependencies"], *extras["cpu"], *extras["dev"]])
    pinned = [f"{name}=={version}" for name, version in everything.items()]
    gateway = set(resolve([_pinned(line, pinned) for line in project["dependencies"]]))
    engine = set(resolve([*project["dependencies"], *extras["cpu"]]))
    write("gateway", {name: everything[name] for name in gateway})
    write("cpu", {name: everything[name] for name in engine}, gateway | LEFT_OUT_OF_CPU)
    write("dev", everything, engine | gateway | LEFT_OUT_OF_CPU)
    write("gpu", resolve([*project["dependencies"], *extras["gpu"]], wheels_here=False), gateway)
    write("build", resolve(BUILD), gateway)


def _pinned(line: str, pins: list[str]) -> str:
    name = canonicalize_name(Requirement(line).name)
    return next(pin for pin in pins if pin.startswith(f"{name}=="))


if __name__ == "__main__":
    main()
