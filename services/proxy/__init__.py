"""The proxy: vServices on HAProxy, which listens in some route tables and connects in others."""
