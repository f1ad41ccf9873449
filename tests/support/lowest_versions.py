"""Print the lowest version that pyproject.toml allows of each dependency, as constraints for pip.

    python tests/support/lowest_versions.py >constraints.txt

Tools that only check the code, and what tests drive, are as new as they are elsewhere.
"""

import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

EXTRAS = ("local", "production", "kubernetes")


def lowest(project: dict[str, list[str] | dict[str, list[str]]]) -> Iterator[str]:
    """Yield ``name==version`` for each dependency with a lower bound."""
    extras = project["optional-dependencies"]
    assert isinstance(extras, dict)
    for line in [*project["dependencies"], *(line for name in EXTRAS for line in extras[name])]:
        requirement = Requirement(line)
        for bound in requirement.specifier:
            if bound.operator == ">=":
                yield f"{requirement.name}=={bound.version}"


if __name__ == "__main__":
    text = Path(__file__).parents[2].joinpath("pyproject.toml").read_text(encoding="utf-8")
    print("\n".join(lowest(tomllib.loads(text)["project"])))
