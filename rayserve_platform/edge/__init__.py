"""Cross-cutting duties, once per transport: request ids, limits, errors, metrics, access log."""
