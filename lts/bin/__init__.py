"""Binaries: from flags to one call."""
