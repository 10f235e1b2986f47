"""Confidence intervals: bootstrap over images, Student over runs.

This project. Every function takes arrays and plain numbers, so that probes, VOC and spotting share them.
"""

from collections.abc import Callable, Sequence

import numpy as np


def mean_interval(values: np.ndarray, *, resamples: int, confidence: float, seed: int) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a mean.

    The interval tells how the mean would move with other test images. It does not contain the spread over
    pre-training seeds.

    Args:
      values: float [images], for example correct or not, or the difference of two models on the same image.
      resamples: number of resamples.
      confidence: share of the resampled means inside the interval.
      seed: of the resampling.

    Returns:
      (low, high).
    """
    # Images with equal values are interchangeable. Resamples are therefore drawn as counts of the distinct values:
    # the same distribution as `scipy.stats.bootstrap`, but 0.9 ms instead of 570 ms (8,000 images, 10,000 resamples).
    distinct, counts = np.unique(np.asarray(values, np.float64), return_counts=True)
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(len(values), counts / len(values), size=resamples)  # [resamples, distinct values]
    low, high = percentile_interval(drawn @ distinct / len(values), confidence)
    return float(low), float(high)


def bootstrap(figures: Callable[[np.ndarray], np.ndarray], images: int, *, resamples: int, seed: int) -> np.ndarray:
    """Return the figures of resampled test images.

    Each resample draws as many images as there are, with replacement. Two models on the same images with the same
    seed get the same resamples. The interval of their difference is that of the differences, resample by resample.

    Args:
      figures: maps int [images], the number of times each image was drawn, to float [...].
      images: number of test images.
      resamples: number of resamples.
      seed: of the resampling.

    Returns:
      float [resamples, ...].
    """
    # `scipy.stats.bootstrap` draws the same images, but passes on copies of the data instead of counts and cannot
    # skip resamples in which a figure is nan.
    generator = np.random.default_rng(seed)
    values = []
    for _ in range(resamples):
        drawn = generator.integers(images, size=images)
        values.append(figures(np.bincount(drawn, minlength=images)))
    return np.stack(values)


def percentile_interval(
    values: np.ndarray, confidence: float, centre: Sequence[float] | float | None = None
) -> np.ndarray:
    """Return percentile intervals of resampled figures.

    Args:
      values: float [resamples, ...]: one figure or several. Resamples in which a figure is nan are skipped.
      confidence: share of the resamples inside the interval.
      centre: float [...]: moves each interval so that the resamples' mean is this figure; None: not moved. A resample
        repeats images, which inflates an interpolated average precision: near chance by more than a standard error.
        Moved intervals of 95 % held the truth in 93 to 97 % of simulated test sets of 400 images, unmoved ones in
        59 to 93 %.

    Returns:
      float [..., 2]: low and high; nan where all resamples are nan.
    """
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    columns = np.reshape(values, [len(values), -1]).T  # [figures, resamples]
    intervals = np.full([len(columns), 2], np.nan)
    for interval, column in zip(intervals, columns, strict=True):
        known = column[~np.isnan(column)]
        if len(known):
            interval[:] = np.quantile(known, tails)
            if centre is not None:
                interval -= known.mean()
    intervals = intervals.reshape([*np.shape(values)[1:], 2])
    return intervals if centre is None else intervals + np.asarray(centre)[..., None]


def student_interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """Return Student's interval of the mean of a few runs.

    Args:
      values: float [runs], at least two: one figure of each seed or draw, or its difference to another model.
      confidence: of the interval.

    Returns:
      (low, high).
    """
    from scipy import stats  # of the extra `experiments`

    # NB: `stats.t.interval` is nan where all values are equal.
    mean = float(np.mean(values))
    reach = float(stats.sem(values) * stats.t.ppf((1 + confidence) / 2, len(values) - 1))
    return mean - reach, mean + reach


def paired_difference(values: np.ndarray, baselines: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the baselines' mean and the difference to it.

    Args:
      values: float [n]: one figure of each test image, seed or draw.
      baselines: float [n] each: the same of other models.

    Returns:
      (mean of the baselines [n], `values` minus this mean [n]).
    """
    mean = np.mean(baselines, axis=0)
    return mean, values - mean
