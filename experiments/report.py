"""Tables from results files, beside the published figures (experiments/results/published.json).

    python -m experiments.report RESULTS...
    python -m experiments.report RESULTS... --readme=README.md

RESULTS are results.json of the probes, of `experiments.compare`, `ablate` and the VOC tasks, and evaluation.json of
`lts.bin.spot_artifacts --evaluate`, by any name. The first prints every table that they give; the second puts them into
a Markdown file, between `<!-- table: NAME FILES -->` and `<!-- end -->`. NAME is probe, few_shot, spotting, compare,
ablate, voc or a published table (imagenet, voc, stl10); FILES are names of results files without `.json`, by default
all of that kind. A table of compare or ablate holds one file; voc with FILES is a table of theirs, without FILES it is
the published one.
"""

import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from experiments.reporting import results as result_files
from experiments.reporting import tables
from experiments.reporting.results import KINDS, ReportError, Results
from lts.bin import common
from lts.utils import files

FLAGS = flags.FLAGS
OPENING = "<!-- table: "
TABLE = re.compile(rf"({OPENING}([^\n]*?) -->\n)((?:(?!<!--).)*?)(<!-- end -->)", re.DOTALL)


def text(results: Sequence[Results], published: Mapping[str, Any]) -> str:
    """Every table of the results, then the published ones, each under a title, as Markdown.

    Args:
      results: from `result_files.load`.
      published: from `result_files.published`.
    """
    parts = []
    for group in tables.groups(results):
        parts += [f"{tables.title(group)}:", tables.markdown(tables.table(group))]
    for figures in published.values():
        rows = tables.published_table(figures, results)
        parts += [f"{figures['title']} (source: {figures['source']}):", tables.markdown(rows)]
    return "\n\n".join(parts) + "\n"


def fill(page: str, results: Sequence[Results], published: Mapping[str, Any]) -> str:
    """A page with its tables made anew from the results; everything outside of the marks stays as it is.

    Args:
      page: Markdown with marks.
      results: from `result_files.load`, each for at least one table.
      published: from `result_files.published`.

    Returns:
      The page.

    Raises:
      ReportError: a mark that is not closed or not known, results that are missing, or in no table.
    """
    shown = set()

    def replace(match: re.Match) -> str:
        opening, mark, _, closing = match.groups()
        rows, chosen = _marked_table(mark.split(), results, published)
        shown.update(each.name for each in chosen)
        return f"{opening}\n{tables.markdown(rows)}\n\n{closing}"

    filled, count = TABLE.subn(replace, page)
    begun = page.count(OPENING)
    if not count or count != begun:
        raise ReportError(f"of {begun} tables that begin with '{OPENING}NAME -->' {count} end with '<!-- end -->'")
    left = [each.name for each in results if each.name not in shown]
    if left:
        raise ReportError(f"no table holds {', '.join(left)}: name them in a mark, as '{OPENING}probe {left[0]} -->'")
    return filled


def _marked_table(
    mark: Sequence[str], results: Sequence[Results], published: Mapping[str, Any]
) -> tuple[tables.Rows, list[Results]]:
    """The table that a mark asks for, and the results in it."""
    kind, *names = mark or [""]
    if kind in published and not names:
        chosen = [each for each in results if tables.matches_protocol(each, published[kind])]
        return tables.published_table(published[kind], chosen), chosen
    if kind not in KINDS:
        known = ", ".join((*KINDS, *published))
        raise ReportError(f"there is no table '{' '.join(mark)}'; known: {known} (published ones take no files)")
    by_name = {each.name: each for each in results if each.kind == kind}
    missing = [name for name in names if name not in by_name]
    if missing:
        raise ReportError(f"table '{' '.join(mark)}' needs {missing[0]}.json, of kind {kind}: give that file too")
    if not by_name:
        raise ReportError(f"table '{kind}' needs results of its kind: give a file")
    chosen = [by_name[name] for name in names or by_name]
    return tables.table(chosen), chosen


def main(paths: Sequence[str]) -> None:
    """Files to tables."""
    if not paths:
        raise common.UsageError("give results files: python -m experiments.report RESULTS...")
    results = [result_files.load(path) for path in paths if pathlib.Path(path).name != result_files.PUBLISHED.name]
    twice = [each.name for index, each in enumerate(results) if each.name in [other.name for other in results[:index]]]
    if twice and FLAGS.readme is not None:
        raise common.UsageError(f"two results files are named {twice[0]}.json: a mark could mean either")
    if FLAGS.readme is None:
        print(text(results, result_files.published()), end="")
        return
    page = pathlib.Path(FLAGS.readme).read_text(encoding="utf-8")
    filled = fill(page, results, result_files.published())
    if filled != page:
        files.write_text(FLAGS.readme, filled)
    print(f"{FLAGS.readme}: {len(TABLE.findall(page))} tables, {'as they were' if filled == page else 'written anew'}")


def console() -> None:
    """Entry point of the command."""
    flags.DEFINE_string("readme", None, "Markdown file whose tables are made anew; none: all tables are printed.")
    common.run(main, arguments=True)


if __name__ == "__main__":
    console()
