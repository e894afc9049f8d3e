"""Import paths for Serve configs. No logic here."""
