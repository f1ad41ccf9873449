"""The reference parser: a real client of the jobs API, for ndt7, annotation2 and hopannotation2.

``fields`` fits JSON to a table's schema, ``rows`` makes a row of a test, ``archives`` reads
archives, ``objects`` makes an object of an archive, ``worker`` takes jobs and does them. M-Lab's
own parsers are written in Go (m-lab/etl); this one is for laptops and tests.
"""
