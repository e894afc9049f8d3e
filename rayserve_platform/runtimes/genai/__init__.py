"""Text generation by OpenVINO GenAI's continuous batching, in a process of its own."""
