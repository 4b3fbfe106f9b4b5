"""The build hook: imports get a prefix, nothing else changes, and what cannot be rewritten is an error."""

from __future__ import annotations

import ast
import importlib.util
import keyword
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

REPOSITORY = Path(__file__).parents[2]
PACKAGES = ("faces", "pipeline", "settings", "shards", "storage", "training")
MODULES = frozenset({"shards", "shards.reader", "pipeline", "pipeline.sandbox", "pipeline.sandbox.child"})


def test_all_lists_of_packages_in_pyproject_agree() -> None:
    tool = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]
    wheel = tool["hatch"]["build"]["targets"]["wheel"]
    assert tuple(wheel["hooks"]["custom"]["packages"]) == PACKAGES
    assert wheel["sources"] == {name: f"omniid/{name}" for name in PACKAGES}
    every = {"omniid", *PACKAGES}
    assert set(wheel["only-include"]) == every
    assert set(tool["mypy"]["packages"]) == set(tool["importlinter"]["root_packages"]) == every
    top = {path.parent.name for path in REPOSITORY.glob("*/__init__.py")}
    assert top == every


def _hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("wheel_layout", REPOSITORY / "scripts" / "wheel_layout.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


hook = _hook()


def rewritten(source: str) -> str:
    result: bytes = hook.with_prefix(source.encode(), MODULES, "module.py")
    return result.decode()


class _Prefixed(ast.NodeTransformer):
    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom:
        if not node.level and node.module and node.module.partition(".")[0] in {*PACKAGES}:
            node.module = f"omniid.{node.module}"
        return node


def test_every_module_of_the_repository_changes_in_its_imports_alone_and_keeps_its_lines() -> None:
    found = dict(hook.rewritten_modules(REPOSITORY, PACKAGES))
    assert len(found) > 200
    for path, text in found.items():
        parts = path.parts[1:]
        source = REPOSITORY.joinpath(*(parts if parts[0] in PACKAGES else path.parts))
        original = source.read_bytes()
        assert ast.dump(ast.parse(text)) == ast.dump(_Prefixed().visit(ast.parse(original)))
        assert text.count(b"\n") == original.count(b"\n")
        assert text.replace(b"from omniid.", b"from ") == original.replace(b"from omniid.", b"from ")
    unchanged = {
        path
        for package in PACKAGES
        for path in (REPOSITORY / package).rglob("*.py")
        if Path("omniid") / path.relative_to(REPOSITORY) not in found
    }
    for path in unchanged:
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.ImportFrom) and node.module:
                assert node.module.partition(".")[0] not in PACKAGES, path


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from shards.reader import Dataset\n", "from omniid.shards.reader import Dataset\n"),
        ("from shards import reader as x, tar\n", "from omniid.shards import reader as x, tar\n"),
        (
            "def f():\n    from shards import (\n        a,\n    )\n",
            "def f():\n    from omniid.shards import (\n        a,\n    )\n",
        ),
        (
            "'é'; from  shards import a; from shards.tar import b\r\n",
            "'é'; from  omniid.shards import a; from omniid.shards.tar import b\r\n",
        ),
        ("from shards_of_others import a\n", "from shards_of_others import a\n"),
        ("from . import shards\nfrom .shards import a\n", "from . import shards\nfrom .shards import a\n"),
        ('"""From shards.reader: text."""\n# from shards import x\n',) * 2,
        ('x = "shards.jpeg_quality=90 and the pipeline"\n',) * 2,
        ('x = "see shards/reader.py or https://host/shards.reader"\n',) * 2,
    ],
)
def test_imports_get_the_prefix_and_other_text_does_not(source: str, expected: str) -> None:
    assert rewritten(source) == expected
    assert rewritten(expected) == expected


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "\nimport shards.reader\n",
            r"module\.py:2: `import shards\.reader` would not work .* Remedy: use `from",
        ),
        ("import shards as s\n", r"module\.py:1: `import shards`"),
        ("from \\\n    shards import a\n", r"module\.py:1: an import over several lines"),
        (
            'entry = "pipeline.sandbox.child:serve"\n',
            r"a string with the module name pipeline\.sandbox\.child",
        ),
        (
            'run(["-m", "pipeline.sandbox"])\n',
            r"module name pipeline\.sandbox .* Remedy: derive it from __name__",
        ),
        ('code = f"from shards.reader import {x}"\n', r"module name shards\.reader"),
        ('patch("shards.reader.Dataset")\n', r"module name shards\.reader\.Dataset"),
    ],
)
def test_what_would_break_in_the_wheel_is_an_error_that_names_the_line(source: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rewritten(source)


NAMES = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True).filter(lambda name: not keyword.iskeyword(name))


@pytest.mark.slow
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["shards", "shards.reader", "pipeline.sandbox", "json", "omniid.shards", "numpy.random"]
            ),
            st.lists(NAMES, min_size=1, max_size=3),
            st.sampled_from(["", "  # from shards import ü", "; x = 'ß'"]),
            st.integers(0, 2),
        ),
        max_size=8,
    )
)
def test_any_imports_mean_the_same_modules_below_the_prefix(imports) -> None:
    lines = []
    for module, names, comment, depth in imports:
        lines += [f"{'    ' * level}if True:" for level in range(depth)]
        lines.append(f"{'    ' * depth}from {module} import {', '.join(names)}{comment}")
    source = "\n".join(lines) + "\n"
    result = rewritten(source)
    assert ast.dump(ast.parse(result)) == ast.dump(_Prefixed().visit(ast.parse(source)))
    assert rewritten(result) == result
