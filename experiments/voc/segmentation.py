"""VOC segmentation.

A fully convolutional network on the backbone (FCN: Long et al. 2015), tested at full resolution.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from experiments.voc import crops, metrics, upsampling
from experiments.voc.data.images import open_masks
from experiments.voc.drawing import GAP, OPACITY, draw_mask, enlarge, voc_palette
from experiments.voc.protocols import SegmentationProtocol
from experiments.voc.transfer import Evaluation, TransferError, TransferModel, VocTask
from lts import data
from lts.config import ConfigError
from lts.config.windows import Window
from lts.export.saved_model import LoadedModel
from lts.utils.progress import Progress
from lts.visualization.montage import montage


class FCNHead(keras.Model):
    """Fully convolutional head (FCN).

    pool_5, fc_1 and fc_2 as convolutions, scores, and their bilinear enlargement to the image. The 16s form enlarges
    the scores to the cells of the backbone's map, adds scores of that map, and enlarges the sum. Score layers are
    initialised with zeros (FCN). The enlargement is fixed; FCN learns the one from 32s to 16s from a bilinear start.

    Shapes (the release's sizes, images of 480 pixels): a map [8, 30, 30, 256] gives [8, 15, 15, 256], twice
    [8, 15, 15, 4096], scores [8, 15, 15, classes] and logits [8, 480, 480, classes].

    Args:
      windows: convolutions and pools of the backbone; they give the positions of the cells in the image.
      units: channels of fc_1 and fc_2.
      classes: number of logits.
      protocol: form, and kernel of fc_1.
      name: Keras name.
    """

    def __init__(
        self, windows: Sequence[Window], units: int, classes: int, protocol: SegmentationProtocol, name="head"
    ):
        super().__init__(name=name, dtype="float32")
        self.windows = tuple(windows)
        self.units = units
        self.protocol = protocol
        hidden = {"activation": "relu", "kernel_initializer": "he_normal", "padding": "same"}
        score = {"kernel_size": 1, "kernel_initializer": "zeros"}
        self.fc_1 = keras.layers.Conv2D(units, protocol.fc_kernel, name="fc_1", **hidden)
        self.fc_2 = keras.layers.Conv2D(units, 1, name="fc_2", **hidden)
        self.score = keras.layers.Conv2D(classes, name="score", **score)
        self.score_skip = None
        if protocol.form == "16s":
            self.score_skip = keras.layers.Conv2D(classes, name="score_skip", **score)

    def build(self, input_shape):
        self.fc_1.build(input_shape)
        for layer in (self.fc_2, self.score):
            layer.build((None, None, None, self.units))
        if self.score_skip:
            self.score_skip.build(input_shape)

    def call(self, features, sides, drop: Callable | None = None):
        """Return the logits of every pixel.

        Args:
          features: last map of the backbone [B, h, w, channels].
          sides: int [2], height and width H, W of the images.
          drop: result of `TransferModel.dropout`; None: no dropout.

        Returns:
          float32 [B, H, W, classes].
        """
        x = tf.nn.max_pool2d(features, 3, 2, "SAME")
        for stream, layer in enumerate((self.fc_1, self.fc_2)):
            x = layer(x)
            if drop is not None:
                x = drop(x, stream)
        scores = self.score(x)

        # Positions of the cells along both sides of the image: of the map, and of the scores after pool_5 and fc_1.
        score_windows = [*self.windows, Window(3, 2), Window(self.protocol.fc_kernel)]
        cells = [upsampling.cells(side, score_windows) for side in tf.unstack(sides)]
        if self.score_skip:
            fine_cells = [upsampling.cells(side, self.windows) for side in tf.unstack(sides)]
            rows, columns = (c.places(f.centres()) for c, f in zip(cells, fine_cells, strict=True))
            scores = upsampling.interpolate(scores, rows, columns) + self.score_skip(features)
            cells = fine_cells
        pixels = [tf.range(side, dtype=tf.float32) for side in tf.unstack(sides)]
        return upsampling.interpolate(scores, cells[0].places(pixels[0]), cells[1].places(pixels[1]))


class SegmentationModel(TransferModel):
    """Backbone and head with the cross entropy of every pixel.

    A batch is images [B, H, W, 3] in [-1, 1] and masks uint8 [B, H, W].
    """

    METRICS = ("loss", "segmentation", "pixel_accuracy", "l2", "gradient_norm")

    def logits(self, images, training: bool = False):
        """Return logits, float32 [B, H, W, classes]."""
        drop = self.dropout(self.protocol.dropout_keep) if training else None
        return self.network.head(self.features(images, training), tf.shape(images)[1:3], drop=drop)

    def call(self, images):
        """Return labels uint8 [B, H, W] of images [B, H, W, 3] in [-1, 1]."""
        return tf.cast(tf.argmax(self.logits(images), -1), tf.uint8)

    @tf.function(input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)])
    def predict_one(self, image):
        """Return labels uint8 [h, w] of one image of any size, uint8 [h, w, 3]."""
        return self(data.as_signed(image)[None])[0]

    def compute_losses(self, batch, training=True) -> dict:
        """Return the scalars `segmentation`, `l2`, their sum `loss`, and `pixel_accuracy`."""
        images, masks = batch
        logits = self.logits(images, training)
        segmentation_loss = pixel_loss(logits, masks)
        l2 = self.l2()
        # A prediction is never 255, so ignored pixels are never correct.
        correct = tf.cast(tf.argmax(logits, -1), tf.uint8) == masks
        labelled = tf.reduce_sum(tf.cast(masks != crops.IGNORED, tf.float32))
        pixel_accuracy = tf.math.divide_no_nan(tf.reduce_sum(tf.cast(correct, tf.float32)), labelled)
        return {
            "loss": segmentation_loss + l2,
            "segmentation": segmentation_loss,
            "l2": l2,
            "pixel_accuracy": pixel_accuracy,
        }

    def pictures(self, batch) -> dict:
        """Return images, and under their true and predicted masks in VOC's colours."""
        images, masks = batch
        palette = tf.constant(voc_palette() / 127.5 - 1, tf.float32)

        def overlaid(labels):
            return (1 - OPACITY) * images + OPACITY * tf.gather(palette, tf.cast(labels, tf.int32))

        return {"image": images, "truth": overlaid(masks), "prediction": overlaid(self(images))}


def pixel_loss(logits, masks):
    """Return the mean softmax cross entropy over labelled pixels; 0 without any.

    Args:
      logits: [B, H, W, classes].
      masks: uint8 [B, H, W]: a class, or 255 for ignored pixels.
    """
    known = masks != crops.IGNORED
    labels = tf.cast(tf.where(known, masks, tf.zeros_like(masks)), tf.int32)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=tf.cast(logits, tf.float32))
    weights = tf.cast(known, tf.float32)
    return tf.math.divide_no_nan(tf.reduce_sum(losses * weights), tf.reduce_sum(weights))


class Segmentation(VocTask):
    """The task with a `SegmentationProtocol`."""

    name = "voc_segmentation"
    measure = "mean IU"
    protocol: SegmentationProtocol

    def __init__(self, train, test, protocol):
        super().__init__(train, test, protocol)
        self.masks = open_masks(train.set)

    def model(self, loaded: LoadedModel, seed: int, precision: str) -> SegmentationModel:
        layer = loaded.geometry[loaded.layers[-1]]
        crop = self.protocol.crop
        if layer.cells(crop) < 1:
            raise ConfigError(f"crop must be larger for the layers of {loaded.path}. Received: crop={crop}")
        for name, sides in zip(self.test.set.ids, self.test.set.sizes, strict=True):
            if min(sides) < layer.smallest:
                raise TransferError(
                    f"{name} of {self.test.set.name} has {sides[0]} x {sides[1]} pixels; {loaded.path} needs at least "
                    f"{layer.smallest} per side"
                )
        units = loaded.config.discriminator.fc_units
        head = FCNHead(layer.windows, units, len(self.class_names), self.protocol)
        return SegmentationModel(loaded, head, self.protocol, seed, precision)

    def example(self, loaded: LoadedModel) -> Callable[[tf.Tensor, tf.Tensor], Any]:
        size = self.protocol.crop
        smallest, largest = np.log(self.protocol.scales).astype(np.float32)

        def make(index, seed):
            window_seed, draw_seed = tf.unstack(tf.random.split(seed, 2))
            fraction, flip = tf.unstack(tf.random.stateless_uniform([2], draw_seed))
            image = self.train.read(index)
            mask = self.masks.read(index)[..., 0]
            scale = tf.exp(smallest + (largest - smallest) * fraction)
            begin = crops.random_window(tf.shape(image), size, scale, window_seed)
            crop = crops.cut_image(image, begin, scale, tf.constant([size, size]))
            labels = crops.cut_mask(mask, begin, scale, size)
            crop = tf.ensure_shape(crops.mirrored(crop, flip), [size, size, 3])
            labels = tf.ensure_shape(crops.mirrored(labels, flip), [size, size])
            return crop, labels

        return make

    def evaluate(self, model: SegmentationModel, title: str) -> Evaluation:
        """Return the intersection over union, over all labelled pixels of whole images."""
        count = self.test.set.num_examples
        classes = len(self.class_names)
        confusions = np.zeros([count, classes, classes], np.int64)
        with Progress(f"{title}: test images", count) as progress:
            for index in range(count):
                predicted = model.predict_one(self.test.read(index)).numpy()
                truth = self.test.set.read_mask(index)
                confusions[index] = metrics.confusion_matrix(truth, predicted, classes)
                progress.advance(1)
        score = metrics.mean_iou(confusions.sum(0))

        def weighted(counts: np.ndarray) -> np.ndarray:
            return metrics.class_iou(np.tensordot(counts, confusions, 1))

        return Evaluation(score.mean, score.per_class, {"pixel_accuracy": score.pixel_accuracy}, weighted)

    def draw(self, model: SegmentationModel, numbers: Sequence[int]) -> np.ndarray:
        """Draw test images, and under their true and predicted masks."""
        panels = []
        for number in numbers:
            image = self.test.read(number)
            masks = (self.test.set.read_mask(number), model.predict_one(image).numpy())
            drawn = [draw_mask(image.numpy(), mask, self.class_names) for mask in masks]
            panels += [enlarge(image.numpy()), *drawn]
        titles = ("image", "truth", "prediction")
        return montage(panels, len(titles), GAP, titles)
