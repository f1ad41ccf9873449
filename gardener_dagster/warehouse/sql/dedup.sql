-- One row for each key: the newest, whatever the ties. Rows without a key are kept.
-- NULL sorts last in descending order; the last term tells apart all rows that differ in anything.
SELECT t.*
FROM {table} AS t
WHERE t.date = @date
QUALIFY
  {keyless}
  OR ROW_NUMBER() OVER (
    PARTITION BY {key}
    ORDER BY
      t.parser.Time DESC,
      t.parser.ArchiveURL DESC,
      t.parser.Filename DESC,
      MD5(TO_JSON_STRING(t))
  ) = 1
