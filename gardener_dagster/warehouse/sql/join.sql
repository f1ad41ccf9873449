-- Rows of one date with their annotation: one at most, of the row's date if there is one, else of the day before.
-- A test around midnight can have its annotation in the archives of the day before.
WITH annotation AS (
  SELECT t.* EXCEPT (date, parser)
  FROM {annotations} AS t
  WHERE t.date BETWEEN DATE_SUB(@date, INTERVAL 1 DAY) AND @date
    AND IFNULL(t.id, '') != ''
  QUALIFY
    ROW_NUMBER() OVER (
      PARTITION BY t.id
      ORDER BY
        t.date DESC,
        t.parser.Time DESC,
        t.parser.ArchiveURL DESC,
        t.parser.Filename DESC,
        MD5(TO_JSON_STRING(t))
    ) = 1
)
SELECT
  r.id,
  r.date,
  r.parser,
  annotation.* EXCEPT (id),
  r.* EXCEPT (id, date, parser)
FROM {raw} AS r
LEFT JOIN annotation ON annotation.id = r.id
WHERE r.date = @date
