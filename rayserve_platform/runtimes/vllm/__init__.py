"""The vLLM engine (vLLM 0.32). Nothing here is imported before a replica loads it."""
