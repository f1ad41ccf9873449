"""Filters of object names: regular expressions as the parsers read them, which is Go's RE2."""

import re
from typing import Protocol, cast

import re2

_ANY_BYTE = re.compile(r"(?<!\\)(?:\\\\)*\\C")
_NEW_GROUP = re.compile(r"(?<!\\)(?:\\\\)*\(\?<[A-Za-z_]")
_OPTIONS = re2.Options()
_OPTIONS.log_errors = False  # they are raised


class Pattern(Protocol):
    """A compiled filter."""

    def search(self, text: str) -> object | None:
        """Find the pattern anywhere in a text; ``None``: it is not there."""


def compile_filter(pattern: str) -> Pattern:
    r"""Compile a filter.

    Go's syntax (https://pkg.go.dev/regexp/syntax) is that of the C++ library but for ``\C``. Named
    groups are ``(?P<name>…)``, since parsers built with a Go before 1.22 know no other.

    Raises:
        ValueError: A parser could not read it; the message says what is wrong.
    """
    if _ANY_BYTE.search(pattern):
        raise ValueError(r"\C is not known to the parsers")
    if _NEW_GROUP.search(pattern):
        raise ValueError("a named group is written (?P<name>…)")
    try:
        return cast("Pattern", re2.compile(pattern, _OPTIONS))
    except re2.error as error:
        raise ValueError(_reason(error)) from None
    except UnicodeEncodeError:
        raise ValueError("it has characters that are not Unicode text") from None


def _reason(error: Exception) -> str:
    text = error.args[0] if error.args else error
    said = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
    if "invalid perl operator: (?" in said and said[-1] in "=!<":
        said += ": RE2 has no lookarounds"
    return said
