"""What a run's config.json records.

`RunRecord` says which run a folder holds, `ImportRecord` what a run took from a checkpoint of the release. Both are
plain data. `lts.training.run_dir` reads and writes them.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from lts.config import Config
from lts.utils import provenance

FROZEN_NETWORKS = ("encoder/", "decoder/")  # from the autoencoder run, never trained in the "gan" stage


@dataclasses.dataclass(frozen=True)
class ImportRecord:
    """Origin of a run that began as a release checkpoint.

    Attributes:
      checkpoint: name of the checkpoint.
      weights: "raw" or "averaged".
      step: step at which the run began; 0 unless Adam's moments were imported too.
      averages: whether every trained weight came with its moving average.
      release_step: global step in the checkpoint; None if it holds none.
      missing: release names of the variables that the checkpoint does not hold.
    """

    checkpoint: str
    weights: str = "raw"
    step: int = 0
    averages: bool = True
    release_step: int | None = None
    missing: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """Content of a run's config.json.

    Attributes:
      stage: kind of training: "autoencoder", "gan", "rotation", "supervised", or a task of `experiments`.
      config: the run's configuration.
      dataset: name of the data set; None for an imported run that was never trained here.
      split: split of the data set.
      data: number of images and their fingerprint. They may change between starts.
      hardware: devices of the last start.
      commit: commit of the last start; None outside a checkout.
      autoencoder: folder of the autoencoder run; None if there is none.
      imported: origin of an imported run; None for other runs.
      details: further entries, such as "classes". A run with other values is another run.
    """

    stage: str
    config: Config
    dataset: str | None = None
    split: str | None = None
    data: Mapping[str, Any] | None = None
    hardware: str | None = None
    commit: str | None = None
    autoencoder: str | None = None
    imported: ImportRecord | None = None
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of_images(cls, stage: str, config: Config, source: Any, **fields: Any) -> "RunRecord":
        """Return the record of a new run.

        Args:
          stage: kind of training.
          config: the run's configuration.
          source: training images, with `name`, `split`, `num_examples` and `fingerprint`.
          **fields: other fields of the record.
        """
        return cls(
            stage=stage,
            config=config,
            dataset=source.name,
            split=source.split,
            data={"images": source.num_examples, "fingerprint": source.fingerprint},
            hardware=provenance.hardware(),
            commit=provenance.commit(),
            **fields,
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunRecord":
        """Return the record in a parsed config.json, the inverse of `to_dict`.

        Args:
          values: the parsed JSON.

        Raises:
          ConfigError, KeyError, TypeError: an entry is missing or invalid.
        """
        names = {field.name for field in dataclasses.fields(cls)} - {"details"}
        fields = {name: value for name, value in values.items() if name in names}
        fields["config"] = Config.from_dict(values["config"])
        if "imported" in fields:
            imported = ImportRecord(**fields["imported"])
            fields["imported"] = dataclasses.replace(imported, missing=tuple(imported.missing))
        details = {name: value for name, value in values.items() if name not in names}
        return cls(**fields, details=details)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of config.json, details at its top level."""
        values = dataclasses.asdict(self)
        details = values.pop("details")
        present = {name: value for name, value in values.items() if value is not None}
        return present | details

    @property
    def first_step(self) -> int:
        """Step at which the run began."""
        return self.imported.step if self.imported else 0

    @property
    def never_trained(self) -> bool:
        """Whether the run was imported and no training has started yet."""
        return self.imported is not None and self.dataset is None

    def untrained(self, step: int | None, *prefixes: str) -> list[str]:
        """Return the imported run's variables that hold random initial values.

        After the first training step every variable counts as trained.

        Args:
          step: step of the run.
          *prefixes: of the release names to look for, such as "encoder/".
        """
        if self.imported is None or step != self.imported.step:
            return []
        return [name for name in self.imported.missing if name.startswith(prefixes)]
