"""The OpenAI-compatible HTTP API, and what vLLM's server offers beside it."""
