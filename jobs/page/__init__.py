"""The page at `/`: what the REST API shows and does, rendered on the server for a browser."""
