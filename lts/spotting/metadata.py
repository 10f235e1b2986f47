"""Descriptions of models, runs and images."""

import json
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lts import __version__, data
from lts.data.splits import may_overlap
from lts.utils import provenance
from lts.utils.text import utf8


def describe_model(model) -> dict[str, Any]:
    """Return the description of an export."""
    # The configuration is left to the export's config.json.
    description = {name: value for name, value in model.description.items() if name != "config"}
    return {"path": str(model.path), "fingerprint": model.fingerprint, **description}


def describe_source(source: data.ImageDataset) -> dict[str, Any]:
    """Return the origin of images."""
    return {
        "dataset": source.name,
        "split": source.split,
        "number": source.num_examples,
        "fingerprint": source.fingerprint,
        "broken": [utf8(name) for name in source.broken],
    }


def describe_run(corruption, model, source: data.ImageDataset) -> dict[str, Any]:
    """Return the description of a corrupting run."""
    # An imported run that was never trained here has no data set: nothing is known of its training images.
    dataset = corruption.record.dataset
    split = corruption.record.split
    run_config = json.loads(corruption.record.config.to_json())
    same_config = _without_export_options(model.description.get("config")) == _without_export_options(run_config)
    return {
        "workdir": str(corruption.workdir),
        "step": corruption.step,
        "dataset": dataset,
        "split": split,
        # Only then was the repair network trained against this discriminator.
        "exported_from_it": same_config and model.description.get("step") == corruption.step,
        # As far as names tell, the run may have been trained on these images.
        "may_hold_the_images": dataset is not None
        and may_overlap(corruption.record.images_at, split, source.name, source.split),
    }


def _without_export_options(config: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return a configuration without options of exports."""
    if not isinstance(config, Mapping) or "discriminator" not in config:
        return None
    discriminator = dict(config["discriminator"])
    discriminator.pop("recalibrate_batch_norm", None)
    return {**config, "discriminator": discriminator}


def versions() -> dict[str, str | None]:
    """Return the versions of the libraries."""
    libraries = {"tensorflow": tf.__version__, "keras": keras.__version__, "numpy": np.__version__}
    return {"lts": __version__, "commit": provenance.commit(), **libraries}


def image_name(source: data.ImageDataset, index: int) -> str:
    """Return an image's name as valid UTF-8."""
    return utf8(source.names[index])
