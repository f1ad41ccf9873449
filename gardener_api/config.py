"""The gardener's one configuration file: its model, its defaults and its errors.

The format is the old gardener's ``config.yml``, unchanged; keys it did not have are optional.
Paths, addresses and tokens are not in it: a process reads them from its environment.
"""

import datetime as dt
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
    model_validator,
)

from gardener_api.audit_rules import AuditRules, Audits, rules_of
from gardener_api.config_values import (
    LONGEST_DAYS,
    Bucket,
    Column,
    Date,
    Duration,
    Location,
    Name,
    Owner,
    Regex,
    shown,
)
from gardener_api.yaml_file import YamlError, read_yaml

DEFAULT_DEDUP_KEYS: dict[str, tuple[str, ...]] = {
    # A long connection is split over several archives of a day, under one id.
    "tcpinfo": ("id", "parser.ArchiveURL", "parser.Filename"),
}

MAX_FILTER = 2_000
"""Maximum bytes of a filter as JSON. A parser's Go client always reads the first 4,096 bytes of an
answer, head included; it loses the rest if that arrives later."""


class ConfigError(ValueError):
    """The configuration file is invalid; the message lists all of its errors."""

    def __init__(self, path: Path, faults: list[str]) -> None:
        self.path = path
        self.faults = faults
        super().__init__(
            "\n".join([f"{path}: {len(faults)} error(s)", *(f"  {f}" for f in faults)])
        )


def _check_length(value: str) -> str:
    if (size := len(json.dumps(value))) > MAX_FILTER:
        raise ValueError(
            f"expected at most {MAX_FILTER} bytes as JSON, for which parsers have room, got {size}"
        )
    return value


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Datasets(_Section):
    """The BigQuery datasets of a source's tables; ``join`` is ``None`` if nothing is joined."""

    tmp: Name
    raw: Name
    join: Name | None = None


class Source(_Section):
    """One datatype of one experiment: where its archives are and where its rows go."""

    bucket: Bucket
    experiment: Name
    datatype: Name
    filter: Annotated[Regex, AfterValidator(_check_length)] = ""
    target_datasets: Datasets
    daily_only: StrictBool = False
    full_history: StrictBool = False
    dedup_key: tuple[Column, ...] = Field(min_length=1)
    annotations: Name = "annotation2"
    owners: tuple[Owner, ...] = ()  # shown in Dagster's catalog
    audits: Audits = Audits()  # override those of the configuration

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
        """``<experiment>/<datatype>``: the name of the source."""
        return f"{self.experiment}/{self.datatype}"

    @property
    def tmp_table(self) -> str:
        """``<dataset>.<table>`` into which a day is loaded."""
        return f"{self.target_datasets.tmp}.{self.datatype}"

    @property
    def raw_table(self) -> str:
        """``<dataset>.<table>`` of the deduplicated rows."""
        return f"{self.target_datasets.raw}.{self.datatype}"

    @property
    def joined_table(self) -> str | None:
        """``<dataset>.<table>`` of the rows with annotations; ``None`` if nothing is joined."""
        join = self.target_datasets.join
        return f"{join}.{self.datatype}" if join else None


class Tracker(_Section):
    """The lease of a job (``timeout``) and the maximum number of its attempts."""

    timeout: Duration = dt.timedelta(hours=5)
    max_attempts: int = Field(default=3, ge=1, le=1000)


class Monitor(_Section):
    """How often Dagster's sensors look for due work."""

    polling_interval: Duration = dt.timedelta(minutes=1)


class BigQuery(_Section):
    """Options of the BigQuery jobs and tables."""

    location: Location = ""
    priority: Literal["BATCH", "INTERACTIVE"] = "BATCH"
    maximum_bytes_billed: int | None = Field(default=None, ge=1, lt=2**63)
    schema_update: Literal["error", "add"] = "error"
    tmp_expiration: Duration = dt.timedelta(days=7)


class Tables(_Section):
    """The batching of dates into table runs.

    Attributes:
        dates_per_run: maximum number of dates in one run.
        dates_at_once: number of dates of a run that are processed concurrently.
        gather: how long a parsed date may wait for adjacent dates to fill a run.
    """

    dates_per_run: int = Field(default=32, ge=1, le=1000)
    dates_at_once: int = Field(default=8, ge=1, le=100)
    gather: Duration = dt.timedelta(seconds=60)


class Daily(_Section):
    """How far back the daily schedule requests missed days."""

    # Earlier days need a backfill.
    catch_up_days: int = Field(default=7, ge=1, le=LONGEST_DAYS)


class LateArchives(_Section):
    """The search for archives that arrive after their date was parsed."""

    days: int = Field(default=3, ge=0, le=LONGEST_DAYS)  # 0: no search
    interval: Duration = dt.timedelta(minutes=30)


class History(_Section):
    """The repeated pass over all dates."""

    enabled: StrictBool = True
    # 20 dates of each of production's 16 sources.
    jobs_per_run: int = Field(default=320, ge=1, le=1_000_000)
    # For sources without full_history.
    recent_days: int = Field(default=365, ge=1, le=LONGEST_DAYS)


class GardenerConfig(_Section):
    """The whole configuration file."""

    start_date: Date
    tracker: Tracker = Tracker()
    monitor: Monitor = Monitor()
    bigquery: BigQuery = BigQuery()
    tables: Tables = Tables()
    audits: Audits = Audits()
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
            if source.joined_table and source.annotations == source.datatype:
                yield (
                    f"{where}.target_datasets.join: {source.target_datasets.join!r}: expected none,"
                    f" since {source.datatype!r} are the annotations that others are joined with"
                )
            elif source.joined_table and self.annotations_of(source) is None:
                yield (
                    f"{where}.annotations: {source.annotations!r}: expected a datatype that"
                    f" {source.experiment!r} has a source of, since target_datasets.join is set"
                )

    def source(self, name: str) -> Source:
        """Return the source named ``<experiment>/<datatype>``.

        Raises:
            KeyError: There is no such source.
        """
        for source in self.sources:
            if source.name == name:
                return source
        known = ", ".join(s.name for s in self.sources)
        raise KeyError(f"no source {name!r} in the configuration: expected one of {known}")

    def audit_rules(self, source: Source) -> AuditRules:
        """Return the audit rules of a source."""
        return rules_of(self.audits, source.audits)

    def annotations_of(self, source: Source) -> Source | None:
        """Return the source whose raw table is joined to that of ``source``, if it exists."""
        name = f"{source.experiment}/{source.annotations}"
        return next((s for s in self.sources if s.name == name), None)


def load_config(path: Path | str) -> GardenerConfig:
    """Read and check the configuration file.

    Raises:
        ConfigError: The file cannot be read or is invalid; the message lists all errors, each with
            its key, its value and what was expected.
    """
    path = Path(path)
    try:
        values = read_yaml(path)
    except YamlError as error:
        raise ConfigError(path, [str(error)]) from error
    if not isinstance(values, dict):
        expected = "expected a mapping with start_date and sources"
        raise ConfigError(path, [f"{shown(values)}: {expected}"])
    try:
        return GardenerConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(path, _describe(error)) from error


def _describe(error: ValidationError) -> list[str]:
    faults: list[str] = []
    for fault in error.errors(include_url=False):
        key = _key(fault["loc"])
        value, kind = shown(fault["input"]), fault["type"]
        message = str(fault["msg"]).removeprefix("Value error, ")
        if not key:
            faults.extend(message.splitlines())
        elif kind == "extra_forbidden":
            faults.append(f"{key}: {value}: unknown key: expected {_known_keys(fault['loc'])}")
        elif kind == "missing":
            faults.append(f"{key}: missing: expected a value")
        elif kind == "too_short":
            faults.append(f"{key}: {value}: expected at least {fault['ctx']['min_length']}")
        else:
            faults.append(f"{key}: {value}: {message.replace('Input should be', 'expected')}")
    return faults


def _key(location: tuple[int | str, ...]) -> str:
    text = "".join(
        f"[{part}]" if isinstance(part, int) else f".{shown(part)[1:-1]}" for part in location
    )
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
    "tables": Tables,
    "audits": Audits,
    "daily": Daily,
    "late_archives": LateArchives,
    "history": History,
    "sources": Source,
    "target_datasets": Datasets,
}
_SECTIONS |= {name: type(audit) for name, audit in Audits().changes()}
