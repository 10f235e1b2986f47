"""Plain NumPy versions of the operations under test, in float64, slow and obvious."""

import numpy as np


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's "SAME" padding (before, after): the odd pixel goes after."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def windows(x, kernel: int, stride: int, padding: str, fill: float):
    """(i, j, window) for every output position; a window is [B, kernel, kernel, channels]."""
    x = np.asarray(x, np.float64)
    if padding == "SAME":
        pads = [same_padding(size, kernel, stride) for size in x.shape[1:3]]
        x = np.pad(x, ((0, 0), *pads, (0, 0)), constant_values=fill)
    for i in range((x.shape[1] - kernel) // stride + 1):
        for j in range((x.shape[2] - kernel) // stride + 1):
            yield i, j, x[:, i * stride : i * stride + kernel, j * stride : j * stride + kernel]


def _assemble(parts) -> np.ndarray:
    """[B, h, w, c] of (i, j, [B, c]) in row order."""
    parts = list(parts)
    rows, columns = parts[-1][0] + 1, parts[-1][1] + 1
    stacked = np.stack([value for *_, value in parts], 1)
    return stacked.reshape(stacked.shape[0], rows, columns, -1)


def conv2d(x, kernel, stride: int = 1, padding: str = "SAME") -> np.ndarray:
    """Convolution of [B, h, w, c] with an HWIO kernel."""
    kernel = np.asarray(kernel, np.float64)
    parts = windows(x, kernel.shape[0], stride, padding, 0.0)
    return _assemble((i, j, np.einsum("bhwc,hwco->bo", window, kernel)) for i, j, window in parts)


def max_pool(x, padding: str = "SAME") -> np.ndarray:
    """3x3 max pooling with stride 2."""
    return _assemble((i, j, window.max((1, 2))) for i, j, window in windows(x, 3, 2, padding, -np.inf))


def average(x) -> np.ndarray:
    """3x3 average with stride 1 over the cells that exist."""
    return _assemble((i, j, np.nanmean(window, (1, 2))) for i, j, window in windows(x, 3, 1, "SAME", np.nan))


def local_response_norm(x) -> np.ndarray:
    """x / (1 + 2e-5 * sum of squares over 5 channels) ** 0.75."""
    x = np.asarray(x, np.float64)
    channels = x.shape[-1]
    sums = [np.square(x[..., max(c - 2, 0) : c + 3]).sum(-1) for c in range(channels)]
    return x / (1 + 2e-5 * np.stack(sums, -1)) ** 0.75


def legacy_bilinear(x, factor: int = 2) -> np.ndarray:
    """Bilinear resize with src = dst / factor, neighbours clamped at the end."""
    x = np.asarray(x, np.float64)
    for axis in (1, 2):
        size = x.shape[axis]
        source = np.arange(size * factor) / factor
        low = np.floor(source).astype(int)
        high = np.minimum(low + 1, size - 1)
        share = (source - low).reshape([-1 if a == axis else 1 for a in range(4)])
        x = np.take(x, low, axis) * (1 - share) + np.take(x, high, axis) * share
    return x


def leaky(x) -> np.ndarray:
    """Leaky ReLU with slope 0.2."""
    return np.where(x > 0, x, 0.2 * x)


def softmax_cross_entropy(logits, label: int) -> float:
    """Mean over rows of -log softmax(logits)[label]."""
    logits = np.asarray(logits, np.float64)
    return float(np.mean(np.log(np.exp(logits).sum(-1)) - logits[:, label]))


def sigmoid_cross_entropy(logits, labels) -> float:
    """Mean over all numbers of -labels log p - (1 - labels) log(1 - p)."""
    p = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    return float(np.mean(-labels * np.log(p) - (1 - labels) * np.log(1 - p)))


class Adam:
    """The release's Adam with "epsilon hat", and its moving average of the weights.

    Args:
      value: first value of the weights.
      factor: of the gradient (2 for biases in the release).
      average_decay: largest decay of the average.
    """

    def __init__(self, value, factor: float = 1.0, average_decay: float = 0.9999):
        self.value = np.array(value, np.float64)
        self.m, self.v, self.average = np.zeros_like(self.value), np.zeros_like(self.value), self.value.copy()
        self.factor, self.average_decay, self.steps = factor, average_decay, 0

    def step(self, gradient, rate: float, beta_1: float = 0.5, beta_2: float = 0.999, epsilon: float = 1e-5) -> None:
        """One update; the average takes the value before it."""
        decay = min(self.average_decay, (1 + self.steps) / (10 + self.steps))
        self.average = decay * self.average + (1 - decay) * self.value
        self.steps += 1
        gradient = self.factor * np.asarray(gradient, np.float64)
        self.m = beta_1 * self.m + (1 - beta_1) * gradient
        self.v = beta_2 * self.v + (1 - beta_2) * gradient**2
        corrected = rate * np.sqrt(1 - beta_2**self.steps) / (1 - beta_1**self.steps)
        self.value = self.value - corrected * self.m / (np.sqrt(self.v) + epsilon)
