"""The commands, one file each: they parse, call the folders below, and print."""
