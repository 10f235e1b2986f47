"""Binaries: from flags to one call."""

import os

# Figures are files. NB: an unknown backend of the user would stop the import of matplotlib.
os.environ["MPLBACKEND"] = "agg"
