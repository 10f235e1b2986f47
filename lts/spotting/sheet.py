"""Contact sheet: all overlays on one page.

The image with the highest probability comes first.
"""

import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

from lts.visualization import html as html_report
from lts.visualization.overlay import css_gradient

STYLE = f"""
body {{ max-width: 100rem; }}
.legend {{ display: inline-block; width: 14rem; height: 0.9rem; vertical-align: -0.1rem; border-radius: 2px;
  background: {css_gradient()}, #8a8a8a; }}
.sheet {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(21rem, 1fr)); gap: 1.2rem; margin: 1.5rem 0; }}
.sheet figure {{ margin: 0; content-visibility: auto; contain-intrinsic-size: auto 14rem; }}
.sheet img {{ width: 100%; display: block; border-radius: 3px; }}
.sheet figcaption {{ display: grid; grid-template-columns: max-content 1fr; column-gap: 0.6rem; margin-top: 0.3rem; }}
.score {{ font: 600 1.15rem/1.3 system-ui, sans-serif; color: var(--text); font-variant-numeric: tabular-nums;
  white-space: nowrap; }}
.bar {{ height: 4px; border-radius: 2px; background: var(--line); grid-column: 1 / 3; }}
.bar i {{ display: block; height: 100%; border-radius: 2px; background: #d9573f; }}
.name {{ overflow-wrap: anywhere; color: var(--text); }}
.cells {{ grid-column: 2; font-size: 0.8rem; }}
"""


def render(origin: Mapping[str, Any], scores: Sequence) -> str:
    """Return the page as HTML.

    Args:
      origin: "model", "images" and "view", as in scores.json.
      scores: of type `lts.spotting.spot.Score`, in the order of the page.
    """
    images = origin["images"]
    test_crop = origin["view"]["test_crop"]
    title = f"Artifacts in {images['dataset']}"
    findings = f"<b>{html_report.escape(headline(scores))}</b> {html_report.escape(false_alarms(origin['model']))}"
    crop = "" if test_crop == 1 else f" (the central {100 * test_crop:g} % of each side)"
    parts = [
        f"<h1>{html_report.escape(title)}</h1>",
        f"<p>{findings}</p>",
        f"<p>The highest probability comes first. On the left the image{crop}, on the right the same image under its "
        "artifact map.</p>",
        '<p>Colours: 0, untouched <span class="legend" role="img" aria-label="colours of the artifact map"></span> '
        "1, dropped and repaired. <b>The number</b> is the model's probability that the image was repaired.</p>",
        f'<p class="note">{html_report.escape(_note(origin))}</p>',
        '<div class="sheet">',
        *(_card(score) for score in scores),
        "</div>",
        _skipped(images["broken"]),
    ]
    return html_report.page(title, "\n".join(parts), STYLE)


def headline(scores: Sequence) -> str:
    """Return how many images are called repaired."""
    suspicious = sum(score.probability >= 0.5 for score in scores)
    return f"{suspicious:,} of {len(scores):,} images are called repaired (a probability of 0.5 or more)."


def false_alarms(model: Mapping[str, Any]) -> str:
    """Return how many untouched photographs an export calls repaired.

    Args:
      model: content of the export's `config.json`, with its "path".
    """
    measured = model.get("false_alarms")
    if measured:
        return (
            f"False alarms: at its export the model called {100 * measured['called_repaired']:.1f} % of "
            f"{measured['photographs']:,} untouched photographs repaired ({measured['dataset']}, split "
            f"{measured['split']})."
        )
    flags = f"--model={model['path']} --evaluate=RUN --dataset=folder:PHOTOS --output=FOLDER"
    return (
        "False alarms were not measured: the model may call most untouched photographs repaired. To measure it, with "
        f"the folder of train_gan as RUN: python -m lts.bin.spot_artifacts {flags}"
    )


def _note(origin: Mapping[str, Any]) -> str:
    model = origin["model"]
    size = origin["view"]["image_size"]
    return (
        f"Model {model['path']} ({model['fingerprint']}) sees each image at {size} x {size} pixels. It was trained to "
        "tell an autoencoder's reconstructions from repaired ones. On photographs, and on changes of another kind, use "
        "the order of the scores, not their values. The scores are in scores.csv and scores.json."
    )


def _card(score) -> str:
    """Return one image's part of the page."""
    # NB: names may hold "#", "?" or "%", which a URL needs quoted.
    link = html_report.escape(urllib.parse.quote(score.overlay))
    name = html_report.escape(score.image)
    return (
        f'<figure><a href="{link}"><img loading="lazy" src="{link}" alt="{name} and its artifact map"></a>'
        f'<figcaption><div class="bar"><i style="width:{100 * score.probability:.1f}%"></i></div>'
        f'<span class="score">{score.probability:.3f}</span><span class="name">{name}</span>'
        f'<span class="cells">map: mean {score.artifact_mean:.2f}, largest {score.artifact_max:.2f}</span>'
        "</figcaption></figure>"
    )


def _skipped(names: Sequence[str]) -> str:
    """Return the list of broken images."""
    if not names:
        return ""
    items = "".join(f"<li>{html_report.escape(name)}</li>" for name in names)
    return f"<h2>{len(names)} broken images were skipped</h2><ul>{items}</ul>"
