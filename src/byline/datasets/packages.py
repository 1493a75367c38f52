"""Where an installed data package lies. Its code is never imported: only its files are read."""

from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from byline.errors import StartFailed


@dataclass(frozen=True, slots=True)
class InstalledPackage:
    """One installed distribution that carries data files."""

    name: str
    version: str
    folder: Path

    def read_text(self, relative: str) -> str:
        """One data file as text. Raises StartFailed if this version does not have it."""
        path = self.folder / relative
        try:
            return path.read_text(encoding="utf-8")
        except OSError as problem:
            raise StartFailed(
                f"{self.name} {self.version} can't give {relative} ({problem}): run `make install`"
            ) from problem


def find_package(name: str) -> InstalledPackage:
    """The installed package `name`. Raises StartFailed if it is not installed."""
    spec = util.find_spec(name)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders:
        raise StartFailed(f"the data package '{name}' is not installed: run `make install`")
    return InstalledPackage(name, metadata.version(name), Path(folders[0]))


def read_licence(package: InstalledPackage, relative: str) -> str:
    """A licence file of the package's own metadata. Raises StartFailed if it is not there."""
    text = metadata.distribution(package.name).read_text(relative)
    if text is None:
        raise StartFailed(f"{package.name} came without {relative}: run `make install`")
    return text
