"""The TLS edge in front of Serve: configurations for HAProxy and nginx."""
