"""Tables of results and of published figures, and the pages that hold them."""

import copy
import json
import os
import pathlib

import pytest

from experiments import report
from experiments.reporting import published as published_tables
from experiments.reporting import results as result_files
from experiments.reporting import tables
from experiments.reporting.results import ReportError, Results
from lts.bin import common
from lts.config import preset
from tests.fixtures import runs
from tests.fixtures.binaries import flags_of, invoke

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = ROOT / "experiments" / "results"
COMMAND = "python -m experiments.report experiments/results/*.json --pages=experiments/results/README.md,README.md"
PUBLISHED = result_files.published()
PATHS = sorted(path for path in FOLDER.glob("*.json") if path.name != "published.json")


@pytest.fixture(scope="module")
def committed():
    """The committed results by name; tests must not change them."""
    return {path.stem: result_files.load(path) for path in PATHS}


@pytest.fixture(scope="module")
def page():
    """The page with all tables."""
    return (FOLDER / "README.md").read_text(encoding="utf-8")


def probe(name="ours", protocol="rotnet", dataset="tfds:imagenet2012", split="validation", **accuracies):
    """Return made-up results of a probe; `accuracies` by layer, as fractions."""
    accuracies = accuracies or {"conv_1": 0.2, "conv_5": 0.3486}
    layers = {layer: {"accuracy": value, "interval": [0, 1]} for layer, value in accuracies.items()}
    images = {"train_images": 10, "test_images": 5, "train_fingerprint": "a", "test_fingerprint": "b"}
    values = {
        "kind": "sgd_probe",
        "protocol": {"name": protocol, "classifier": "sgd"},
        "dataset": {"name": dataset, "classes": ["x", "y"], "test_split": split, **images},
        "layers": list(layers),
        "model": {"path": "runs/features", "fingerprint": "1", "description": {}, "layers": layers},
        "baselines": [],
    }
    return Results(name, values)


def fill(text, results):
    """Return a page with the tables of results."""
    filled, _ = report.fill(text, list(results), PUBLISHED)
    return filled


def test_flag_files(tmp_path):
    """Fails if a pipe of flags is read twice, so that its flags are lost, or if a binary file gives a traceback."""
    reader, writer = os.pipe()
    os.write(writer, f"--pages={tmp_path / 'missing.md'}\n{PATHS[0]}\n".encode())
    os.close(writer)
    done = invoke("experiments.report", f"--flagfile=/dev/fd/{reader}")
    assert done.returncode == 1
    assert "missing.md" in done.stderr
    (tmp_path / "binary").write_bytes(b"\xff")
    done = invoke("experiments.report", f"--flagfile={tmp_path / 'binary'}")
    assert done.returncode == 2
    assert done.stderr.startswith("report: a file of --flagfile is not text")
    assert invoke("experiments.report", f"--flagfile={tmp_path / 'missing'}").returncode == 2


def test_pages_hold_the_tables_of_the_committed_results(committed, page):
    """Fails if a page's figure differs from its file, or if a file is in no table of the results page."""
    filled, shown = report.fill(page, list(committed.values()), PUBLISHED)
    assert filled == page, f"experiments/results/README.md differs from the results files. Run: {COMMAND}"
    assert shown == set(committed)
    assert COMMAND in page
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert fill(readme, committed.values()) == readme, f"README.md differs from the results files. Run: {COMMAND}"


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("small_imagenette128", ("model", "layers", "conv_3", "accuracy")),
        ("small_imagenette128_norepair", ("difference", "conv_5", "accuracy")),
        ("small_imagenette128_float32", ("baseline_mean", "conv_2", "accuracy")),
        ("small_spotting_kept30", ("mask_map", "auroc", "value")),
        ("small_spotting_kept70", ("kinds", "photograph", "called_repaired")),
    ],
)
def test_an_altered_result_changes_one_line(committed, page, name, place):
    """Fails if a table shows a figure from somewhere else than its file."""
    values = copy.deepcopy(committed[name].values)
    record = values
    for key in place[:-1]:
        record = record[key]
    record[place[-1]] += 0.001
    altered = fill(page, [*committed.values(), Results(name, values)])
    changed = [new for old, new in zip(page.splitlines(), altered.splitlines(), strict=True) if old != new]
    assert len(changed) == 1


def test_an_altered_page_is_corrected(committed, page):
    """Fails if a wrong figure on the page survives."""
    wrong = page.replace("| **61.5** |", "| **71.5** |").replace("| 69.8** |", "| 79.8** |")
    assert wrong != page
    assert fill(wrong, committed.values()) == page


def test_committed_results_hold_no_absolute_path():
    """Fails if a results file names a folder of the machine that made it."""
    for path in PATHS:
        text = path.read_text()
        assert not any(f'"{start}' in text for start in ("/", "folder:/", "~")), path


def test_published_tables_are_complete():
    """Fails if a published row lacks a cell, or a table lacks its source or the paper's row."""
    for table in PUBLISHED.values():
        assert table["source"]
        assert all(len(row["values"]) == len(table["columns"]) for row in table["rows"])
        assert table["paper"] in [row["method"] for row in table["rows"]]


def test_figures_that_were_not_measured_are_blank():
    """Fails if a published table invents a figure of ours."""
    for table in PUBLISHED.values():
        rows = published_tables.published_table(table)
        assert rows[-1] == [f"ours, {table['ours']}", *[""] * len(table["columns"])]
        assert not any("difference" in row[0] for row in rows)
    assert "| Larsson et al. | 65.9 | | 38.0 |" in report.text([], PUBLISHED)


def test_the_second_hand_figure_is_marked():
    """Fails if STL-10's quoted figure looks like one from the paper, or if the release gets a figure."""
    _, paper, release, _ = published_tables.published_table(PUBLISHED["stl10"])
    assert paper[1:] == ["**76.9 ± 0.1 (second-hand)**", ""]
    assert release == ["the authors' release", "", ""]
    assert "Zbinden" in PUBLISHED["stl10"]["source"]


def test_difference_to_the_paper_under_its_protocol():
    """Fails if results of the paper's protocol and images get no difference, or a minus before zero."""
    rows = published_tables.published_table(PUBLISHED["imagenet"], [probe()])
    assert rows[-2:] == [
        ["**`runs/features`**", "**20.0**", "", "", "", "**34.9**"],
        ["difference to the paper's", "+0.5", "", "", "", "+0.0"],  # 34.86 - 34.9
    ]
    assert ["ours, preset `imagenet`", *[""] * 5] not in rows


@pytest.mark.parametrize(
    "other",
    [{"protocol": "ridge"}, {"protocol": None}, {"dataset": "folder:imagenet2012"}, {"split": "validation[:1%]"}],
)
def test_no_difference_to_the_paper_otherwise(other):
    """Fails if results of another protocol or other images are compared with the paper's."""
    assert not published_tables.matches_protocol(probe(**other), PUBLISHED["imagenet"])
    text = report.text([probe(**other)], PUBLISHED)
    assert "difference" not in text
    assert "| ours, preset `imagenet` | | | | | |" in text
    assert "| **`runs/features`** | **20.0** | **34.9** |" in text


def test_layers_without_accuracy_are_blank():
    """Fails if an unknown accuracy is shown as a number."""
    rows = tables.probe_table([probe(conv_1=0.5, conv_2=None).values])
    assert rows == [["", "conv_1", "conv_2"], ["**`runs/features`**", "**50.0**", ""]]


def test_models_are_named_by_what_differs_from_their_preset(committed):
    """Fails if a model's name hides its training, a changed flag, its seed or untrained weights."""
    assert tables.model_name(committed["small_imagenette128"].values["model"]) == "ours, preset `small`"
    model = copy.deepcopy(committed["small_imagenette128_norepair"].values["model"])
    model["description"]["seed"] = 2
    model["description"]["config"]["image"]["crop_area"] = [0.5, 1.0]
    changed = "`--crop_area=0.5,1.0`, `--norepair`, `--norecalibrate_batch_norm`, `--seed=2`"
    assert tables.model_name(model) == f"ours, preset `small`, {changed}"
    model["description"]["config"]["autoencoder_training"]["steps"] = 5000
    model["description"]["config"]["gan_training"]["steps"] = 3000
    assert "`--steps=5000` in stage 1, `--steps=3000`, `--seed=2`" in tables.model_name(model)
    rotation = committed["small_candidates_knn_lci"].values["baselines"][0]
    # --repair_every and --shows of its configuration have no effect on it.
    assert tables.model_name(rotation) == "rotation prediction, preset `small`, `--steps=5420`, `--beta_1=0.9`"
    inpainting = committed["small_candidates_knn_lci"].values["model"]
    assert tables.model_name(inpainting).startswith("limited context inpainting, preset `small`, `--weight_decay=0.1`")
    model["description"] |= {"stage": "of tomorrow"}
    assert tables.model_name(model).startswith("of tomorrow, preset `small`")
    model["description"] |= {"weights": "random", "config": {"preset": "of tomorrow"}, "seed": 1}
    assert tables.model_name(model) == "random initialisation, preset `of tomorrow`"


def test_labels_in_pretraining_against_fine_tuning(committed):
    """Fails if a row has the accuracies of another way to use the labels."""
    values = committed["small_semi_supervised"].values
    head, fine_tuned, ours, difference = tables.semi_supervised_table(values)
    assert head == ["", "1 %", "5 %", "10 %"]
    assert fine_tuned[0].endswith(", fine-tuned")
    accuracies = [model["layers"]["5 %"]["accuracy"] for model in (values["model"], values["baselines"][0])]
    expected = 100 * (accuracies[0] - accuracies[1])
    assert float(difference[2].split()[0]) == pytest.approx(expected, abs=0.051)
    assert float(ours[2].strip("*")) - float(fine_tuned[2]) == pytest.approx(expected, abs=0.11)


def test_results_are_grouped_by_table(committed):
    """Fails if a table mixes models, images or baselines that cannot be compared."""
    names = [[result.name.removeprefix("small_") for result in group] for group in tables.groups(committed.values())]
    assert names == [
        ["ablate"],
        ["ablate_corruptions"],
        ["ablate_locality"],
        ["backbone_alexnet", "imagenette128"],  # the same baselines
        ["backbone_mobilenet"],
        ["backbone_resnet18"],
        ["candidates"],
        ["candidates_38"],
        ["candidates_38_default", "candidates_38_repeat"],
        ["candidates_38_voc_lci", "candidates_38_voc_ours"],
        [
            "candidates_38_voc_segmentation_default",
            "candidates_38_voc_segmentation_lci",
            "candidates_38_voc_segmentation_ours",
        ],
        ["candidates_default"],
        [
            "candidates_few_shot_joint",
            "candidates_few_shot_lci",
            "candidates_few_shot_ours",
            "candidates_few_shot_photographs",
        ],
        ["candidates_knn_joint", "candidates_knn_lci", "candidates_knn_ours", "candidates_knn_photographs"],
        ["candidates_seed_2"],
        ["compare"],
        ["imagenette128_few_shot"],
        ["imagenette128_float32"],
        ["imagenette128_knn"],
        ["imagenette128_norepair", "imagenette128_training_statistics"],
        ["semi_supervised"],
        ["shortcuts_joint", "shortcuts_ours", "shortcuts_photographs", "shortcuts_turned"],
        ["spotting_kept30", "spotting_kept70"],
        ["voc_classification"],
        ["voc_detection"],
        ["voc_segmentation"],
        ["speed_comparison"],
        ["speed_cost_small"],
        ["speed_estimate_release"],
        ["speed_extraction"],
        ["speed_loop_small"],
        ["speed_photographs"],
        ["speed_profile_release"],
        ["speed_profile_small"],
        ["speed_release"],
        ["speed_step_release"],
        ["speed_xla"],
    ]
    reverse = [committed["small_spotting_kept70"], committed["small_spotting_kept30"]]
    assert tables.table(reverse)[0] == ["cells kept", "30 %", "70 %"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no table at all", "Received: 0 begin, 0 of them end"),
        ("<!-- table: imagenet -->\n", "Received: 1 begin, 0 of them end"),
        ("<!-- table: imagenet -->\n<!-- table: stl10 -->\n<!-- end -->", "Received: 2 begin, 1 of them end"),
        ("<!-- table:  -->\n<!-- end -->", "unknown table. Received: ''"),
        ("<!-- table: cifar -->\n<!-- end -->", "unknown table. Received: 'cifar'"),
        ("<!-- table: stl10 ours -->\n<!-- end -->", "unknown table. Received: 'stl10 ours'"),
        ("<!-- table: spotting -->\n<!-- end -->", "unknown table. Received: 'spotting'"),
        ("<!-- table: voc ours -->\n<!-- end -->", "needs ours.json with results for a voc table"),
        ("<!-- table: probe other -->\n<!-- end -->", "needs other.json with results for a probe table"),
        ("<!-- table: probe ours theirs -->\n<!-- end -->", "one table cannot hold .* Received: ours, theirs"),
    ],
)
def test_pages_that_cannot_be_filled(text, message):
    """Fails if a wrong mark is passed over in silence."""
    with pytest.raises(ReportError, match=message):
        fill(text, [probe(), probe("theirs", protocol="ridge")])


def test_a_page_may_hold_some_of_the_results():
    """Fails if a page must hold all results that are given."""
    page = "<!-- table: probe ours -->\n<!-- end -->"
    filled, shown = report.fill(page, [probe(), probe("theirs", protocol="ridge")], PUBLISHED)
    assert "**20.0**" in filled
    assert shown == {"ours"}


@pytest.mark.parametrize("content", ["", "{", "\0", "[]", "null", '{"kind": ["a"]}', '{"kind": "tomorrow"}'])
def test_files_without_results_are_refused(tmp_path, content):
    """Fails if a file without a known kind is read."""
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(ReportError, match=r"other\.json (is no JSON|is no results file. Received: kind=)"):
        result_files.load(path)


@pytest.mark.parametrize(
    ("name", "keys", "value"),
    [
        ("small_imagenette128", ["model", "layers", "conv_1", "accuracy"], "x"),
        ("small_imagenette128", ["difference", "conv_1", "interval"], "x"),
        ("small_imagenette128", ["protocol"], 5),
        ("small_imagenette128", ["model", "description"], []),
        ("small_imagenette128", ["dataset", "train_images"], "many"),
        ("small_compare", ["methods", "ours", "difference", "conv_1", "interval"], [1]),
        ("small_compare", ["layers"], 5),
        ("small_voc_classification", ("classes", 1), ["cat"]),
        ("speed_step_release", ("rows", 0, "work"), True),
    ],
)
def test_values_of_another_type_are_one_line(committed, name, keys, value):
    """Fails if a changed results file gives a traceback, or is not named."""
    values = copy.deepcopy(committed[name].values)
    part = values
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    with pytest.raises(ReportError, match=r"changed\.json") as caught:
        report.text([result_files.Results("changed", values)], PUBLISHED)
    assert "\n" not in str(caught.value)


def test_a_missing_field_is_named(committed, tmp_path):
    """Fails if a results file lacks a field and the message does not name it."""
    values = copy.deepcopy(committed["small_imagenette128"].values)
    del values["model"]["layers"]["conv_4"]["accuracy"]
    path = tmp_path / "cut.json"
    path.write_text(json.dumps(values))
    with pytest.raises(ReportError, match=r"cut\.json of kind linear_probe lacks model\.layers\.\*\.accuracy"):
        result_files.load(path)


@pytest.fixture
def run_main(capsys):
    """Return a function that runs the program in this process and returns its output."""

    def run(paths, pages=()):
        arguments = [f"--pages={','.join(map(str, pages))}"] if pages else []
        with flags_of(report, *arguments):
            report.main([str(path) for path in paths])
        return capsys.readouterr().out

    return run


def test_command_prints_tables(run_main, page):
    """Fails if the tables of the results page are not printed."""
    table = page[page.index("| | changed |") :].split("\n\n")[0]
    assert table in run_main([*PATHS, FOLDER / "published.json"])


def test_command_updates_pages(run_main, tmp_path, page):
    """Fails if pages are not updated, or if unused results are not reported."""
    path = tmp_path / "page.md"
    path.write_text(page.replace("| **61.4** |", "| **71.4** |"))
    part = tmp_path / "part.md"
    part.write_text("<!-- table: imagenet -->\n<!-- end -->")
    count = len(report.TABLE.findall(page))
    printed = run_main(PATHS, [path, part])
    assert printed == f"{path}: {count} tables, updated\n{part}: 1 tables, updated\n"
    assert path.read_text() == page
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["page.md", "part.md"]
    printed = run_main(PATHS[:2], [part])
    assert printed == f"{part}: 1 tables, unchanged\nnot in any table: {PATHS[0].stem}, {PATHS[1].stem}\n"


def test_wrong_arguments(run_main, tmp_path):
    """Fails if wrong arguments end without a message, or change a page."""
    path = tmp_path / "page.md"
    path.write_text("<!-- table: imagenet -->\n\n<!-- end -->\n<!-- table: spotting -->\n")
    with pytest.raises(common.UsageError, match="results files are missing"):
        run_main([])
    with pytest.raises(common.UsageError, match="names of results files must differ"):
        run_main([PATHS[0], PATHS[0]], [path])
    with pytest.raises(OSError, match=r"missing\.json"):
        run_main([tmp_path / "missing.json"])
    with pytest.raises(ReportError, match=r"page\.md is no JSON"):
        run_main([path])
    with pytest.raises(ReportError, match="Received: 2 begin"):
        run_main(PATHS[:1], [path])
    assert path.read_text().count("\n") == 4


def test_errors_of_the_command_are_one_line(tmp_path):
    """Fails if an error shows a traceback or the wrong exit status."""
    done = runs.run("experiments.report", str(tmp_path / "missing.json"))
    assert (done.returncode, done.stdout) == (1, "")
    (complaint,) = done.stderr.splitlines()
    assert complaint.startswith("report: ")
    assert "missing.json" in complaint


def test_few_labels_have_rows_by_share():
    """Fails if a share shows the mean, the accuracy or the difference of another share."""

    def records(shift):
        shares = {"1 %": 0.3 + shift, "10 %": 0.5 + shift}
        return {"conv_5": {share: {"accuracy": value, "interval": [0.0, 0.1]} for share, value in shares.items()}}

    config = preset("small").to_dict()
    results = {
        "model": {"path": "a", "description": {"config": config}, "layers": records(0.0)},
        "baselines": [{"path": "b", "description": {"weights": "random", "config": config}}],
        "baseline_mean": records(-0.1),
        "difference": records(0.2),
    }
    rows = tables.few_shot_table([results])
    cells = ["20.0", "**30.0**", "+50.0 [0.0, 10.0]", "40.0", "**50.0**", "+70.0 [0.0, 10.0]"]
    assert [row[1] for row in rows] == ["conv_5", *cells]
    assert rows[1][0].startswith("1 % of the labels: random initialisation")
    assert rows[4][0].startswith("10 % of the labels: ")


def voc(task, value, **changed):
    """Return made-up results of a VOC task under the protocol of its published column."""
    wanted = PUBLISHED["pascal_voc"]["voc_protocols"][task] | changed
    images = {key: wanted[key] for key in ("train_split", "test_split", "train_images", "test_images")}
    record = {"value": value, "interval": [value - 0.01, value + 0.01], "per_class": {}}
    values = {
        "kind": "voc",
        "task": wanted["task"],
        "measure": "mAP",
        "protocol": {"name": wanted["protocol"]},
        "dataset": {"name": "folder:VOC", "train_fingerprint": "a", "test_fingerprint": "b", **images},
        "classes": [str(number) for number in range(wanted["classes"])],
        "models": [{"path": "runs/features", "fingerprint": "1", "description": {}, "baseline": False, **record}],
    }
    return Results(f"ours_{task}", values)


def test_voc_tasks_of_one_model_share_a_row():
    """Fails if the tasks of one model are not compared with the paper in one row."""
    results = [voc("classification", 0.7), voc("segmentation", 0.3)]
    rows = published_tables.published_table(PUBLISHED["pascal_voc"], results)
    assert rows[-2:] == [
        ["**`runs/features`**", "**70.0**", "", "**30.0**"],
        ["difference to the paper's", "+0.2", "", "-8.1"],
    ]
    assert tables.table([results[0]])[1][:2] == ["**`runs/features`**", "**70.0 [69.0, 71.0]**"]


@pytest.mark.parametrize(
    "changed", [{"protocol": "custom"}, {"test_images": 4951}, {"classes": 2}, {"train_split": "train"}]
)
def test_other_voc_results_are_not_compared_with_the_paper(changed):
    """Fails if a VOC task under another protocol or on other images is compared with the paper."""
    results = voc("classification", 0.7, **changed)
    assert not published_tables.matches_protocol(results, PUBLISHED["pascal_voc"])
