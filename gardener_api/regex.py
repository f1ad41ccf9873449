"""Filters of object names: regular expressions as the parsers read them, which is Go's RE2."""

import re
from typing import Protocol, cast

import re2

_ANY_BYTE = re.compile(r"(?<!\\)(?:\\\\)*\\C")
_NEW_GROUP = re.compile(r"(?<!\\)(?:\\\\)*\(\?<[A-Za-z_]")
_OPTIONS = re2.Options()
_OPTIONS.log_errors = False  # errors are raised instead


class Pattern(Protocol):
    """A compiled filter."""

    def search(self, text: str) -> object | None:
        """Return the first match anywhere in a text; ``None``: there is none."""


def compile_filter(pattern: str) -> Pattern:
    r"""Compile a filter.

    Go's syntax (https://pkg.go.dev/regexp/syntax) is that of the C++ library except ``\C``. Named
    groups must be ``(?P<name>…)``: Go before 1.22, with which parsers may be built, has no other.

    Raises:
        ValueError: A parser could not compile it; the message gives the reason.
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
