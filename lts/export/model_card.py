"""The model card beside an export: README.md with the front matter that model hubs read (ours)."""

import json
import pathlib
import textwrap
from collections.abc import Mapping
from typing import Any

from lts.config import Config
from lts.networks.geometry import LayerGeometry, geometry
from lts.utils import files

NAME = "README.md"
FINE_TUNED = (
    "The AlexNet backbone of Jenni and Favaro (CVPR 2018), from an export with fingerprint {}, fine-tuned on labels"
)
ORIGIN = {  # by the stage that trained it
    "gan": "The AlexNet backbone of the discriminator of Jenni and Favaro (CVPR 2018), {how}",
    "rotation": "The AlexNet backbone of Jenni and Favaro (CVPR 2018), trained without labels to tell turned images apart "
    "(Gidaris et al., 2018): a rival of the method",
    "supervised": "The AlexNet backbone of Jenni and Favaro (CVPR 2018), trained on labels: an upper reference",
    "autoencoder": "The encoder of the autoencoder of Jenni and Favaro (CVPR 2018), {how}; its layers are called "
    "conv_1, conv_2 and so on",
}

FRONT = """---
license: mit
library_name: tensorflow
pipeline_tag: image-feature-extraction
tags: [self-supervised, image-feature-extraction, tensorflow, alexnet, artifact-detection]
---
"""

EXAMPLE = """## Use

```python
import tensorflow as tf

model = tf.saved_model.load("{name}")
images = tf.zeros([8, {size}, {size}, 3], tf.uint8)  # RGB in 0..255
maps = model.signatures["{last}"](images=images)["{last}"]  # float32 [8, {cells}, {cells}, {channels}]
```
"""

USE = """
Signatures: `serving_default` (conv_1..{last} and their means, conv_1_pooled..{last}_pooled), `conv_1`..`{last}` (one
layer each, nothing behind it is computed){spot} and `train` (float32 images in [0, 255], batch norm in training mode,
for fine-tuning; `trainable_variables` are those of all layers). Any batch, height and width from {smallest} pixels a
side on; scaling and mean subtraction are inside. Training was at {size} pixels a side, where tests cut the central
{crop:g} of each side and resize it. `backbone.npz` holds the weights by name, `config.json` all settings.
"""

SPOT = ", `spot` (probability of being repaired, map of repaired cells; from {size} pixels a side on)"

LIMITS = """
Made for research on visual representations: linear probes, nearest neighbours, fine-tuning. The features were learned
from the images named above and carry their biases: subjects, places and cameras that are rare there are served worse,
and nobody checked for fairness. Do not decide about people with it.
"""

SEEN = """
In training the network saw images that an autoencoder had reconstructed, {size} pixels a side, never raw photographs.
"""

RANDOM_LIMITS = """
Random weights, with batch norm statistics estimated on images: a baseline to compare trained features with, and nothing
else.
"""

SPOT_LIMITS = """
`spot` knows one kind of artifact, that of the repair network it was trained against; it is no detector of forged or
generated pictures.
"""

CITATION = """## Citation

```
@inproceedings{jenni2018artifacts,
  title = {Self-Supervised Feature Learning by Learning to Spot Artifacts},
  author = {Jenni, Simon and Favaro, Paolo},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition (CVPR)},
  year = {2018}
}
```
"""


def card(description: Mapping[str, Any], probe: Mapping[str, Any] | None = None, name: str = "MODEL") -> str:
    """The text of a model card.

    Args:
      description: of the export, as `config.json` holds it.
      probe: `results.json` of a linear probe of this export.
      name: of the export's folder in the example.

    Returns:
      Markdown with front matter.
    """
    config, size = Config.from_dict(description["config"]), description["image_size"]
    layers = geometry(config, description.get("network", "backbone"))
    spot = description.get("spot", True)
    last = layers[-1]
    facts = {"name": name, "size": size, "cells": last.cells(size), "channels": last.channels}
    facts |= {
        "smallest": last.smallest,
        "crop": description["test_crop"],
        "spot": SPOT.format(size=size) if spot else "",
        "last": last.name,
    }
    random = description.get("weights") == "random"
    stage = description.get("stage", "gan")
    origin = ORIGIN[stage].format(how="never trained: a baseline" if random else "trained without labels")
    if description.get("fine_tuned_from"):
        origin = FINE_TUNED.format(description["fine_tuned_from"])
    limits = RANDOM_LIMITS if random else LIMITS
    limits += SEEN.format(size=size) if stage == "gan" and not random else ""
    limits += SPOT_LIMITS if spot else ""
    parts = [
        FRONT,
        f"# {'Artifact-spotting' if stage == 'gan' else stage.capitalize()} features, preset `{config.preset}`\n",
        _paragraph(f"{origin}, by the TensorFlow port `lts`."),
        _training(description, config),
        _layers(layers, size),
        _probe(probe),
        EXAMPLE.format(**facts),
        _paragraph(USE.format(**facts)),
        "## Intended use and limits\n",
        _paragraph(limits),
        CITATION,
    ]
    return "\n".join(parts)


def _paragraph(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 120, break_long_words=False, break_on_hyphens=False) + "\n"


def add_probe(path, results: Mapping[str, Any]) -> None:
    """Puts the figures of a linear probe into the card of an export.

    Args:
      path: folder of the export.
      results: of `experiments.linear_probe`.
    """
    path = pathlib.Path(path)
    description = json.loads((path / "config.json").read_text(encoding="utf-8"))
    files.write_text(path / NAME, card(description, results, path.name))


def _training(description: Mapping[str, Any], config: Config) -> str:
    """Section on how the weights came about."""
    weights, imported = description.get("weights", "trained"), description.get("imported")
    settings = config.autoencoder_training if description.get("stage") == "autoencoder" else config.gan_training
    own = weights == "trained" and ("dataset" in description or not imported)  # trained here, at least at last
    rows = {
        "weights": {"trained": "trained", "random": "**random: never trained**"}.get(weights, weights)
        + (" (moving average)" if description.get("averaged") else ""),
        "began as": _origin(imported) if imported else None,
        "images": f"{description['dataset']}, split {description['split']}" if "dataset" in description else None,
        "batch norm statistics": description.get("statistics"),
        "image size": f"{description['image_size']} pixels a side",
        "steps": f"{description['step']:,}" if "step" in description and (own or not imported) else None,
        "batch": settings.batch_size if own else None,
        "precision": settings.precision if own else None,
        "seed": description.get("seed") if own or not imported else None,
        "seconds": _seconds(description.get("seconds")),
        "hardware": description.get("hardware"),
        "lts": description.get("lts_version"),
        "commit": description.get("commit"),
    }
    lines = [f"| {key} | {value} |" for key, value in rows.items() if value is not None]
    return "\n".join(["## Training\n", "| | |", "|---|---|", *lines, ""])


def _origin(imported: Mapping[str, Any]) -> str:
    """The checkpoint of the release that a run was imported from."""
    step = imported["release_step"]
    at = "" if step is None else f", step {step:,}"
    return f"{imported['checkpoint']} of the authors' TensorFlow 1 program ({imported['weights']} weights{at})"


def _seconds(seconds: Mapping[str, float] | None) -> str | None:
    return ", ".join(f"{stage} {value:,.0f}" for stage, value in seconds.items()) if seconds else None


def _layers(layers: list[LayerGeometry], size: int) -> str:
    """Table of the layers: map at the training size, stride, receptive field, parameters."""
    lines = [f"## Layers (maps of {size} x {size} images)\n"]
    lines += ["| layer | map | stride | receptive field | parameters |", "|---|---|---|---|---|"]
    for layer in layers:
        shape = f"{layer.cells(size)} x {layer.cells(size)} x {layer.channels}"
        lines.append(f"| {layer.name} | {shape} | {layer.stride} | {layer.receptive_field} | {layer.parameters:,} |")
    return "\n".join([*lines, ""])


def _probe(results: Mapping[str, Any] | None) -> str:
    """Table of the probe's accuracies; says so where there was none."""
    if results is None:
        return "## Figures\n\nNot measured yet: `python -m experiments.linear_probe` does it.\n"
    layers, data, protocol = results["model"]["layers"], results["dataset"], results["protocol"]
    if "classifier" in protocol:
        how = f"{protocol['classifier']}, about {protocol['dimensions']:,} values a layer"
    else:
        how = f"protocol {protocol['name']}"
    lines = [
        "## Figures\n",
        f"Accuracy of a linear classifier ({how}) on frozen features, percent: {data['name']}, trained on "
        f"{data['train_images']:,} images ({data['train_split']}), tested on "
        f"{data['test_images']:,} ({data['test_split']}); in brackets the {protocol['confidence']:.0%} interval.\n",
        f"| | {' | '.join(layers)} |",
        "|---" * (len(layers) + 1) + "|",
    ]
    cells = [
        f"{100 * record['accuracy']:.1f} [{', '.join(f'{100 * value:.1f}' for value in record['interval'])}]"
        for record in layers.values()
    ]
    lines.append(f"| this model | {' | '.join(cells)} |")
    if results.get("baseline_mean"):
        cells = [f"{100 * results['baseline_mean'][layer]['accuracy']:.1f}" for layer in layers]
        lines.append(f"| mean of {len(results['baselines'])} baselines | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])
