"""Exports: a fetched dataset in the form that its reader's training program reads."""
