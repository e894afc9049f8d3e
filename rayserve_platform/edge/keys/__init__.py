"""API keys: their form, the file or Secret that holds their digests, and the set that is asked."""
