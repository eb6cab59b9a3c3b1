"""The architecture's promises: packages, one-way arrows, light imports, what gets installed."""

from __future__ import annotations

import ast
import configparser
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import onnxtrim

ROOT = Path(__file__).parents[1]
FOLDERS = ("toolkit", "export", "bench")
OPTIONAL = {"torch", "onnxscript", "matplotlib"}


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "onnxtrim" else ("onnxtrim", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def all_modules(*folders: str) -> list[str]:
    names = [module_name(path) for folder in folders for path in sources(folder)]
    return [name for name in names if not name.endswith("__main__")]


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Each imported module, lazy or not, and whether importing the file imports it."""
    yield from _imports(ast.parse(path.read_text(encoding="utf-8")), True)


def _imports(node: ast.AST, at_once: bool) -> Iterator[tuple[str, bool]]:
    if isinstance(node, ast.Import):
        yield from ((alias.name, at_once) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative import"
        yield from ((f"{node.module}.{alias.name}", at_once) for alias in node.names)
    elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
        yield from ((arg.value, at_once) for arg in node.args if _is_text(arg))  # type: ignore[attr-defined]
    later = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
    for child in ast.iter_child_nodes(node):
        typing_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        yield from _imports(child, at_once and not later and not typing_only)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def reaches(name: str, banned: str) -> bool:
    return name == banned or name.startswith(f"{banned}.")


def python(code: str, **environment: str) -> str:
    """Run code in a fresh interpreter at the root of the repository; returns what it printed."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_package_list_is_the_tree() -> None:
    listed = setup_cfg()["options"]["packages"].split()
    found = {"onnxtrim"} | {
        ".".join(("onnxtrim", *path.parent.relative_to(ROOT).parts))
        for folder in FOLDERS
        for path in sources(folder)
    }
    assert sorted(listed) == sorted(found)
    assert all((ROOT / folder / "__init__.py").is_file() for folder in FOLDERS)


def test_the_facade_links_to_the_folders() -> None:
    for folder in FOLDERS:
        link = ROOT / "onnxtrim" / folder
        assert link.is_symlink()
        assert link.readlink() == Path("..") / folder


def test_the_version_is_told_once() -> None:
    assert setup_cfg()["metadata"]["version"] == onnxtrim.__version__
    assert f"{onnxtrim.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("folder", "banned"),
    [
        ("bench", ["torch", "onnx_ir", "onnxscript", "onnxtrim.toolkit", "onnxtrim.export"]),
        ("export", ["onnxtrim.toolkit"]),
    ],
)
def test_arrows_go_one_way(folder: str, banned: list[str]) -> None:
    """Lazy imports count too, and so does the facade, which leads everywhere."""
    allowed = {f"onnxtrim.{name}" for name in ("bench", "export") if name not in banned}
    allowed |= {"onnxtrim.__version__", "onnxtrim.__file__"}
    for path in sources(folder):
        names = {name for name, _ in imports(path)} - {"onnxtrim"}
        tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        used = {ast.unparse(node) for node in tree if isinstance(node, ast.Attribute)}
        names |= {name for name in used if name.startswith("onnxtrim.")}
        for name in names:
            assert not any(reaches(name, other) for other in banned), f"{path}: {name}"
            if reaches(name, "onnxtrim"):
                assert any(reaches(name, other) for other in allowed), f"{path}: {name}"


def test_optional_packages_are_imported_where_they_are_used() -> None:
    for folder in ("onnxtrim", *FOLDERS):
        for path in sources(folder):
            at_once = {name.partition(".")[0] for name, now in imports(path) if now}
            assert not at_once & OPTIONAL, path


def test_bench_is_light() -> None:
    code = f"""
import sys
from importlib import import_module
import onnxtrim.bench
for name in {all_modules("bench")!r}:
    import_module(name)
print(*sorted({{name.partition(".")[0] for name in sys.modules}}))
print(*sorted(name for name in sys.modules if name.startswith("onnxtrim.")))
"""
    packages, own = (line.split() for line in python(code).splitlines())
    assert not {"torch", "onnx", "onnx_ir", "onnxscript", "matplotlib", "click"} & set(packages)
    assert own
    assert all(reaches(name, "onnxtrim.bench") for name in own)


def test_no_module_is_imported_twice_under_a_bare_name() -> None:
    code = f"""
import sys
from importlib import import_module
for name in {all_modules("onnxtrim", *FOLDERS)!r}:
    import_module(name)
print(*sorted({{name.partition(".")[0] for name in sys.modules}} & set({FOLDERS!r})))
"""
    assert python(code).split() == []


def test_every_public_name_resolves() -> None:
    for name in onnxtrim.__all__:
        assert getattr(onnxtrim, name) is not None
    assert set(onnxtrim.__all__) <= set(dir(onnxtrim))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = onnxtrim.no_such_name


def test_the_files_name_no_particular_machine() -> None:
    """Absolute paths of somebody's folders have no meaning anywhere else."""
    pattern = re.compile(r"(?<![\w.])/(work|root|home|opt|Users)/|/tmp/" + r"w\b|\.pyenv\b")
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git repository")
    files = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    checked = 0
    for name in filter(None, files.split("\0")):
        path = ROOT / name
        if (
            path.is_symlink()
            or not path.is_file()
            or "vendor" in path.parts
            or path == Path(__file__)
        ):
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        checked += 1
        found = pattern.search(text)
        assert found is None, f"{name}: {found[0] if found else ''}"
    assert checked > 20


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    expected = {"onnxtrim/__init__.py", "onnxtrim/__main__.py", "onnxtrim/py.typed"} | {
        f"onnxtrim/{path.relative_to(ROOT).as_posix()}"
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }
    names = set(zipfile.ZipFile(wheel).namelist())
    metadata = {name for name in names if ".dist-info/" in name}
    assert names - metadata == expected
    assert any(name.endswith("licenses/LICENSE") for name in metadata)
    assert wheel.stat().st_size < 5_000_000, "is the demo's data in it?"


def test_the_wheel_works_away_from_the_tree(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    code = f"""
import os
os.chdir({str(tmp_path)!r})
from importlib import import_module
for name in {all_modules("onnxtrim", *FOLDERS)!r}:
    assert import_module(name).__file__.startswith({str(site)!r}), name
"""
    python(code, PYTHONPATH=str(site))
