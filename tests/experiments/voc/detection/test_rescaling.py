"""Data-dependent rescaling: what every channel is after it, with biases and with batch norm."""

import numpy as np
import pytest
import tensorflow as tf

from experiments.voc.detection.rescaling import moments, rescale
from lts.config import preset
from lts.networks.backbones import AlexNet
from lts.networks.variables import variables_by_path

WIDTHS = {"backbone_filters": "4,8,8,8,8", "conv_1_kernel": "5"}


def backbone(norm: str) -> AlexNet:
    """With noise on every weight and statistic, and layers of very unlike magnitude."""
    made = AlexNet(preset("tiny", backbone_norm=norm, **WIDTHS).discriminator)
    made.build((None, 32, 32, 3))
    for index, (path, variable) in enumerate(variables_by_path(made).items()):
        random = np.random.default_rng(index)
        variable.assign_add(random.uniform(0.1, 0.3, variable.shape))
        if path.endswith("kernel"):
            variable.assign(variable * random.choice([0.01, 1, 30]) - 0.1)
    return made


def images(count: int = 6) -> list[tf.Tensor]:
    """Of unlike sizes."""
    random = np.random.default_rng(0)
    sizes = [(48, 32 + 16 * (index % 2)) for index in range(count)]
    return [tf.constant(random.uniform(-1, 1, [*size, 3]), tf.float32) for size in sizes]


@pytest.mark.parametrize("norm", ["lrn", "batch_norm"])
def test_every_channel_has_variance_one(norm):
    """wrong: one layer's statistics taken before the layers below it were rescaled, groups exchanged."""
    made, shown = backbone(norm), images()
    before = {path: variable.numpy() for path, variable in variables_by_path(made).items()}
    unlike = [moments(made, conv, shown)[1] for conv in made.convs]
    assert max(values.max() for values in unlike) > 100 * min(values.max() for values in unlike)
    rescale(made, shown)
    for conv in made.convs:
        mean, variance = moments(made, conv, shown)
        blocks = getattr(conv, "blocks", [conv])
        if blocks[0].batch_norm is not None:
            norms = [block.batch_norm for block in blocks]
            beta = np.concatenate([each.beta.numpy() for each in norms])
            gamma = np.concatenate([each.gamma.numpy() if each.scale else np.ones(each.beta.shape) for each in norms])
            mean, variance = (mean - beta) / gamma, variance / gamma**2
            epsilon = norms[0].epsilon
            real = np.concatenate([each.moving_variance.numpy() for each in norms])
            variance *= (real + epsilon) / real
        np.testing.assert_allclose(mean, 0, atol=2e-3)
        np.testing.assert_allclose(variance, 1, rtol=5e-3)
    for path, variable in variables_by_path(made).items():
        kept = np.array_equal(before[path], variable.numpy())
        statistic = path.rsplit("/")[-1].startswith("moving")
        has_norm = norm == "batch_norm" or path.startswith("conv_5")
        assert kept == (has_norm and not statistic), path


def test_it_changes_nothing_twice():
    """Hypothesis: a backbone that is rescaled is left as it is."""
    made, shown = backbone("lrn"), images()
    rescale(made, shown)
    once = made(shown[0][None])["conv_5"].numpy()
    rescale(made, shown)
    np.testing.assert_allclose(made(shown[0][None])["conv_5"], once, atol=1e-3)


@pytest.mark.parametrize("norm", ["lrn", "batch_norm"])
def test_silent_channels_stay(norm):
    """A kernel of zeros has no variance to divide by."""
    made = backbone(norm)
    block = made.convs[2]
    block.kernel.assign(tf.concat([tf.zeros_like(block.kernel[..., :1]), block.kernel[..., 1:]], -1))
    before = {path: variable.numpy() for path, variable in variables_by_path(block).items()}
    rescale(made, images())
    for path, variable in variables_by_path(block).items():
        np.testing.assert_array_equal(variable.numpy()[..., 0], before[path][..., 0], err_msg=path)
        assert np.isfinite(variable).all()
