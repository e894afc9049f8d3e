"""KServe v2, the Open Inference Protocol, over REST and gRPC; and TensorFlow Serving's REST API."""
