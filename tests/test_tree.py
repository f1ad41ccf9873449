"""The tree of the packages in docs/design.md, and how large folders and files may get.

After a change of modules, write the tree anew: ``python tests/test_tree.py``.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "design.md"
PACKAGES = ("gardener_api", "gardener_dagster")
BEGIN, END = "<!-- tree -->\n```\n", "```\n<!-- /tree -->\n"
MOST_MODULES = 12
MOST_LINES = 400


def summary(module: Path) -> str:
    """The first line of a module's docstring; "" without one."""
    lines = (ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or "").splitlines()
    return lines[0] if lines else ""


def tree(folder: Path, depth: int = 0) -> Iterator[str]:
    """A line for a package and each module in it; migrations' versions are left out."""
    indent = "  " * depth
    yield f"{indent + folder.name + '/':34} {summary(folder / '__init__.py')}"
    for module in sorted(folder.glob("*.py")):
        if module.name != "__init__.py":
            yield f"{indent + '  ' + module.name:34} {summary(module)}"
    for init in sorted(folder.glob("*/__init__.py")):
        if init.parent.name != "versions":
            yield from tree(init.parent, depth + 1)


def whole_tree() -> str:
    return "".join(f"{line}\n" for package in PACKAGES for line in tree(ROOT / package))


def test_the_page_has_the_tree() -> None:
    page = PAGE.read_text(encoding="utf-8")
    found = page[page.index(BEGIN) + len(BEGIN) : page.index(END)]
    assert found == whole_tree(), "run: python tests/test_tree.py"


def test_every_module_has_a_first_line() -> None:
    modules = [module for package in PACKAGES for module in (ROOT / package).rglob("*.py")]
    assert [module for module in modules if not summary(module).endswith(".")] == []


def test_no_folder_has_many_modules_and_no_file_many_lines() -> None:
    crowded, long = {}, {}
    for package in PACKAGES:
        for folder in {module.parent for module in (ROOT / package).rglob("*.py")}:
            count = sum(1 for module in folder.glob("*.py") if module.name != "__init__.py")
            if count > MOST_MODULES:
                crowded[folder.relative_to(ROOT).as_posix()] = count
        for module in (ROOT / package).rglob("*.py"):
            lines = len(module.read_text(encoding="utf-8").splitlines())
            if lines > MOST_LINES:
                long[module.relative_to(ROOT).as_posix()] = lines
    assert (crowded, long) == ({}, {})


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
    PAGE.write_text(before + whole_tree() + after, encoding="utf-8")
