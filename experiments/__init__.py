"""Evaluations of features."""

import lts.bin  # noqa: F401 (first, because it sets variables of the environment)
from lts.bin import common

common.EXTRAS["experiments"] = {"scipy": "scipy", "sklearn": "scikit-learn"}
