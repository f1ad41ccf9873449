"""Several clients at once."""

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from google.api_core.exceptions import Conflict
from google.cloud import bigquery

if TYPE_CHECKING:
    from tests.gardener_dagster.local.bigquery.conftest import Lab


def test_readers_never_see_half_of_a_partition(
    lab: "Lab", row: Any, connect: Callable[[str], bigquery.Client]
) -> None:
    lab.table()
    days = [f"2024-03-{day:02}" for day in range(1, 9)]
    stop = threading.Event()
    seen: list[int] = []
    sql = (
        "SELECT date, COUNT(*) AS n, COUNT(DISTINCT id) AS ids"  # noqa: S608
        f" FROM {lab.dataset}.t WHERE date IS NOT NULL GROUP BY date"
    )

    def load(day: str) -> None:
        for version in range(3):
            lab.fill(f"t${day.replace('-', '')}", [row(f"{day}-{version}", day)] * 10)

    def read() -> None:
        with connect(lab.url) as client:
            while not stop.is_set():
                for one in client.query(sql).result():
                    assert (one.n, one.ids) == (10, 1)
                    seen.append(one.n)

    with ThreadPoolExecutor(6) as pool:
        reading = [pool.submit(read) for _ in range(2)]
        loading = [pool.submit(load, day) for day in days]
        for future in loading:
            future.result()
        stop.set()
        for future in reading:
            future.result()
    assert seen
    assert lab.client.get_table(f"{lab.dataset}.t").num_rows == 80


def test_of_many_jobs_with_one_id_one_is_accepted(lab: "Lab", row: Any) -> None:
    lab.table()
    uri = lab.put("a.jsonl", [row("a")])
    name = f"once-{uuid.uuid4()}"
    config = bigquery.LoadJobConfig(
        source_format="NEWLINE_DELIMITED_JSON", write_disposition="WRITE_TRUNCATE"
    )

    def ask(_: int) -> int:
        try:
            lab.client.load_table_from_uri(
                uri, lab.ref("t$20240301"), job_id=name, job_config=config
            ).result()
        except Conflict:
            return 0
        return 1

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(ask, range(8))) == 1
    assert len(lab.rows("t")) == 1


def test_more_jobs_than_run_at_once_all_end(lab: "Lab") -> None:
    sql = "SELECT SUM(x) AS s FROM UNNEST(GENERATE_ARRAY(1, 1000)) AS x"
    jobs = [lab.job(sql) for _ in range(20)]
    assert [[row.s for row in job.result()] for job in jobs] == [[500_500]] * 20
