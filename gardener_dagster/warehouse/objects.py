"""Which of the objects under a date's prefix belong to this parse, and how a load job names them.

Pure. The parsers never delete, so a prefix can hold objects of archives that are gone and of
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
"""Cloud Storage's clock and ours may differ by this much when an object's age is judged."""


@dataclass(frozen=True, kw_only=True)
class ParsedObject:
    """One `.jsonl` object that a parser wrote.

    Attributes:
        name: object name in the output bucket, `<source bucket>/<archive name>.jsonl`.
        written: when it was last written; aware.
        size: bytes.
        write_error: the parser's `writeError` metadata: it could not write all rows. Usually empty.
    """

    name: str
    written: dt.datetime
    size: int = 0
    write_error: str = ""


@dataclass(frozen=True, kw_only=True)
class LoadSource:
    """What to load, and what was left out.

    Attributes:
        uris: for the load job, names or `prefix*` patterns; none: the date has no rows.
        names: the chosen objects, each by its own URI; none where `uris` names them one by one.
        objects: how many objects these are.
        size: their bytes.
        empty: how many of them have no byte; BigQuery may not count these.
        version: a digest of the objects' names, sizes and times of writing.
        stale: objects left out because they were written before this parse began.
        orphaned: objects left out because their archive is not, or no longer, in the archive
            bucket.
        missing: archives that have no object of this parse.
        write_errors: loaded objects which the parser could not write whole, with its message.
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
    """Chooses the objects of this parse.

    Args:
        objects: everything in the output bucket under `<source bucket>/<prefix>`.
        output_bucket: where the parsers write to.
        source_bucket: where the archives are.
        prefix: of the date's archives, `experiment/datatype/YYYY/MM/DD/`.
        archives: names of the date's archives that the parser was to read.
        parse_started: when the attempt that finished was handed out; aware.
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
    """The fewest names and `prefix*` patterns that match all of `wanted` and none of `excluded`.

    So a date with more objects than a load job may name still loads in one job, as long as what is
    excluded does not lie between every two that are wanted. BigQuery allows one `*` in a URI.
    """
    if not wanted:
        return []
    if len(wanted) == 1:
        return list(wanted)
    # Character by character on purpose: a pattern may end within a name.
    common = os.path.commonprefix([min(wanted), max(wanted)])  # noqa: RUF071
    excluded = [name for name in excluded if name.startswith(common)]
    if not excluded:
        return [f"{common}*"]
    branches: dict[str, list[str]] = {}
    for name in wanted:
        branches.setdefault(name[: len(common) + 1], []).append(name)
    if common in branches:  # one of the names is itself what all others begin with
        rest = [name for name in wanted if name != common]
        return [common, *cover(rest, excluded)]
    return [uri for branch in branches.values() for uri in cover(branch, excluded)]
