"""OpenAI's files, batches and images over our own queue: its forms in, its forms out."""
