import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gardener_api.config import ConfigError, GardenerConfig, load_config
from gardener_api.config_values import parse_duration

PRODUCTION = Path(__file__).parent.parent / "fixtures" / "production.yml"

Write = Callable[[str], Path]

SOURCE = """
- bucket: archive-measurement-lab
  experiment: ndt
  datatype: annotation2
  target_datasets: {tmp: tmp_ndt, raw: raw_ndt}
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "gardener.yml"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        return path

    return write


def faults(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(path) in str(caught.value)
    assert all(fault in str(caught.value) for fault in caught.value.faults)
    return caught.value.faults


def test_production_config_loads_with_every_key() -> None:
    config = load_config(PRODUCTION)
    assert config.start_date == dt.date(2015, 11, 19)
    assert config.tracker.timeout == dt.timedelta(hours=5)
    assert config.monitor.polling_interval == dt.timedelta(minutes=1)
    assert len(config.sources) == 16
    switch = config.source("utilization/switch")
    assert switch.filter == r".*-switch\.(json|tgz)"
    assert switch.joined_table is None
    ndt7 = config.source("ndt/ndt7")
    assert (ndt7.tmp_table, ndt7.raw_table, ndt7.joined_table) == (
        "tmp_ndt.ndt7",
        "raw_ndt.ndt7",
        "ndt.ndt7",
    )
    assert ndt7.full_history
    assert not ndt7.daily_only
    assert config.source("ndt/pcap").daily_only


def test_what_is_left_out_has_the_old_gardeners_defaults(write: Write) -> None:
    config = load_config(
        write(
            "start_date: 2019-08-01T00:00:00Z\n"
            "sources: [{bucket: archive-mlab, experiment: ndt, datatype: ndt7}]"
        )
    )
    [source] = config.sources
    assert config.start_date == dt.date(2019, 8, 1)
    assert (source.target_datasets.tmp, source.target_datasets.raw) == ("tmp_ndt", "raw_ndt")
    assert source.dedup_key == ("id",)
    assert config.tracker.max_attempts == 3


def test_tcpinfo_continuations_are_told_apart_by_default() -> None:
    source = load_config(PRODUCTION).source("ndt/tcpinfo")
    assert source.dedup_key == ("id", "parser.ArchiveURL", "parser.Filename")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5h", 18000), ("1m", 60), ("1h30m", 5400), ("2.5s", 2.5), ("100ms", 0.1), ("1h0m0s", 3600)],
)
def test_durations_are_written_as_in_go(text: str, seconds: float) -> None:
    assert parse_duration(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "5", "5 h", "h", "-5h", "0s", "5d", "five"])
def test_a_bad_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("start_date: 20x5-1\nsources:" + SOURCE, "start_date: '20x5-1': expected a date"),
        ("sources:" + SOURCE, "start_date: missing"),
        ("start_date: 2020-01-01\nsources: []", "sources: []: expected at least one source"),
        ("start_date: 2020-01-01\ntracker: {timeout: soon}\nsources:" + SOURCE,
         "tracker.timeout: 'soon': expected a duration"),
        ("start_date: 2020-01-01\ntracker: {time_out: 5h}\nsources:" + SOURCE,
         "tracker.time_out: '5h': unknown key: expected one of timeout, max_attempts"),
        ("start_date: 2020-01-01\nhistory: {jobs_per_run: 0}\nsources:" + SOURCE,
         "history.jobs_per_run: 0"),
        ("start_date: 2020-01-01\nlate_archives: {interval: often}\nsources:" + SOURCE,
         "late_archives.interval: 'often': expected a duration"),
        ("start_date: 2020-01-01\ndaily: {catch_up: 3}\nsources:" + SOURCE,
         "daily.catch_up: 3: unknown key: expected one of catch_up_days"),
        ("start_date: 2020-01-01\naudits: {annotated: {action: stop}}\nsources:" + SOURCE,
         "audits.annotated.action: 'stop': expected 'publish', 'warn' or 'hold'"),
        ("start_date: 2020-01-01\naudits: {unique_keys: {threshold: 1}}\nsources:" + SOURCE,
         "audits.unique_keys.threshold: 1: unknown key: expected one of action"),
        ("start_date: 2020-01-01\nsources:" + SOURCE + "  audits: {annotated: {threshold: 2}}",
         "sources[0].audits.annotated.threshold: 2: expected less than or equal to 1"),
        ("start_date: 2020-01-01\nsources:" + SOURCE + "  audits: {rows: {action: hold}}",
         "sources[0].audits.rows: {'action': 'hold'}: unknown key: expected one of unique_keys,"),
        ("start_date: 2020-01-01\nsource: x\nsources:" + SOURCE, "source: 'x': unknown key"),
        ("start_date: 2020-01-01\nsources:" + SOURCE + "  filter: '('",
         "sources[0].filter: '(': expected a regular expression"),
        ("start_date: 2020-01-01\nsources:" + SOURCE + f"  filter: {'x' * 1999}",
         "expected at most 2000 bytes as JSON, for which parsers have room, got 2001"),
        ("start_date: 2020-01-01\nsources:" + SOURCE + "  daily_only: 'yes'",
         "sources[0].daily_only: 'yes': expected a valid boolean"),
        ("start_date: 2020-01-01\nsources:" + SOURCE + "  dedup_key: ['id; DROP']",
         "sources[0].dedup_key[0]: 'id; DROP': expected a column"),
        ("start_date: 2020-01-01\nsources:" + SOURCE + "  owners: [somebody]",
         "sources[0].owners[0]: 'somebody': expected an e-mail address or team:<name>"),
        ("start_date: 2020-01-01\nsources:" + SOURCE + SOURCE,
         "sources: 'ndt/annotation2' stands 2 times"),
        ("start_date: 2020-01-01\nsources:" + SOURCE + SOURCE.replace("t: ndt", "t: wehe"),
         "sources: table 'tmp_ndt.annotation2' is written by 2 sources"),
        ("start_date: 2020-01-01\nsources:" + SOURCE.replace("raw: raw_ndt", "raw: tmp_ndt"),
         "table 'tmp_ndt.annotation2' stands for two of tmp, raw and join"),
        ("start_date: 2020-01-01\nsources:"
         " [{bucket: abc, experiment: e, datatype: d, target_datasets: {join: j}}]",
         "sources[0].annotations: 'annotation2': expected a datatype that 'e' has a source of"),
        ("start_date: 2020-01-01\nstart_date: 2020-01-02\nsources:" + SOURCE,
         "key 'start_date' stands twice"),
        ("start_date: 2020-01-01\ntables: {dates_per_run: 0}\nsources:" + SOURCE,
         "tables.dates_per_run: 0: expected greater than or equal to 1"),
        ("start_date: 2020-01-01\ntables: {dates_at_once: 0}\nsources:" + SOURCE,
         "tables.dates_at_once: 0: expected greater than or equal to 1"),
        ("start_date: 2020-01-01\ntables: {gather: soon}\nsources:" + SOURCE,
         "tables.gather: 'soon': expected a duration"),
        ("start_date: [", "is not YAML"),
        ("- a", "expected a mapping with start_date and sources"),
    ],
)  # fmt: skip
def test_d17_an_unknown_key_or_a_bad_value_is_an_error_that_names_it(
    write: Write, text: str, fault: str
) -> None:
    assert any(fault in said for said in faults(write(text))), faults(write(text))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("start_date: 2019-02-30\nsources:" + SOURCE, "start_date: '2019-02-30': expected a date"),
        ("start_date: 0001-01-01\nsources:" + SOURCE, "expected a date of the years 2000 to 2099"),
        ("start_date: 2020-01-01\ntracker: {timeout: 99999999999h}\nsources:" + SOURCE,
         "tracker.timeout: '99999999999h': expected a duration of at most 36525 days"),
        ("start_date: 2020-01-01\ntracker: {timeout: 0.1ns}\nsources:" + SOURCE,
         "tracker.timeout: '0.1ns': expected a duration of a microsecond or longer"),
        ("start_date: 2020-01-01\ndaily: {catch_up_days: 10000000}\nsources:" + SOURCE,
         "daily.catch_up_days: 10000000: expected less than or equal to 36525"),
        ("start_date: 2020-01-01\nlate_archives: {days: 10000000}\nsources:" + SOURCE,
         "late_archives.days: 10000000: expected less than or equal to 36525"),
        ("start_date: 2020-01-01\nhistory: {recent_days: 10000000}\nsources:" + SOURCE,
         "history.recent_days: 10000000: expected less than or equal to 36525"),
        ("start_date: 2020-01-01\nsources:" + SOURCE.replace("raw_ndt}", "raw_ndt, join: ndt}"),
         "sources[0].target_datasets.join: 'ndt': expected none, since 'annotation2' are"),
        ("start_date: 2020-01-01\nsources:" + SOURCE.replace("annotation2", "a" * 2000),
         "sources[0].datatype: 'aaa"),
        (f"start_date: 2020-01-01\nbigquery: {{maximum_bytes_billed: 0x{'f' * 5000}}}\nsources:"
         + SOURCE, "bigquery.maximum_bytes_billed: "),
        ("start_date: 2020-01-01\n? [a]\n: b\nsources:" + SOURCE, "is not YAML"),
        ("start_date: " + "[" * 5000, "is not YAML: it is nested too deeply"),
    ],
)  # fmt: skip
def test_d40_a_value_that_cannot_be_used_is_an_error_that_names_its_key(
    write: Write, text: str, fault: str
) -> None:
    told = faults(write(text))
    assert any(fault in said for said in told), told
    assert all(len(said) < 600 for said in told)


@pytest.mark.parametrize(
    "pattern", [r"[[:digit:]]{4}", r"-ndt\.tgz\z", r"\pL+", r"(?P<site>[a-z]{3})", r"(?i)NDT7", ""]
)
def test_d37_a_filter_is_what_the_parsers_read(write: Write, pattern: str) -> None:
    text = f"start_date: 2020-01-01\nsources:{SOURCE}  filter: '{pattern}'"
    assert load_config(write(text)).sources[0].filter == pattern


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(?=a)b", "(?=: RE2 has no lookarounds"),
        ("(?<!a)b", "(?<!: RE2 has no lookarounds"),
        (r"(a)\1", r"invalid escape sequence: \1"),
        (r"a\Z", r"invalid escape sequence: \Z"),
        ("a{1001}", "invalid repetition size"),
        ("a++", "bad repetition operator"),
        (r"a\C", r"\C is not known to the parsers"),
        ("(?<site>a)", "a named group is written (?P<name>"),
    ],
)
def test_d37_a_filter_that_the_parsers_cannot_read_is_refused_by_name(
    write: Write, pattern: str, reason: str
) -> None:
    [fault] = faults(write(f"start_date: 2020-01-01\nsources:{SOURCE}  filter: '{pattern}'"))
    assert fault.startswith("sources[0].filter: ")
    assert reason in fault


PLACES = [
    (key,)
    for key in (
        "start_date", "tracker", "monitor", "bigquery", "tables", "audits", "daily",
        "late_archives", "history", "sources", "surplus",
    )
] + [
    ("tracker", "timeout"), ("tracker", "max_attempts"), ("monitor", "polling_interval"),
    ("bigquery", "location"), ("bigquery", "priority"), ("bigquery", "maximum_bytes_billed"),
    ("bigquery", "tmp_expiration"), ("tables", "dates_per_run"), ("tables", "gather"),
    ("audits", "annotated", "threshold"), ("daily", "catch_up_days"), ("late_archives", "interval"),
    ("history", "enabled"), ("history", "recent_days"), ("history", "surplus"),
]  # fmt: skip
IN_A_SOURCE = [
    "bucket", "experiment", "datatype", "filter", "target_datasets", "daily_only", "full_history",
    "dedup_key", "annotations", "owners", "audits", "surplus",
]  # fmt: skip
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | st.text()
    | st.dates()
    | st.datetimes()
    | st.sampled_from(
        ["2019-02-30", "99999999999h", "1h" * 5000, "0x", "a" * 2000, "(?=a)", "\x00"]
    )
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=5,
)


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    place=st.sampled_from([*PLACES, *(("sources", 0, key) for key in IN_A_SOURCE)]), value=VALUES
)
def test_d40_any_value_anywhere_gives_a_config_or_an_error_that_names_its_key(
    write: Write, place: tuple[Any, ...], value: Any
) -> None:
    values: dict[str, Any] = yaml.safe_load("start_date: 2020-01-01\nsources:" + SOURCE)
    inner: Any = values
    for key in place[:-1]:
        inner = inner.setdefault(key, {}) if isinstance(inner, dict) else inner[key]
    inner[place[-1]] = value
    path = write(yaml.safe_dump(values, allow_unicode=False))
    name = ".".join(map(str, place)).replace(".0.", "[0].")
    told: list[str] = []
    try:
        load_config(path)
    except ConfigError as error:
        told = error.faults
        str(error).encode()  # it can be printed
    assert not told or any(fault.startswith((name, "is not YAML")) for fault in told), told


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(text=st.text() | st.text(alphabet="[]{}:,-&*!<>|?'\"#%@0x_.\n ab"))
def test_d40_any_text_gives_a_config_or_an_error(write: Write, text: str) -> None:
    with pytest.raises(ConfigError):
        load_config(write(text))


def test_d17_all_faults_of_a_file_are_told_at_once(write: Write) -> None:
    told = faults(
        write(
            "start_date: soon\ntracker: {timeout: 1, foo: 2}\n"
            "sources: [{bucket: '', experiment: NDT, datatype: ndt7, filter: '['}]"
        )
    )
    keys = {fault.split(":")[0] for fault in told}
    assert keys == {
        "start_date", "tracker.timeout", "tracker.foo", "sources[0].bucket",
        "sources[0].experiment", "sources[0].filter",
        # What the experiment's name would have given.
        "sources[0].target_datasets.tmp", "sources[0].target_datasets.raw",
    }  # fmt: skip


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "cannot be read" in faults(tmp_path / "none.yml")[0]


def test_an_unknown_source_is_named() -> None:
    config: GardenerConfig = load_config(PRODUCTION)
    with pytest.raises(KeyError, match="ndt/nothing"):
        config.source("ndt/nothing")
