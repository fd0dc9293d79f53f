"""Option files: reading and merging, the keys that there are, checking."""
