"""The recipes and the storage convention of golden/README.md, and the tolerances that the port is held to.

The tolerances are three times the figures at the end of golden/README.md ("Tolerances seen").
"""

import functools
import os
import pathlib
import zlib

import numpy as np

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = pathlib.Path(os.environ.get("LTS_GOLDEN", "../shared/golden"))
FOLDER = FOLDER if FOLDER.is_absolute() else ROOT / FOLDER

FORWARD_MAX = 3 * 1.1e-4  # forward tensors: max|diff| 1.1e-4 of the tensor's max
FORWARD_L2 = 3 * 2e-5  # forward tensors: relative L2 2e-5
LOSS = 3 * 3e-6  # separate losses: 3e-6 relative
BN_STATISTICS = 3 * 2e-6  # batch norm statistics after one update: 2e-6
G1_GRADIENT = 3 * 4e-3  # gradients of the autoencoder: relative L2 per variable 4e-3
G6_GRADIENT = 3 * 1.2e-2  # gradients of the adversarial step: relative L2 per variable 1.2e-2
G1_STEP_LOSS = 3 * 2e-6  # autoencoder's losses at steps 0..2: 2e-6 relative
ADV_STEP_2_LOSS = 3 * 1e-4  # adversarial loss_step2: 1e-4 relative
# 1 - cosine of (after - recipe): least over the variables, and median
G1_AFTER_3 = (3 * (1 - 0.9998), 3 * (1 - 0.99998))
ADV_AFTER_1 = (3 * (1 - 0.995), 3 * (1 - 0.999996))
ADV_AFTER_2 = (3 * (1 - 0.98), 3 * (1 - 0.998))


def recipe_array(name: str, shape: tuple) -> np.ndarray:
    """The recipe's value of a variable of the release, float32; read-only, as it is kept for the session.

    Args:
      name: release name without ":0".
      shape: of the variable.
    """
    return _recipe_array(name, tuple(int(size) for size in shape))


@functools.cache
def _recipe_array(name: str, shape: tuple) -> np.ndarray:
    n = np.random.RandomState(zlib.crc32(name.encode()) & 0xFFFFFFFF).standard_normal(shape)
    values = {
        "weights": lambda: n * np.sqrt(2 / np.prod(shape[:-1])),
        "biases": lambda: 0.05 * n,
        "beta": lambda: 0.1 * n,
        "gamma": lambda: 1 + 0.1 * n,
        "moving_mean": lambda: 0.1 * n,
        "moving_variance": lambda: 1 + 0.1 * np.abs(n),
    }[name.rsplit("/", 1)[1]]().astype(np.float32)
    values.flags.writeable = False
    return values


def load(variables: dict) -> None:
    """Gives variables (release name to variable) the recipe's values."""
    for name, variable in variables.items():
        variable.assign(recipe_array(name, variable.shape))


def images(seed: int, batch: int = 4) -> np.ndarray:
    """The recipe's images [batch, 96, 96, 3] in [-1, 1]."""
    rs = np.random.RandomState(seed)
    x = rs.uniform(-1, 1, (batch, 12, 12, 3)).repeat(8, axis=1).repeat(8, axis=2)
    x += 0.05 * rs.standard_normal(x.shape)
    return np.clip(x, -1, 1).astype(np.float32)


ROUNDINGS = 16  # evaluations that may be tried until one falls on the release's side of every kink


def rounding(x: np.ndarray, number: int) -> np.ndarray:
    """X as it is for number 0, else with noise in its last bits (1 to 25 units in the last place).

    A unit whose value is of the size of a rounding error falls on one or the other side of its ReLU's kink by the order
    of a sum, and one such unit changes all gradients below it by 1e-3, relatively. The golden files hold one evaluation
    of the release; another one of ITS OWN graph, under TensorFlow 2.21 on another processor, is as far from it as ours.
    So whatever comes after an update is asked of one of several evaluations that differ in rounding alone, all of it of
    the same one; the tolerances stay.
    """
    if not number:
        return x
    size = (1.2e-7, 6e-7, 3e-6)[number % 3]
    noise = np.random.RandomState(number).uniform(-size, size, x.shape)
    return (x * (1 + noise)).astype(np.float32)


def first_that_agrees(run, checks):
    """Result of `run(number)` for the first rounding for which every function of `checks` passes on it.

    Args:
      run: function of the rounding's number.
      checks: functions of the result that raise AssertionError.

    Returns:
      The result; that of rounding 0 when none passes, for the tests to fail on.
    """
    first = None
    for number in range(ROUNDINGS):
        result = run(number)
        first = result if first is None else first
        try:
            for check in checks:
                check(result)
        except AssertionError:
            continue
        return result
    return first


def reset(optimizer, variables: list) -> None:
    """Puts a built optimizer back before its first step, with averages equal to the variables."""
    for slot in (optimizer._iterations, *optimizer._momentums, *optimizer._velocities):
        slot.assign(np.zeros(slot.shape, slot.dtype))
    for average, variable in zip(optimizer.averages, variables, strict=True):
        average.assign(variable)


class Golden:
    """One golden file; a big tensor is stored as a slice with statistics of the whole.

    Args:
      path: of the npz file.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path
        self.arrays = np.load(path)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    @functools.cached_property
    def tensors(self) -> list[str]:
        """Names of all tensors, whole or sliced."""
        names = (name.removesuffix("__slice") for name in self.arrays.files)
        return sorted(name for name in names if not name.endswith(("__stride", "__shape", "__stats")))

    def under(self, prefix: str) -> list[str]:
        """What follows `prefix` in the names of the tensors that begin with it."""
        return [name.removeprefix(prefix) for name in self.tensors if name.startswith(prefix)]

    def both(self, name: str, ours) -> tuple[np.ndarray, np.ndarray]:
        """(ours, theirs) float64 and flat, where `theirs` is stored; checks the shape."""
        ours = np.asarray(ours)
        if name in self.arrays.files:
            theirs, stride = self.arrays[name], 1
            shape = theirs.shape
        else:
            theirs, stride = self.arrays[f"{name}__slice"], int(self.arrays[f"{name}__stride"])
            shape = tuple(self.arrays[f"{name}__shape"])
        assert ours.shape == shape, f"{name}: shape {ours.shape}, golden {shape}"
        return ours.ravel()[::stride].astype(np.float64), theirs.ravel().astype(np.float64)

    def check(self, name: str, ours, relative_l2: float, of_max: float | None = None) -> None:
        """Asserts that a tensor agrees, in the stored part and in the statistics of the whole.

        The statistics [mean, std, sum|x|, sqrt(sum x^2)] have no separate tolerance: each is bounded by what
        a relative L2 error of the whole tensor allows.

        Args:
          name: of the tensor in the file.
          ours: the port's.
          relative_l2: ||ours - theirs|| / ||theirs||.
          of_max: max|ours - theirs| / max|theirs|; None: not looked at.
        """
        mine, theirs = self.both(name, ours)
        note(f"{name} relative L2", norm(mine - theirs), relative_l2 * norm(theirs))
        if of_max is not None:
            note(f"{name} max of max", np.abs(mine - theirs).max(), of_max * np.abs(theirs).max())
        if f"{name}__stats" not in self.arrays.files:
            return
        whole = np.asarray(ours, np.float64).ravel()
        mean, std, total, length = self.arrays[f"{name}__stats"]
        root = np.sqrt(whole.size)
        bound = relative_l2 * length
        for what, value, wanted, limit in (
            ("mean", whole.mean(), mean, bound / root),
            ("std", whole.std(), std, bound / root),
            ("sum|x|", np.abs(whole).sum(), total, bound * root),
            ("norm", norm(whole), length, bound),
        ):
            note(f"{name} {what}", abs(value - wanted), limit + 1e-7 * length)  # 1e-7: float32 sums of the statistics

    def check_loss(self, name: str, ours, tolerance: float, correction: float = 0.0) -> None:
        """Asserts that a scalar agrees, relatively, with the stored one + `correction`."""
        wanted = float(self[name]) + correction
        note(name, abs(float(ours) - wanted), tolerance * abs(wanted))


SEEN: dict[str, tuple[float, float]] = {}  # every comparison of the session: (seen, allowed)


def note(what: str, seen: float, allowed: float) -> None:
    """Records a comparison in `SEEN` and asserts it."""
    where = os.environ.get("PYTEST_CURRENT_TEST", "").split(" ")[0]
    SEEN[f"{where} {what}"] = (float(seen), float(allowed))
    assert seen <= allowed, f"{what}: {seen:.4g}, allowed {allowed:.4g}"


def norm(x) -> float:
    """Square root of the sum of squares."""
    return float(np.sqrt(np.sum(np.square(x))))


def check_updates(
    golden: Golden, prefix: str, suffix: str, values: dict, tolerances: tuple[float, float | None]
) -> None:
    """Asserts that (after - recipe) points where the release's does, for every variable of `values`.

    Compared by cosine because Adam makes single elements with a gradient near 0 differ by up to 2 learning rates; the
    length of the update may differ by what the cosine's angle allows. fc_1 is skipped (golden/README.md).

    Args:
      golden: the file.
      prefix: of the stored names, as "g1_after3/".
      suffix: of the stored names: "", "/Adam" (m), "/Adam_1" (v) or "/ExponentialMovingAverage".
      values: release name to array.
      tolerances: 1 - cosine of the worst variable and of the median (None: not looked at).
    """
    worst, median = tolerances
    gaps = []
    for name, ours in values.items():
        if "discriminator/fc_1/" in name:
            continue
        mine, theirs = golden.both(f"{prefix}{name}{suffix}", ours)
        if not suffix.startswith("/Adam"):  # Adam's moments start at 0
            start, _ = golden.both(f"{prefix}{name}{suffix}", recipe_array(name, ours.shape))
            mine, theirs = mine - start, theirs - start
        if not norm(theirs):  # a variable that a mask leaves without a gradient
            note(f"{prefix}{name}{suffix} stays", norm(mine), 0.0)
            continue
        gaps.append(1 - float(mine @ theirs) / (norm(mine) * norm(theirs)))
        note(f"{prefix}{name}{suffix} 1 - cosine", gaps[-1], worst)
        note(f"{prefix}{name}{suffix} length", abs(norm(mine) / norm(theirs) - 1), np.sqrt(2 * worst))
    if median is not None:
        note(f"{prefix}{suffix} median 1 - cosine", float(np.median(gaps)), median)


def l2_terms(golden: Golden, stage: str) -> dict[str, float]:
    """The stored L2 terms of stage "g1" or "g6" by release name of the variable."""
    terms = {}
    for name, value in zip(golden[f"{stage}_l2_names"], golden[f"{stage}_l2_each"], strict=True):
        network, *scopes, leaf = name.decode().split("/")[1:-2]  # tower_0/generator_1/repair_1/conv1/kernel/...
        path = "/".join([network.split("_")[0], *scopes, {"kernel": "weights", "bias": "biases"}[leaf]])
        terms[path] = float(value)
    return terms


FC_1 = "discriminator/fc_1/weights"
FC_1_SHAPE = (6, 6, 256, 4096)


def exact_l2(name: str, shape: tuple) -> float:
    """The L2 term of a variable with the recipe's value, in float64."""
    return float(5e-5 * np.sum(np.square(recipe_array(name, shape), dtype=np.float64)) / 2)


def fc_1_correction(golden: Golden) -> float:
    """What to add to a stored sum of losses: TensorFlow 1 summed the L2 of fc_1 inaccurately (golden/README.md)."""
    return exact_l2(FC_1, FC_1_SHAPE) - l2_terms(golden, "g6")[FC_1]
