"""VOC classification.

The backbone is fine-tuned on image labels under new fully connected layers, and tested on ten crops.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from experiments.voc import crops, metrics
from experiments.voc.drawing import GAP, draw_scores, enlarge
from experiments.voc.protocols import ClassificationProtocol
from experiments.voc.transfer import Evaluation, TransferModel, VocTask
from lts.config import ConfigError
from lts.export.saved_model import LoadedModel
from lts.utils.progress import Progress
from lts.visualization.montage import montage

TEST_BATCH = 8  # images of ten crops; affects only the speed


class ClassificationHead(keras.Model):
    """AlexNet's fully connected layers.

    A 3x3 pool of stride 2, fc_1 and fc_2 with dropout, and one score per class. The pool comes before fc_1, as in
    AlexNet; the backbone has none.

    Shapes (the release's sizes, crops of 227 pixels): a map [8, 15, 15, 256] gives [8, 8, 8, 256], [8, 4096],
    [8, 4096] and logits [8, classes].

    Args:
      grid: cells per side of the backbone's last map.
      units: units of fc_1 and fc_2.
      classes: number of logits.
      name: Keras name.
    """

    def __init__(self, grid: int, units: int, classes: int, name="head"):
        super().__init__(name=name, dtype="float32")
        self.grid = grid
        self.units = units
        self.fc_1 = keras.layers.Dense(units, "relu", kernel_initializer="he_normal", name="fc_1")
        self.fc_2 = keras.layers.Dense(units, "relu", kernel_initializer="he_normal", name="fc_2")
        score_initializer = keras.initializers.RandomNormal(stddev=0.01)  # (Kraehenbuehl et al. 2016)
        self.score = keras.layers.Dense(classes, kernel_initializer=score_initializer, name="score")

    def build(self, input_shape):
        # NB: "SAME" pooling rounds up, so 227 pixels give 8 x 8 cells here, not AlexNet's 6 x 6.
        cells = -(-self.grid // 2)
        self.fc_1.build((None, cells * cells * input_shape[-1]))
        self.fc_2.build((None, self.units))
        self.score.build((None, self.units))

    def call(self, features, drop: Callable | None = None):
        """Return logits [B, classes] of the map [B, grid, grid, channels].

        Args:
          features: the last map of the backbone.
          drop: result of `TransferModel.dropout`; None: no dropout.
        """
        x = tf.nn.max_pool2d(features, 3, 2, "SAME")
        x = tf.reshape(x, [-1, self.fc_1.kernel.shape[0]])
        for stream, layer in enumerate((self.fc_1, self.fc_2)):
            x = layer(x)
            if drop is not None:
                x = drop(x, stream)
        return self.score(x)


class ClassificationModel(TransferModel):
    """Backbone and head with the sigmoid cross entropy of image labels.

    A batch is images [B, H, W, 3] in [-1, 1] and labels int [B, classes].
    """

    METRICS = ("loss", "classification", "l2", "gradient_norm")

    def __init__(self, *args, size: int, **kwargs):
        super().__init__(*args, **kwargs)
        self.size = size  # pixels per side of the crops

    def call(self, images):
        """Return logits [B, classes] of images [B, H, W, 3] in [-1, 1]."""
        return self.network.head(self.features(images))

    @tf.function(reduce_retracing=True)
    def mean_logits(self, views):
        """Return the mean logits [B, classes] over crops [B, crops, H, W, 3]."""
        logits = self(tf.reshape(views, [-1, *views.shape[2:]]))
        return tf.reduce_mean(tf.reshape(logits, [-1, views.shape[1], logits.shape[-1]]), 1)

    def compute_losses(self, batch, training=True) -> dict:
        """Return the scalars `classification`, `l2` and their sum `loss`."""
        images, labels = batch
        drop = self.dropout(self.protocol.dropout_keep) if training else None
        logits = self.network.head(self.features(images, training), drop=drop)
        classification_loss = label_loss(logits, labels)
        l2 = self.l2()
        return {"loss": classification_loss + l2, "classification": classification_loss, "l2": l2}

    def pictures(self, batch) -> dict:
        """Return images, and one column per class.

        The top of a column is the label (bright: present, grey: difficult), the bar below it is the score.
        """
        images, labels = batch
        height, width = images.shape[1:3]
        class_of_column = tf.range(width) * labels.shape[1] // width
        shades = tf.where(labels < 0, 0.0, tf.cast(labels, tf.float32) * 2 - 1)  # difficult, absent or present
        truth = tf.gather(shades, class_of_column, axis=1)[:, None]
        scores = tf.gather(tf.sigmoid(self(images)), class_of_column, axis=1)[:, None]
        # Bars fill the lower 80 % of the picture; the label is above 84 %.
        level = tf.reshape(1 - (tf.range(height, dtype=tf.float32) + 0.5) / height, [1, height, 1]) / 0.8
        bars = tf.where(level < scores, 0.6, -0.6)
        columns = tf.where(level > 1.05, truth, bars)
        return {"image": images, "labels over scores": columns[..., None]}


def label_loss(logits, labels):
    """Return the sigmoid cross entropy, summed over classes, mean over images.

    Source: Kraehenbuehl et al. 2016.

    Args:
      logits: [B, classes].
      labels: int [B, classes]: 1 present, 0 absent, -1 ignored (only "difficult" objects).
    """
    known = tf.cast(labels >= 0, tf.float32)
    targets = tf.cast(labels > 0, tf.float32)
    losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=tf.cast(logits, tf.float32))
    return tf.reduce_mean(tf.reduce_sum(losses * known, 1))


class Classification(VocTask):
    """The task with a `ClassificationProtocol`."""

    name = "voc_classification"
    measure = "mAP"
    protocol: ClassificationProtocol

    def __init__(self, train, test, protocol):
        super().__init__(train, test, protocol)
        self.labels = train.set.image_labels().astype(np.int32)

    def size(self, loaded: LoadedModel) -> int:
        """Return the pixels per side of the crops."""
        return self.protocol.crop or loaded.image_size

    def model(self, loaded: LoadedModel, seed: int, precision: str) -> ClassificationModel:
        size = self.size(loaded)
        grid = loaded.geometry[loaded.layers[-1]].cells(size)
        if grid < 1:
            raise ConfigError(f"crop must be larger for the layers of {loaded.path}. Received: crop={size}")
        head = ClassificationHead(grid, loaded.config.discriminator.fc_units, len(self.class_names))
        return ClassificationModel(loaded, head, self.protocol, seed, precision, size=size)

    def example(self, loaded: LoadedModel) -> Callable[[tf.Tensor, tf.Tensor], Any]:
        size = self.size(loaded)
        smallest_scale, largest_scale = self.protocol.scales
        labels = tf.constant(self.labels)

        def make(index, seed):
            window_seed, draw_seed = tf.unstack(tf.random.split(seed, 2))
            fraction, flip = tf.unstack(tf.random.stateless_uniform([2], draw_seed))
            image = self.train.read(index)
            short_side = tf.cast(tf.reduce_min(tf.shape(image)[:2]), tf.float32)
            crops_per_side = smallest_scale + (largest_scale - smallest_scale) * fraction
            scale = size * crops_per_side / short_side
            begin = crops.random_window(tf.shape(image), size, scale, window_seed)
            crop = crops.cut_image(image, begin, scale, tf.constant([size, size]))
            return tf.ensure_shape(crops.mirrored(crop, flip), [size, size, 3]), labels[index]

        return make

    def scores(self, model: ClassificationModel, numbers: Sequence[int], title: str) -> np.ndarray:
        """Return the mean logits of ten crops of test images, float32 [images, classes].

        Kraehenbuehl et al.'s script averages the logits of ten random crops. Here the crops are AlexNet's fixed ten.
        """
        size = model.size
        short_side = max(size, round(size * self.protocol.test_scale))
        indices = tf.data.Dataset.from_tensor_slices(np.asarray(numbers, np.int64))
        views = indices.map(lambda i: crops.ten_crops(self.test.read(i), size, short_side), tf.data.AUTOTUNE)
        logits = []
        with Progress(f"{title}: test images", len(numbers)) as progress:
            for batch in views.batch(TEST_BATCH).prefetch(1):
                logits.append(model.mean_logits(batch).numpy())
                progress.advance(len(batch))
        return np.concatenate(logits)

    def evaluate(self, model: ClassificationModel, title: str) -> Evaluation:
        """Return the average precision by both rules; the headline is the protocol's."""
        labels = self.test.set.image_labels()
        scores = self.scores(model, range(self.test.set.num_examples), title)
        precisions = {}
        rules = {}
        for rule in metrics.RULES:
            precision = metrics.classification_ap(scores, labels, rule)
            values = [None if np.isnan(value) else float(value) for value in precision.per_class]
            precisions[rule] = precision
            rules[rule] = {"mean": precision.mean, "per_class": dict(zip(self.class_names, values, strict=True))}
        headline = precisions[self.protocol.rule]
        return Evaluation(headline.mean, headline.per_class, {"rules": rules}, headline.weighted)

    def draw(self, model: ClassificationModel, numbers: Sequence[int]) -> np.ndarray:
        """Draw test images next to the probabilities of their classes."""
        scores = 1 / (1 + np.exp(-self.scores(model, numbers, "pictures")))
        labels = self.test.set.image_labels()
        panels = []
        for number, probabilities in zip(numbers, scores, strict=True):
            image = enlarge(self.test.read(number).numpy())
            panels += [image, draw_scores(probabilities, labels[number], self.class_names, image.shape[0])]
        titles = ("image", "filled: present (grey: difficult); bar: predicted probability")
        return montage(panels, len(titles), GAP, titles)
