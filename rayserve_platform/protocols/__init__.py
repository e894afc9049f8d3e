"""The wire APIs, one package each; they know the vocabulary and the edge, never one another."""
