"""The schema files take all that M-Lab's parsers write (D33).

The fields are those of the parsers' output, written down here once more and not taken from the
schema files: https://github.com/m-lab/etl/tree/main/schema and the Go types that it names.
"""

import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.gardener_dagster.warehouse.operations.conftest import Lab

DATE = dt.date(2024, 3, 1)
TIME = "2024-03-01T12:00:00.123456Z"

TCP_INFO = dict.fromkeys(  # all integers
    """
    State CAState Retransmits Probes Backoff Options WScale AppLimited RTO ATO SndMSS RcvMSS Unacked
    Sacked Lost Retrans Fackets LastDataSent LastAckSent LastDataRecv LastAckRecv PMTU RcvSsThresh
    RTT RTTVar SndSsThresh SndCwnd AdvMSS Reordering RcvRTT RcvSpace TotalRetrans PacingRate
    MaxPacingRate BytesAcked BytesReceived SegsOut SegsIn NotsentBytes MinRTT DataSegsIn DataSegsOut
    DeliveryRate BusyTime RWndLimited SndBufLimited Delivered DeliveredCE BytesSent BytesRetrans
    DSackDups ReordSeen ElapsedTime
    """.split(),  # noqa: SIM905 - a table of names
    7,
)
SUMMARY = {
    "UUID": "u", "TestTime": TIME, "CongestionControl": "bbr",
    "MeanThroughputMbps": 1.5, "MinRTT": 0.5, "LossRate": 0.25,
}  # fmt: skip
MEASUREMENT = {
    "AppInfo": {"NumBytes": 1, "ElapsedTime": 2},
    "BBRInfo": {"BW": 1, "MinRTT": 2, "PacingGain": 3, "CwndGain": 4, "ElapsedTime": 5},
    "ConnectionInfo": {"Client": "[::1]:5000", "Server": "[::1]:443", "UUID": "u"},
    "TCPInfo": TCP_INFO,
}
HALF = {
    "UUID": "u", "StartTime": TIME, "EndTime": TIME,
    "ServerMeasurements": [MEASUREMENT], "ClientMeasurements": [MEASUREMENT],
    "ClientMetadata": [{"Name": "n", "Value": "v"}],
    "ServerMetadata": [{"Name": "n", "Value": "v"}],
}  # fmt: skip
TEST = {
    "GitShortCommit": "g", "Version": "v", "ServerIP": "::1", "ServerPort": 443,
    "ClientIP": "::2", "ClientPort": 5000, "StartTime": TIME, "EndTime": TIME,
}  # fmt: skip
GEO = {
    "ContinentCode": "EU", "CountryCode": "DE", "CountryCode3": "DEU", "CountryName": "Germany",
    "Region": "", "Subdivision1ISOCode": "BE", "Subdivision1Name": "Berlin",
    "Subdivision2ISOCode": "B", "Subdivision2Name": "B", "MetroCode": 1, "City": "Berlin",
    "AreaCode": 2, "PostalCode": "10115", "Latitude": 52.5, "Longitude": 13.25,
    "AccuracyRadiusKm": 20, "Missing": False,
}  # fmt: skip
NETWORK = {
    "CIDR": "10.0.0.0/8", "ASNumber": 64512, "ASName": "Test", "Missing": False,
    "Systems": [{"ASNs": [64512, 64513]}],
}  # fmt: skip

WRITTEN: dict[str, dict[str, Any]] = {
    "ndt7": {"A": SUMMARY, "Raw": TEST | {"Download": HALF, "Upload": HALF}},
    "annotation2": {
        "server": {"Site": "lga03", "Machine": "mlab1", "Geo": GEO, "Network": NETWORK},
        "client": {"Geo": GEO, "Network": NETWORK},
    },
    "hopannotation2": {
        "Raw": {"ID": "x", "Timestamp": TIME, "Annotations": {"Geo": GEO, "Network": NETWORK}}
    },
    "ndt5": {"a": SUMMARY, "raw": TEST},
    "tcpinfo": {"raw": {"Metadata": {"UUID": "u", "Sequence": 0, "StartTime": TIME}}},
    "scamper1": {"Raw": {"Metadata": {"UUID": "u", "CachedResult": False}}},
    "pcap": {},
    "switch": {
        "A": {"Machine": "mlab1", "Site": "lga03", "CollectionTime": TIME},
        "Raw": {"Metrics": [{"metric": "m", "sample": [{"timestamp": 1709251200, "value": 1.5}]}]},
    },
}
"""What each parser writes but for the columns that all have: every field that is known."""

UPPER = {"ndt7", "hopannotation2", "scamper1", "pcap", "switch"}
"""Datatypes whose parsers begin the common keys with a capital."""


def line(datatype: str, written: dict[str, Any]) -> dict[str, Any]:
    origin = {
        "Version": "v2", "Time": TIME, "ArchiveURL": "gs://a/b.tgz", "Filename": "f.json",
        "Priority": 0, "GitCommit": "abc", "ArchiveSize": 10, "FileSize": 5,
    }  # fmt: skip
    common = {"ID": "x", "Parser": origin, "Date": DATE.isoformat()}
    if datatype not in UPPER:
        common = {key.lower(): value for key, value in common.items()}
    return common | written


def same(written: Any, stored: Any) -> bool:
    """Whether a stored value is the written one; names do not care about case."""
    if isinstance(written, dict):
        found = {key.casefold(): value for key, value in stored.items()}
        return all(same(value, found[key.casefold()]) for key, value in written.items())
    if isinstance(written, list):
        return len(written) == len(stored) and all(map(same, written, stored))
    if isinstance(stored, dt.datetime):
        return dt.datetime.fromisoformat(written) == stored
    return bool(str(written) == str(stored) if isinstance(stored, dt.date) else written == stored)


@pytest.mark.parametrize("datatype", WRITTEN)
def test_d33_a_line_with_every_field_of_the_parser_is_loaded(lab: "Lab", datatype: str) -> None:
    written = line(datatype, WRITTEN[datatype])
    partition = lab.load([written], datatype=datatype)
    [row] = lab.rows(partition)
    assert same(written, row)


def test_d33_the_parsers_write_no_maximum_of_the_bandwidth(lab: "Lab") -> None:
    lab.load([line("ndt7", WRITTEN["ndt7"])])
    table = lab.client.get_table(lab.tables().tmp_partition(DATE).table_id)
    assert "MaxBandwidth" not in str(table.schema)
