"""Limited context inpainting, turns and warps as a pretext task (Jenni, Jin and Favaro, CVPR 2020).

Another method of the same authors, on the backbone, data and schedule of stage 2. It needs no stage 1. Constants are
those of the public code, github sjenni/LCI (LCI release), unless they are marked (ours).
"""

import dataclasses

import keras
import tensorflow as tf

from lts import losses
from lts.config import Config
from lts.config.stages import STAGES
from lts.models import base, replicas, warps
from lts.models.classifier import ClassifierModel
from lts.networks.autoencoder import Decoder, Encoder
from lts.networks.critic import PatchCritic

CLASSES = ("untransformed", "inpainted", "turned by 90", "turned by 180", "turned by 270", "warped")  # LCI release
INPAINTED = CLASSES.index("inpainted")
WARPED = CLASSES.index("warped")
PATCH_SHARE = 0.6  # of an image's side: 48 of 80 pixels (LCI release, STL-10)
BORDER_SHARE = 1 / 16  # of a patch's side, the context at each edge: 3 of 48 pixels (LCI release)
NOISE = 0.1  # standard deviation of the noise in the erased centre (LCI release; there normal, here uniform)
WARP_POINTS = 16  # (LCI release)
WARP_SHARE = 1 / 16  # largest shift of a point, of an image's side (LCI release)
LARGEST_ANGLE = 0.07 * 3.141592653589793  # radians, of half of the images (LCI release)
RECONSTRUCTION_WEIGHT = 50.0  # of the squared error, against the critic's score (LCI release)
INPAINTER_KERNEL = 4  # of the stride-2 convolutions (LCI release): a patch's centre must see its border
CRITIC_RATE = 4.0  # of the inpainter's learning rate (LCI release)
INPAINTER_BETA_1 = 0.5  # of both players' Adam (LCI release)
CROPPED = ("untransformed", "inpainted", "warped")  # each version has a separate window


@dataclasses.dataclass(frozen=True)
class Numbers:
    """A step's random numbers in [0, 1), rows as in the batch.

    Attributes:
      patch: corner of the patch [B, 2].
      noise: of the erased centre [B, p, p, 3].
      windows: for each of CROPPED whether it is rotated, its angle and its corner [B, 3, 4].
      points: corners of the warp and their shifts [B, points, 4].
    """

    patch: tf.Tensor
    noise: tf.Tensor
    windows: tf.Tensor
    points: tf.Tensor


@dataclasses.dataclass(frozen=True)
class Transformed:
    """A batch with its transformations.

    Attributes:
      patches: windows of the images [B, p, p, 3].
      context: 1 at the border of a patch, 0 in its centre [B, p, p, 1].
      autoencoded: the patches after the inpainter [B, p, p, 3].
      inpainted: the patches without centre after the inpainter [B, p, p, 3].
      images: the classifier's [6B, H, W, 3], the versions of an image one after another in the order of CLASSES.
    """

    patches: tf.Tensor
    context: tf.Tensor
    autoencoded: tf.Tensor
    inpainted: tf.Tensor
    images: tf.Tensor


@keras.saving.register_keras_serializable("lts")
class TransformationClassifier(base.AlternatingStep, ClassifierModel):
    """Classifier of six transformations, against an inpainter.

    Every image is shown untransformed, with an inpainted patch, in three turns, and warped; the class is the
    transformation. The inpainter fills the centre of a patch from a thin border. It is trained to reconstruct the
    patch, to fool a critic of patches, and to make the classifier fail. Every second untransformed image has a patch
    that the inpainter saw whole, so that the inpainter's traces alone tell nothing. Windows are cut after the
    transformation, half of them rotated by a small angle.

    With `repair_every` above 1 inpainter and critic train in every Nth step (ours).

    Differences to the release (ours): inpainter and critic have the filters of the run's autoencoder, the inpainter
    upsamples bilinearly, the critic sees single patches, and head, augmentation and schedule are those of the other
    baselines.

    Shapes: a batch [8, 80, 80, 3] gives 48 images [48, 64, 64, 3] and logits [48, 6]. Images are loaded larger than
    `image_size`, because the windows are cut here.

    Args:
      config: of the run. `repair_learning_rate` is the inpainter's.
      head, frozen: see `SupervisedClassifier`.
    """

    METRICS = (
        *("loss", "classification", "accuracy", "accuracy_inpainted", "accuracy_turned", "accuracy_warped"),
        *("context", "inpainter", "critic", "l2", "gradient_norm"),
    )

    def __init__(self, config: Config, head: str = "fc", frozen: int = 0, **kwargs):
        super().__init__(config, len(CLASSES), head, frozen, **kwargs)
        if self.dtype_policy.name == "mixed_float16":
            raise ValueError("the losses are not scaled. Received: dtype='mixed_float16'. Give float32 or bfloat16.")

    @property
    def size(self) -> int:
        """Pixels per side of the windows that the classifier sees."""
        return self.config.image.image_size

    @property
    def loaded_size(self) -> int:
        """Pixels per side of the images of a batch."""
        return STAGES["lci"].loaded_size(self.size)

    @property
    def patch_size(self) -> int:
        """Pixels per side of a patch, a multiple of the inpainter's stride."""
        stride = 2**self.config.autoencoder.num_strides
        return stride * max(1, round(PATCH_SHARE * self.loaded_size / stride))

    def build(self, input_shape):
        if self.built:
            return
        networks = dataclasses.replace(self.config.autoencoder, encoder_kernel=INPAINTER_KERNEL)
        filters = networks.encoder_filters
        self.encoder = Encoder(networks, dtype=self.dtype_policy)
        self.decoder = Decoder(networks, dtype=self.dtype_policy)
        self.critic = PatchCritic(filters[:-1], dtype=self.dtype_policy)
        patches_shape = (None, self.patch_size, self.patch_size, 3)
        self.encoder.build(patches_shape)
        self.decoder.build((None, None, None, filters[-1]))
        self.critic.build(patches_shape)
        super().build(input_shape)

    def compile(self, optimizer="rmsprop", **options):
        """Set the classifier's optimizer; inpainter and critic have Adam with a constant rate (LCI release)."""
        super().compile(optimizer, **options)
        rate = self.config.gan_training.repair_learning_rate
        self.inpainter_optimizer = keras.optimizers.Adam(rate, beta_1=INPAINTER_BETA_1)
        self.critic_optimizer = keras.optimizers.Adam(CRITIC_RATE * rate, beta_1=INPAINTER_BETA_1)
        self.build_optimizers()

    def build_optimizers(self) -> None:
        for optimizer, variables in self._players():
            if not optimizer.built:
                optimizer.build(variables)

    def _players(self) -> list:
        """Return each player's optimizer and variables: classifier, inpainter, critic."""
        inpainter = [*self.encoder.trainable_variables, *self.decoder.trainable_variables]
        return [
            (self.optimizer, self.network.trainable_variables),
            (self.inpainter_optimizer, inpainter),
            (self.critic_optimizer, self.critic.trainable_variables),
        ]

    def unpack(self, data):
        """Return the images of a batch."""
        return base.unpack_images(data, self.loaded_size)

    def draw_numbers(self, step, batch_size) -> Numbers:
        """Return a step's random numbers.

        They are functions of seed, step and position in the global batch, so a resumed run draws the same.
        """
        # NB: negative, because `draw` has the seeds from 0 on.
        seed = tf.stack([-1 - self.config.gan_training.seed, tf.cast(step, tf.int32)])
        shapes = [(2,), (self.patch_size, self.patch_size, 3), (len(CROPPED), 4), (WARP_POINTS, 4)]
        sizes = [tf.TensorShape(shape).num_elements() for shape in shapes]
        numbers = tf.split(replicas.per_replica_random(seed, [batch_size, sum(sizes)]), sizes, axis=1)
        return Numbers(*[tf.reshape(row, [-1, *shape]) for row, shape in zip(numbers, shapes, strict=True)])

    def inpaint(self, patches, noise, training):
        """Return context mask, autoencoded and inpainted patches."""
        border = max(1, round(BORDER_SHARE * self.patch_size))
        inner = tf.range(border, self.patch_size - border)
        line = tf.reduce_sum(tf.one_hot(inner, self.patch_size), 0)
        centre = (line[:, None] * line)[None, :, :, None] * tf.ones_like(patches[..., :1])
        # Uniform numbers of this range have the standard deviation NOISE.
        erased = patches * (1 - centre) + centre * NOISE * 12**0.5 * (noise - 0.5)
        # One batch, so that both halves share the statistics of batch norm (LCI release).
        both = tf.concat([patches, erased], 0)
        decoded = self.decoder(self.encoder(both, training=training), training=training)
        autoencoded, inpainted = tf.split(tf.cast(decoded, tf.float32), 2)
        return 1 - centre, autoencoded, inpainted

    def warped(self, images, points):
        """Return images bent at random points."""
        positions, shifts = tf.split(points, 2, axis=-1)
        shifts = (2 * shifts - 1) * WARP_SHARE * self.loaded_size
        return warps.warp(images, positions * self.loaded_size + shifts, shifts)

    def windows(self, images, numbers):
        """Return random windows of images, half of them rotated a little."""
        chosen, angle, *corner = tf.unstack(numbers, axis=1)
        angles = tf.where(chosen < 0.5, (2 * angle - 1) * LARGEST_ANGLE, 0.0)
        positions = self.loaded_size - self.size + 1
        return warps.rotated_crop(images, angles, tf.floor(tf.stack(corner, 1) * positions), self.size)

    def transform(self, images, numbers: Numbers, training=True) -> Transformed:
        """Return a batch's transformations."""
        images = tf.cast(images, tf.float32)
        corners = tf.floor(numbers.patch * (self.loaded_size - self.patch_size + 1))
        patches = warps.crop(images, corners, self.patch_size)
        context, autoencoded, inpainted = self.inpaint(patches, numbers.noise, training)
        # Every second untransformed image of the global batch has an autoencoded patch.
        is_odd = replicas.global_rows(tf.shape(images)[0]) % 2 == 1
        untransformed = tf.where(is_odd[:, None, None, None], warps.paste(images, autoencoded, corners), images)
        sources = [untransformed, warps.paste(images, inpainted, corners), self.warped(images, numbers.points)]
        windows = []
        for index, source in enumerate(sources):
            windows.append(self.windows(source, numbers.windows[:, index]))
        upright, with_patch, bent = windows
        turned = [tf.image.rot90(upright, turn) for turn in (1, 2, 3)]
        versions = tf.stack([upright, with_patch, *turned, bent], 1)  # the order of CLASSES
        shown = tf.reshape(versions, [-1, self.size, self.size, 3])
        return Transformed(patches, context, autoencoded, inpainted, shown)

    def examples(self, images):
        """Return the 6B transformed images of a step and their classes, int [6B]."""
        numbers = self.draw_numbers(self.optimizer.iterations, tf.shape(images)[0])
        return self.transform(images, numbers).images, self._labels(images)

    def _labels(self, images):
        return tf.tile(tf.range(len(CLASSES)), [tf.shape(images)[0]])

    def _terms(self, transformed: Transformed, labels, training) -> dict:
        """Return the scalars of a step."""
        logits = self.logits(transformed.images, training)
        terms = self.classification_losses(logits, labels)
        correct = tf.cast(tf.argmax(logits, 1, output_type=tf.int32) == labels, tf.float32)
        shares = tf.reduce_mean(tf.reshape(correct, [-1, len(CLASSES)]), 0)
        terms["accuracy_inpainted"] = shares[INPAINTED]
        terms["accuracy_turned"] = tf.reduce_mean(shares[INPAINTED + 1 : WARPED])
        terms["accuracy_warped"] = shares[WARPED]

        # The critic moves its estimates of the singular values on real patches only (LCI release).
        real_scores = self.critic(transformed.patches, training=training)
        fake_scores = self.critic(transformed.inpainted)
        terms["critic"] = losses.hinge(real_scores, fake_scores)

        # The inpainter reconstructs what it saw, and fools the critic.
        patches = transformed.patches
        context_loss = losses.masked_reconstruction(
            transformed.inpainted, patches, transformed.context, RECONSTRUCTION_WEIGHT
        )
        context_loss += losses.reconstruction(transformed.autoencoded, patches, RECONSTRUCTION_WEIGHT)
        terms["context"] = context_loss
        terms["inpainter"] = context_loss - tf.reduce_mean(fake_scores)
        return terms

    def compute_losses(self, images, training=True) -> dict:
        """Return all scalars; the numbers are those of the step, in evaluation those of step 0."""
        step = self.optimizer.iterations if training else 0
        numbers = self.draw_numbers(step, tf.shape(images)[0])
        return self._terms(self.transform(images, numbers, training), self._labels(images), training)

    def gradients(self, images, scaled: bool = False, opponent_trains: bool = True):
        """Return the losses and the gradients of classifier, inpainter and critic, one after another.

        The inpainter minimises `inpainter` minus the classifier's cross entropy (LCI release). Without
        `opponent_trains` there are only the classifier's.
        """
        classifier, inpainter, critic = [[v.value for v in variables] for _, variables in self._players()]
        numbers = self.draw_numbers(self.optimizer.iterations, tf.shape(images)[0])
        with tf.GradientTape(persistent=True) as tape:
            transformed = self.transform(images, numbers)
            terms = self._terms(transformed, self._labels(images), training=True)
            loss = replicas.scale_loss(terms["loss"])
            inpainter_loss = replicas.scale_loss(terms["inpainter"])
            critic_loss = replicas.scale_loss(terms["critic"])
        if not opponent_trains:
            return terms, tape.gradient(loss, classifier)
        # One pass back through the classifier serves both: the inpainter gets the gradient of its images, negated.
        *c_gradients, shown_gradient = tape.gradient(loss, [*classifier, transformed.images])
        i_gradients = tape.gradient(
            [inpainter_loss, transformed.images],
            inpainter,
            output_gradients=[tf.ones_like(inpainter_loss), -shown_gradient],
        )
        return terms, [*c_gradients, *i_gradients, *tape.gradient(critic_loss, critic)]

    def train_players(self, data, opponent_trains: bool = True):
        """Run one step of all players, or of the classifier alone; return the mean losses."""
        terms, gradients = self.gradients(self.unpack(data), opponent_trains=opponent_trains)
        values = replicas.replica_means(terms)
        players = self._players() if opponent_trains else self._players()[:1]
        # NB: all gradients come before any update, and a step whose loss is not finite must change no weight.
        with tf.control_dependencies([*base.check_finite(values), *gradients]):
            for optimizer, variables in players:
                optimizer.apply(gradients[: len(variables)], variables)
                gradients = gradients[len(variables) :]
            values["gradient_norm"] = base.gradient_norm(self.optimizer)
        return self.means.update(values)

    def pictures(self, images) -> dict:
        """Return the rows of the picture strip by name."""
        numbers = self.draw_numbers(0, images.shape[0])  # step 0: the same windows in every strip
        shown = self.transform(images, numbers, training=False).images
        return dict(
            zip(CLASSES, tf.unstack(tf.reshape(shown, [-1, len(CLASSES), *shown.shape[1:]]), axis=1), strict=True)
        )

    def histograms(self, images) -> dict:
        """Return all players' weights and gradients, and activations on a batch."""
        with base.preserve_moving_statistics(self):
            _, gradients = self.gradients(images)
            shown, _ = self.examples(images)
            activations = self.network(shown, training=True)
        variables = [variable for _, player in self._players() for variable in player]
        tensors = base.weights_and_gradients(self, variables, gradients)
        for name, value in activations.items():
            tensors[f"activations/{name}"] = value
        return tensors
