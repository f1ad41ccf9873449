-- Rows of a joined partition, and how many of them have an annotation. Reads the id columns only.
SELECT
  COUNT(*) AS row_count,
  COUNT(annotation.id) AS annotated
FROM {joined} AS j
LEFT JOIN (
  SELECT DISTINCT t.id
  FROM {annotations} AS t
  WHERE t.date BETWEEN DATE_SUB(@date, INTERVAL 1 DAY) AND @date
    AND IFNULL(t.id, '') != ''
) AS annotation ON annotation.id = j.id
WHERE j.date = @date
