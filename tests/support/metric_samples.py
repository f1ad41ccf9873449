"""The samples of an exposition of metrics, by name and by labels."""

from prometheus_client.parser import text_string_to_metric_families

LABELS = [
    "experiment", "datatype", "daily", "state", "status", "outcome", "year", "query", "priority",
    "path", "code", "le",
]  # fmt: skip
"""In the order in which the tests name them."""
NDT7 = "experiment=ndt,datatype=ndt7"


def samples(exposition: str) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            labels = ",".join(
                f"{name}={sample.labels[name].removesuffix('.0')}"
                for name in sorted(sample.labels, key=LABELS.index)
            )
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def nonzero(series: dict[str, float]) -> dict[str, float]:
    return {labels: value for labels, value in series.items() if value}
