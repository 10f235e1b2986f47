"""Installs the package `lts`; experiments/ and tests/ run from the checkout."""

import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
# A wheel holds `lts` alone, and its page on an index is made of the README of the checkout.
NOTE = "*The package installs the programs of `lts.bin`. The programs of `experiments` run from a checkout.*\n\n"

EXPERIMENTS = ["scikit-learn>=1.6,<2", "scipy>=1.14,<2"]

setup(
    name="lts",
    version=re.search(r'__version__ = "(.+)"', (ROOT / "lts" / "__init__.py").read_text(encoding="utf-8"))[1],
    description="Self-supervised visual features by learning to spot artifacts (Jenni and Favaro, CVPR 2018)",
    long_description=NOTE + (ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    packages=find_packages(include=["lts", "lts.*"]),
    package_data={"lts": ["py.typed"]},
    python_requires=">=3.11,<3.13",
    install_requires=[
        "tensorflow>=2.21,<2.22",
        "keras>=3.15,<3.16",
        "tensorflow-datasets>=4.9.10,<5",
        "tensorboard>=2.20,<2.22",
        "numpy>=2.0,<3",
        "absl-py>=2.1,<3",
        "importlib_resources>=6,<8",
        "matplotlib>=3.9,<4",
        "pillow>=11,<14",
        "psutil>=6,<8",
        "threadpoolctl>=3.5,<4",
        "tqdm>=4.66,<5",
    ],
    extras_require={
        "experiments": EXPERIMENTS,
        "gpu": ["tensorflow[and-cuda]>=2.21,<2.22"],
        "parquet": ["pyarrow>=16,<30"],
        "detection": ["opencv-contrib-python-headless>=4.10,<6"],
        "onnx": ["onnx>=1.17,<2", "tf2onnx>=1.17,<2"],
        "safetensors": ["safetensors>=0.4,<1"],
        "hub": ["huggingface_hub>=2.4,<3"],
        "test": [
            *EXPERIMENTS,
            "ai-edge-litert>=2.1,<3",
            "huggingface_hub>=2.4,<3",
            "mapcalc>=0.2.2,<0.3",
            "pyarrow>=16,<30",
            "onnx>=1.17,<2",
            "onnxruntime>=1.20,<2",
            "pycocotools>=2.0.8,<3",
            "opencv-contrib-python-headless>=4.10,<6",
            "pytest>=8.3,<10",
            "pytest-xdist>=3.6,<4",
            "ruff==0.17.6",
            "safetensors>=0.4,<1",
            "tf2onnx>=1.17,<2",
        ],
    },
    entry_points={
        "console_scripts": [
            "lts-train-autoencoder = lts.bin.train_autoencoder:console",
            "lts-train-gan = lts.bin.train_gan:console",
            "lts-train-pretext = lts.bin.train_pretext:console",
            "lts-export-features = lts.bin.export_features:console",
            "lts-import-checkpoint = lts.bin.import_checkpoint:console",
            "lts-spot-artifacts = lts.bin.spot_artifacts:console",
            "lts-extract-features = lts.bin.extract_features:console",
            "lts-share-features = lts.bin.share_features:console",
            "lts-list-runs = lts.bin.list_runs:console",
        ]
    },
)
