"""Fast R-CNN (Girshick 2015): the head on a backbone's feature map, its losses, and what it finds in an image."""

from collections.abc import Callable

import keras
import tensorflow as tf

from experiments.voc.detection.boxes import clip_to, decode, roi_pool
from lts.networks.config_mixin import ConfigMixin

CHUNK = 256  # proposals that are pooled at once when testing: all 2,000 would take gigabytes


@keras.saving.register_keras_serializable("experiments")
class DetectionHead(ConfigMixin, keras.Model):
    """RoI pooling, fully connected layers, scores of the classes and of the background, a box for each class.

    With AlexNet's sizes 128 regions become [128, 6, 6, 256], twice [128, 4096], scores [128, C + 1] and moves
    [128, C, 4]. The last two layers begin as in Girshick (2015), normal with standard deviations of 0.01 and 0.001;
    the others at random with He's variance (ours: the paper has them from ImageNet).

    Args:
      classes: C, without the background.
      units: of each fully connected layer.
      cells: a side of a pooled region.
      stride: pixels between two cells of the map.
      first: pixel at which the first cell stands, see `boxes.roi_pool`.
    """

    def __init__(
        self, classes: int, units: tuple[int, ...], cells: int, stride: int, first: float, name="head", **kwargs
    ):
        super().__init__(name=name, **kwargs)
        self.classes, self.units, self.cells, self.stride, self.first = classes, tuple(units), cells, stride, first
        self.hidden = [
            keras.layers.Dense(width, "relu", kernel_initializer="he_normal", name=f"fc_{6 + index}")
            for index, width in enumerate(self.units)
        ]
        self.scores, self.moves = (
            keras.layers.Dense(width, kernel_initializer=_normal(stddev), name=name)
            for name, width, stddev in (("scores", classes + 1, 0.01), ("moves", 4 * classes, 0.001))
        )

    def build(self, input_shape):
        width = self.cells**2 * input_shape[-1]
        for layer in self.hidden:
            layer.build((None, width))
            width = layer.units
        self.scores.build((None, width))
        self.moves.build((None, width))

    def call(self, features, boxes, drop: Callable | None = None):
        """Scores and moves of regions.

        Args:
          features: [B, h, w, c].
          boxes: float32 [B, R, 4] in pixels of the images.
          drop: dropout, called with each hidden layer's units [B * R, units] and its number; None: none.

        Returns:
          Logits float32 [B * R, C + 1], background first; moves float32 [B * R, C, 4], normalised as by
          `boxes.encode`.
        """
        batch, count = tf.unstack(tf.shape(boxes)[:2])
        images = tf.repeat(tf.range(batch), count)
        x = roi_pool(features, tf.reshape(boxes, [-1, 4]), images, self.stride, self.cells, self.first)
        x = tf.reshape(x, [-1, self.cells**2 * features.shape[-1]])
        for index, layer in enumerate(self.hidden):
            x = layer(x)
            x = x if drop is None else drop(x, index)
        return self.scores(x), tf.reshape(self.moves(x), [-1, self.classes, 4])


def _normal(stddev: float) -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(stddev=stddev)


def classification_loss(logits: tf.Tensor, classes: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Softmax cross entropy, mean over all rows; those of weight 0 add nothing.

    Args:
      logits: float32 [n, C + 1], background first.
      classes: int [n], 0 is background.
      weights: float32 [n].
    """
    return tf.reduce_mean(weights * tf.nn.sparse_softmax_cross_entropy_with_logits(classes, logits))


def smooth_l1(x: tf.Tensor) -> tf.Tensor:
    """X ** 2 / 2 where |x| < 1, else |x| - 1/2 (Girshick 2015, equation 3)."""
    size = tf.abs(x)
    return tf.where(size < 1, tf.square(x) / 2, size - 0.5)


def box_loss(moves: tf.Tensor, targets: tf.Tensor, classes: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Smooth L1 of the true class's box, summed over its four numbers; mean over all rows, background's being 0.

    Args:
      moves: float32 [n, C, 4].
      targets: float32 [n, 4], normalised.
      classes: int [n], 0 is background.
      weights: float32 [n].
    """
    own = tf.one_hot(classes - 1, moves.shape[1])  # background: no class at all
    return tf.reduce_mean(weights * tf.einsum("nc,ncd->n", own, smooth_l1(moves - targets[:, None])))


def score_proposals(
    head: DetectionHead, features: tf.Tensor, proposals: tf.Tensor, height: tf.Tensor, width: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Probabilities and boxes of all proposals of one image, before suppression. Works inside a tf.function.

    Args:
      head: of the detector.
      features: [1, h, w, c].
      proposals: float32 [n, 4] in pixels of what the features are of.
      height, width: of the picture in it, in pixels: boxes are cut to it.

    Returns:
      float32 [n, C + 1], background first, and [n, C, 4] in the same pixels.
    """
    count = tf.shape(proposals)[0]
    chunks = tf.reshape(tf.pad(proposals, [[0, -count % CHUNK], [0, 0]]), [-1, CHUNK, 4])

    def of_chunk(boxes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits, moves = head(features, boxes[None])
        return tf.nn.softmax(logits), decode(moves, boxes[:, None])

    result = (tf.TensorSpec([CHUNK, head.classes + 1]), tf.TensorSpec([CHUNK, head.classes, 4]))
    scores, boxes = tf.map_fn(of_chunk, chunks, fn_output_signature=result)
    scores, boxes = tf.reshape(scores, [-1, head.classes + 1]), tf.reshape(boxes, [-1, head.classes, 4])
    return scores[:count], clip_to(boxes[:count], height, width)
