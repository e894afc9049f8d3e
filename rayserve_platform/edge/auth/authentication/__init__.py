"""The ways to be known, one a module: each turns a token into an identity, or refuses it."""
