"""Caikit's REST and gRPC APIs, as its standalone runtime speaks them."""
