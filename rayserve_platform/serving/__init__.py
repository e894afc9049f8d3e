"""The only package that knows Ray Serve: deployments, handles, placement, builders."""
