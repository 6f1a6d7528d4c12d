"""Speed, measured side by side within one run."""
