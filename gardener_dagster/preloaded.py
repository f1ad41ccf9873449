"""What each run needs, imported and made once. Only the fork server of ``code_server`` imports it.

A fork server does nothing but import modules, so this one works at import: it loads the libraries
that a run imports when it makes a client, and builds the definitions once, which fills caches. It
opens no connection and starts no thread: a fork would share the one and lose the other.
"""

# ruff: noqa: F401 - imported to be there
import gc

import dagster._core.execution.api
import dagster._core.execution.plan.resume_retry
import dagster._core.executor.in_process
import dagster._core.instance.factory
import dagster._core.secrets.env_file
import dagster._core.storage.local_compute_log_manager
import google.cloud.bigquery
import google.cloud.storage
import upath.implementations.local

import gardener_dagster.event_log
import gardener_dagster.run_queue
import gardener_dagster.warehouse.operations
from gardener_dagster.definitions import defs

defs().get_repository_def()
# What is here lives as long as the process, and as its forks: none of them needs to look through
# it for garbage, which would also make it copy each page that it shares.
gc.collect()
gc.freeze()
