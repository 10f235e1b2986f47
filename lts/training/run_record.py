"""What a run's config.json records, as plain data."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from lts.config import Config
from lts.config.stages import section_of
from lts.utils import provenance
from lts.utils.registry import imported_modules

FROZEN_NETWORKS = ("encoder/", "decoder/")  # taken from the autoencoder run, never trained in the "gan" stage

# Of config.json, see `lts.utils.json_files.check_shape`. The last five are details.
RECORD_SHAPE = {
    "stage": str,
    "config": dict,
    "dataset?": str,
    "split?": str,
    "place?": str,
    "data?": {"images": int},
    "largest_side?": int,
    "hardware?": str,
    "commit?": str,
    "autoencoder?": str,
    "init_from?": str,
    "fingerprints?": {str: str},
    "imported?": {"checkpoint": str, "weights": str, "step": int, "averages": bool, "missing": [str]},
    "classes?": (int, list),  # their number, or for VOC their names
    "labels?": {"images": int, "fingerprint?": str},  # of the discriminator's task
    "head?": str,
    "frozen?": int,
    "stored_size?": int,  # see `ImageDataset.stored_size`
}


@dataclasses.dataclass(frozen=True)
class ImportRecord:
    """Origin of a run that began as a release checkpoint."""

    checkpoint: str
    weights: str = "raw"  # or "averaged"
    step: int = 0  # at which the run began; 0 unless Adam's moments were imported too
    averages: bool = True  # every trained weight came with its moving average
    release_step: int | None = None  # global step in the checkpoint
    missing: tuple[str, ...] = ()  # release names of the variables that the checkpoint does not hold


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """Content of a run's config.json."""

    stage: str  # a key of `STAGES`, or a task of `experiments`
    config: Config
    dataset: str | None = None  # as it was given; None: imported and never trained here
    place: str | None = None  # see `ImageDataset.place`
    split: str | None = None
    data: Mapping[str, Any] | None = None  # number of images and fingerprint; may change between starts
    largest_side: int | None = None  # largest shorter side of these images in pixels, before they are shrunk
    hardware: str | None = None  # of the last start
    commit: str | None = None  # of the last start
    autoencoder: str | None = None  # absolute path of the autoencoder run
    init_from: str | None = None  # absolute path of the run whose weights this one began with
    fingerprints: Mapping[str, str] = dataclasses.field(default_factory=dict)  # of the weights of these two runs
    imported: ImportRecord | None = None
    modules: tuple[str, ...] = ()  # of --import at the last start
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # such as "classes"; fixed for the run

    @classmethod
    def of_images(cls, stage: str, config: Config, source: Any, **fields: Any) -> "RunRecord":
        """Return the record of a new run.

        Args:
          stage: kind of training.
          config: the run's configuration.
          source: training images, with `name`, `split`, `num_examples` and `fingerprint`.
          **fields: other fields of the record.
        """
        fields["data"] = {"images": source.num_examples, "fingerprint": source.fingerprint}
        sides = getattr(source, "shorter_sides", None)
        fields["largest_side"] = None if sides is None else int(sides.max())
        fields["hardware"] = provenance.hardware()
        fields["commit"] = provenance.commit()
        fields["place"] = getattr(source, "place", None)
        fields["modules"] = imported_modules()
        return cls(stage, config, dataset=source.name, split=source.split, **fields)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunRecord":
        """Return the record in a parsed config.json."""
        names = {field.name for field in dataclasses.fields(cls)} - {"details"}
        fields = {name: value for name, value in values.items() if name in names and value is not None}
        fields["config"] = Config.from_dict(values["config"])
        fields["modules"] = tuple(values.get("modules", ()))
        if "imported" in fields:
            imported = ImportRecord(**fields["imported"])
            fields["imported"] = dataclasses.replace(imported, missing=tuple(imported.missing))
        details = {name: value for name, value in values.items() if name not in names}
        return cls(**fields, details=details)

    def to_dict(self) -> dict[str, Any]:
        """Return config.json, with the details at its top level."""
        values = dataclasses.asdict(self)
        details = values.pop("details")
        present = {name: value for name, value in values.items() if value not in (None, {}, ())}
        return present | details

    @property
    def section(self) -> str:
        """Section of the configuration with the schedule."""
        return section_of(self.stage)

    @property
    def total_steps(self) -> int:
        """Training steps of the whole run; 0 if its images are not known yet."""
        images = self.data["images"] if self.data else 0
        return getattr(self.config, self.section).steps_on(images)

    @property
    def images_at(self) -> str | None:
        """`dataset` with an absolute path."""
        kind, _, _ = (self.dataset or "").partition(":")
        return f"folder:{self.place}" if kind == "folder" and self.place else self.dataset

    @property
    def first_step(self) -> int:
        """Step at which the run began."""
        return self.imported.step if self.imported else 0

    @property
    def never_trained(self) -> bool:
        """Whether an imported run has not been trained yet."""
        return self.imported is not None and self.dataset is None

    def untrained(self, step: int | None, *prefixes: str) -> list[str]:
        """Return an imported run's variables with random initial values.

        After the first training step every variable counts as trained.

        Args:
          step: step of the run.
          *prefixes: of the release names to look for, such as "encoder/".
        """
        if self.imported is None or step != self.imported.step:
            return []
        return [name for name in self.imported.missing if name.startswith(prefixes)]
