"""The ``gardener`` command: one module for each of its commands."""
