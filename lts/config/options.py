"""What a run does beside training: a leaf without TensorFlow, so that binaries take their flags from it."""

import dataclasses

from lts.config.schema import setting


@dataclasses.dataclass(frozen=True)
class MonitoringOptions:
    """Intervals of monitoring and checkpoints; nothing of it changes a weight."""

    log_steps: int = setting(50, "steps between two lines of scalars")
    picture_steps: int = setting(500, "steps between two picture strips")
    histogram_steps: int = setting(2000, "steps between two sets of histograms; 0: none")
    profile_steps: tuple[int, int] | None = setting(None, "first and last step to profile, as 100,110, for TensorBoard")
    checkpoint_minutes: float = setting(10.0, "minutes between two checkpoints; one is written at the end in any case")
    keep_checkpoints: int = setting(3, "checkpoints that are kept")

    def steps_to_next(self, step: int) -> int:
        """Steps from `step` to the next at which something is due."""
        due = [n - step % n for n in (self.log_steps, self.picture_steps, self.histogram_steps) if n]
        if self.profile_steps:
            first, last = self.profile_steps
            due += [edge - step for edge in (first - 1, last) if edge > step]
        return min(due)
