"""Model card of an export.

This project: README.md next to the SavedModel, with the front matter that model hubs read.
"""

import json
import os
import pathlib
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from lts.config import Config
from lts.config.stages import STAGES, section_of
from lts.export.choices import DESCRIPTION, backbone_name, check_license, default_layer, layer_geometry
from lts.networks.geometry import LayerGeometry
from lts.utils import files
from lts.utils.json_files import read_json
from lts.utils.markdown import Markup, code, escape, table
from lts.utils.text import utf8

NAME = "README.md"
FIGURES = re.compile(r"^## Figures\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)  # the section on a linear probe

FRONT_MATTER = """---
{license}library_name: tensorflow
pipeline_tag: image-feature-extraction
tags: [self-supervised, image-feature-extraction, tensorflow, {backbone}artifact-detection]
---
"""

TITLES = {"lci": "LCI"}  # of stages that are abbreviations
BACKBONE_TITLES = {"alexnet": "AlexNet", "resnet18": "ResNet-18"}
# By the stage that trained the network.
ORIGIN = {
    "gan": "The {backbone} backbone of the discriminator of Jenni and Favaro (CVPR 2018), {training}",
    "rotation": "The {backbone} backbone of Jenni and Favaro (CVPR 2018), trained without labels to predict rotations "
    "(Gidaris et al., 2018): a baseline for the method",
    "lci": "The {backbone} backbone of Jenni and Favaro (CVPR 2018), trained without labels to predict transformations "
    "(Jenni, Jin and Favaro, CVPR 2020): another method",
    "supervised": "The {backbone} backbone of Jenni and Favaro (CVPR 2018), trained on labels: an upper reference",
    "autoencoder": "The encoder of the autoencoder of Jenni and Favaro (CVPR 2018), {training}; its layers are called "
    "conv_1, conv_2 and so on",
}
FINE_TUNED = (
    "The {backbone} backbone of Jenni and Favaro (CVPR 2018), from an export with fingerprint {fingerprint}, "
    "fine-tuned on labels"
)

WHICH_LAYER = """
Take `conv_3` first; it is the default of `extract_features`. It is the best layer of preset `small` in this project's
linear probes, with nearest neighbours and with few labels (experiments/results/README.md). `conv_5` is 6.7 points lower
in the linear probe: later layers are closer to the pre-training task. In the paper's ImageNet table `conv_4` is the
best layer. Probe all on your own data.
"""

EXAMPLE = """## Use

```python
import tensorflow as tf

model = tf.saved_model.load({name})
images = tf.zeros([8, {size}, {size}, 3], tf.uint8)  # RGB in 0..255
maps = model.signatures["{layer}"](images=images)["{layer}"]  # float32 [8, {cells}, {cells}, {channels}]
```
"""

INPUTS = """
Images are uint8 RGB of any batch, height and width from {smallest} pixels a side on. Scaling and mean subtraction are
inside. Training used {size} pixels a side; the test view is the central {crop:g} of each side, resized to that size.
`backbone.npz` holds the weights by name, `config.json` all settings.
"""

LIMITS = """
The features are made for research on visual representations: linear probes, nearest neighbours, fine-tuning. They were
learned from the images named above and carry their biases. Subjects, places and cameras that are rare there are
represented worse. Fairness was not checked. Do not base decisions about people on them.
"""

SEEN_IMAGES = """
In training the network saw images that an autoencoder had reconstructed, {size} pixels a side, never raw photographs.
"""

RANDOM_LIMITS = """
The weights are random; batch norm statistics were estimated on images. This is a baseline to compare trained features
with, and has no other use.
"""

FALSE_ALARMS = """
It calls {share:.1f} % of untouched photographs repaired (measured on {photographs} images, {dataset}, split {split}).
"""

SPOT_LIMITS = """
`spot` detects one kind of artifact: that of the repair network it was trained against. It does not detect forged or
generated pictures.
"""

LICENSE_NOT_STATED = """
The licence of this model was not stated. `export_features --license=NAME` states it.
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
    """Return the text of a model card.

    Args:
      description: content of the export's `config.json`.
      probe: `results.json` of a linear probe of this export.
      name: of the export's folder in the example.

    Returns:
      Markdown with front matter.

    Raises:
      LicenseError: the licence in `description` is none.
    """
    check_license(description.get("license"))
    config = Config.from_dict(description["config"])
    size = description["image_size"]
    stage = description.get("stage", "gan")  # exports of random weights have no stage
    layers = layer_geometry(description)
    # The advice was measured for trained discriminators alone.
    trained_gan = STAGES[stage].adversarial and description.get("weights") != "random"
    measured = trained_gan and backbone_name(description) == "alexnet" and "classes" not in description
    (example_layer,) = [layer for layer in layers if layer.name == default_layer(description)]
    crop = description["test_crop"]
    title = "Artifact-spotting" if STAGES[stage].adversarial else TITLES.get(stage, stage.capitalize())
    parts = [
        _front_matter(description),
        f"# {title} features, preset `{config.preset}`\n",
        _paragraph(f"{_origin(description, stage)}, by the TensorFlow port `lts`."),
        _training(description, config),
        _layers(layers, size),
        *([_paragraph(WHICH_LAYER)] if measured else []),
        _figures(probe),
        EXAMPLE.format(
            name=json.dumps(name, ensure_ascii=utf8(name) != name),
            size=size,
            layer=example_layer.name,
            cells=example_layer.cells(size),
            channels=example_layer.channels,
        ),
        _signatures(layers[0].name, layers[-1].name, description),
        _paragraph(INPUTS.format(smallest=layers[-1].smallest, size=size, crop=crop)),
        "## Intended use and limits\n",
        _paragraph(_limits(description, stage)),
        *([] if description.get("license") else [_paragraph(LICENSE_NOT_STATED)]),
        CITATION,
    ]
    return "\n".join(parts)


def add_probe(path: str | os.PathLike, results: Mapping[str, Any]) -> None:
    """Write `experiments.linear_probe`'s results into the card of an export; its other sections stay."""
    path = pathlib.Path(path)
    readme = path / NAME
    if not readme.exists():
        description = read_json(path / "config.json", DESCRIPTION)
        files.write_text(readme, card(description, results, path.absolute().name))
        return
    # NB: the user may have written into the card.
    text = files.read_regular(readme).decode("utf-8", errors="surrogateescape")
    section = f"{_figures(results)}\n"
    text, replaced = FIGURES.subn(lambda _: section, text, count=1)
    if not replaced:
        text = f"{text.rstrip()}\n\n{section}"
    files.write_bytes(readme, text.encode("utf-8", errors="surrogateescape"))


def _front_matter(description: Mapping[str, Any]) -> str:
    """Return the front matter of a card."""
    name = backbone_name(description)
    # The encoder of stage 1 and the Keras model of a user have no tag.
    tagged = name in BACKBONE_TITLES and description.get("network", "backbone") == "backbone"
    license_line = _license_line(description.get("license"))
    return FRONT_MATTER.format(license=license_line, backbone=f"{name}, " if tagged else "")


def with_license(text: str, name: str) -> str:
    """Return a card with another licence in its front matter.

    Args:
      text: of the card, which the user may have changed.
      name: as the Hugging Face hub names licences.
    """
    check_license(name)
    if not text.startswith("---\n"):
        return f"---\n{_license_line(name)}---\n\n{text}"
    front_matter, line, rest = text.removeprefix("---\n").partition("---\n")
    kept = [entry for entry in front_matter.splitlines(keepends=True) if not entry.startswith("license:")]
    rest = rest.replace(f"{_paragraph(LICENSE_NOT_STATED)}\n", "")
    return "".join(["---\n", _license_line(name), *kept, line, rest])


def _license_line(name: str | None) -> str:
    """Return the licence as a line of the front matter; empty if none was stated."""
    return "" if name is None else f"license: {name}\n"


def _paragraph(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 120, break_long_words=False, break_on_hyphens=False) + "\n"


def _origin(description: Mapping[str, Any], stage: str) -> str:
    """Return what the network is."""
    name = backbone_name(description)
    backbone = BACKBONE_TITLES.get(name) or code(name)
    if description.get("fine_tuned_from"):
        return FINE_TUNED.format(backbone=backbone, fingerprint=description["fine_tuned_from"])
    random = description.get("weights") == "random"
    training = "never trained: a baseline" if random else "trained without labels"
    if "classes" in description:
        training = f"trained with {description['labelled_images']:,} labels of {len(description['classes'])} classes"
    return ORIGIN[stage].format(backbone=backbone, training=training)


def _limits(description: Mapping[str, Any], stage: str) -> str:
    """Return the limits that apply to an export."""
    random = description.get("weights") == "random"
    limits = RANDOM_LIMITS if random else LIMITS
    if STAGES[stage].adversarial and not random:
        limits += SEEN_IMAGES.format(size=description["image_size"])
    if description.get("spot", True):
        limits += SPOT_LIMITS
    if measured := description.get("false_alarms"):
        limits += FALSE_ALARMS.format(share=100 * measured["called_repaired"], **measured)
    return limits


def _training(description: Mapping[str, Any], config: Config) -> str:
    """Return the section on training."""
    weights = description.get("weights", "trained")
    imported = description.get("imported")
    settings = getattr(config, section_of(description.get("stage", "gan")))
    # An imported run has a data set only if it was trained further here. Otherwise its settings were never used.
    trained_here = weights == "trained" and ("dataset" in description or not imported)
    settings_apply = trained_here or not imported
    average = " (moving average)" if description.get("averaged") else ""
    rows = {
        "weights": Markup(f"{'**random: never trained**' if weights == 'random' else escape(weights)}{average}"),
        "began as": _release_checkpoint(imported) if imported else None,
        "images": f"{description['dataset']}, split {description['split']}" if "dataset" in description else None,
        "batch norm statistics": description.get("statistics"),
        "image size": f"{description['image_size']} pixels a side",
        "steps": _steps(description) if settings_apply else None,
        "batch": settings.batch_size if trained_here else None,
        "precision": settings.precision if trained_here else None,
        "seed": description.get("seed") if settings_apply else None,
        "seconds": _seconds(description.get("seconds")),
        "hardware": description.get("hardware"),
        "lts": description.get("lts_version"),
        "commit": description.get("commit"),
    }
    # Exports of other origins lack some entries.
    known = [
        [name, value if isinstance(value, str) else str(value)] for name, value in rows.items() if value is not None
    ]
    return f"## Training\n\n{table([['', ''], *known])}\n"


def _steps(description: Mapping[str, Any]) -> str | None:
    """Return the training steps; of a run that has not finished also their total."""
    if "step" not in description:
        return None
    total = description.get("total_steps")
    return f"{description['step']:,}" + (f" of {total:,}: the training was not finished" if total else "")


def _release_checkpoint(imported: Mapping[str, Any]) -> str:
    """Return the name of a release checkpoint."""
    step = imported["release_step"]
    at_step = "" if step is None else f", step {step:,}"
    return f"{imported['checkpoint']} of the authors' TensorFlow 1 program ({imported['weights']} weights{at_step})"


def _seconds(seconds: Mapping[str, float] | None) -> str | None:
    return ", ".join(f"{stage} {value:,.0f}" for stage, value in seconds.items()) if seconds else None


def _layers(layers: Sequence[LayerGeometry], size: int) -> str:
    """Return the table of the layers."""
    rows = [["layer", "map", "stride", "receptive field", "parameters"]]
    for layer in layers:
        shape = f"{layer.cells(size)} x {layer.cells(size)} x {layer.channels}"
        rows.append([layer.name, shape, str(layer.stride), str(layer.receptive_field), f"{layer.parameters:,}"])
    return f"## Layers (maps of {size} x {size} images)\n\n{table(rows)}\n"


def _signatures(first: str, last: str, description: Mapping[str, Any]) -> str:
    """Return the table of the signatures."""
    size = description["image_size"]
    rows = [
        ["signature", "outputs"],
        [code("serving_default"), f"{first} to {last}, and their means {first}_pooled to {last}_pooled"],
        [Markup(f"`{first}` to `{last}`"), "one layer and its mean; later layers are not computed"],
    ]
    if description.get("spot", True):
        rows.append(
            [code("spot"), f"probability of being repaired, map of repaired cells; from {size} pixels a side on"]
        )
    if "classes" in description:
        rows.append([code("classify"), f"probabilities of {', '.join(description['classes'])}; from {size} pixels on"])
    train = "as `serving_default` with batch norm in training mode, of float32 images in [0, 255], for fine-tuning"
    rows.append([code("train"), Markup(f"{train}; `trainable_variables` are those of all layers")])
    return table(rows) + "\n"


def _figures(results: Mapping[str, Any] | None) -> str:
    """Return the section on a linear probe."""
    if results is None:
        return "## Figures\n\nNot measured yet: `python -m experiments.linear_probe` does it.\n"
    layers = results["model"]["layers"]
    data = results["dataset"]
    protocol = results["protocol"]
    # Protocols of trained heads have no classifier that is fitted once.
    if "classifier" in protocol:
        classifier = f"{protocol['classifier']}, about {protocol['dimensions']:,} values a layer"
    else:
        classifier = f"protocol {protocol['name']}"
    explanation = (
        f"Accuracy of a linear classifier ({classifier}) on frozen features, percent: {escape(data['name'])}, trained "
        f"on {data['train_images']:,} images ({escape(data['train_split'])}), tested on {data['test_images']:,} "
        f"({escape(data['test_split'])}); in brackets the {protocol['confidence']:.0%} interval.\n"
    )
    accuracies = []
    for record in layers.values():
        low, high = record["interval"]
        accuracies.append(f"{100 * record['accuracy']:.1f} [{100 * low:.1f}, {100 * high:.1f}]")
    rows = [["", *layers], ["this model", *accuracies]]
    if results.get("baseline_mean"):
        means = [f"{100 * results['baseline_mean'][layer]['accuracy']:.1f}" for layer in layers]
        rows.append([f"mean of {len(results['baselines'])} baselines", *means])
    return "\n".join(["## Figures\n", explanation, table(rows), ""])
