"""The laptop stack: everything the pipeline talks to in production, on this machine.

Nothing outside this package imports it, but the command line.
"""
