"""The binaries: flags to configuration to one call."""
