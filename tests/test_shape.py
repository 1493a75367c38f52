"""The house keeps its shape: sizes stay small; what stands above a bound is named with a reason."""

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PARTS = ("src", "gateway", "serving", "helm", "loadtests", "requirements")
FILE_LINES_MAX, TEST_FILE_LINES_MAX, FUNCTION_LINES_MAX = 400, 600, 50
# path or path:function -> why it may stand above the bound
ABOVE: dict[str, str] = {}
FORBIDDEN_NAMES = {"utils", "helpers", "common", "core", "manager", "misc"}
# Where a bug must neither reach a client nor end the program: each logs it.
# The two outermost places, and where a bug would leave a client's money held.
BROAD_EXCEPTS = ["gateway/charging.py", "gateway/middleware.py", "serving/worker.py"]


def tracked(*suffixes: str) -> list[Path]:
    """Files that git tracks or would track, by suffix."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [ROOT / name for name in names.splitlines()]
    return [path for path in paths if path.suffix in suffixes and path.is_file()]


def sources() -> list[Path]:
    return [path for path in tracked(".py") if path.relative_to(ROOT).parts[0] in PARTS]


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def lines_of(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_no_file_is_too_long_to_read_in_one_sitting() -> None:
    too_long = {
        str(path.relative_to(ROOT)): lines_of(path)
        for path in tracked(".py", ".lua")
        if lines_of(path) > (TEST_FILE_LINES_MAX if "tests" in path.parts else FILE_LINES_MAX)
    }
    assert not {name: lines for name, lines in too_long.items() if name not in ABOVE}


def test_no_function_is_longer_than_a_screen() -> None:
    too_long = {
        f"{path.relative_to(ROOT)}:{function.name}": (function.end_lineno or 0) - function.lineno
        for path in sources()
        for function in functions(path)
        if (function.end_lineno or 0) - function.lineno >= FUNCTION_LINES_MAX
    }
    assert not {name: lines for name, lines in too_long.items() if name not in ABOVE}


def test_no_module_is_named_after_nothing() -> None:
    assert not [path for path in sources() if path.stem in FORBIDDEN_NAMES]


def test_every_module_says_what_it_is_for() -> None:
    assert not [path for path in sources() if not ast.get_docstring(ast.parse(path.read_text()))]


def swallows_everything(handler: ast.ExceptHandler) -> bool:
    name = handler.type.id if isinstance(handler.type, ast.Name) else None
    is_broad = handler.type is None or name in ("Exception", "BaseException")
    return is_broad and not isinstance(handler.body[-1], ast.Raise)


def test_broad_excepts_stand_only_at_last_resorts() -> None:
    found = [
        str(path.relative_to(ROOT))
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler) and swallows_everything(node)
    ]
    assert sorted(found) == BROAD_EXCEPTS


def test_nothing_committed_names_a_machine_or_a_registry() -> None:
    hosts = ["py" + "pi.org", "python" + "hosted", "registry.np" + "mjs", "deb.deb" + "ian"]
    paths = ["/wor" + "k/main", "/ro" + "ot/", ".libr" + "ary/"]
    for path in tracked(".py", ".md", ".txt", ".toml", ".yaml", ".json", ".lua", ""):
        text = path.read_text(errors="replace")
        assert not [word for word in hosts + paths if word in text], path


def test_every_exception_is_still_needed() -> None:
    assert not [name for name in ABOVE if not (ROOT / name.partition(":")[0]).is_file()]
