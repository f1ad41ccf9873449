"""The parse job: its states and transitions, and what its callers say. Pure."""
