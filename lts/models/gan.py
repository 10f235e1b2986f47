"""Stage 2: repair against discriminator, as a keras.Model with its own train_step (paper section 3; release)."""

import keras
import tensorflow as tf

from lts import losses
from lts.config import Config
from lts.models import base
from lts.networks.autoencoder import Decoder, Encoder, batch_norm_options
from lts.networks.corruption import damage_features, draw_keep_mask
from lts.networks.discriminator import Discriminator
from lts.networks.layers import upsample_nearest
from lts.networks.repair import RepairNetwork


@keras.saving.register_keras_serializable("lts")
class DamageRepairGAN(keras.Model):
    """Frozen encoder and decoder, repair network and discriminator (paper section 3; release).

    Both players' losses come from one forward pass, and both gradients are
    taken before either is applied (BUILD_NOTES traps 3 to 5). The encoder and the
    decoder run with inference batch norm and never change.

    Args:
      config: the run's configuration.

    Example:
      >>> model = DamageRepairGAN(config)
      >>> model.compile(d_optimizer, g_optimizer)
      >>> model.fit(images)  # batches [B, H, W, 3] in [-1, 1]
    """

    METRICS = (
        *("real_or_fake", "mask", "generator", "masked_reconstruction"),
        *("accuracy_real", "accuracy_repaired", "accuracy_mask", "l2", "disc_total", "gen_total"),
        *("disc_gradient_norm", "repair_gradient_norm"),
    )

    def __init__(self, config: Config, name="gan", **kwargs):
        super().__init__(name=name, **kwargs)
        self.config = config
        auto, dtype = config.autoencoder, self.dtype_policy
        self.encoder = Encoder(auto, dtype=dtype)
        self.decoder = Decoder(auto, dtype=dtype)
        self.repair = RepairNetwork(auto, dtype=dtype) if config.damage.repair else None
        options = batch_norm_options(auto)
        self.discriminator = Discriminator(config.discriminator, config.mask_grid, dtype=dtype, **options)
        unused = () if self.repair else ("repair_gradient_norm",)
        self.means = base.RunningMeans([name for name in self.METRICS if name not in unused])

    def build(self, input_shape):
        grid = self.config.mask_grid
        features = (None, grid, grid, self.config.autoencoder.encoder_filters[-1])
        self.encoder.build(input_shape)
        self.decoder.build(features)
        if self.repair:
            self.repair.build(features)
        self.discriminator.build(input_shape)
        self.encoder.trainable = self.decoder.trainable = False  # after building: it must reach their variables

    @property
    def metrics(self):
        """What Keras resets at the beginning of an epoch or an evaluation."""
        return [self.means]

    def compile(self, d_optimizer, g_optimizer, **kwargs):
        """Sets the players' optimizers; both step together, so they are one Adam in the release's sense."""
        super().compile(optimizer=d_optimizer, **kwargs)
        self.g_optimizer = g_optimizer

    def decayed_weights(self) -> list:
        """What the L2 term sums, trainable or frozen alike: all kernels and the decoder's last biases (release)."""
        networks = [self.encoder, self.decoder, *([self.repair] if self.repair else []), self.discriminator]
        return [*(kernel for net in networks for kernel in base.kernels(net)), self.decoder.to_image.bias]

    def draw(self, step, batch_size: int):
        """The step's random numbers, a function of (seed, step, position in the global batch).

        Args:
          step: int64 scalar, training steps done.
          batch_size: of this replica.

        Returns:
          keep [B, h, w, 1], 1 = kept, and dropout [2B, 1, 1, fc_units], 1 = kept.
        """

        def uniform(role):
            seed = tf.stack([self.config.gan_training.seed * 2 + role, tf.cast(step, tf.int32)])
            return lambda shape: tf.random.stateless_uniform(shape, seed)

        grid, units = self.config.mask_grid, self.config.discriminator.fc_units
        cells = base.per_replica_random(uniform(0), [batch_size, grid, grid, 1])
        hidden = base.per_replica_random(uniform(1), [2, batch_size, units], axis=1)
        dropout = tf.cast(hidden < self.config.discriminator.dropout_keep, tf.float32)
        return (
            draw_keep_mask(cells, self.config.damage.keep_probability),
            tf.reshape(dropout, [2 * batch_size, 1, 1, units]),
        )

    def damaged(self, features, keep):
        """Damaged images [B, H, W, 3], decoded without repair; arguments as in `repaired`."""
        return self.decoder(damage_features(features, keep, self.config.damage.damage_fill))

    def repaired(self, features, keep, training=False):
        """Damaged and repaired images [B, H, W, 3] of undamaged features [B, h, w, c] and keep [B, h, w, 1]."""
        with tf.name_scope("damage"):
            damaged = damage_features(features, keep, self.config.damage.damage_fill)
        if self.repair is None:
            return self.decoder(damaged)
        return self.repair(damaged, keep, decoder=self.decoder, training=training)

    def forward(self, images, keep, dropout=None, training=True) -> dict:
        """Everything the losses need, from one pass.

        Args:
          images: [B, H, W, 3] in [-1, 1].
          keep: [B, h, w, 1], 1 = kept.
          dropout: [2B, 1, 1, fc_units] or None.
          training: batch norm mode of repair network and discriminator.

        Returns:
          The discriminator's dict for [reconstructions; repaired images] (`real_source`: what stands first), and
          `reconstruction` and `repaired` [B, H, W, 3].
        """
        features = tf.stop_gradient(self.encoder(images))
        reconstruction = tf.stop_gradient(self.decoder(features))
        repaired = self.repaired(features, keep, training)
        untouched = tf.cast(images, repaired.dtype)
        halves = tf.concat([reconstruction[::2], untouched[1::2]], 0)
        real = {"reconstruction": reconstruction, "image": untouched, "mixed": halves}[self.config.loss.real_source]
        both = tf.concat([real, repaired], 0)
        out = self.discriminator(both, training=training, dropout=dropout)
        return {**out, "reconstruction": reconstruction, "repaired": repaired}

    def compute_losses(self, images, keep, out) -> dict:
        """Scalar losses: every term by itself, and `disc_total` and `gen_total` (release)."""
        config = self.config.loss
        real, fake = tf.split(out["logits"], 2)
        labels = tf.concat([tf.ones_like(keep), keep], 0)[..., 0]
        right = (losses.real_or_fake(real, losses.REAL) + losses.real_or_fake(fake, losses.FAKE)) / 2
        mask = losses.mask_prediction(out["mask_logits"], labels, config.mask_weight)
        kept = upsample_nearest(keep, images.shape[1] // keep.shape[1])
        pixels = {"kept": kept, "all": tf.ones_like(kept), "dropped": 1 - kept}[config.reconstruct]
        count = base.replica_mean(tf.reduce_sum(pixels))  # of the global batch
        rebuilt = losses.masked_reconstruction(out["repaired"], images, pixels, config.reconstruction_weight, count)
        decay = losses.l2(self.decayed_weights(), config.weight_decay)
        if config.generator_loss == "confusion":
            swapped = (losses.real_or_fake(real, losses.FAKE) + losses.real_or_fake(fake, losses.REAL)) / 2
            fool, gen_total = swapped, right + mask + swapped + rebuilt + decay
        else:
            fool = losses.real_or_fake(fake, losses.REAL)
            gen_total = fool + rebuilt + decay
        return {
            "real_or_fake": right,
            "mask": mask,
            "generator": fool,
            "masked_reconstruction": rebuilt,
            "l2": decay,
            "disc_total": right + mask + decay,
            "gen_total": gen_total,
        }

    def gradients(self, images, keep, dropout):
        """Losses, the discriminator's output and both players' raw gradients, from one forward pass.

        Returns:
          (losses, output, gradients of disc_total to the discriminator, gradients of gen_total to the repair network).
        """
        with tf.GradientTape(persistent=True) as tape:
            out = self.forward(images, keep, dropout)
            terms = self.compute_losses(images, keep, out)
            disc_share, gen_share = (base.scale_loss(terms[name]) for name in ("disc_total", "gen_total"))
        d_gradients = tape.gradient(disc_share, [v.value for v in self.discriminator.trainable_variables])
        g_gradients = []
        if self.repair:
            g_gradients = tape.gradient(gen_share, [v.value for v in self.repair.trainable_variables])
        return terms, out, d_gradients, g_gradients

    def train_step(self, images):
        """One step of both players on a batch [B, H, W, 3] in [-1, 1]; returns the means since the last reset."""
        keep, dropout = self.draw(self.optimizer.iterations.value, tf.shape(images)[0])
        return self.apply_step(images, keep, dropout)

    def apply_step(self, images, keep, dropout):
        """`train_step` with the random numbers given: keep [B, h, w, 1] and dropout [2B, 1, 1, fc_units]."""
        terms, out, d_gradients, g_gradients = self.gradients(images, keep, dropout)
        values = base.replica_means({**terms, **_accuracies(out, keep)})
        with tf.control_dependencies([*base.checks(values), *d_gradients, *g_gradients]):
            self.optimizer.apply(d_gradients, self.discriminator.trainable_variables)
            values["disc_gradient_norm"] = base.gradient_norm(self.optimizer)
            if self.repair:
                self.g_optimizer.apply(g_gradients, self.repair.trainable_variables)
                values["repair_gradient_norm"] = base.gradient_norm(self.g_optimizer)
        return self.means.update(values)

    def pictures(self, images) -> dict:
        """Rows of the picture strip: name to [B, H, W, 3] or [B, H, W, 1], in [-1, 1]."""
        with tf.name_scope("draw"):  # scopes: nodes on TensorBoard's page of the graph
            keep, _ = self.draw(0, images.shape[0])
        features = self.encoder(images)
        reconstruction = self.decoder(features)
        with tf.name_scope("damaged"):
            damaged = self.damaged(features, keep)
        repaired = self.repaired(features, keep)
        mask_logits = self.discriminator(repaired)["mask_logits"]
        with tf.name_scope("masks"):
            predicted = tf.sigmoid(mask_logits)[..., None]
            masks = [upsample_nearest(mask, images.shape[1] // keep.shape[1]) * 2 - 1 for mask in (keep, predicted)]
        return {
            "image": images,
            "reconstruction": reconstruction,
            "damaged": damaged,
            "repaired": repaired,
            "keep mask": masks[0],
            "predicted mask": masks[1],
        }

    def filters(self):
        """Kernels [k, k, 3, n] of conv_1; [k, k, 1, n] if it has 3 groups."""
        return self.discriminator.first_kernels()

    def histograms(self, images) -> dict:
        """Name to tensor: weights of both players, their gradients on images [B, H, W, 3], and activations.

        The activations are the discriminator's on [reconstructions; repaired images], in training mode.
        """
        keep, dropout = self.draw(self.optimizer.iterations.value, images.shape[0])
        with base.preserve_moving_statistics(self):
            _, out, d_gradients, g_gradients = self.gradients(images, keep, dropout)
        players = [*self.discriminator.trainable_variables, *(self.repair.trainable_variables if self.repair else ())]
        activations = {name: value for name, value in out.items() if name not in ("reconstruction", "repaired")}
        return {
            **base.with_gradients(self, players, [*d_gradients, *g_gradients]),
            **{f"activations/{name}": value for name, value in activations.items()},
        }

    def get_config(self):
        return {**super().get_config(), "config": self.config.to_dict()}

    @classmethod
    def from_config(cls, config):
        return cls(Config.from_dict(config.pop("config")), **config)


def _accuracies(out, keep) -> dict:
    """Shares of right answers: on real images, on repaired ones, and of the mask head on repaired images' cells."""
    real, fake = tf.split(tf.argmax(out["logits"], 1, output_type=tf.int32), 2)
    predicted = tf.split(out["mask_logits"] > 0, 2)[1]
    return {
        "accuracy_real": tf.reduce_mean(tf.cast(real == losses.REAL, tf.float32)),
        "accuracy_repaired": tf.reduce_mean(tf.cast(fake == losses.FAKE, tf.float32)),
        "accuracy_mask": tf.reduce_mean(tf.cast(predicted == (keep[..., 0] > 0.5), tf.float32)),
    }
