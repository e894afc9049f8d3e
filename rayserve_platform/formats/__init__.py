"""Model formats on disk: where a model comes from, and how it becomes a directory to load."""
