"""The reference parser: a real client of the jobs API, for ndt7, annotation2 and hopannotation2.

``fields`` fits JSON to a table's schema, ``rows`` makes a row of a test, ``unpacking`` and ``tar``
read gzip and tar data that may be damaged, ``archives`` reads the tests of an archive, ``outputs``
makes an object of rows of it, ``progress`` parses some at the same time, ``worker`` takes jobs and
does them. M-Lab's own parsers are written in Go (m-lab/etl); this one is for laptops and tests.
"""
