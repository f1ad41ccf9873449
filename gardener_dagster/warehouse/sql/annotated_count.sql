-- Rows of a raw partition, and how many of them have an annotation. Reads the id columns only.
SELECT
  COUNT(*) AS row_count,
  COUNT(annotation.id) AS annotated
FROM {raw} AS r
LEFT JOIN (
  SELECT DISTINCT t.id
  FROM {annotations} AS t
  WHERE t.date BETWEEN DATE_SUB(@date, INTERVAL 1 DAY) AND @date
    AND IFNULL(t.id, '') != ''
) AS annotation ON annotation.id = r.id
WHERE r.date = @date
