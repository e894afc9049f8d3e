"""Quotas: how many requests and tokens a principal or a model may have, and what is left."""
