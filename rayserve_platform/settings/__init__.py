"""What the `args` of a Serve config may say: frozen, typed, and refused by name when wrong."""
