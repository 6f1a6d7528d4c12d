"""Templates: many prompts out of one text, each a pure function of its row's number."""
