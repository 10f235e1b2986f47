"""Settings that must stand before TensorFlow is imported. All can be overridden from outside."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # the tests' tolerances are for float32 on a CPU
