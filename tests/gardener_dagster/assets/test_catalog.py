"""What Dagster's catalog says of the assets of a configuration."""

import dagster as dg
import pytest

from gardener_api.config import GardenerConfig
from gardener_api.links import Links
from gardener_dagster.definitions import build_defs
from gardener_dagster.resources import GCSResource, JobStoreResource, WarehouseResource

CONFIG = {
    "start_date": "2024-03-01",
    "sources": [
        {"bucket": "archive-mlab", "experiment": "ndt", "datatype": "annotation2"},
        {
            "bucket": "archive-mlab",
            "experiment": "ndt",
            "datatype": "ndt7",
            "target_datasets": {"join": "ndt"},
            "owners": ["team:measurement"],
        },
        {"bucket": "archive-mlab", "experiment": "ndt", "datatype": "unheard"},
    ],
}
LINKS = Links(project="p", status_url="http://sidecar:8081")


def graph(links: Links | None = None) -> dg.RepositoryDefinition:
    defs = build_defs(
        GardenerConfig.model_validate(CONFIG),
        job_store=JobStoreResource(url="sqlite:///none", lease_seconds=1, max_attempts=1),
        warehouse=WarehouseResource(project="p"),
        gcs=GCSResource(project="p", parsed_bucket="etl-mlab"),
        links=links,
    )
    return defs.get_repository_def()


@pytest.fixture(scope="module")
def linked() -> dg.RepositoryDefinition:
    return graph(LINKS)


def columns(repository: dg.RepositoryDefinition, *key: str) -> dict[str, dg.TableColumn]:
    schema = repository.asset_graph.get(dg.AssetKey(key)).metadata["dagster/column_schema"]
    return {column.name: column for column in schema.columns}


def test_tables_have_the_columns_of_their_schema_files(linked: dg.RepositoryDefinition) -> None:
    raw = columns(linked, "raw_ndt", "ndt7")
    assert raw["id"].type == "STRING"
    assert raw["parser.ArchiveURL"].type == "STRING"
    assert raw["raw.Download.ServerMeasurements"].type.startswith("ARRAY<")
    assert columns(linked, "tmp_ndt", "ndt7") == raw


def test_a_joined_table_has_those_of_both(linked: dg.RepositoryDefinition) -> None:
    joined = columns(linked, "ndt", "ndt7")
    assert list(joined)[:2] == ["id", "date"]
    own, annotation = columns(linked, "raw_ndt", "ndt7"), columns(linked, "raw_ndt", "annotation2")
    assert set(joined) == set(own) | set(annotation)


def test_a_datatype_without_a_file_has_none(linked: dg.RepositoryDefinition) -> None:
    node = linked.asset_graph.get(dg.AssetKey(["raw_ndt", "unheard"]))
    assert "dagster/column_schema" not in node.metadata
    assert node.metadata["dagster/table_name"] == "p.raw_ndt.unheard"


def test_the_sql_is_in_the_description(linked: dg.RepositoryDefinition) -> None:
    joined = linked.asset_graph.get(dg.AssetKey(["ndt", "ndt7"])).description
    assert joined is not None
    assert "```sql\n-- Rows of one date with their annotation" in joined
    assert "FROM `p.raw_ndt.ndt7` AS r\nLEFT JOIN annotation" in joined
    raw = linked.asset_graph.get(dg.AssetKey(["raw_ndt", "ndt7"])).description
    assert raw is not None
    assert "PARTITION BY t.`id`" in raw


def test_owners_are_those_of_the_configuration(linked: dg.RepositoryDefinition) -> None:
    for key in (
        ["parsed", "ndt", "ndt7"],
        ["tmp_ndt", "ndt7"],
        ["raw_ndt", "ndt7"],
        ["ndt", "ndt7"],
    ):
        assert linked.asset_graph.get(dg.AssetKey(key)).owners == ("team:measurement",)
    assert linked.asset_graph.get(dg.AssetKey(["raw_ndt", "annotation2"])).owners == ()


def test_links(linked: dg.RepositoryDefinition) -> None:
    def urls(*key: str) -> dict[str, str]:
        metadata = linked.asset_graph.get(dg.AssetKey(key)).metadata
        return {
            name: str(value.value)
            for name, value in metadata.items()
            if isinstance(value, dg.UrlMetadataValue)
        }

    jobs = "http://sidecar:8081/jobs?experiment=ndt&datatype=ndt7&sort=date"
    console = "https://console.cloud.google.com"
    assert urls("parsed", "ndt", "ndt7") == {
        "archives": f"{console}/storage/browser/archive-mlab/ndt/ndt7/",
        "parsed objects": f"{console}/storage/browser/etl-mlab/archive-mlab/ndt/ndt7/",
        "jobs": jobs,
    }
    assert urls("raw_ndt", "ndt7") == {
        "table": f"{console}/bigquery?project=p&p=p&d=raw_ndt&t=ndt7&page=table",
        "jobs": jobs,
    }


def test_where_nobody_said_where_there_are_no_links() -> None:
    metadata = graph().asset_graph.get(dg.AssetKey(["raw_ndt", "ndt7"])).metadata
    assert {"table", "jobs"}.isdisjoint(metadata)
