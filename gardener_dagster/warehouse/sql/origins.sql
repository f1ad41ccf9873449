-- Which archives and parser versions the rows of a partition come from.
SELECT
  parser.ArchiveURL AS archive,
  parser.Version AS version,
  COUNT(*) AS row_count
FROM {table}
WHERE date = @date
GROUP BY archive, version
ORDER BY archive, version
