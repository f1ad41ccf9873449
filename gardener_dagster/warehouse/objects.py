"""Which of the objects under a date's prefix belong to this parse, and how a load job names them.

Pure. The parsers never delete objects, so a prefix can hold objects of deleted archives and of
earlier parses.
"""

import datetime as dt
import hashlib
import os.path
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MAXIMUM_URIS = 10_000
"""https://cloud.google.com/bigquery/quotas#load_jobs: source URIs in one load job."""

CLOCK_SKEW = dt.timedelta(minutes=1)
"""Tolerated difference between Cloud Storage's clock and this one in an object's age."""


@dataclass(frozen=True, kw_only=True)
class ParsedObject:
    """One `.jsonl` object that a parser wrote.

    Attributes:
        name: object name in the output bucket, `<source bucket>/<archive name>.jsonl`.
        written: when it was last written; aware.
        size: bytes.
        write_error: the parser's `writeError` metadata; empty: it could write all rows.
    """

    name: str
    written: dt.datetime
    size: int = 0
    write_error: str = ""


@dataclass(frozen=True, kw_only=True)
class LoadSource:
    """The objects to load, and the objects left out.

    Attributes:
        uris: URIs of the load job, of objects or `prefix*` patterns; none: the date has no rows.
        names: URI of each chosen object; none if `uris` already lists them one by one.
        objects: number of chosen objects.
        size: their size in bytes.
        empty: number of chosen objects of 0 bytes; BigQuery may not count these.
        version: a digest of the chosen objects' names, sizes and times of writing.
        stale: objects left out because they were written before this parse began.
        orphaned: objects left out because their archive is not among the date's archives.
        missing: archives that have no object of this parse.
        write_errors: chosen objects that the parser could not write completely, with its message.
    """

    uris: tuple[str, ...]
    objects: int
    size: int
    names: tuple[str, ...] = ()
    empty: int = 0
    version: str = ""
    stale: tuple[str, ...] = ()
    orphaned: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    write_errors: tuple[str, ...] = ()


def choose_objects(
    objects: Iterable[ParsedObject],
    *,
    output_bucket: str,
    source_bucket: str,
    prefix: str,
    archives: Iterable[str],
    parse_started: dt.datetime,
) -> LoadSource:
    """Choose the objects of this parse.

    Args:
        objects: all objects in the output bucket under `<source bucket>/<prefix>`.
        output_bucket: where the parsers write to.
        source_bucket: where the archives are.
        prefix: prefix of the date's archives, `experiment/datatype/YYYY/MM/DD/`.
        archives: names of the date's archives that the parser had to read.
        parse_started: when the finished attempt was handed out to a parser; aware.
    """
    expected = {f"{source_bucket}/{archive}.jsonl": archive for archive in archives}
    oldest = parse_started - CLOCK_SKEW
    wanted: list[ParsedObject] = []
    stale: list[str] = []
    orphaned: list[str] = []
    for item in objects:
        if item.name not in expected:
            orphaned.append(item.name)
        elif item.written < oldest:
            stale.append(item.name)
        else:
            wanted.append(item)
    names = sorted(item.name for item in wanted)
    excluded = sorted(stale + orphaned)
    found = set(names)
    uris = _uris(f"{source_bucket}/{prefix}", names, excluded)
    return LoadSource(
        uris=tuple(f"gs://{output_bucket}/{name}" for name in uris),
        names=() if uris == names else tuple(f"gs://{output_bucket}/{name}" for name in names),
        objects=len(wanted),
        size=sum(item.size for item in wanted),
        empty=sum(item.size == 0 for item in wanted),
        version=_version(wanted),
        stale=tuple(sorted(stale)),
        orphaned=tuple(sorted(orphaned)),
        missing=tuple(sorted(archive for name, archive in expected.items() if name not in found)),
        write_errors=tuple(f"{i.name}: {i.write_error}" for i in wanted if i.write_error),
    )


def _version(objects: Iterable[ParsedObject]) -> str:
    lines = sorted(f"{item.name} {item.size} {item.written.isoformat()}" for item in objects)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def _uris(prefix: str, wanted: Sequence[str], excluded: Sequence[str]) -> list[str]:
    if not wanted:
        return []
    if not excluded:
        return [f"{prefix}*"]
    if len(wanted) <= MAXIMUM_URIS:
        return list(wanted)
    return cover(wanted, excluded)


def cover(wanted: Sequence[str], excluded: Sequence[str]) -> list[str]:
    """Return the fewest names and `prefix*` patterns that match `wanted` and not `excluded`.

    So a date with more than `MAXIMUM_URIS` objects still loads in one job, unless excluded names
    lie between too many of the wanted ones. BigQuery allows one `*` in a URI.
    """
    if not wanted:
        return []
    if len(wanted) == 1:
        return list(wanted)
    # By characters, not by path components: a pattern may end within a name.
    common = os.path.commonprefix([min(wanted), max(wanted)])  # noqa: RUF071
    excluded = [name for name in excluded if name.startswith(common)]
    if not excluded:
        return [f"{common}*"]
    branches: dict[str, list[str]] = {}
    for name in wanted:
        branches.setdefault(name[: len(common) + 1], []).append(name)
    if common in branches:  # one name is the prefix of all others
        rest = [name for name in wanted if name != common]
        return [common, *cover(rest, excluded)]
    return [uri for branch in branches.values() for uri in cover(branch, excluded)]
