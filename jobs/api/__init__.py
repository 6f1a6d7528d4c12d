"""The HTTP API: submit, follow and fetch jobs; `python -m jobs.api` serves it."""
