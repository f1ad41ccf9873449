"""The reference parser: a real client of the jobs API, for ndt7, annotation2 and hopannotation2.

``rows`` makes a row of a test, ``archives`` reads archives, ``worker`` takes jobs and does them.
M-Lab's own parsers are written in Go; this one is for laptops and tests.
"""
