-- One row for each key: the newest, whatever the ties. Rows without a key are kept.
-- The last term of the order tells any two rows apart that are not the same in every column.
SELECT t.*
FROM {table} AS t
WHERE t.date = @date
QUALIFY
  {keyless}
  OR ROW_NUMBER() OVER (
    PARTITION BY {key}
    ORDER BY
      t.parser.Time DESC NULLS LAST,
      t.parser.ArchiveURL DESC NULLS LAST,
      t.parser.Filename DESC NULLS LAST,
      MD5(TO_JSON_STRING(t))
  ) = 1
