"""Cache of finished layers, from which a stopped evaluation resumes."""

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from lts.utils import files
from lts.utils.json_files import JsonError, read_json

FILE = "partial.json"


class ResultCache:
    """Finished results of an evaluation, kept in OUTPUT/partial.json.

    The key of a result is a digest of everything that decides it. Results of other models, images or protocols may
    therefore share the file. A cache whose results were changed counts as empty: the evaluation starts again.

    Args:
      output: folder of the evaluation.
      context: JSON-ready values that decide all results: protocol and fingerprints of the images.

    Raises:
      OutputError: see `check_cache`.
    """

    def __init__(self, output: str | os.PathLike, context: Mapping[str, Any]):
        self._path = pathlib.Path(output) / FILE
        self._context = context
        content = check_cache(output)
        # The digest finds every change, whatever the shape of a result.
        unchanged = content["digest"] == _digest(content["results"])
        self._results = content["results"] if unchanged else {}

    def _key(self, model, name: str) -> str:
        # The same weights may be exported with another image size. Paths and dates of an export do not count.
        export = {entry: model.description.get(entry) for entry in ("image_size", "test_crop", "config")}
        return _digest([model.fingerprint, export, name, self._context])

    def get(self, model, name: str) -> dict[str, Any] | None:
        """Return the result of a model and a name, or None."""
        return self._results.get(self._key(model, name))

    def put(self, model, name: str, result: Mapping[str, Any]) -> None:
        """Keep a JSON-ready result of a model and a name, for example a layer."""
        self._results[self._key(model, name)] = result
        content = {"results": self._results, "digest": _digest(self._results)}
        files.write_text(self._path, json.dumps(content))


def check_cache(output: str | os.PathLike) -> dict[str, Any]:
    """Return the contents of a folder's cache, which are empty if there is none.

    Raises:
      OutputError: the folder holds another file of this name. The end of the evaluation would remove it.
    """
    path = pathlib.Path(output) / FILE
    try:
        return read_json(path, {"results": dict, "digest": str}, finite=False)
    except FileNotFoundError:
        return {"results": {}, "digest": ""}
    except (JsonError, OSError):
        raise files.OutputError(
            f"{path} holds no results of a stopped run and would be replaced. Received: output={output}. "
            "Move it or give another --output."
        ) from None


def _digest(values: Any) -> str:
    """Return a digest of JSON-ready values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def clear_cache(output: str | os.PathLike) -> None:
    """Remove the cache of a folder, if there is one."""
    (pathlib.Path(output) / FILE).unlink(missing_ok=True)
