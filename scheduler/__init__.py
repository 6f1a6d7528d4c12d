"""Who lives where, and how many: placement, the pool of renderers, finishing a job."""
