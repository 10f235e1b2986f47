"""Runs of several stages that can resume.

`experiments.quickstart`, `compare` and `ablate` share this.
"""

import pathlib
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from lts import config as configs
from lts.utils import files
from lts.utils.errors import UserError
from lts.utils.json_files import NUMBER, read_json
from lts.utils.signals import reraise_signal

SHAPE = {"config": dict, "data?": {str: str}, "seconds": {str: NUMBER}, "done": [str]}  # of the record


class Pipeline:
    """Record of a run's finished stages.

    A file holds the names of the finished stages, and the seconds of each stage over all starts of the run.

    Args:
      path: the file.
      config: configuration of the run.
      data: what else must stay the same, for example the fingerprint of the images.

    Raises:
      UserError: the file is of a run with another configuration or other data.
    """

    def __init__(self, path: pathlib.Path, config: configs.Config, data: Mapping[str, str] = MappingProxyType({})):
        self._path = path
        self._record = {"config": config.to_dict(), "data": dict(data), "seconds": {}, "done": []}
        # An existing record is used only if configuration and data are the same.
        if path.exists():
            old = read_json(path, SHAPE)
            try:
                old_config = configs.Config.from_dict(old["config"])
            except configs.ConfigError as error:
                raise UserError(f"{path} holds no configuration of this version ({error}).") from None
            changed = configs.differences(old_config, config)
            for key, value in data.items():
                old_value = old.get("data", {}).get(key)
                if old_value != value:
                    changed.append(f"{key}: {old_value} -> {value}")
            if changed:
                raise UserError(
                    f"{path.parent} holds another run. Received: {'; '.join(changed)}. Give another --output."
                )
            self._record = old

    @property
    def seconds(self) -> Mapping[str, float]:
        """Stage to seconds, in order of start."""
        return self._record["seconds"]

    def done(self, name: str) -> bool:
        """Return whether a stage has finished."""
        return name in self._record["done"]

    def run(self, name: str, work: Callable[[], None]) -> None:
        """Run a stage unless it has finished before."""
        if self.done(name):
            print(f"== {name}: done before", flush=True)
            return
        print(f"== {name}", flush=True)
        # Time counts even if the stage fails, because a resumed run continues it.
        started = time.monotonic()
        try:
            work()
            self._record["done"].append(name)
        finally:
            self.seconds[name] = self.seconds.get(name, 0) + time.monotonic() - started
            files.write_json(self._path, self._record)


def train_stage(config: configs.Config, stage: str, source: Any, workdir: pathlib.Path, **options: Any) -> None:
    """Train one stage; a signal ends the program.

    Arguments are those of `lts.training.train`.
    """
    from lts import training

    # `train` catches the signal and writes a checkpoint. Raised again, it keeps later stages from beginning.
    reraise_signal(training.train(config, stage, source, workdir, **options).signal)
