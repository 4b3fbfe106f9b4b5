"""Puts the repository's packages below `omniid` in the wheel, so that it installs no name that others may have.

In the repository the packages are at the top (`from shards.reader import Dataset`), where
`python pipeline/build_mfhq.py`, `torchrun training/train.py` and Ray's working directory find them. As top-level
names of site-packages, `settings` or `pipeline` would collide with other projects. So `pyproject.toml` maps their
directories to `omniid/<package>`, and this hook of the build writes their modules with other imports:

    from shards.reader import Dataset   ->   from omniid.shards.reader import Dataset

Positions come from Python's parser, and nothing else of a module changes: line numbers stay. What cannot be
rewritten safely ends the build: `import shards.reader`, and a string that names a module, such as
"pipeline.sandbox.child". Derive such a string from `__name__` or `__package__`, which are right in both layouts.

An editable installation keeps the repository's layout, so there the hook does nothing.
"""

from __future__ import annotations

import ast
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

TARGET = "omniid"
"""The package that holds all others in the wheel."""
_MODULE = re.compile(rb"from\s+")


class WheelLayoutHook(BuildHookInterface[BuilderConfig]):
    """Replaces the modules of a standard wheel; hatchling finds it as the only hook of this file."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the rewritten modules to a temporary directory, from which hatchling takes them.

        Args:
            version: "standard" or "editable".
            build_data: of hatchling; `force_include` maps files to paths in the wheel, in place of others there.

        Raises:
            ValueError: a module cannot be rewritten; file, line and remedy are named.
        """
        if version == "editable":
            return
        root, packages = Path(self.root), self.config["packages"]
        self._written = tempfile.TemporaryDirectory(prefix="omniid-wheel-")
        written = Path(self._written.name)
        for path, source in rewritten_modules(root, packages):
            file = written / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(source)
            build_data["force_include"][str(file)] = str(path)

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the temporary directory."""
        del build_data, artifact_path
        if version != "editable":
            self._written.cleanup()


def rewritten_modules(root: Path, packages: Sequence[str]) -> Iterator[tuple[Path, bytes]]:
    """All modules whose text differs in the wheel, with their paths there, sorted.

    Args:
        root: of the repository.
        packages: names of its packages that go below `TARGET`.

    Raises:
        ValueError: a module cannot be rewritten; file, line and remedy are named.
    """
    modules = _module_names(root, packages)
    for package in sorted([TARGET, *packages]):
        for path in sorted((root / package).rglob("*.py")):
            source, name = path.read_bytes(), path.relative_to(root)
            rewritten = with_prefix(source, modules, str(name))
            if rewritten != source:
                yield name if package == TARGET else TARGET / name, rewritten


def with_prefix(source: bytes, modules: frozenset[str], name: str) -> bytes:
    """A module's text with imports from below `TARGET`.

    Args:
        source: text of the module, UTF-8.
        modules: dotted names of all modules and packages that move, their packages at the top included.
        name: of the file, for errors.

    Raises:
        ValueError: an import or a string cannot be rewritten; file, line and remedy are named.
    """
    top = {module.partition(".")[0] for module in modules}
    lines = source.splitlines(keepends=True)
    tree = ast.parse(source, name)
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    insertions: list[tuple[int, int]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] in top:
                    raise _error(name, node, f"`import {alias.name}`", "use `from … import …`")
        elif isinstance(node, ast.ImportFrom) and not node.level:
            if node.module is None or node.module.partition(".")[0] not in top:
                continue
            start = _MODULE.match(lines[node.lineno - 1], node.col_offset)
            module = node.module.encode()
            if start is None or not lines[node.lineno - 1].startswith(module, start.end()):
                raise _error(
                    name, node, "an import over several lines", f"write `from {node.module} import (`"
                )
            insertions.append((node.lineno - 1, start.end()))
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in docstrings
            and (found := _named_module(node.value, modules))
        ):
            raise _error(name, node, f"a string with the module name {found}", "derive it from __name__")
    for line, column in sorted(insertions, reverse=True):
        lines[line] = lines[line][:column] + f"{TARGET}.".encode() + lines[line][column:]
    return b"".join(lines)


def _module_names(root: Path, packages: Sequence[str]) -> frozenset[str]:
    """Dotted names of all modules of the packages."""
    found = set(packages)
    for package in packages:
        for path in (root / package).rglob("*.py"):
            parts = path.relative_to(root).with_suffix("").parts
            found.add(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return frozenset(found)


def _named_module(text: str, modules: frozenset[str]) -> str | None:
    """A dotted name in the text that is that of a module, or of something in one; words without a dot are none."""
    for dotted in re.findall(r"(?<![\w./-])[a-z_]\w*(?:\.\w+)+", text):
        parts = dotted.split(".")
        if any(".".join(parts[:length]) in modules for length in range(2, len(parts) + 1)):
            return str(dotted)
    return None


def _error(name: str, node: ast.stmt | ast.expr, what: str, remedy: str) -> ValueError:
    return ValueError(f"{name}:{node.lineno}: {what} would not work in the wheel. Remedy: {remedy}")
