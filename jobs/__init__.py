"""What is to be made, and where it is written: recipes, jobs, the queue, the store, the API."""
