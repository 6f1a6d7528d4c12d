"""Sources: files of prompts of every kind, read as records and checked as rows."""
