"""OpenVINO: models of many frameworks on tensors, with versions, batching and hot reload."""
