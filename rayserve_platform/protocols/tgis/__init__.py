"""TGIS: text generation over gRPC, package `fmaas`."""
