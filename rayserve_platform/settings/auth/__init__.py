"""Settings of token checks, in the vocabulary of Authorino's AuthConfig."""
