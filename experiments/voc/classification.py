"""VOC classification: multi-label fine-tuning of a backbone with new fully connected layers, and a ten-crop test."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from experiments.voc import crops, metrics
from experiments.voc.drawing import GAP, draw_scores, enlarge
from experiments.voc.protocols import ClassificationProtocol
from experiments.voc.transfer import Evaluation, TransferModel, VocTask
from lts.config import ConfigError, discriminator_grid
from lts.export.saved_model import LoadedModel
from lts.utils.progress import Progress
from lts.visualization.montage import montage

TEST_BATCH = 8  # images of ten crops; speed alone


class ClassificationHead(keras.Model):
    """AlexNet's: 3x3 pool of stride 2, fc_1 and fc_2 with dropout, a score a class.

    With the release's widths a map [8, 15, 15, 256] (crops of 227 pixels) becomes [8, 8, 8, 256], [8, 4096],
    [8, 4096] and logits [8, classes].

    Args:
      grid: cells a side of conv_5's map.
      width: units of fc_1 and fc_2.
      classes: number of logits.
    """

    def __init__(self, grid: int, width: int, classes: int, name="head"):
        super().__init__(name=name, dtype="float32")
        self.grid, self.width = grid, width
        self.fc_1 = keras.layers.Dense(width, "relu", kernel_initializer="he_normal", name="fc_1")
        self.fc_2 = keras.layers.Dense(width, "relu", kernel_initializer="he_normal", name="fc_2")
        small = keras.initializers.RandomNormal(stddev=0.01)  # (Kraehenbuehl et al. 2016)
        self.score = keras.layers.Dense(classes, kernel_initializer=small, name="score")

    def build(self, input_shape):
        cells = -(-self.grid // 2)
        self.fc_1.build((None, cells * cells * input_shape[-1]))
        self.fc_2.build((None, self.width))
        self.score.build((None, self.width))

    def call(self, features, drop: Callable | None = None):
        """Logits [B, classes] of conv_5's map [B, grid, grid, channels]; `drop`: see `TransferModel.dropout`."""
        x = tf.nn.max_pool2d(features, 3, 2, "SAME")
        x = tf.reshape(x, [-1, self.fc_1.kernel.shape[0]])
        for stream, layer in enumerate((self.fc_1, self.fc_2)):
            x = layer(x)
            if drop is not None:
                x = drop(x, stream)
        return self.score(x)


class ClassificationModel(TransferModel):
    """Sigmoid cross entropy of image labels. A batch is images [B, H, W, 3] in [-1, 1] and labels int [B, classes]."""

    METRICS = ("loss", "classification", "l2", "gradient_norm")

    def __init__(self, *args, size: int, **kwargs):
        super().__init__(*args, **kwargs)
        self.size = size  # pixels a side of its images

    def call(self, images):
        """Logits [B, classes] of images [B, H, W, 3] in [-1, 1]."""
        return self.network.head(self.features(images))

    @tf.function(reduce_retracing=True)
    def mean_logits(self, views):
        """Means of the crops' logits, [B, classes] of [B, crops, H, W, 3]."""
        logits = self(tf.reshape(views, [-1, *views.shape[2:]]))
        return tf.reduce_mean(tf.reshape(logits, [-1, views.shape[1], logits.shape[-1]]), 1)

    def compute_losses(self, batch, training=True) -> dict:
        """Scalars: `classification`, `l2` and their sum `loss`."""
        images, labels = batch
        drop = self.dropout(self.protocol.dropout_keep) if training else None
        logits = self.network.head(self.features(images, training), drop=drop)
        terms = {"classification": label_loss(logits, labels), "l2": self.l2()}
        return {"loss": tf.add_n(list(terms.values())), **terms}

    def pictures(self, batch) -> dict:
        """Images; and in a column for each class its label (a bright top, grey if difficult) and its score (a bar)."""
        images, labels = batch
        height, width = images.shape[1:3]
        column = tf.range(width) * labels.shape[1] // width
        truth = tf.gather(tf.where(labels < 0, 0.0, tf.cast(labels, tf.float32) * 2 - 1), column, axis=1)[:, None]
        scores = tf.gather(tf.sigmoid(self(images)), column, axis=1)[:, None]
        up = tf.reshape(1 - (tf.range(height, dtype=tf.float32) + 0.5) / height, [1, height, 1]) / 0.8
        bars = tf.where(up > 1.05, truth, tf.where(up < scores, 0.6, -0.6))
        return {"image": images, "labels over scores": bars[..., None]}


def label_loss(logits, labels):
    """Sigmoid cross entropy, summed over classes, mean over images (Kraehenbuehl et al. 2016).

    Args:
      logits: [B, classes].
      labels: int [B, classes]: 1 there, 0 not there, -1 left out ("difficult" alone).
    """
    known = tf.cast(labels >= 0, tf.float32)
    targets = tf.cast(labels > 0, tf.float32)
    losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=tf.cast(logits, tf.float32))
    return tf.reduce_mean(tf.reduce_sum(losses * known, 1))


class Classification(VocTask):
    """Which classes an image shows; the protocol is a `ClassificationProtocol`."""

    name, measure = "voc_classification", "mAP"
    protocol: ClassificationProtocol

    def __init__(self, train, test, protocol):
        super().__init__(train, test, protocol)
        self.labels = train.set.image_labels().astype(np.int32)

    def size(self, loaded: LoadedModel) -> int:
        """Pixels a side of the crops that the network sees."""
        return self.protocol.crop or loaded.image_size

    def model(self, loaded: LoadedModel, seed: int, precision: str) -> ClassificationModel:
        size, config = self.size(loaded), loaded.config.discriminator
        grid = discriminator_grid(size, config)
        if grid < 1:
            raise ConfigError(f"crop must be larger for the layers of {loaded.path}. Received: crop={size}")
        head = ClassificationHead(grid, config.fc_units, len(self.class_names))
        return ClassificationModel(loaded, head, self.protocol, seed, precision, size=size)

    def example(self, loaded: LoadedModel) -> Callable[[tf.Tensor, tf.Tensor], Any]:
        size, (least, most) = self.size(loaded), self.protocol.scales
        labels = tf.constant(self.labels)

        def make(index, seed):
            window_seed, draw_seed = tf.unstack(tf.random.split(seed, 2))
            drawn, flip = tf.unstack(tf.random.stateless_uniform([2], draw_seed))
            image = self.train.read(index)
            short = tf.cast(tf.reduce_min(tf.shape(image)[:2]), tf.float32)
            scale = size * (least + (most - least) * drawn) / short
            begin = crops.random_window(tf.shape(image), size, scale, window_seed)
            crop = crops.cut_image(image, begin, scale, tf.constant([size, size]))
            return tf.ensure_shape(crops.mirrored(crop, flip), [size, size, 3]), labels[index]

        return make

    def scores(self, model: ClassificationModel, numbers: Sequence[int], title: str) -> np.ndarray:
        """Mean of the ten crops' logits of test images (Kraehenbuehl et al. 2016): float32 [len(numbers), classes]."""
        size = model.size
        short = max(size, round(size * self.protocol.test_scale))
        views = tf.data.Dataset.from_tensor_slices(np.asarray(numbers, np.int64))
        views = views.map(lambda i: crops.ten_crops(self.test.read(i), size, short), tf.data.AUTOTUNE)
        found = []
        with Progress(f"{title}: test images", len(numbers)) as progress:
            for batch in views.batch(TEST_BATCH).prefetch(1):
                found.append(model.mean_logits(batch).numpy())
                progress.advance(len(batch))
        return np.concatenate(found)

    def evaluate(self, model: ClassificationModel, title: str) -> Evaluation:
        """Average precision by both rules; the protocol's is the headline."""
        numbers, labels = range(self.test.set.num_examples), self.test.set.image_labels()
        scores = self.scores(model, numbers, title)
        found = {rule: metrics.classification_ap(scores, labels, rule) for rule in metrics.RULES}
        chosen = found[self.protocol.rule]
        rules = {
            rule: {"mean": ap.mean, "per_class": dict(zip(self.class_names, _known(ap.per_class), strict=True))}
            for rule, ap in found.items()
        }
        return Evaluation(chosen.mean, chosen.per_class, {"rules": rules}, chosen.weighted)

    def draw(self, model: ClassificationModel, numbers: Sequence[int]) -> np.ndarray:
        """Test images beside the probabilities of their classes."""
        scores = 1 / (1 + np.exp(-self.scores(model, numbers, "pictures")))
        labels = self.test.set.image_labels()
        panels = []
        for number, probabilities in zip(numbers, scores, strict=True):
            image = enlarge(self.test.read(number).numpy())
            panels += [image, draw_scores(probabilities, labels[number], self.class_names, image.shape[0])]
        titles = ("image", "filled: there (grey: difficult); bar: predicted probability")
        return montage(panels, len(titles), GAP, titles)


def _known(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]
