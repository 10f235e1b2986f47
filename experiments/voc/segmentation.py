"""VOC segmentation: a fully convolutional network on a backbone (Long et al. 2015), tested at full resolution."""

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
from lts.config import ConfigError, DiscriminatorConfig, discriminator_grid
from lts.export.saved_model import LoadedModel
from lts.utils.progress import Progress
from lts.visualization.montage import montage


class FCNHead(keras.Model):
    """pool_5, fc_1 and fc_2 as convolutions, scores, and their enlargement to the image (FCN).

    With the release's widths a map [8, 30, 30, 256] of images of 480 pixels becomes [8, 15, 15, 256], twice
    [8, 15, 15, 4096], scores [8, 15, 15, classes] and logits [8, 480, 480, classes]. The 16s form enlarges the scores
    to conv_5's 30 x 30 cells, adds scores of conv_5 there, and enlarges the sum. Score layers begin at zero (FCN).

    Args:
      config: of the backbone: where the cells of its map lie in the image.
      classes: number of logits.
      protocol: form and kernel of fc_1.
    """

    def __init__(self, config: DiscriminatorConfig, classes: int, protocol: SegmentationProtocol, name="head"):
        super().__init__(name=name, dtype="float32")
        self.config, self.protocol = config, protocol

        def convolution(filters: int, kernel: int, name: str, **options):
            return keras.layers.Conv2D(filters, kernel, padding="same", name=name, **options)

        hidden = {"activation": "relu", "kernel_initializer": "he_normal"}
        self.fc_1 = convolution(config.fc_units, protocol.fc_kernel, "fc_1", **hidden)
        self.fc_2 = convolution(config.fc_units, 1, "fc_2", **hidden)
        self.score = convolution(classes, 1, "score", kernel_initializer="zeros")
        self.score_skip = None
        if protocol.form == "16s":
            self.score_skip = convolution(classes, 1, "score_skip", kernel_initializer="zeros")

    def build(self, input_shape):
        self.fc_1.build(input_shape)
        for layer in (self.fc_2, self.score):
            layer.build((None, None, None, self.config.fc_units))
        if self.score_skip:
            self.score_skip.build(input_shape)

    def call(self, features, sides, drop: Callable | None = None):
        """Logits of every pixel.

        Args:
          features: conv_5's map [B, h, w, channels].
          sides: int [2], height and width H, W of the images.
          drop: see `TransferModel.dropout`.

        Returns:
          float32 [B, H, W, classes].
        """
        x = tf.nn.max_pool2d(features, 3, 2, "SAME")
        for stream, layer in enumerate((self.fc_1, self.fc_2)):
            x = layer(x)
            if drop is not None:
                x = drop(x, stream)
        x = self.score(x)
        backbone = upsampling.backbone_layers(self.config)
        head = [*backbone, upsampling.Layer(3, 2), upsampling.Layer(self.protocol.fc_kernel, 1)]
        coarse, fine = ([upsampling.cells(side, layers) for side in tf.unstack(sides)] for layers in (head, backbone))
        if self.score_skip:
            at = [one.places(two.centres()) for one, two in zip(coarse, fine, strict=True)]
            x = upsampling.interpolate(x, *at) + self.score_skip(features)
            coarse = fine
        pixels = (tf.range(side, dtype=tf.float32) for side in tf.unstack(sides))
        return upsampling.interpolate(x, *(one.places(at) for one, at in zip(coarse, pixels, strict=True)))


class SegmentationModel(TransferModel):
    """Cross entropy of every pixel. A batch is images [B, H, W, 3] in [-1, 1] and masks uint8 [B, H, W]."""

    METRICS = ("loss", "segmentation", "pixel_accuracy", "l2", "gradient_norm")

    def logits(self, images, training: bool = False):
        """Float32 [B, H, W, classes]."""
        drop = self.dropout(self.protocol.dropout_keep) if training else None
        return self.network.head(self.features(images, training), tf.shape(images)[1:3], drop=drop)

    def call(self, images):
        """Labels uint8 [B, H, W] of images [B, H, W, 3] in [-1, 1]."""
        return tf.cast(tf.argmax(self.logits(images), -1), tf.uint8)

    @tf.function(input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)])
    def predict_one(self, image):
        """Labels uint8 [h, w] of one image of any size, uint8 [h, w, 3]."""
        return self(crops.signed(image)[None])[0]

    def compute_losses(self, batch, training=True) -> dict:
        """Scalars: `segmentation`, `l2`, their sum `loss`, and `pixel_accuracy`."""
        images, masks = batch
        logits = self.logits(images, training)
        terms = {"segmentation": pixel_loss(logits, masks), "l2": self.l2()}
        right = tf.cast(tf.argmax(logits, -1), tf.uint8) == masks  # never 255
        known = tf.reduce_sum(tf.cast(masks != crops.IGNORED, tf.float32))
        accuracy = tf.math.divide_no_nan(tf.reduce_sum(tf.cast(right, tf.float32)), known)
        return {"loss": tf.add_n(list(terms.values())), **terms, "pixel_accuracy": accuracy}

    def pictures(self, batch) -> dict:
        """Images, and under their true and their predicted mask in VOC's colours."""
        images, masks = batch
        palette = tf.constant(voc_palette() / 127.5 - 1, tf.float32)

        def overlaid(labels):
            return (1 - OPACITY) * images + OPACITY * tf.gather(palette, tf.cast(labels, tf.int32))

        return {"image": images, "truth": overlaid(masks), "prediction": overlaid(self(images))}


def pixel_loss(logits, masks):
    """Mean softmax cross entropy over the pixels that have a label; 0 where none has.

    Args:
      logits: [B, H, W, classes].
      masks: uint8 [B, H, W]: a class, or 255, which is left out.
    """
    known = masks != crops.IGNORED
    labels = tf.cast(tf.where(known, masks, tf.zeros_like(masks)), tf.int32)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=tf.cast(logits, tf.float32))
    weights = tf.cast(known, tf.float32)
    return tf.math.divide_no_nan(tf.reduce_sum(losses * weights), tf.reduce_sum(weights))


class Segmentation(VocTask):
    """Which class each pixel shows; the protocol is a `SegmentationProtocol`."""

    name, measure = "voc_segmentation", "mean IU"
    protocol: SegmentationProtocol

    def __init__(self, train, test, protocol):
        super().__init__(train, test, protocol)
        self.masks = open_masks(train.set)

    def model(self, loaded: LoadedModel, seed: int, precision: str) -> SegmentationModel:
        config, crop = loaded.config.discriminator, self.protocol.crop
        if discriminator_grid(crop, config) < 1:
            raise ConfigError(f"crop must be larger for the layers of {loaded.path}. Received: crop={crop}")
        smallest = loaded.geometry["conv_5"].smallest
        for name, sides in zip(self.test.set.ids, self.test.set.sizes, strict=True):
            if min(sides) < smallest:
                raise TransferError(
                    f"{name} of {self.test.set.name} has {sides[0]} x {sides[1]} pixels, fewer than the {smallest} a "
                    f"side that {loaded.path} needs"
                )
        head = FCNHead(config, len(self.class_names), self.protocol)
        return SegmentationModel(loaded, head, self.protocol, seed, precision)

    def example(self, loaded: LoadedModel) -> Callable[[tf.Tensor, tf.Tensor], Any]:
        size, (least, most) = self.protocol.crop, np.log(self.protocol.scales).astype(np.float32)

        def make(index, seed):
            window_seed, draw_seed = tf.unstack(tf.random.split(seed, 2))
            drawn, flip = tf.unstack(tf.random.stateless_uniform([2], draw_seed))
            image, mask = self.train.read(index), self.masks.read(index)[..., 0]
            scale = tf.exp(least + (most - least) * drawn)
            begin = crops.random_window(tf.shape(image), size, scale, window_seed)
            crop = crops.cut_image(image, begin, scale, tf.constant([size, size]))
            labels = crops.cut_mask(mask, begin, scale, size)
            crop, labels = crops.mirrored(crop, flip), crops.mirrored(labels, flip)
            return tf.ensure_shape(crop, [size, size, 3]), tf.ensure_shape(labels, [size, size])

        return make

    def evaluate(self, model: SegmentationModel, title: str) -> Evaluation:
        """Intersection over union of whole images, every pixel of each that has a label."""
        count, classes = self.test.set.num_examples, len(self.class_names)
        confusions = np.zeros([count, classes, classes], np.int64)
        with Progress(f"{title}: test images", count) as progress:
            for number in range(count):
                predicted = model.predict_one(self.test.read(number)).numpy()
                confusions[number] = metrics.confusion_matrix(self.test.set.read_mask(number), predicted, classes)
                progress.advance(1)
        score = metrics.mean_iou(confusions.sum(0))

        def weighted(times: np.ndarray) -> np.ndarray:
            return metrics.class_iou(np.tensordot(times, confusions, 1))

        return Evaluation(score.mean, score.per_class, {"pixel_accuracy": score.pixel_accuracy}, weighted)

    def draw(self, model: SegmentationModel, numbers: Sequence[int]) -> np.ndarray:
        """Test images, and under their true and their predicted mask."""
        panels = []
        for number in numbers:
            image = self.test.read(number)
            masks = (self.test.set.read_mask(number), model.predict_one(image).numpy())
            drawn = [draw_mask(image.numpy(), mask, self.class_names) for mask in masks]
            panels += [enlarge(image.numpy()), *drawn]
        titles = ("image", "truth", "prediction")
        return montage(panels, len(titles), GAP, titles)
