"""Detection as one of the three VOC tasks: Fast R-CNN on the backbone of an export."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from experiments.voc import metrics
from experiments.voc.data.images import Images
from experiments.voc.detection import inference
from experiments.voc.detection.boxes import decode
from experiments.voc.detection.fast_rcnn import DetectionHead, box_loss, classification_loss
from experiments.voc.detection.proposals import recall
from experiments.voc.detection.regions import Candidates, scaled_view, training_example
from experiments.voc.detection.rescaling import rescale
from experiments.voc.protocols import DetectionProtocol
from experiments.voc.transfer import Evaluation, TransferModel, VocTask
from experiments.voc.upsampling import backbone_layers, cells
from lts.config import DiscriminatorConfig
from lts.export.saved_model import LoadedModel

LAYER = "conv_5"  # that regions are pooled of
RESCALE_IMAGES = 64  # training images whose features become alike in size (ours)
SHOWN_SCORE = 0.5  # least score of a region that TensorBoard's pictures show as found
OUTSIDE = (2.0, 2.0, 3.0, 3.0)  # a box that is not drawn
RED, GREEN = (1.0, -1.0, -1.0, 1.0), (-1.0, 1.0, -1.0, 1.0)


class DetectionModel(TransferModel):
    """Fast R-CNN (Girshick 2015) on a backbone; batches are images [B, H, W, 3] and their `boxes.Regions` [B, R, ...]."""

    METRICS = ("loss", "classification", "boxes", "l2", "objects", "gradient_norm")

    def __init__(self, loaded: LoadedModel, classes: int, protocol: DetectionProtocol, seed: int, precision: str):
        self.layer = loaded.geometry[LAYER]
        first = first_cell(loaded.config.discriminator, self.layer.stride)
        head = DetectionHead(classes, protocol.units, protocol.cells, self.layer.stride, first)
        super().__init__(loaded, head, protocol, seed, precision)

    def compute_losses(self, batch, training=True) -> dict:
        """Scalars: `classification`, `boxes`, `l2`, their sum `loss`, and `objects`, regions with one in an image."""
        images, regions = batch
        drop = self.dropout(self.protocol.dropout_keep) if training else None
        logits, moves = self.network.head(self.features(images, training), regions.boxes, drop=drop)
        classes, weights = tf.reshape(regions.classes, [-1]), tf.reshape(regions.weights, [-1])
        terms = {
            "classification": classification_loss(logits, classes, weights),
            "boxes": box_loss(moves, tf.reshape(regions.targets, [-1, 4]), classes, weights),
            "l2": self.l2(),
        }
        objects = tf.reduce_mean(tf.reduce_sum(tf.cast(regions.classes > 0, tf.float32), 1))
        return {"loss": tf.add_n(list(terms.values())), **terms, "objects": objects}

    def pictures(self, batch) -> dict:
        """Rows of the picture strip: the true boxes of the regions, and what the regions with good scores became."""
        images, regions = batch
        logits, moves = self.network.head(self.features(images), regions.boxes)
        scores = tf.nn.softmax(logits)[:, 1:]
        best = tf.argmax(scores, 1)
        moves = tf.reshape(tf.gather(moves, best, batch_dims=1), tf.shape(regions.boxes))
        good = tf.reshape(tf.reduce_max(scores, 1) >= SHOWN_SCORE, tf.shape(regions.weights)) & (regions.weights > 0)
        truth = decode(regions.targets, regions.boxes)
        return {
            "objects": _outlined(images, truth, regions.classes > 0, GREEN),
            "found": _outlined(images, decode(moves, regions.boxes), good, RED),
        }


def first_cell(config: DiscriminatorConfig, stride: int) -> float:
    """Where the first cell of conv_5 is centred, in pixels from the image's edge, for sides that are whole strides.

    In the release 14.5: the "SAME" padding of the pools adds nothing at the top and left.
    """
    return float(cells(stride, backbone_layers(config)).first) + 0.5  # of a pixel, to its middle


def _outlined(images: tf.Tensor, boxes: tf.Tensor, chosen: tf.Tensor, colour: tuple[float, ...]) -> tf.Tensor:
    """Images [B, H, W, 3] with those of the boxes [B, R, 4] that are chosen, bool [B, R]."""
    ends = tf.cast(tf.tile(tf.shape(images)[1:3], [2]), tf.float32)
    return tf.image.draw_bounding_boxes(images, tf.where(chosen[..., None], boxes / ends, OUTSIDE), [colour])


class DetectionTask(VocTask):
    """Boxes of the objects of each class, from proposals.

    Args:
      train: images to learn from.
      test: images to report on.
      protocol: how.
      train_proposals: float32 [n, 4] of each training image, in its pixels.
      test_proposals: of each test image.
    """

    name = "voc_detection"
    measure = "mAP"

    def __init__(
        self,
        train: Images,
        test: Images,
        protocol: DetectionProtocol,
        train_proposals: tuple[np.ndarray, ...],
        test_proposals: tuple[np.ndarray, ...],
    ):
        super().__init__(train, test, protocol)
        self.train_proposals, self.test_proposals = train_proposals, test_proposals
        self._candidates = Candidates(train.set, train_proposals)
        self._rescaled: dict[str, list[np.ndarray]] = {}  # a backbone's weights by the export's fingerprint

    @property
    def run_settings(self) -> dict[str, Any]:
        """Digest of the proposals."""
        digest = hashlib.sha256()
        for boxes in (*self.train_proposals, *self.test_proposals):
            digest.update(np.int64(len(boxes)).tobytes() + boxes.tobytes())
        return {"proposals": digest.hexdigest()[:16]}

    def model(self, loaded: LoadedModel, seed: int, precision: str) -> DetectionModel:
        """With the backbone rescaled on training images first, where the protocol says so."""
        model = DetectionModel(loaded, len(self.class_names), self.protocol, seed, precision)
        if self.protocol.rescale:
            for variable, value in zip(model.network.backbone.variables, self._weights(loaded), strict=True):
                variable.assign(value)
        return model

    def _weights(self, loaded: LoadedModel) -> list[np.ndarray]:
        """A rescaled backbone's weights, made once."""
        if loaded.fingerprint not in self._rescaled:
            backbone, layer = loaded.keras_model(dtype="float32").backbone, loaded.geometry[LAYER]
            count = min(RESCALE_IMAGES, self.train.set.num_examples)
            numbers = np.linspace(0, self.train.set.num_examples - 1, count).astype(int)
            side, longest = self.protocol.test_side, self.protocol.longest
            views = (scaled_view(self.train.read(number), side, longest, layer)[0] for number in numbers)
            rescale(backbone, list(views))
            print(f"{loaded.path}: backbone rescaled on {count} training images", flush=True)
            self._rescaled[loaded.fingerprint] = [variable.numpy() for variable in backbone.variables]
        return self._rescaled[loaded.fingerprint]

    def example(self, loaded: LoadedModel) -> Callable[[tf.Tensor, tf.Tensor], Any]:
        """An image at one of the scales and its regions."""
        layer = loaded.geometry[LAYER]

        def example(which: tf.Tensor, seeds: tf.Tensor) -> tuple:
            return training_example(self.train.read(which), self._candidates.of(which), seeds, self.protocol, layer)

        return example

    def combine(self, examples: tf.data.Dataset, size: int) -> tf.data.Dataset:
        """Images padded with grey, 0, to the largest of their batch."""
        return examples.padded_batch(size, drop_remainder=True)

    def evaluate(self, model: DetectionModel, title: str) -> Evaluation:
        """Average precision at an overlap of 0.5 by VOC's rules, and what the proposals allow at most."""
        opened, found = self.test.set, self._detect(model, range(self.test.set.num_examples), title)
        results = {
            rule: metrics.detection_ap(found, opened.objects, opened.num_classes, rule) for rule in metrics.RULES
        }
        chosen = results[self.protocol.rule]
        figures = {
            "average_precision": {rule: self._named(each) for rule, each in results.items()},
            "proposals": {
                "recall": recall(self.test_proposals, opened.objects),
                "mean_number": float(np.mean([len(boxes) for boxes in self.test_proposals])),
            },
        }
        return Evaluation(chosen.mean, chosen.per_class, figures, chosen.weighted)

    def _named(self, result: metrics.AveragePrecision) -> dict[str, Any]:
        values = [None if np.isnan(value) else float(value) for value in result.per_class]
        return {"mean": result.mean, "per_class": dict(zip(self.class_names, values, strict=True))}

    def draw(self, model: DetectionModel, numbers: Sequence[int]) -> np.ndarray:
        """True boxes on the left, what was found with a good score on the right."""
        found = self._detect(model, numbers, "pictures")
        return inference.picture(self.test, numbers, found)

    def _detect(self, model: DetectionModel, numbers: Sequence[int], title: str) -> tuple[metrics.Detections, ...]:
        find = inference.detector(model.features, model.network.head, self.protocol, model.layer)
        return inference.detect(find, self.test, self.test_proposals, numbers, title)
