import datetime as dt
import io
import ipaddress
import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gardener_dagster.local.parser.archives import read_members
from gardener_dagster.local.parser.rows import CorruptError, Origin, parse_member
from gardener_dagster.local.samples.archives import Expected, make_samples
from gardener_dagster.warehouse.table_schemas import Field, schema_of

DAYS = [dt.date(2024, 3, day) for day in (1, 2, 3)]

Rows = dict[tuple[str, dt.date], list[dict[str, Any]]]
Samples = tuple[Path, dict[tuple[str, dt.date], Expected]]


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    folder = tmp_path_factory.mktemp("samples")
    return folder, make_samples(folder, DAYS)


def archives(samples: Samples, datatype: str, date: dt.date) -> list[Path]:
    return sorted((samples[0] / f"ndt/{datatype}/{date:%Y/%m/%d}").iterdir())


@pytest.fixture(scope="module")
def rows(samples: Samples) -> Rows:
    """What a parser makes of them; corrupt tests as ``{}``."""
    return {
        (datatype, date): [
            row for path in archives(samples, datatype, date) for row in _rows(path, datatype, date)
        ]
        for datatype, date in samples[1]
    }


def _rows(path: Path, datatype: str, date: dt.date) -> list[dict[str, Any]]:
    rows = []
    for member in read_members(io.BytesIO(path.read_bytes())):
        assert member.content is not None
        origin = Origin(
            archive_url=f"gs://a/{path.name}",
            archive_size=1,
            filename=member.name,
            file_size=member.size,
            parsed=dt.datetime(2024, 4, 1, tzinfo=dt.UTC),
        )
        try:
            row = parse_member(datatype, member.content, date=date, origin=origin)
        except CorruptError:
            row = {}
        rows.append({name.lower(): value for name, value in row.items()})
    return rows


def ids(rows: Rows, datatype: str, date: dt.date) -> Counter[str]:
    return Counter(row["id"] for row in rows[datatype, date] if row)


def content(folder: Path) -> dict[Path, bytes]:
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*.tgz"))}


def test_the_same_seed_and_dates_give_the_same_bytes(tmp_path: Path, samples: Samples) -> None:
    assert make_samples(tmp_path, [*reversed(DAYS)]) == samples[1]
    assert content(tmp_path) == content(samples[0])


def test_another_seed_gives_other_tests(tmp_path: Path, samples: Samples) -> None:
    make_samples(tmp_path, DAYS, seed=8)
    ours, others = content(samples[0]), content(tmp_path)
    assert ours.keys() == others.keys()
    assert all(ours[path] != others[path] for path in ours)


def test_each_date_is_small_and_named_as_mlabs(samples: Samples) -> None:
    assert {datatype for datatype, _ in samples[1]} == {"ndt7", "annotation2"}
    assert sorted({date for _, date in samples[1]}) == DAYS
    for datatype, date in samples[1]:
        paths = archives(samples, datatype, date)
        assert 4 <= len(paths) <= 6
        assert len({path.name.split("-", 2)[2] for path in paths}) == 4  # machines
        for path in paths:
            dated = f"{date:%Y%m%d}T"
            assert path.name.startswith(dated)
            assert path.name.endswith("-ndt.tgz")
            assert f"Z-{datatype}-mlab" in path.name


def test_the_parser_finds_what_is_expected(samples: Samples, rows: Rows) -> None:
    for (datatype, date), expected in samples[1].items():
        found = ids(rows, datatype, date)
        assert len(archives(samples, datatype, date)) == expected.archives
        assert found.total() == expected.rows_loaded
        assert len(found) == expected.raw_rows
        assert found.total() - len(found) == expected.duplicates_removed
        assert 100 <= len(found) <= 200


def test_what_is_joined_is_what_is_expected(samples: Samples, rows: Rows) -> None:
    for (datatype, date), expected in samples[1].items():
        if datatype == "annotation2":
            assert (expected.joined_rows, expected.annotated_rows) == (None, None)
            continue
        own = set(ids(rows, "ndt7", date))
        before = date - dt.timedelta(days=1)
        annotated = set(ids(rows, "annotation2", date))
        if before in DAYS:
            annotated |= set(ids(rows, "annotation2", before))
        assert expected.joined_rows == len(own)
        assert expected.annotated_rows == len(own & annotated)
        assert len(own - annotated) >= 7


def test_there_is_something_to_do_for_every_step(samples: Samples, rows: Rows) -> None:
    for date in DAYS:
        found = rows["ndt7", date]
        assert sum(not row for row in found) == 1  # corrupt
        archives_of: dict[str, set[str]] = {}
        for row in found:
            if row:
                archives_of.setdefault(row["id"], set()).add(row["parser"]["ArchiveURL"])
        assert sum(len(urls) == 2 for urls in archives_of.values()) == 8
        assert {("Download" in row["raw"], "Upload" in row["raw"]) for row in found if row} == {
            (True, False),
            (False, True),
        }


def test_the_first_minutes_of_a_day_are_annotated_on_the_day_before(rows: Rows) -> None:
    for date in DAYS:
        midnight = f"{date}T00:00:"
        early = {r["id"] for r in rows["ndt7", date] if r and r["a"]["TestTime"] >= midnight}
        early &= {r["id"] for r in rows["ndt7", date] if r and r["a"]["TestTime"] < f"{date}T00:01"}
        assert len(early) == 4
        assert len(early & set(ids(rows, "annotation2", date))) == 1
        if date > DAYS[0]:
            before = date - dt.timedelta(days=1)
            assert early <= set(ids(rows, "annotation2", before))


def test_ids_are_of_one_date_only(rows: Rows) -> None:
    first, second, third = (set(ids(rows, "ndt7", date)) for date in DAYS)
    assert not first & second | second & third | first & third


def test_the_tables_take_every_row(rows: Rows) -> None:
    def unknown(value: dict[str, Any], fields: list[Field]) -> list[str]:
        known = {field["name"].lower(): field for field in fields}
        found = [name for name in value if name.lower() not in known]
        for name, item in value.items():
            inner = known.get(name.lower(), {}).get("fields", [])
            for one in item if inner and isinstance(item, list) else [item] if inner else []:
                found += unknown(one, inner)
        return found

    for (datatype, _), found in rows.items():
        assert [name for row in found for name in unknown(row, schema_of(datatype))] == []


def test_headers_are_mlabs(samples: Samples) -> None:
    for datatype, date in samples[1]:
        for path in archives(samples, datatype, date):
            with tarfile.open(path) as tar:
                for entry in tar:
                    assert entry.name.startswith(f"{date:%Y/%m/%d}/")
                    assert entry.pax_headers["MLAB.datatype"] == datatype
                    assert entry.pax_headers["MLAB.server.name"].endswith(".measurement-lab.org")


def test_some_members_are_packed_and_some_are_not(samples: Samples) -> None:
    for date in DAYS:
        with tarfile.open(archives(samples, "ndt7", date)[0]) as tar:
            assert {name.endswith(".gz") for name in tar.getnames()} == {True, False}


def snapshots(rows: Rows) -> list[list[dict[str, Any]]]:
    return [
        (row["raw"].get("Download") or row["raw"]["Upload"])["ServerMeasurements"]
        for row in rows["ndt7", DAYS[0]]
        if row
    ]


def test_snapshots_have_every_field_of_a_server_of_their_time(rows: Rows) -> None:
    [raw] = [f for f in schema_of("ndt7") if f["name"] == "raw"]
    fields: list[Field] = raw["fields"]
    for name in ("Download", "ServerMeasurements", "TCPInfo"):
        [fields] = [f["fields"] for f in fields if f["name"] == name]
    every = {f["name"] for f in fields}
    newer = {"RcvOooPack", "SndWnd"}
    kinds = {
        (frozenset(s["TCPInfo"]), frozenset(s["BBRInfo"])) for one in snapshots(rows) for s in one
    }
    assert kinds == {
        (frozenset(every), frozenset(["BW", "MinRTT", "PacingGain", "CwndGain", "ElapsedTime"])),
        (frozenset(every - newer), frozenset(["MinRTT", "ElapsedTime"])),
    }


def test_old_snapshots_have_the_fields_of_the_real_archive(rows: Rows) -> None:
    folder = Path(__file__).resolve().parents[5] / "shared/data/archive-mlab-demo/ndt/ndt7"
    if not folder.is_dir():
        pytest.skip("M-Lab's sample data is not beside the project, in ../shared/data")
    [path] = folder.rglob("*.tgz")
    member = next(iter(read_members(io.BytesIO(path.read_bytes()))))
    real = json.loads(member.content or b"")["Download"]["ServerMeasurements"][0]
    old = [one[0] for one in snapshots(rows) if "BW" not in one[0]["BBRInfo"]]
    assert old
    assert {frozenset(s["TCPInfo"]) for s in old} == {frozenset(real["TCPInfo"])}
    assert {frozenset(s["BBRInfo"]) for s in old} == {frozenset(real["BBRInfo"]) - {"MaxBandwidth"}}


def test_counters_grow_and_rates_are_those_of_networks(rows: Rows) -> None:
    for one in snapshots(rows):
        infos = [s["TCPInfo"] for s in one]
        for name in ("ElapsedTime", "BytesAcked", "BytesReceived", "BytesSent", "BytesRetrans"):
            values = [info[name] for info in infos]
            assert values == sorted(values)
        assert all(i["BytesSent"] == i["BytesAcked"] + i["BytesRetrans"] for i in infos)
    summaries = [row["a"] for row in rows["ndt7", DAYS[0]] if row]
    assert all(0.05 < a["MeanThroughputMbps"] < 1000 for a in summaries)
    assert all(1 < a["MinRTT"] < 300 for a in summaries)
    assert all(0 <= a["LossRate"] < 0.05 for a in summaries)
    assert any(a["LossRate"] > 0 for a in summaries)


def test_clients_are_where_their_annotations_say(samples: Samples, rows: Rows) -> None:
    networks = {
        row["id"]: ipaddress.ip_network(row["client"]["Network"]["CIDR"])
        for row in rows["annotation2", DAYS[1]]
    }
    tests = [row for row in rows["ndt7", DAYS[1]] if row and row["id"] in networks]
    assert tests
    assert all(ipaddress.ip_address(r["raw"]["ClientIP"]) in networks[r["id"]] for r in tests)


def test_dates_that_are_not_neighbours(tmp_path: Path) -> None:
    dates = [dt.date(2024, 3, 1), dt.date(2024, 3, 3)]
    annotated = [make_samples(tmp_path, dates)["ndt7", date].annotated_rows for date in dates]
    assert annotated[0] == annotated[1]
