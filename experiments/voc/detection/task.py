"""VOC detection: Fast R-CNN on the backbone of an export."""

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
from experiments.voc.upsampling import cells
from lts.export.saved_model import LoadedModel
from lts.networks.geometry import LayerGeometry

RESCALE_IMAGES = 64  # training images for `rescale` (ours)
SHOWN_SCORE = 0.5  # smallest score of a region in TensorBoard's pictures
OUTSIDE = (2.0, 2.0, 3.0, 3.0)  # a box that is not drawn
RED = (1.0, -1.0, -1.0, 1.0)
GREEN = (-1.0, 1.0, -1.0, 1.0)


class DetectionModel(TransferModel):
    """Fast R-CNN (Girshick 2015) on a backbone.

    A batch is images [B, H, W, 3] and their `boxes.Regions` [B, R, ...].
    """

    METRICS = ("loss", "classification", "boxes", "l2", "objects", "gradient_norm")

    def __init__(self, loaded: LoadedModel, classes: int, protocol: DetectionProtocol, seed: int, precision: str):
        self.layer = pooled_layer(loaded)
        first = first_cell(self.layer)
        head = DetectionHead(classes, protocol.units, protocol.cells, self.layer.stride, first)
        super().__init__(loaded, head, protocol, seed, precision)

    def compute_losses(self, batch, training=True) -> dict:
        """Return the scalars `classification`, `boxes`, `l2`, their sum `loss`, and `objects`, positives per image."""
        images, regions = batch
        drop = self.dropout(self.protocol.dropout_keep) if training else None
        logits, moves = self.network.head(self.features(images, training), regions.boxes, drop=drop)
        classes = tf.reshape(regions.classes, [-1])
        weights = tf.reshape(regions.weights, [-1])
        targets = tf.reshape(regions.targets, [-1, 4])
        class_loss = classification_loss(logits, classes, weights)
        boxes_loss = box_loss(moves, targets, classes, weights)
        l2 = self.l2()
        return {
            "loss": class_loss + boxes_loss + l2,
            "classification": class_loss,
            "boxes": boxes_loss,
            "l2": l2,
            "objects": tf.reduce_mean(tf.reduce_sum(tf.cast(regions.classes > 0, tf.float32), 1)),
        }

    def pictures(self, batch) -> dict:
        """Return images with the true boxes of the regions, and with the predicted boxes of good scores."""
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


def pooled_layer(loaded: LoadedModel) -> LayerGeometry:
    """Return the layer whose map is pooled, the last one."""
    return loaded.geometry[loaded.layers[-1]]


def first_cell(layer: LayerGeometry) -> float:
    """Return the centre of a layer's first cell in pixels from the image's edge.

    For sides that are whole strides it is 14.5 for conv_5 of the release and 7.5 in `small`, not half a stride: the
    "SAME" padding of the pools adds nothing at the top and left.
    """
    return float(cells(layer.stride, layer.windows).first) + 0.5  # of a pixel, to its middle


def _outlined(images: tf.Tensor, boxes: tf.Tensor, chosen: tf.Tensor, colour: tuple[float, ...]) -> tf.Tensor:
    """Draw the chosen boxes [B, R, 4] (bool [B, R]) into images [B, H, W, 3]."""
    ends = tf.cast(tf.tile(tf.shape(images)[1:3], [2]), tf.float32)
    return tf.image.draw_bounding_boxes(images, tf.where(chosen[..., None], boxes / ends, OUTSIDE), [colour])


class DetectionTask(VocTask):
    """The task with a `DetectionProtocol` and proposals.

    Args:
      train: training images.
      test: test images.
      protocol: protocol of the task.
      train_proposals: float32 [n, 4] of each training image, in its pixels.
      test_proposals: proposals of each test image.
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
        self.train_proposals = train_proposals
        self.test_proposals = test_proposals
        self._candidates = Candidates(train.set, train_proposals)
        self._rescaled: dict[str, list[np.ndarray]] = {}  # weights of a backbone by the fingerprint of its export

    @property
    def run_settings(self) -> dict[str, Any]:
        """Return the digest of the proposals."""
        digest = hashlib.sha256()
        for boxes in (*self.train_proposals, *self.test_proposals):
            digest.update(np.int64(len(boxes)).tobytes() + boxes.tobytes())
        return {"proposals": digest.hexdigest()[:16]}

    def model(self, loaded: LoadedModel, seed: int, precision: str) -> DetectionModel:
        """Return the model, rescaled on training images if the protocol requires it."""
        model = DetectionModel(loaded, len(self.class_names), self.protocol, seed, precision)
        if self.protocol.rescale:
            for variable, value in zip(model.network.backbone.variables, self._weights(loaded), strict=True):
                variable.assign(value)
        return model

    def _weights(self, loaded: LoadedModel) -> list[np.ndarray]:
        """Return the weights of a rescaled backbone, computed once."""
        if loaded.fingerprint not in self._rescaled:
            backbone = loaded.keras_model(dtype="float32").backbone
            layer = pooled_layer(loaded)
            count = min(RESCALE_IMAGES, self.train.set.num_examples)
            views = []
            for index in np.linspace(0, self.train.set.num_examples - 1, count).astype(int):
                image = self.train.read(index)
                view, _ = scaled_view(image, self.protocol.test_side, self.protocol.longest, layer)
                views.append(view)
            rescale(backbone, views)
            print(f"{loaded.path}: backbone rescaled on {count} training images", flush=True)
            self._rescaled[loaded.fingerprint] = [variable.numpy() for variable in backbone.variables]
        return self._rescaled[loaded.fingerprint]

    def example(self, loaded: LoadedModel) -> Callable[[tf.Tensor, tf.Tensor], Any]:
        """Return a map to one image at one of the scales and its regions."""
        layer = pooled_layer(loaded)

        def example(which: tf.Tensor, seeds: tf.Tensor) -> tuple:
            return training_example(self.train.read(which), self._candidates.of(which), seeds, self.protocol, layer)

        return example

    def combine(self, examples: tf.data.Dataset, size: int) -> tf.data.Dataset:
        """Pad images with grey, 0, to the largest of their batch."""
        return examples.padded_batch(size, drop_remainder=True)

    def evaluate(self, model: DetectionModel, title: str) -> Evaluation:
        """Return the average precision at IoU 0.5 by VOC's rules, and the recall of the proposals."""
        test = self.test.set
        detections = self._detect(model, range(test.num_examples), title)
        precisions = {}
        by_rule = {}
        for rule in metrics.RULES:
            precision = metrics.detection_ap(detections, test.objects, test.num_classes, rule)
            values = [None if np.isnan(value) else float(value) for value in precision.per_class]
            precisions[rule] = precision
            by_rule[rule] = {"mean": precision.mean, "per_class": dict(zip(self.class_names, values, strict=True))}
        figures = {
            "average_precision": by_rule,
            "proposals": {
                "recall": recall(self.test_proposals, test.objects),
                "mean_number": float(np.mean([len(boxes) for boxes in self.test_proposals])),
            },
        }
        headline = precisions[self.protocol.rule]
        return Evaluation(headline.mean, headline.per_class, figures, headline.weighted)

    def draw(self, model: DetectionModel, numbers: Sequence[int]) -> np.ndarray:
        """Draw true boxes on the left, detections with a good score on the right."""
        return inference.picture(self.test, numbers, self._detect(model, numbers, "pictures"))

    def _detect(self, model: DetectionModel, numbers: Sequence[int], title: str) -> tuple[metrics.Detections, ...]:
        find = inference.detector(model.features, model.network.head, self.protocol, model.layer)
        return inference.detect(find, self.test, self.test_proposals, numbers, title)
