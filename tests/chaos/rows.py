"""Rows of the fault matrix that concern what is not there yet, and why."""

NOT_APPLICABLE: dict[str, str] = {}
