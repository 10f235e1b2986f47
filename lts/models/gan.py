"""Stage 2: repair against discriminator (paper section 3; release)."""

import dataclasses
import math

import keras
import tensorflow as tf

from lts import losses
from lts.config import Config
from lts.models import base, replicas, tasks
from lts.models.turns import TURNS, all_turns
from lts.models.views import Views, draw_views
from lts.networks.autoencoder import Decoder, Encoder, batch_norm_config
from lts.networks.backbones import check_grid
from lts.networks.config_mixin import ConfigMixin
from lts.networks.corruption import CORRUPTIONS
from lts.networks.discriminator import Discriminator
from lts.networks.layers import upsample_nearest
from lts.networks.repair import RepairNetwork


@dataclasses.dataclass(frozen=True)
class ForwardPass:
    """Tensors of one pass through all networks.

    Attributes:
      reconstruction: decoded features [B, H, W, 3].
      repaired: damaged and repaired images [B, H, W, 3].
      discriminator: the discriminator's dict for a batch [2B, H, W, 3], real images first, then repaired ones; with
        N views of each image [2NB, H, W, 3].
      turned: the discriminator's dict for the images themselves in all four turns [4B, H, W, 3]; None: the rotation
        task has no photographs.
    """

    reconstruction: tf.Tensor
    repaired: tf.Tensor
    discriminator: dict[str, tf.Tensor]
    turned: dict[str, tf.Tensor] | None = None


@keras.saving.register_keras_serializable("lts")
class DamageRepairGAN(ConfigMixin, base.AlternatingStep, base.CustomStepModel):
    """Adversarial training of repair network and discriminator.

    The features phi of the frozen encoder E are damaged where the mask Omega is 0, and repaired by R inside the frozen
    decoder D. The discriminator C tells these images from reconstructions, and predicts Omega (paper section 3):

        reconstruction    D(phi)                                     shown to C as real
        damaged features  phi_hat = Omega * phi + (1 - Omega) * local average of phi, or another corruption
        repaired image    D and R of phi_hat                         shown to C as fake

    Both players' losses come from one forward pass, and both gradients are taken before either is applied (release;
    BUILD_NOTES trap 5). Encoder and decoder run with inference batch norm and never change (trap 15).

    Shapes in all methods: images [B, H, W, 3] in [-1, 1], features [B, h, w, c], keep_mask [B, h, w, 1] and dropout
    [2B, 1, 1, fc_units], where 1 = kept. `uniform` [B, h, w, n] are the numbers that the corruption draws from; the
    default corruption needs them for the keep mask alone. With `shows` of N there are N views of each image, and
    dropout is [2NB, 1, 1, fc_units] (ours). Further rows of dropout, 4B, belong to the photographs of the rotation
    task, if it has any (ours).

    Args:
      config: of the run.
      classes: number of classes of the images, for tasks that need labels.

    Example:
      >>> import numpy as np
      >>> from lts.config import preset
      >>> model = DamageRepairGAN(preset("tiny"))
      >>> model.compile("adam", "adam")
      >>> history = model.fit(np.zeros([8, 48, 48, 3], np.float32), verbose=0)  # images in [-1, 1]
    """

    METRICS = (
        *("real_or_fake", "mask", "generator", "masked_reconstruction"),  # loss terms
        *("accuracy_real", "accuracy_repaired", "accuracy_mask"),  # of the discriminator
        *("l2", "disc_total", "gen_total", "disc_gradient_norm", "repair_gradient_norm"),
    )

    def __init__(self, config: Config, classes: int = 0, name="gan", **kwargs):
        active_tasks = tasks.active_tasks(config, classes)
        super().__init__(_metrics(config, active_tasks), name=name, **kwargs)
        self.config = config
        self.classes = classes
        self.tasks = active_tasks
        dtype = self.dtype_policy
        bn_config = batch_norm_config(config.autoencoder)
        self.corruption = CORRUPTIONS[config.damage.corruption](config.damage)
        self.encoder = Encoder(config.autoencoder, dtype=dtype)
        self.decoder = Decoder(config.autoencoder, dtype=dtype)
        self.repair = RepairNetwork(config.autoencoder, dtype=dtype) if config.damage.repair else None
        heads = {name: task.units for name, task in self.tasks.items() if task.units}
        self.discriminator = Discriminator(config.discriminator, config.mask_grid, bn_config, heads, dtype=dtype)
        check_grid(config, self.discriminator.backbone)
        self.build((None, config.image.image_size, config.image.image_size, 3))

    def build(self, input_shape):
        if self.built:
            return
        grid = self.config.mask_grid
        features_shape = (None, grid, grid, self.config.autoencoder.encoder_filters[-1])
        self.encoder.build(input_shape)
        self.decoder.build(features_shape)
        if self.repair:
            self.repair.build(features_shape)
        self.discriminator.build(input_shape)
        # NB: after building. `trainable = False` does not reach variables that are made later.
        self.encoder.trainable = False
        self.decoder.trainable = False

    def call(self, images, training=False):
        """Return the discriminator's outputs: which images and cells look repaired."""
        outputs = self.discriminator(images, training=training)
        return {name: outputs[name] for name in ("logits", "mask_logits")}

    def compile(self, d_optimizer, g_optimizer, **options):
        """Set the players' optimizers.

        Both step together, so they are the release's one Adam; each may have its own learning rate.

        Args:
          d_optimizer: of the discriminator, object or name.
          g_optimizer: of the repair network, another object or a name.
          **options: as for `keras.Model.compile`.

        Raises:
          ValueError: one object for both players, losses or metrics, or an optimizer with moving averages of Keras.
        """
        if d_optimizer is g_optimizer and not isinstance(d_optimizer, str):
            raise ValueError("each player needs an optimizer. Received: one object for both. Make two of them.")
        super().compile(d_optimizer, **options)
        self.g_optimizer = keras.optimizers.get(g_optimizer)
        scaled = keras.optimizers.LossScaleOptimizer
        # Keras has wrapped the first optimizer under mixed_float16.
        if isinstance(self.optimizer, scaled) and not isinstance(self.g_optimizer, scaled):
            self.g_optimizer = scaled(self.g_optimizer)
        for optimizer in (self.optimizer, self.g_optimizer):
            if getattr(optimizer, "inner_optimizer", optimizer).use_ema:
                # Keras would assign the averages of one optimizer to the variables of both players.
                raise ValueError("Keras' moving averages do not fit two players. Received: use_ema=True. Leave it out.")
        self.build_optimizers()

    def get_compile_config(self):
        config = super().get_compile_config()
        if config:
            config["d_optimizer"] = config.pop("optimizer")
            config["g_optimizer"] = keras.saving.serialize_keras_object(self.g_optimizer)
        return config

    def build_optimizers(self) -> None:
        # NB: each optimizer owns one player's variables. `repair` is None in an ablation.
        players = {self.optimizer: self.discriminator.trainable_variables}
        players[self.g_optimizer] = self.repair.trainable_variables if self.repair else []
        for optimizer, variables in players.items():
            if not optimizer.built:
                optimizer.build(variables)

    def decayed_weights(self) -> list:
        """Return the weights of the L2 term.

        All kernels, trainable or frozen, and the decoder's last biases (release; BUILD_NOTES trap 13).
        """
        weights = [*base.kernels(self.encoder), *base.kernels(self.decoder)]
        if self.repair:
            weights += base.kernels(self.repair)
        weights += base.kernels(self.discriminator)
        return [*weights, self.decoder.to_image.bias]

    def draw(self, step, batch_size):
        """Return a step's keep mask, dropout mask and the corruption's numbers.

        They are functions of seed, step and position in the global batch, so a resumed run draws the same.

        Args:
          step: int64 scalar, training steps done.
          batch_size: B of this replica.

        Returns:
          (keep_mask, dropout, uniform).
        """
        grid = self.config.mask_grid
        config = self.config.discriminator
        numbers = self.corruption.numbers_per_cell(self.config.autoencoder.encoder_filters[-1])
        uniform = self._uniform(0, step, [batch_size, grid, grid, numbers])
        keep_mask = self.corruption.draw(uniform, grid)
        # The batch is axis 1, because the discriminator's batch holds the real half, then the repaired half.
        shown = batch_size * self.config.gan_training.shows
        units = self._uniform(1, step, [2, shown, config.fc_units], batch_axis=1)
        units = tf.reshape(units, [2 * shown, config.fc_units])
        if self._turns_photographs:
            units = tf.concat([units, self._uniform(2, step, [TURNS * batch_size, config.fc_units])], 0)
        dropout = tf.cast(units < config.dropout_keep, tf.float32)
        return keep_mask, dropout[:, None, None, :], uniform

    def draw_views(self, step, batch_size) -> Views | None:
        """Return a step's views of the decoded images; None where each is shown once (ours)."""
        shows = self.config.gan_training.shows
        if shows == 1:
            return None
        # Images were turned at random before the encoder, so the decoder's traces do not tell the sum of the turns.
        seed = tf.stack([tf.int32.min + self.config.gan_training.seed, tf.cast(step, tf.int32)])
        uniform = replicas.per_replica_random(seed, [batch_size, shows, 4])
        return draw_views(uniform, with_turns=self.config.turns_images)

    def unpack(self, data):
        """Return the images of a batch and what is known of them; `data` comes from `fit`.

        Raises:
          ValueError: images of another shape, or a task needs labels and there are none.
        """
        images = base.unpack_images(data, self.config.image.image_size)
        if not any(task.needs_labels for task in self.tasks.values()):
            return images, {}
        return images, {"labels": base.unpack_labels(data)}

    def prepare(self, images, truth, step):
        """Return the images that a step shows to the encoder, and what is known of them, see `DiscriminatorTask`.

        Args:
          images: [B, H, W, 3].
          truth: entries [B, ...] by name.
          step: int64 scalar, training steps done.

        Returns:
          The same with `views` rows of every image.
        """
        for task in self.tasks.values():
            images, truth = task.prepare(images, truth, step)
        return images, truth

    @property
    def _turns_photographs(self) -> bool:
        """Whether the discriminator's batch holds turned photographs."""
        return any(task.turns_photographs for task in self.tasks.values())

    def _uniform(self, role: int, step, shape, batch_axis: int = 0):
        """Return a step's uniform numbers; each role has its own."""
        seed = tf.stack([self.config.gan_training.seed * 2 + role, tf.cast(step, tf.int32)])
        return replicas.per_replica_random(seed, shape, batch_axis)

    def damaged(self, features, keep_mask, uniform=None):
        """Damage features and decode them without repair."""
        return self.decoder(self.corruption.apply(features, keep_mask, uniform))

    def repaired(self, features, keep_mask, training=False, uniform=None):
        """Damage features, decode and repair them.

        `training` is the batch norm mode of the repair network. Without a repair network the images stay damaged.
        """
        with tf.name_scope("damage"):
            damaged = self.corruption.apply(features, keep_mask, uniform)
        if self.repair is None:
            return self.decoder(damaged)
        return self.repair(damaged, keep_mask, decoder=self.decoder, training=training)

    def forward(
        self, images, keep_mask, dropout=None, training=True, uniform=None, views=None, repair_trains=True
    ) -> ForwardPass:
        """Run all networks once, for everything that the losses need.

        `training` is the batch norm mode of repair network and discriminator. Without `repair_trains` no gradient
        passes the repaired images.
        """
        features = tf.stop_gradient(self.encoder(images))  # phi
        reconstruction = tf.stop_gradient(self.decoder(features))  # D(phi)
        repaired = self.repaired(features, keep_mask, training, uniform)  # D and R of phi_hat
        if not repair_trains:
            repaired = tf.stop_gradient(repaired)
        # One batch, so that both halves share the batch norm statistics of the discriminator (BUILD_NOTES trap 4).
        real = self._real_images(reconstruction, tf.cast(images, repaired.dtype))
        halves = [real, repaired]
        if views is not None:
            halves = [views.images(half, self.config.mask_grid) for half in halves]
        both = tf.concat(halves, 0)
        if not self._turns_photographs:
            outputs = self.discriminator(both, training=training, dropout=dropout)
            return ForwardPass(reconstruction, repaired, outputs)
        # Decoded images and photographs share the batch norm statistics, too.
        turned, _ = all_turns(tf.cast(images, both.dtype))
        outputs = self.discriminator(tf.concat([both, turned], 0), training=training, dropout=dropout)
        count = tf.shape(both)[0]
        of_both = {name: output[:count] for name, output in outputs.items()}
        of_turned = {name: output[count:] for name, output in outputs.items()}
        return ForwardPass(reconstruction, repaired, of_both, of_turned)

    def _real_images(self, reconstruction, images):
        """Return what the discriminator is shown as real."""
        source = self.config.loss.real_source
        if source == "image":
            return images
        if source == "mixed":
            # Every image keeps its row: dropout and labels belong to rows, on any number of replicas. All views of an
            # image have one source, which therefore tells nothing about the view.
            views = math.prod(task.views for task in self.tasks.values())
            numbers = replicas.global_rows(tf.shape(images)[0]) // views
            return tf.where((numbers % 2 == 0)[:, None, None, None], reconstruction, images)
        # Reconstructions carry the decoder's traces, as repaired images do: these traces tell nothing (paper).
        return reconstruction

    def _predictions(self, outputs: ForwardPass, keep_mask, truth, views=None) -> tasks.Predictions:
        """Return what the tasks' losses are computed from."""
        if views is not None:
            keep_mask = views.images(keep_mask, self.config.mask_grid)
            truth = views.truth(truth)
        return tasks.Predictions(outputs.discriminator, keep_mask, truth, outputs.turned)

    def _pixel_mask(self, keep_mask, image_size: int):
        """Return the mask of the pixels with a reconstruction loss."""
        kept = upsample_nearest(keep_mask, image_size // keep_mask.shape[1])
        if self.config.loss.reconstruct == "all":
            return tf.ones_like(kept)
        return kept if self.config.loss.reconstruct == "kept" else 1 - kept

    def compute_losses(self, images, keep_mask, outputs: ForwardPass, truth=None, views=None) -> dict:
        """Return all loss terms and accuracies by name.

        The discriminator minimises `disc_total`, the repair network `gen_total`. `truth` is that of `prepare`; None:
        nothing is known. `views` are those that `forward` got.
        """
        config = self.config.loss
        predictions = self._predictions(outputs, keep_mask, truth or {}, views)

        # Discriminator: tell reconstructions from repaired images, find the dropped cells, and do further tasks.
        task_losses = {name: task.loss(predictions) for name, task in self.tasks.items()}
        method_loss = sum(task_losses[name] for name in tasks.METHOD if name in task_losses)
        further_losses = [loss for name, loss in task_losses.items() if name not in tasks.METHOD]

        # Generator: fool the discriminator and keep what was not dropped.
        real_logits, fake_logits = tf.split(outputs.discriminator["logits"], 2)
        if "joint_turns" in self.tasks:
            adversarial_loss = self.tasks["joint_turns"].adversarial_loss(predictions)
        elif config.generator_loss == "confusion":
            adversarial_loss = losses.confusion(real_logits, fake_logits)
        else:
            adversarial_loss = losses.adversarial(fake_logits)
        pixel_mask = self._pixel_mask(keep_mask, images.shape[1])
        pixel_count = replicas.replica_mean(tf.reduce_sum(pixel_mask))  # of the global batch
        reconstruction_loss = losses.masked_reconstruction(
            outputs.repaired, images, pixel_mask, config.reconstruction_weight, pixel_count
        )

        weight_decay = losses.l2(self.decayed_weights(), base.loss_weight_decay(self, config.weight_decay))
        disc_total = sum(further_losses, method_loss) + weight_decay
        if config.generator_loss == "confusion":
            # The release's generator minimises the discriminator's terms too (BUILD_NOTES trap 3).
            gen_total = method_loss + adversarial_loss + reconstruction_loss + weight_decay
        else:
            gen_total = adversarial_loss + reconstruction_loss + weight_decay
        accuracies = {}
        for task in self.tasks.values():
            accuracies.update(task.accuracy(predictions))
            if task.generator_weight:
                gen_total += task.generator_loss(predictions)
        return {
            **task_losses,
            "generator": adversarial_loss,
            "masked_reconstruction": reconstruction_loss,
            "l2": weight_decay,
            "disc_total": disc_total,
            "gen_total": gen_total,
            **accuracies,
        }

    def gradients(
        self,
        images,
        keep_mask,
        dropout,
        uniform=None,
        scaled: bool = False,
        truth=None,
        views: Views | None = None,
        repair_trains: bool = True,
    ):
        """Return both players' raw gradients from one forward pass.

        `scaled` multiplies them by the optimizers' loss scales, which `apply` expects. Without `repair_trains` the
        repair network has no gradients.

        Returns:
          (losses by name, `ForwardPass`, gradients of `disc_total` to the discriminator, gradients of `gen_total` to
          the repair network).
        """
        with tf.GradientTape(persistent=True) as tape:
            outputs = self.forward(
                images, keep_mask, dropout, uniform=uniform, views=views, repair_trains=repair_trains
            )
            terms = self.compute_losses(images, keep_mask, outputs, truth, views)
            disc_share = replicas.scale_loss(terms["disc_total"])
            gen_share = replicas.scale_loss(terms["gen_total"])
            if scaled:
                disc_share = self.optimizer.scale_loss(disc_share)
                gen_share = self.g_optimizer.scale_loss(gen_share)
        d_gradients = tape.gradient(disc_share, base.tf_variables(self.discriminator))
        trains = self.repair is not None and repair_trains
        g_gradients = tape.gradient(gen_share, base.tf_variables(self.repair)) if trains else []
        return terms, outputs, d_gradients, g_gradients

    def train_players(self, data, opponent_trains: bool = True):
        """Run one step of both players, or of the discriminator alone; return the mean losses."""
        step = self.optimizer.iterations
        images, truth = self.prepare(*self.unpack(data), step)
        batch_size = tf.shape(images)[0]
        keep_mask, dropout, uniform = self.draw(step, batch_size)
        views = self.draw_views(step, batch_size)
        return self.apply_step(images, keep_mask, dropout, uniform, truth, views, opponent_trains)

    def test_step(self, data):
        """Return the mean losses with inference batch norm.

        The masks are those of step 0 in every batch, so that evaluations can be compared.
        """
        images, truth = self.prepare(*self.unpack(data), 0)
        keep_mask, _, uniform = self.draw(0, tf.shape(images)[0])
        outputs = self.forward(images, keep_mask, uniform=uniform, training=False)
        return self.means.update(replicas.replica_means(self.compute_losses(images, keep_mask, outputs, truth)))

    def apply_step(self, images, keep_mask, dropout, uniform=None, truth=None, views=None, repair_trains: bool = True):
        """Run `train_step` with given random numbers."""
        terms, _, d_gradients, g_gradients = self.gradients(
            images, keep_mask, dropout, uniform, True, truth, views, repair_trains
        )
        values = replicas.replica_means(terms)
        # NB: without the dependency on both gradients, one player's could be computed from the other's updated weights,
        # as in the release; and a loss that is not finite could change weights.
        with tf.control_dependencies([*base.check_finite(values), *d_gradients, *g_gradients]):
            self.optimizer.apply(d_gradients, self.discriminator.trainable_variables)
            values["disc_gradient_norm"] = base.gradient_norm(self.optimizer)
            if self.repair:
                if repair_trains:
                    self.g_optimizer.apply(g_gradients, self.repair.trainable_variables)
                values["repair_gradient_norm"] = base.gradient_norm(self.g_optimizer)
        return self.means.update(values)

    def pictures(self, data) -> dict:
        """Return the rows of the picture strip by name."""
        images, _ = self.unpack(data)
        # The name scopes are the nodes on TensorBoard's page of the graph.
        with tf.name_scope("draw"):
            keep_mask, _, uniform = self.draw(0, images.shape[0])  # step 0: the same mask in every strip
        features = self.encoder(images)
        reconstruction = self.decoder(features)
        with tf.name_scope("damaged"):
            damaged = self.damaged(features, keep_mask, uniform)
        repaired = self.repaired(features, keep_mask, uniform=uniform)
        mask_logits = self.discriminator(repaired)["mask_logits"]
        with tf.name_scope("masks"):
            factor = images.shape[1] // keep_mask.shape[1]
            predicted_mask = tf.sigmoid(mask_logits)[..., None]
            keep_picture = upsample_nearest(keep_mask, factor) * 2 - 1  # [0, 1] to [-1, 1]
            predicted_picture = upsample_nearest(predicted_mask, factor) * 2 - 1
        return {
            "image": images,
            "reconstruction": reconstruction,
            "damaged": damaged,
            "repaired": repaired,
            "keep mask": keep_picture,
            "predicted mask": predicted_picture,
        }

    def filters(self):
        """Return the discriminator's first kernels for pictures."""
        return self.discriminator.backbone.first_kernels()

    def histograms(self, data) -> dict:
        """Return both players' weights and gradients, and activations.

        The activations are the discriminator's on real and repaired images, in training mode.
        """
        images, truth = self.prepare(*self.unpack(data), self.optimizer.iterations)
        keep_mask, dropout, uniform = self.draw(self.optimizer.iterations, images.shape[0])
        views = self.draw_views(self.optimizer.iterations, images.shape[0])
        with base.preserve_moving_statistics(self):
            _, outputs, d_gradients, g_gradients = self.gradients(
                images, keep_mask, dropout, uniform, truth=truth, views=views
            )
        players = list(self.discriminator.trainable_variables)
        if self.repair:
            players += self.repair.trainable_variables
        tensors = base.weights_and_gradients(self, players, [*d_gradients, *g_gradients])
        for name, value in outputs.discriminator.items():
            tensors[f"activations/{name}"] = value
        return tensors


def _metrics(config: Config, active_tasks: dict[str, tasks.DiscriminatorTask]) -> list[str]:
    """Return the names of the scalars that a step reports."""
    unused = [] if config.damage.repair else ["repair_gradient_norm"]
    unused += [name for name in tasks.METHOD if name not in active_tasks]
    names = [name for name in DamageRepairGAN.METRICS if name not in unused]
    for task in active_tasks.values():
        names += [name for name in (task.name, *task.accuracies) if name not in names]
    return names
