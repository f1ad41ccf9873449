"""Read a YAML file whose errors a person can find: no key twice, no value that cannot be made."""

from pathlib import Path
from typing import Any

import yaml


class YamlError(ValueError):
    """The file cannot be read, or is not YAML."""


class _Loader(yaml.SafeLoader):
    """A safe loader that also rejects duplicate keys, which PyYAML accepts."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"key {key!r} stands twice: expected it once",
                    problem_mark=key_node.start_mark,
                )
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_scalar_or_text(self, node: yaml.ScalarNode) -> Any:  # noqa: ANN401 - YAML
        """Return the value, or its text if it is invalid, like 2019-02-30.

        The validation of the configuration then reports the key.
        """
        make = yaml.SafeLoader.yaml_constructors[node.tag]
        try:
            return make(self, node)
        except (ValueError, OverflowError, IndexError):
            return node.value


for _tag in ("timestamp", "int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _Loader.construct_scalar_or_text)


def read_yaml(path: Path) -> Any:  # noqa: ANN401 - any YAML value
    """Read a file of one YAML document.

    Raises:
        YamlError: It cannot be read, or is not YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"it is not UTF-8 ({error})"
        raise YamlError(f"cannot be read: {reason}") from error
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise YamlError(f"is not YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise YamlError("is not YAML: it is nested too deeply") from error
