"""The page of `experiments.neighbours`, and the part of it that the quickstart shows."""

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.probing.neighbours import MEASURED
from experiments.probing.projector import Chosen
from lts import data
from lts.config import ImageConfig
from lts.utils.text import printable
from lts.visualization.html import Panel, Report, Tile

Values = Mapping[str, Any]
TITLE = "Features without labels"
THUMBNAIL = 112  # pixels a side: a tile has about 80 on the page
SHOWN_PAIRS = 24  # near-duplicates on the page
CLUSTER_COLUMNS = 4

INTRODUCTION = (
    "Photographs whose features point in the same direction are neighbours. Neighbours that share an object are a sign "
    "of useful features; neighbours that share colours and layout alone are what random weights find as well. Compare "
    "both sides."
)


def write(results: Values, source, path: str | os.PathLike, projector: str | None) -> None:
    """Write the page.

    Args:
      results: from `experiments.probing.neighbours.look`.
      source: the images.
      path: the HTML file.
      projector: folder of the projector, for its command; None: there is none.
    """
    pictures = thumbnails(source, results["model"], _shown_numbers(results))
    page = Report(TITLE)
    page.paragraph(setting(results))
    page.paragraph(INTRODUCTION)
    page.table(table(results))
    page.paragraph(table_caption(results))
    # The layer that most users take comes first.
    default = results["default_layer"]
    for layer in [default, *(name for name in results["layers"] if name != default)]:
        page.heading(f"Neighbours in {layer}" + (" (the layer to take first)" if layer == default else ""))
        add_neighbours(page, results["layers"][layer]["neighbours"], pictures, side_names(results))
    _add_clusters(page, results, pictures)
    _add_duplicates(page, results, pictures)
    if projector is not None:
        page.heading("All points at once")
        page.paragraph(
            "TensorBoard's projector shows the photographs as points in two or three dimensions (tab PROJECTOR)."
        )
        page.preformatted(shlex.join(["tensorboard", f"--logdir={projector}"]))
    page.write(path)


def add_neighbours(
    page: Report, neighbours: Sequence[Values], pictures: Mapping[int, np.ndarray], names: Mapping[str, str]
) -> None:
    """Add the neighbours of images in one layer, both sides next to each other.

    Args:
      page: the report.
      neighbours: entry "neighbours" of `experiments.probing.neighbours.compare`.
      pictures: number of an image to uint8 [h, w, 3].
      names: "model" and "baseline" to the captions of the sides.
    """
    panels = []
    for side, name in names.items():
        rows = []
        for record in neighbours:
            query = record["of"]
            row = [Tile(pictures[query["number"]], image_text(query), "query")]
            for image in record[side]:
                same = "class" in query and image.get("class") == query["class"]
                text = f"{image_text(image)}, similarity {image['similarity']:.2f}"
                row.append(Tile(pictures[image["number"]], text, "same" if same else ""))
            rows.append(row)
        panels.append(Panel(name, rows))
    page.panels(panels, width=33)


def thumbnails(source, model: Values, numbers: Iterable[int]) -> dict[int, np.ndarray]:
    """Return pictures of images by number, uint8 [THUMBNAIL, THUMBNAIL, 3], cropped as the model sees them.

    Args:
      source: the images.
      model: description of the model, with its "test_crop".
      numbers: of the images.
    """
    rows = np.unique(np.fromiter(numbers, np.int64))
    image = ImageConfig(image_size=THUMBNAIL, test_crop=model["test_crop"])
    batches = data.test_batches(Chosen(source, rows), image, batch_size=100)
    views = np.concatenate([batch.numpy() for batch in batches])
    return dict(zip(rows.tolist(), views, strict=True))


def numbers_of(neighbours: Sequence[Values]) -> Iterable[int]:
    """Yield the numbers of images and of their neighbours on both sides."""
    for record in neighbours:
        for image in (record["of"], *record["model"], *record["baseline"]):
            yield image["number"]


def image_text(record: Values) -> str:
    """Return an image's name, with its class if it has one."""
    kind = f" ({record['class']})" if "class" in record else ""
    return printable(record["image"]) + kind


def side_names(results: Values) -> dict[str, str]:
    """Return the captions of both sides."""
    path = printable(results["model"]["path"])
    weights = results["model"].get("weights")
    name = path if weights is None else f"{path} ({weights})"
    return {"model": name, "baseline": printable(results["baseline"]["path"])}


def table(results: Values) -> list[list[str]]:
    """Return a row per layer."""
    labelled = _has_labels(results)
    names = side_names(results)
    header = ["layer", "neighbours that both find"]
    if labelled:
        header += ["of the same class: model", f"of the same class: {names['baseline']}", "of the same class: chance"]
    rows = [header]
    for layer, record in results["layers"].items():
        row = [layer, _percent(record["common"])]
        if labelled:
            shares = record["same_class"]
            row += [_percent(shares[side]) for side in ("model", "baseline", "chance")]
        rows.append(row)
    return rows


def table_caption(results: Values) -> str:
    """Return the explanation of the table and of the pictures."""
    protocol = results["protocol"]
    labelled = " A green line: the neighbour has the class of the photograph." if _has_labels(results) else ""
    return (
        f"Shares of the {protocol['neighbours']} nearest neighbours by cosine similarity, over up to {MEASURED:,} "
        f"photographs. Maps are pooled to about {protocol['dimensions']:,} values and centred. Below, the first "
        f"picture of a row is the photograph; its neighbours follow, the nearest first.{labelled} Names and "
        "similarities appear under the pointer and are in neighbours.json."
    )


def setting(results: Values) -> str:
    """Return model and images as text."""
    images = results["images"]
    names = side_names(results)
    return (
        f"{names['model']}, compared with {names['baseline']}, on {images['number']:,} images of "
        f"{printable(images['dataset'])}, split {images['split']}."
    )


def summary(results: Values) -> str:
    """Return the table and the near-duplicates as text for terminals."""
    lines = []
    for layer, record in results["layers"].items():
        line = f"{layer}: both find {_percent(record['common'])} of the neighbours"
        if "same_class" in record:
            shares = record["same_class"]
            ours, baseline, chance = (_percent(shares[side]) for side in ("model", "baseline", "chance"))
            line += f"; of the same class {ours}, baseline {baseline}, chance {chance}"
        lines.append(line)
    lines.append(_duplicates_sentence(results))
    return "\n".join(lines)


def _add_clusters(page: Report, results: Values, pictures: Mapping[int, np.ndarray]) -> None:
    """Add the most central images of each cluster."""
    page.heading(f"Clusters in {results['default_layer']}")
    page.paragraph(
        f"k-means with {len(results['clusters'])} clusters on the directions of the features, the largest first. The "
        "pictures are the most central ones."
    )
    panels = []
    for number, cluster in enumerate(results["clusters"], start=1):
        text = f"{cluster['images']:,} image{'s' * (cluster['images'] != 1)}"
        if "class" in cluster:
            text += f", {_percent(cluster['share'])} {printable(cluster['class'])}"
        tiles = [Tile(pictures[image["number"]], image_text(image)) for image in cluster["central"]]
        panels.append(Panel(f"Cluster {number}", _rows(tiles, CLUSTER_COLUMNS), text))
    page.panels(panels, width=15)


def _rows(tiles: Sequence[Tile], columns: int) -> list[Sequence[Tile]]:
    """Return tiles in rows."""
    return [tiles[start : start + columns] for start in range(0, len(tiles), columns)]


def _add_duplicates(page: Report, results: Values, pictures: Mapping[int, np.ndarray]) -> None:
    """Add the most similar pairs."""
    page.heading("Near-duplicates")
    page.paragraph(_duplicates_sentence(results))
    panels = []
    for pair in results["near_duplicates"]["pairs"][:SHOWN_PAIRS]:
        names = " and ".join(printable(image["image"]) for image in pair["images"])
        tiles = [Tile(pictures[image["number"]], image_text(image)) for image in pair["images"]]
        panels.append(Panel(f"{pair['similarity']:.3f}", [tiles], names))
    if panels:
        page.panels(panels, width=15)


def _duplicates_sentence(results: Values) -> str:
    """Return how many near-duplicates there are, and what is shown of them."""
    found = results["near_duplicates"]
    least = results["protocol"]["duplicate_similarity"]
    text = (
        f"{found['number']:,} pairs are nearly equal: the cosine similarity of their features in "
        f"{results['default_layer']} is {least:g} or more, and their pictures correlate."
    )
    if found["number"] > SHOWN_PAIRS:
        text += f" The page shows the {SHOWN_PAIRS} most similar ones."
    if found["number"] > len(found["pairs"]):
        text += f" neighbours.json lists {len(found['pairs']):,}."
    return text


def _shown_numbers(results: Values) -> Iterable[int]:
    """Yield the numbers of all images on the page."""
    for layer in results["layers"].values():
        yield from numbers_of(layer["neighbours"])
    for cluster in results["clusters"]:
        for image in cluster["central"]:
            yield image["number"]
    for pair in results["near_duplicates"]["pairs"][:SHOWN_PAIRS]:
        for image in pair["images"]:
            yield image["number"]


def _has_labels(results: Values) -> bool:
    return any("same_class" in record for record in results["layers"].values())


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
