"""Installs the real clients, each by itself, in a cache folder outside the repository.

    python -m tests.clients.installing

Two major versions of one package can't share an environment, so each set lies in a folder of its
own, named after its pins: installed once, kept between runs, replaced when a pin changes. Says in
one line a set what it did or why it could not; the tests of a set that is not there are skipped.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("BYLINE_CLIENTS") or Path.home() / ".cache" / "byline-clients")
SECONDS_MAX = 600.0


@dataclass(frozen=True)
class ClientSet:
    """Some packages that are installed together."""

    name: str
    pins: Path  # the file that decides what is installed

    @property
    def folder(self) -> Path:
        """Where it lies once it is installed whole."""
        return CACHE / f"{self.name}-{hashlib.sha256(self.pins.read_bytes()).hexdigest()[:12]}"

    def install(self, folder: Path) -> None:
        """Install it into an empty folder."""
        if self.pins.suffix == ".txt":
            _run(sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check",
                 "--no-deps", "--target", str(folder), "-r", str(self.pins))  # fmt: skip
            return
        for name in ("package.json", "package-lock.json"):
            shutil.copy(self.pins.parent / name, folder)
        _run("npm", "ci", "--no-audit", "--no-fund", "--prefix", str(folder))


OPENAI_2 = ClientSet("openai-2", HERE / "lists" / "openai_2.txt")
LANGCHAIN = ClientSet("langchain", HERE / "lists" / "langchain.txt")
LLAMA_INDEX = ClientSet("llama-index", HERE / "lists" / "llama_index.txt")
NODE = ClientSet("node", HERE / "node" / "package-lock.json")
SCHEMATHESIS = ClientSet("schemathesis", HERE / "lists" / "schemathesis.txt")
SETS = (OPENAI_2, LANGCHAIN, LLAMA_INDEX, NODE, SCHEMATHESIS)


def ensure(wanted: ClientSet) -> str:
    """Install a set unless it is there; answers what was done."""
    if wanted.folder.is_dir():
        return "is there"
    partial = CACHE / f".{wanted.folder.name}.{os.getpid()}"
    partial.mkdir(parents=True)
    try:
        wanted.install(partial)
        os.replace(partial, wanted.folder)
    except (OSError, subprocess.SubprocessError) as problem:
        return f"not installed: {_why(problem)}"
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    for older in CACHE.glob(f"{wanted.name}-{'?' * 12}"):
        if older != wanted.folder:
            shutil.rmtree(older)
    return "installed"


def _run(*words: str) -> None:
    subprocess.run(
        words, check=True, timeout=SECONDS_MAX, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def _why(problem: Exception) -> str:
    said = getattr(problem, "stderr", None)
    lines = said.strip().splitlines() if isinstance(said, str) else []
    return next((line for line in lines if "error" in line.lower()), str(problem))


if __name__ == "__main__":
    for each in SETS:
        print(f"{each.name}: {ensure(each)}", flush=True)
