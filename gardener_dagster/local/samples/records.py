"""What servers write of a test, made up: the JSON of ndt7 and annotation2, with all of its fields.

``archives`` defines which tests there are, and in which archives. Field names and the relations
between numbers are those of M-Lab's archives: ndt-server's results and uuid-annotator's
annotations. Addresses and AS numbers are reserved for documentation (RFC 5737, RFC 5398).
"""

import datetime as dt
import random
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

_SECONDS = 10.0  # of a test
_SNAPSHOTS = (6, 12)  # minimum and maximum of a test
_MSS = 1448
_NO_THRESHOLD = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class Place:
    """Location and network of an address."""

    continent: str
    country: str
    country_name: str
    city: str
    latitude: float
    longitude: float
    cidr: str
    as_number: int
    as_name: str


@dataclass(frozen=True, kw_only=True)
class Machine:
    """An M-Lab server.

    Attributes:
        name: Such as ``mlab1``.
        site: Such as ``lga05``.
        pod: Name of its pod, part of the UUIDs of its connections.
        address: Its IP address.
        old: Whether it runs an ndt-server of 2020, whose results have other fields.
    """

    name: str
    site: str
    pod: str
    address: str
    place: Place
    old: bool = False

    @property
    def host(self) -> str:
        """Name of the machine in the names of archives."""
        return f"{self.name}-{self.site}"


@dataclass(frozen=True, kw_only=True)
class Client:
    """The client of a test."""

    address: str
    place: Place


def _place(
    region: str, city: str, latitude: float, longitude: float, network: str, as_number: int
) -> Place:
    continent, country, country_name = region.split("/")
    return Place(
        continent=continent,
        country=country,
        country_name=country_name,
        city=city,
        latitude=latitude,
        longitude=longitude,
        cidr=network,
        as_number=as_number,
        as_name=f"Example Networks {as_number % 100}",
    )


_US, _DE = "NA/US/United States", "EU/DE/Germany"
_BR, _AU = "SA/BR/Brazil", "OC/AU/Australia"
_LGA = _place(_US, "New York", 40.7667, -73.8667, "192.0.2.0/26", 64496)
_SYD = _place(_AU, "Sydney", -33.9461, 151.1772, "192.0.2.64/26", 64497)
_GRU = _place(_BR, "São Paulo", -23.4356, -46.4731, "192.0.2.128/26", 64498)

MACHINES = (
    Machine(name="mlab1", site="lga05", pod="knwp4", address="192.0.2.11", place=_LGA),
    Machine(name="mlab2", site="lga05", pod="rczlq", address="192.0.2.24", place=_LGA),
    Machine(name="mlab3", site="syd03", pod="njp6l", address="192.0.2.75", place=_SYD, old=True),
    Machine(name="mlab1", site="gru03", pod="x8dvt", address="192.0.2.139", place=_GRU),
)
CLIENT_PLACES = (
    _place(_US, "Reston", 38.9687, -77.3411, "198.51.100.0/26", 64500),
    _place(_DE, "Köln", 50.9333, 6.95, "198.51.100.64/26", 64501),
    _place(_BR, "Recife", -8.05, -34.9, "198.51.100.128/26", 64502),
    _place(_AU, "Hobart", -42.8794, 147.3294, "198.51.100.192/26", 64503),
)


def make_client(chance: random.Random) -> Client:
    """Make a random client, with an address of its network."""
    number = chance.randrange(len(CLIENT_PLACES))
    return Client(
        address=f"198.51.100.{64 * number + chance.randint(1, 62)}", place=CLIENT_PLACES[number]
    )


def ndt7_record(
    chance: random.Random,
    machine: Machine,
    client: Client,
    uuid: str,
    start: dt.datetime,
    *,
    download: bool,
) -> Json:
    """Make the result of one test.

    Args:
        chance: Random generator for the other values.
        machine: The server.
        client: The client.
        uuid: UUID of the connection.
        start: Start of the test, aware and UTC.
        download: True for a download, False for an upload.
    """
    port = chance.randint(1024, 65_535)
    half: Json = {
        "UUID": uuid,
        "StartTime": stamp(start),
        "EndTime": stamp(start + dt.timedelta(seconds=_SECONDS)),
        "ServerMeasurements": _snapshots(chance, machine.old, download=download),
        "ClientMeasurements": None,
        "ClientMetadata": [
            {"Name": "client_name", "Value": "ndt7-client-go-cmd"},
            {"Name": "client_os", "Value": chance.choice(("linux", "darwin", "windows"))},
        ],
    }
    if not machine.old:
        half["ServerMetadata"] = [{"Name": "machine-type", "Value": "physical"}]
        for snapshot in half["ServerMeasurements"]:
            snapshot["ConnectionInfo"] = {
                "Client": f"{client.address}:{port}",
                "Server": f"{machine.address}:443",
                "UUID": uuid,
            }
    return {
        "GitShortCommit": "3ff6fc6" if machine.old else "65ed3f0",
        "Version": "v0.14.2" if machine.old else "v0.20.17",
        "ServerIP": machine.address,
        "ServerPort": 443,
        "ClientIP": client.address,
        "ClientPort": port,
        "StartTime": stamp(start),
        "EndTime": stamp(start + dt.timedelta(seconds=_SECONDS, milliseconds=3)),
        "Download" if download else "Upload": half,
    }


def annotation_record(machine: Machine, client: Client, uuid: str, time: dt.datetime) -> Json:
    """Make the annotation of one connection.

    Args:
        machine: The server.
        client: The client.
        uuid: UUID of the connection.
        time: When it was opened, aware and UTC.
    """
    return {
        "UUID": uuid,
        "Timestamp": stamp(time),
        "Server": {"Site": machine.site, "Machine": machine.name, **_annotated(machine.place)},
        "Client": _annotated(client.place),
    }


def stamp(time: dt.datetime) -> str:
    """Format a time as servers write it, with nanoseconds."""
    return f"{time:%Y-%m-%dT%H:%M:%S.%f}{time.microsecond * 7 % 1000:03d}Z"


def _annotated(place: Place) -> Json:
    return {
        "Geo": {
            "ContinentCode": place.continent,
            "CountryCode": place.country,
            "CountryName": place.country_name,
            "Region": "OLD",  # in annotations before March 2020; parsers clear it
            "City": place.city,
            "Latitude": place.latitude,
            "Longitude": place.longitude,
            "AccuracyRadiusKm": 20,
        },
        "Network": {
            "CIDR": place.cidr,
            "ASNumber": place.as_number,
            "ASName": place.as_name,
            "Systems": [{"ASNs": [place.as_number]}],
        },
    }


def _snapshots(chance: random.Random, old: bool, *, download: bool) -> list[Json]:
    """Make the snapshots of a connection that nearly fills its path, with some loss."""
    path_rate = 10 ** chance.uniform(5.3, 7.9)  # bytes/s: 1.6 to 640 Mbit/s
    rtt = round(10 ** chance.uniform(3.3, 5.4))  # µs
    loss = chance.choice((0.0, 0.0, chance.uniform(0.0001, 0.03)))
    count = chance.randint(*_SNAPSHOTS)
    snapshots = []
    for number in range(1, count + 1):
        elapsed = round((number + chance.uniform(-0.2, 0)) * _SECONDS * 1e6 / count)
        seconds = elapsed / 1e6
        rate = path_rate * chance.uniform(0.9, 1.0)
        carried = round(path_rate * seconds * seconds / (seconds + 10 * rtt / 1e6))
        info = _tcp_info(chance, rate, rtt, elapsed) | _counts(carried, loss, download=download)
        bbr: Json = {"MaxBandwidth" if old else "BW": round(rate), "MinRTT": rtt}
        if old:
            del info["RcvOooPack"], info["SndWnd"]  # fields of newer kernels
        else:
            bbr |= {"PacingGain": chance.choice((192, 256, 320)), "CwndGain": 512}
        snapshots.append({"BBRInfo": bbr | {"ElapsedTime": elapsed}, "TCPInfo": info})
    return snapshots


def _tcp_info(chance: random.Random, rate: float, rtt: int, elapsed: int) -> Json:
    window = max(10, round(2 * rate * rtt / 1e6 / _MSS))  # packets
    smoothed = round(rtt * chance.uniform(1.0, 1.3))
    return {
        "State": 1, "CAState": 0, "Retransmits": 0, "Probes": 0, "Backoff": 0, "Options": 7,
        "WScale": 119, "AppLimited": 0, "RTO": 200_000 + smoothed, "ATO": 40_000,
        "SndMSS": _MSS, "RcvMSS": 536, "Unacked": window // 2, "Sacked": 0, "Lost": 0,
        "Retrans": 0, "Fackets": 0, "LastDataSent": chance.randint(0, 9), "LastAckSent": 0,
        "LastDataRecv": chance.randint(0, 99), "LastAckRecv": chance.randint(0, 9), "PMTU": 1500,
        "RcvSsThresh": 64_076, "RTT": smoothed, "RTTVar": smoothed // 40,
        "SndSsThresh": _NO_THRESHOLD, "SndCwnd": window, "AdvMSS": 1448, "Reordering": 3,
        "RcvRTT": 0, "RcvSpace": 14_480, "PacingRate": round(rate * 1.25), "MaxPacingRate": -1,
        "NotsentBytes": chance.randint(0, 4_000_000), "MinRTT": rtt, "DeliveryRate": round(rate),
        "BusyTime": elapsed // 1000 * 1000, "RWndLimited": 0, "SndBufLimited": 0,
        "DeliveredCE": 0, "DSackDups": 0, "ReordSeen": 0, "RcvOooPack": 0, "SndWnd": 3_145_728,
        "ElapsedTime": elapsed,
    }  # fmt: skip


def _counts(carried: int, loss: float, *, download: bool) -> Json:
    """Make the counters of bytes and segments, most of them in the test's direction."""
    again = round(carried * loss) if download else 0
    acked, received = (carried, 1_600) if download else (5_200 + carried // 5_000, carried)
    packets = acked // _MSS + 1
    packets_again, packets_in = again // _MSS, received // _MSS + 1
    return {
        "BytesAcked": acked, "BytesReceived": received, "BytesSent": acked + again,
        "BytesRetrans": again, "TotalRetrans": packets_again, "Delivered": packets,
        "DataSegsOut": packets + packets_again,
        "SegsOut": packets + packets_again + packets_in // 2,
        "DataSegsIn": packets_in, "SegsIn": packets_in + packets // 2,
    }  # fmt: skip
