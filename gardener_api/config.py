"""The gardener's one configuration file: its model, its defaults and its errors.

The format is the old gardener's ``config.yml``, unchanged; keys it did not have are optional.
What a process gets from its environment (paths, addresses, tokens) does not belong here.
"""

import datetime as dt
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
    model_validator,
)

DEFAULT_DEDUP_KEYS: dict[str, tuple[str, ...]] = {
    # Several archives of a day hold parts of one connection, under one id: continuations.
    "tcpinfo": ("id", "parser.ArchiveURL", "parser.Filename"),
}

_DURATION_UNITS = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0,
}  # fmt: skip
_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")


class ConfigError(ValueError):
    """A configuration file that cannot be used; the message lists every fault of it."""

    def __init__(self, path: Path, faults: list[str]) -> None:
        self.path = path
        self.faults = faults
        super().__init__(
            "\n".join([f"{path}: {len(faults)} error(s)", *(f"  {f}" for f in faults)])
        )


def parse_duration(value: object) -> dt.timedelta:
    """Read a duration as Go writes it: ``5h``, ``1m``, ``1h30m``, ``2.5s``.

    Args:
        value: The text; a ``timedelta`` passes through.

    Raises:
        ValueError: It is not a positive duration.
    """
    if isinstance(value, dt.timedelta):
        return value
    text = str(value)
    if not re.fullmatch(f"(?:{_DURATION_PART.pattern})+", text):
        raise ValueError("expected a duration like 5h, 1m or 1h30m")
    seconds = sum(float(n) * _DURATION_UNITS[unit] for n, unit in _DURATION_PART.findall(text))
    if seconds <= 0:
        raise ValueError("expected a duration longer than nothing")
    return dt.timedelta(seconds=seconds)


def _parse_date(value: object) -> dt.date:
    if isinstance(value, dt.datetime):
        return value.date()
    if isinstance(value, dt.date):
        return value
    try:
        return dt.datetime.fromisoformat(str(value)).date()
    except ValueError:
        raise ValueError("expected a date like 2015-11-19") from None


def _check_regex(value: object) -> object:
    if isinstance(value, str):
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"expected a regular expression ({error})") from None
    return value


def _matching(pattern: str, expected: str) -> BeforeValidator:
    def check(value: object) -> object:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise ValueError(f"expected {expected}")
        return value

    return BeforeValidator(check)


Duration = Annotated[dt.timedelta, BeforeValidator(parse_duration)]
Date = Annotated[dt.date, BeforeValidator(_parse_date)]
Regex = Annotated[str, BeforeValidator(_check_regex)]
Bucket = Annotated[str, _matching(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", "a bucket's name")]
Name = Annotated[
    str, _matching(r"[a-z][a-z0-9_]*", "a name of lower-case letters, digits and underscores")
]
Column = Annotated[
    str, _matching(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", "a column, like id or parser.ArchiveURL")
]


Owner = Annotated[
    str,
    _matching(r"team:[\w.-]+|[\w.+-]+@[\w-]+(\.[\w-]+)+", "an e-mail address or team:<name>"),
]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Datasets(_Section):
    """The BigQuery datasets of a source's tables; ``join`` is ``None`` where nothing is joined."""

    tmp: Name
    raw: Name
    join: Name | None = None


class Source(_Section):
    """One datatype of one experiment: where its archives are and where its rows go."""

    bucket: Bucket
    experiment: Name
    datatype: Name
    filter: Regex = ""
    target_datasets: Datasets
    daily_only: StrictBool = False
    full_history: StrictBool = False
    dedup_key: tuple[Column, ...] = Field(min_length=1)
    annotations: Name = "annotation2"
    owners: tuple[Owner, ...] = ()  # whom Dagster's catalog names

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:  # noqa: ANN401 - whatever the file holds
        if not isinstance(values, dict):
            return values
        experiment, datatype = values.get("experiment"), values.get("datatype")
        datasets = values.get("target_datasets", {})
        if isinstance(datasets, dict):
            datasets = {"tmp": f"tmp_{experiment}", "raw": f"raw_{experiment}"} | datasets
        key = DEFAULT_DEDUP_KEYS.get(str(datatype), ("id",))
        return {"dedup_key": key} | values | {"target_datasets": datasets}

    @property
    def name(self) -> str:
        """``<experiment>/<datatype>``, what people call the source."""
        return f"{self.experiment}/{self.datatype}"

    @property
    def tmp_table(self) -> str:
        """``<dataset>.<table>`` that a day is loaded into."""
        return f"{self.target_datasets.tmp}.{self.datatype}"

    @property
    def raw_table(self) -> str:
        """``<dataset>.<table>`` of the deduplicated rows."""
        return f"{self.target_datasets.raw}.{self.datatype}"

    @property
    def joined_table(self) -> str | None:
        """``<dataset>.<table>`` of the rows with annotations, ``None`` where nothing is joined."""
        join = self.target_datasets.join
        return f"{join}.{self.datatype}" if join else None


class Tracker(_Section):
    """How long a parser may be silent, and how often a job is tried."""

    timeout: Duration = dt.timedelta(hours=5)
    max_attempts: int = Field(default=3, ge=1)


class Monitor(_Section):
    """How often the gardener looks for what is due."""

    polling_interval: Duration = dt.timedelta(minutes=1)


class BigQuery(_Section):
    """How the tables are written."""

    location: str = ""
    priority: Literal["BATCH", "INTERACTIVE"] = "BATCH"
    maximum_bytes_billed: int | None = Field(default=None, ge=1)
    schema_update: Literal["error", "add"] = "error"
    tmp_expiration: Duration = dt.timedelta(days=7)


class Checks(_Section):
    """What makes the asset checks warn; all are shares, 1 for all."""

    annotated: float = Field(default=0.9, ge=0, le=1)
    rows_of_previous: float = Field(default=0.99, ge=0, le=1)
    rows_of_week: float = Field(default=0.5, ge=0, le=1)


class Daily(_Section):
    """What the daily schedule does about days on which nobody could ask."""

    catch_up_days: int = Field(default=7, ge=1)  # a day that is longer ago is left to a backfill


class LateArchives(_Section):
    """How archives that come after their date was parsed are looked for."""

    days: int = Field(default=3, ge=0)  # 0: not at all
    interval: Duration = dt.timedelta(minutes=30)


class History(_Section):
    """The pass over all of history, again and again."""

    enabled: StrictBool = True
    jobs_per_run: int = Field(default=320, ge=1)  # of production's 16 sources: 20 dates
    recent_days: int = Field(default=365, ge=1)  # of a source without full_history


class GardenerConfig(_Section):
    """The whole file."""

    start_date: Date
    tracker: Tracker = Tracker()
    monitor: Monitor = Monitor()
    bigquery: BigQuery = BigQuery()
    checks: Checks = Checks()
    daily: Daily = Daily()
    late_archives: LateArchives = LateArchives()
    history: History = History()
    sources: tuple[Source, ...]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        faults = list(self._faults())
        if faults:
            raise ValueError("\n".join(faults))
        return self

    def _faults(self) -> Iterator[str]:
        if not self.sources:
            yield "sources: []: expected at least one source"
        names = Counter(s.name for s in self.sources)
        yield from (
            f"sources: {name!r} stands {n} times: expected each experiment and datatype once"
            for name, n in names.items()
            if n > 1
        )
        tables = Counter(
            table
            for table, _ in {
                (table, source.name)
                for source in self.sources
                for table in (source.tmp_table, source.raw_table, source.joined_table)
                if table
            }
        )
        yield from (
            f"sources: table {table!r} is written by {n} sources: expected one"
            for table, n in tables.items()
            if n > 1
        )
        for i, source in enumerate(self.sources):
            where = f"sources[{i}]"
            own = [t for t in (source.tmp_table, source.raw_table, source.joined_table) if t]
            yield from (
                f"{where}.target_datasets: table {table!r} stands for two of tmp, raw and join:"
                " expected three datasets"
                for table, n in Counter(own).items()
                if n > 1
            )
            if source.joined_table and self.annotations_of(source) is None:
                yield (
                    f"{where}.annotations: {source.annotations!r}: expected a datatype that"
                    f" {source.experiment!r} has a source of, since target_datasets.join is set"
                )

    def source(self, name: str) -> Source:
        """The source called ``<experiment>/<datatype>``.

        Raises:
            KeyError: There is none.
        """
        for source in self.sources:
            if source.name == name:
                return source
        known = ", ".join(s.name for s in self.sources)
        raise KeyError(f"no source {name!r} in the configuration: expected one of {known}")

    def annotations_of(self, source: Source) -> Source | None:
        """The source whose raw table is joined to that of ``source``."""
        name = f"{source.experiment}/{source.annotations}"
        return next((s for s in self.sources if s.name == name), None)


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML's rule, which PyYAML does not check: a key stands once in a mapping."""

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


def load_config(path: Path | str) -> GardenerConfig:
    """Read and check the configuration file.

    Raises:
        ConfigError: It cannot be read, or it has faults; all of them are listed, each with its key,
            its value and what was expected.
    """
    path = Path(path)
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise ConfigError(path, [f"cannot be read: {error.strerror}"]) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(path, [f"is not YAML: {' '.join(str(error).split())}"]) from error
    if not isinstance(values, dict):
        raise ConfigError(path, [f"{values!r}: expected a mapping with start_date and sources"])
    try:
        return GardenerConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(path, _describe(error)) from error


def _describe(error: ValidationError) -> list[str]:
    faults: list[str] = []
    for fault in error.errors(include_url=False):
        key = _key(fault["loc"])
        value, kind = fault["input"], fault["type"]
        message = str(fault["msg"]).removeprefix("Value error, ")
        if not key:
            faults.extend(message.splitlines())
        elif kind == "extra_forbidden":
            faults.append(f"{key}: {value!r}: unknown key: expected {_known_keys(fault['loc'])}")
        elif kind == "missing":
            faults.append(f"{key}: missing: expected a value")
        elif kind == "too_short":
            faults.append(f"{key}: {value!r}: expected at least {fault['ctx']['min_length']}")
        else:
            faults.append(f"{key}: {value!r}: {message.replace('Input should be', 'expected')}")
    return faults


def _key(location: tuple[int | str, ...]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".")


def _known_keys(location: tuple[int | str, ...]) -> str:
    model: type[BaseModel] = GardenerConfig
    for part in location[:-1]:
        if isinstance(part, str):
            model = _SECTIONS[part]
    return "one of " + ", ".join(model.model_fields)


_SECTIONS: dict[str, type[BaseModel]] = {
    "tracker": Tracker,
    "monitor": Monitor,
    "bigquery": BigQuery,
    "checks": Checks,
    "daily": Daily,
    "late_archives": LateArchives,
    "history": History,
    "sources": Source,
    "target_datasets": Datasets,
}
