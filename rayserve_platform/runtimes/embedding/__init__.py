"""Embedding models and cross-encoders: sentence-transformers pipelines on OpenVINO or torch."""
