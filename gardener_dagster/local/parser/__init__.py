"""The reference parser: a real client of the jobs API, for ndt7, annotation2 and hopannotation2.

``fields`` fits JSON to a table's schema, ``rows`` converts a test to a row, ``unpacking`` and
``tar`` read gzip and tar data that may be damaged, ``archives`` reads the tests of an archive,
``outputs`` writes their rows to an object, ``progress`` parses archives in parallel, ``worker``
does jobs. M-Lab's own parsers are written in Go (m-lab/etl); this one is for laptops and tests.
"""
