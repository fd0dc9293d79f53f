"""Studies: variants of a recipe over several seeds, trained, tested and reported beside each other."""
