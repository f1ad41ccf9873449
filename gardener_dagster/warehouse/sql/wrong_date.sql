-- Rows that are not of the date they were written for, and where they come from.
SELECT
  COUNT(*) AS row_count,
  COUNTIF(date IS NULL) AS dateless,
  MIN(date) AS first_date,
  MAX(date) AS last_date,
  MIN(parser.ArchiveURL) AS archive
FROM {table}
WHERE date IS NULL OR date != @date
