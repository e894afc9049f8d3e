"""A single-model serving platform on Ray Serve."""

from importlib.metadata import version

__version__ = version("rayserve-platform")
