-- Partitions of a table that nobody has written to since a given time.
SELECT partition_id, last_modified_time
FROM `{project}.{dataset}.INFORMATION_SCHEMA.PARTITIONS`
WHERE table_name = @table
  AND last_modified_time < @before
  AND REGEXP_CONTAINS(partition_id, r'^\d{{8}}$')
ORDER BY partition_id
