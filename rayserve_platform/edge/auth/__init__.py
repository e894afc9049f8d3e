"""Token checks: who asks, and whether they may, decided once for HTTP and gRPC alike."""
