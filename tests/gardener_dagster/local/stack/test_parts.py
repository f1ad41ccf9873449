from pathlib import Path

from click.testing import CliRunner

from gardener_api.config import GardenerConfig
from gardener_api.store.store import JobStore
from gardener_dagster.cli.main import main
from gardener_dagster.local.stack.parts import StackSettings, build_parts
from gardener_dagster.local.stack.ports import PREFERRED_PORTS


def settings_in(home: Path) -> StackSettings:
    return StackSettings(
        home=home,
        config=home / "gardener.yml",
        dagster_yaml=home / "dagster.yaml",
        ports=dict(PREFERRED_PORTS),
    )


def test_d40_the_store_is_in_the_home_whatever_its_path(
    tmp_path: Path, config: GardenerConfig
) -> None:
    home = tmp_path / "50% of what? #1"
    settings = settings_in(home)
    folder = home / "dagster"
    folder.mkdir(parents=True)
    tracker = config.tracker
    JobStore.open(
        settings.database_url, lease=tracker.timeout, max_attempts=tracker.max_attempts
    ).close()
    assert (folder / "gardener.db").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"gardener.yml", home.name}
    found = CliRunner().invoke(
        main,
        ["status", "--config", str(tmp_path / "gardener.yml"), "--dates", "2024-03-01"],
        env={"DAGSTER_HOME": str(folder), "GARDENER_DATABASE_URL": ""},
    )
    assert (found.exit_code, len(found.stdout.splitlines())) == (0, 2), found.output


def test_a_stack_has_a_mark_of_its_own_on_each_process(tmp_path: Path) -> None:
    first, second = (build_parts(settings_in(tmp_path)) for _ in range(2))
    marks = [{part.environment["GARDENER_STACK"] for part in s.parts} for s in (first, second)]
    assert [len(mark) for mark in marks] == [1, 1]
    assert marks[0] != marks[1]
