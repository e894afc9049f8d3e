"""The kinds of conditions on a request, one a module: each lets it pass, or refuses it."""
