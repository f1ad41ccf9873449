"""Schedules and sensors: what starts runs, and what reports failures."""
