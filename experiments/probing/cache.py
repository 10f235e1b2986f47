"""Cache of finished layers, from which a stopped evaluation resumes."""

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from lts.utils import files

FILE = "partial.json"


class ResultCache:
    """Finished results of an evaluation, kept in OUTPUT/partial.json.

    The key of a result is a digest of everything that decides it. Results of other models, images or protocols may
    therefore share the file.

    Args:
      output: folder of the evaluation.
      context: JSON-ready values that decide all results: protocol and fingerprints of the images.
    """

    def __init__(self, output: str | os.PathLike, context: Mapping[str, Any]):
        self._path = pathlib.Path(output) / FILE
        self._context = context
        try:
            self._results = json.loads(self._path.read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            self._results = {}

    def _key(self, model, name: str) -> str:
        # The same weights may be exported with another image size. Paths and dates of an export do not count.
        export = {entry: model.description.get(entry) for entry in ("image_size", "test_crop", "config")}
        parts = json.dumps([model.fingerprint, export, name, self._context], sort_keys=True)
        return hashlib.sha256(parts.encode()).hexdigest()

    def get(self, model, name: str) -> dict[str, Any] | None:
        """Return the result of a model and a name, or None."""
        return self._results.get(self._key(model, name))

    def put(self, model, name: str, result: Mapping[str, Any]) -> None:
        """Keep a JSON-ready result of a model and a name, for example a layer."""
        self._results[self._key(model, name)] = result
        files.write_text(self._path, json.dumps(self._results))


def clear_cache(output: str | os.PathLike) -> None:
    """Remove the cache of a folder, if there is one."""
    (pathlib.Path(output) / FILE).unlink(missing_ok=True)
