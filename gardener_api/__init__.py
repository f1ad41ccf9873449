"""The parsers' side of the gardener: configuration, job store and jobs API. Imports no Dagster."""
