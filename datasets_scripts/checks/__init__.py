"""WHAT A SIGNAL LOOKS LIKE: told in reports, never mended."""
