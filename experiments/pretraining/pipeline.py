"""Runs of several stages that go on where they stopped: what quickstart, compare and ablate share."""

import json
import pathlib
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from lts import config as configs
from lts.utils import files
from lts.utils.errors import UserError
from lts.utils.signals import reraise_signal


class Pipeline:
    """Runs stages once each and remembers in a file what they took, over all starts of the run.

    Args:
      path: the file.
      config: configuration of the run.
      data: what else must stay the same, as the names of the images.

    Raises:
      UserError: the file is of a run with another configuration or other data.
    """

    def __init__(self, path: pathlib.Path, config: configs.Config, data: Mapping[str, str] = MappingProxyType({})):
        self._path = path
        self._record = {"config": config.to_dict(), "data": dict(data), "seconds": {}, "done": []}
        if path.exists():
            old = json.loads(path.read_text(encoding="utf-8"))
            changed = configs.differences(configs.Config.from_dict(old["config"]), config)
            before = old.get("data", {})
            changed += [f"{key}: {before.get(key)} -> {data[key]}" for key in data if before.get(key) != data[key]]
            if changed:
                raise UserError(f"{path.parent} holds another run ({'; '.join(changed)}): give another --output")
            self._record = old

    @property
    def seconds(self) -> Mapping[str, float]:
        """Stage to seconds, in the order in which they ran."""
        return self._record["seconds"]

    def done(self, name: str) -> bool:
        """Whether a stage ended well in an earlier start, or in this one."""
        return name in self._record["done"]

    def run(self, name: str, work: Callable[[], None]) -> None:
        """Calls `work`, unless it ended well in an earlier start."""
        if self.done(name):
            print(f"== {name}: done before", flush=True)
            return
        print(f"== {name}", flush=True)
        began = time.monotonic()
        try:
            work()
            self._record["done"].append(name)
        finally:
            self.seconds[name] = self.seconds.get(name, 0) + time.monotonic() - began
            files.write_json(self._path, self._record)


def train_stage(config: configs.Config, stage: str, source: Any, workdir: pathlib.Path, **options: Any) -> None:
    """`lts.training.train`; a signal that stopped it comes again when its checkpoint is written, and ends the binary.

    Args:
      config, stage, source, workdir, **options: as there.
    """
    from lts import training

    reraise_signal(training.train(config, stage, source, workdir, **options).signal)
