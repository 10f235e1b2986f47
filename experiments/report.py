"""Make Markdown tables from results files.

    python -m experiments.report RESULTS...
    python -m experiments.report RESULTS... --pages=experiments/results/README.md,README.md
    python -m experiments.report RESULTS... --budgets=experiments/results/small_budgets.png

The first command prints the table of every results file, then the published tables. The second command fills the
tables of Markdown pages. The third command draws the accuracy of the best layer against the minutes of training, from
runs of `experiments.compare` with different budgets. RESULTS are results.json of the programs in experiments/ and
evaluation.json of `lts.bin.spot_artifacts --evaluate`, by any name.

A page marks a table with `<!-- table: TYPE FILES -->` and `<!-- end -->`. TYPE is a name in
experiments/reporting/tables.py, for example probe, with FILES the names of results files without `.json`. Or TYPE is a
table of published figures (imagenet, pascal_voc, stl10), without FILES.
"""

import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from experiments.reporting import comparison, tables
from experiments.reporting import published as published_tables
from experiments.reporting import results as result_files
from experiments.reporting.results import ReportError, Results
from lts.bin import common, paths
from lts.utils import files
from lts.utils.errors import first_line
from lts.utils.markdown import escape
from lts.utils.markdown import table as markdown_table
from lts.utils.streams import print_result
from lts.visualization import figures

FLAGS = flags.FLAGS
OPENING = "<!-- table: "
TABLE = re.compile(rf"({OPENING}([^\n]*?) -->\n)((?:(?!<!--).)*?)(<!-- end -->)", re.DOTALL)


def text(results: Sequence[Results], published: Mapping[str, Any]) -> str:
    """Return every table, published ones last."""
    parts = []
    for group in tables.groups(results):
        with result_files.naming_files(group):
            parts.append(f"{escape(tables.title(group))}:")
            parts.append(markdown_table(tables.table(group)))
    for paper in published.values():
        parts.append(f"{paper['title']} (source: {paper['source']}):")
        parts.append(markdown_table(published_tables.published_table(paper, results)))
    return "\n\n".join(parts) + "\n"


def fill(page: str, results: Sequence[Results], published: Mapping[str, Any]) -> tuple[str, set[str]]:
    """Return a filled page and the results' names.

    A page need not hold all results.

    Raises:
      ReportError: a mark is not closed or not known, or its results are missing.
    """
    shown = set()

    def replace(match: re.Match) -> str:
        opening, mark, _, closing = match.groups()
        rows, chosen = _marked_table(mark, results, published)
        shown.update(result.name for result in chosen)
        with result_files.naming_files(chosen):
            return f"{opening}\n{markdown_table(rows)}\n\n{closing}"

    # A mark that is not closed does not match, so it is found by counting.
    filled, closed = TABLE.subn(replace, page)
    opened = page.count(OPENING)
    if not closed or closed != opened:
        raise ReportError(
            f"a page needs tables from '{OPENING}TYPE FILES -->' to '<!-- end -->'. "
            f"Received: {opened} begin, {closed} of them end"
        )
    return filled, shown


def _marked_table(
    mark: str, results: Sequence[Results], published: Mapping[str, Any]
) -> tuple[tables.Rows, list[Results]]:
    """Return a mark's table and its results."""
    # A table of published figures takes every result that follows its protocol.
    name, *files_in_table = mark.split() or [""]
    if name in published and not files_in_table:
        chosen = [result for result in results if published_tables.matches_protocol(result, published[name])]
        return published_tables.published_table(published[name], chosen), chosen
    if name not in tables.TABLES or not files_in_table:
        known = f"{', '.join(tables.TABLES)} with the names of files; {', '.join(published)} without"
        raise ReportError(f"a page asks for an unknown table. Received: {mark!r}. Known: {known}")
    # Any other table holds the files that the mark names, in that order.
    by_name = {result.name: result for result in results if tables.table_type(result) == name}
    missing = [file for file in files_in_table if file not in by_name]
    if missing:
        raise ReportError(
            f"table {mark!r} needs {missing[0]}.json with results for a {name} table. Give that file too."
        )
    chosen = [by_name[file] for file in files_in_table]
    return tables.table(chosen), chosen


def _read_page(path: str) -> str:
    """Return the text of a page, or raise `ReportError`."""
    try:
        return files.read_regular(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ReportError(f"{path} is not text in UTF-8 ({first_line(error)}). Give a Markdown page.") from None


def main(paths: Sequence[str]) -> None:
    """Print the tables, fill the pages or draw the budgets."""
    if not paths:
        raise common.UsageError("results files are missing. Run python -m experiments.report RESULTS...")
    results = [result_files.load(path) for path in paths if pathlib.Path(path).name != result_files.PUBLISHED.name]
    published = result_files.published()
    if FLAGS.budgets:
        runs = [result.values for result in results if result.kind == "compare"]
        files.write_bytes(FLAGS.budgets, figures.png(comparison.plot_budgets(runs), dpi=100))
        print_result(f"{FLAGS.budgets}: {len(runs)} runs")
    elif not FLAGS.pages:
        print_result(text(results, published).rstrip("\n"))
    else:
        _fill_pages(results, published)


def _fill_pages(results: Sequence[Results], published: Mapping[str, Any]) -> None:
    """Fill the tables of --pages."""
    names = [result.name for result in results]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise common.UsageError(f"names of results files must differ. Received: {repeated[0]}.json twice")
    filled_pages = {}
    shown = set()
    for path in FLAGS.pages:
        page = _read_page(path)
        filled, in_page = fill(page, results, published)
        shown |= in_page
        filled_pages[path] = (page, filled)
    # Write only after every page was filled without an error.
    for path, (page, filled) in filled_pages.items():
        if filled != page:
            files.write_text(path, filled)
        print_result(f"{path}: {len(TABLE.findall(page))} tables, {'unchanged' if filled == page else 'updated'}")
    unused = [name for name in names if name not in shown]
    if unused:
        print(f"not in any table: {', '.join(unused)}")


def define_flags() -> None:
    """Define the flags of this binary."""
    paths.define("budgets", None, "picture of the accuracy against the minutes; none: no picture")
    paths.define_list("pages", "markdown pages whose tables are filled; none: print all tables")


def console() -> None:
    """Run the command."""
    define_flags()
    common.run(main, arguments=True)


if __name__ == "__main__":
    console()
