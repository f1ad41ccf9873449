"""The laptop stack: everything the pipeline talks to in production, on this machine.

Only the command line imports this package.
"""
