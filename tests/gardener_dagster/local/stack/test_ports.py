import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from gardener_dagster.cli.main import main
from gardener_dagster.local.stack.ports import (
    PREFERRED_PORTS,
    PortError,
    choose_ports,
    replaced_ports,
)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def test_a_free_port_is_kept_and_a_taken_one_replaced(taken: int) -> None:
    usual = {"dagster": taken, "jobs": free_port()}
    chosen = choose_ports(usual)
    assert chosen["jobs"] == usual["jobs"]
    assert chosen["dagster"] not in usual.values()


def test_a_replaced_port_is_told_with_the_reason(
    taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PREFERRED_PORTS, "dagster", taken)
    ports = PREFERRED_PORTS | {"dagster": 12345}
    [line] = replaced_ports(ports)
    assert re.fullmatch(
        rf"dagster: port {taken} is in use( by process {os.getpid()} \(.+\))?, so it has 12345\."
        " --port dagster=NUMBER chooses another one",
        line,
    )
    assert list(replaced_ports(ports, {"dagster": 12345})) == [], "it was asked for"


def test_a_port_that_was_asked_for_is_used_or_not_at_all(taken: int) -> None:
    port = free_port()
    assert choose_ports(asked_for={"jobs": port})["jobs"] == port
    with pytest.raises(PortError, match=f"--port jobs={taken}: the port is in use"):
        choose_ports(asked_for={"jobs": taken})
    with pytest.raises(PortError, match="another part has this port"):
        choose_ports(asked_for={"jobs": port, "status": port})


def test_no_usual_port_is_taken_by_one_that_was_asked_for() -> None:
    port = free_port()
    chosen = choose_ports({"dagster": port, "jobs": 0}, {"jobs": port})
    assert chosen["jobs"] == port != chosen["dagster"]


def test_the_help_says_how_to_choose_and_which_are_usual() -> None:
    for command in ("dev", "demo"):
        text = " ".join(CliRunner().invoke(main, [command, "--help"]).output.split())
        assert "--port NAME=NUMBER" in text
        for name, port in PREFERRED_PORTS.items():
            assert f"{name}={port}" in text


@pytest.mark.parametrize(
    ("port", "said"),
    [
        ("nope=1", "'nope=1': expected one of dagster, jobs"),
        ("jobs=0", "expected a port from 1"),
        ("jobs", "expected a port from 1 to 65535"),
        ("jobs=70000", "expected a port from 1 to 65535"),
    ],
)
def test_d40_a_bad_port_says_what_was_expected(port: str, said: str) -> None:
    result = CliRunner().invoke(main, ["dev", "--port", port])
    assert result.exit_code == 2
    assert said in result.output


def test_d40_a_stack_that_cannot_run_says_why_without_a_traceback(
    taken: int, tmp_path: Path
) -> None:
    for command in ("dev", "demo"):
        common = [command, "--home", str(tmp_path)]
        in_use = CliRunner().invoke(main, [*common, "--port", f"jobs={taken}"])
        assert in_use.output.startswith(f"Error: --port jobs={taken}: the port is in use")
        no_folder = CliRunner().invoke(main, [command, "--home", __file__])
        assert "cannot hold the stack's data" in no_folder.output
        assert no_folder.output.startswith("Error: --home")
