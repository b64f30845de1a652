"""The typed numbers keep the rules, and agree with the gains that their sources print."""

import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from report_records import make_record

from mtvision.core.naming import UnknownNameError
from mtvision.metrics.gain import gain
from mtvision.protocols import PROTOCOLS, get_protocol
from mtvision.protocols.tasks import normals
from mtvision.report import published
from mtvision.report.compare import ONE_SEED, OTHER_TOOL, OUTSIDE, WITHIN, compare, render_comparison
from mtvision.report.published import (
    CERTAINTIES,
    backbone_name,
    check_published,
    published_records,
    published_rows,
)
from mtvision.report.schema_check import violations
from mtvision.report.table import MixedRecordsError, render_table

TABLES = sorted({row.protocol for row in published_rows()})


def find(protocol, method, backbone, provenance="paper"):
    rows = [row for row in published_rows(protocol) if (row.method, row.backbone) == (method, backbone)]
    return next(row for row in rows if row.provenance == provenance)


def test_every_published_row_keeps_the_rules():
    assert check_published() == []
    assert len(published_rows()) == 182


def test_units_are_those_of_records():
    row = find("nyud-invpt", "InvPT", "ViT-L")
    assert row.scores["semseg"]["miou"] == pytest.approx(0.5356)
    assert row.scores["depth"]["rmse"] == 0.5183
    assert row.scores["normals"]["mean"] == 19.04
    assert row.scores["edge"]["odsF"] == pytest.approx(0.781)
    assert (row.parameters, row.macs) == (pytest.approx(402.1e6), pytest.approx(555.6e9))
    assert row.source.startswith("README of prismformore/Multi-Task-Transformer")


FIELD = [  # what the systems' own READMEs print: one row a protocol, method and backbone
    ("nyud-invpt", "DeMTG", "Swin-T", [47.20, 0.5660, 20.15, 77.2], "atrc"),
    ("nyud-invpt", "DeMTG", "Swin-S", [52.23, 0.5599, 20.05, 78.4], "atrc"),
    ("nyud-invpt", "DeMTG", "Swin-B", [54.45, 0.5228, 19.33, 78.6], "atrc"),
    ("nyud-invpt", "DeMTG", "Swin-L", [57.55, 0.5037, 19.21, 79.0], "atrc"),
    ("nyud-invpt", "PRISM", "ViT-B", [60.22, 0.4883, 17.81, 76.59], "mtdp"),
    ("nyud-invpt", "SAK", "ViT-B", [59.93, 0.4942, 17.60, 78.60], "mtdp"),
    ("nyud-invpt", "M2H", "DINOv2", [61.54, 0.4196, 13.81, 85.27], "unknown"),
    ("nyud-invpt", "M2H-small", "DINOv2", [58.05, 0.4396, 14.04, 74.44], "unknown"),
    ("nyud-invpt", "TaskDiffusion", "ViT-L", [55.65, 0.5020, 18.43, 78.64], "protocol"),
    ("nyud-invpt", "TaskDiffusion + MLoRE", "ViT-L", [56.66, 0.5033, 18.13, 78.89], "protocol"),
    ("nyud-invpt", "BridgeNet", "InternImage-L", [56.75, 0.4627, 17.31], "protocol"),
    ("nyud-invpt", "TSP-Transformer", "ViT-L", [55.39, 0.4961, 18.44, 77.50], "unknown"),
    ("pascal-invpt", "DeMTG", "Swin-T", [69.44, 58.02, 83.31, 14.31, 71.2], "atrc"),
    ("pascal-invpt", "DeMTG", "Swin-S", [71.54, 61.49, 83.70, 14.90, 72.2], "atrc"),
    ("pascal-invpt", "DeMTG", "Swin-B", [75.37, 64.82, 83.75, 14.22, 73.0], "atrc"),
    ("pascal-invpt", "DeMTG", "Swin-L", [78.54, 67.42, 83.74, 14.17, 74.9], "atrc"),
    ("pascal-invpt", "PRISM", "ViT-L", [84.34, 77.83, 84.67, 13.43, 76.23], "mtdp"),
    ("pascal-invpt", "SAK", "ViT-L", [84.01, 76.99, 84.65, 13.82, 76.27], "mtdp"),
    ("pascal-invpt", "TaskDiffusion", "ViT-L", [81.21, 69.62, 84.94, 13.55, 74.89], "protocol"),
    ("pascal-invpt", "TaskDiffusion + MLoRE", "ViT-L", [81.58, 71.30, 85.05, 13.43, 76.07], "protocol"),
    ("pascal-invpt", "BridgeNet", "InternImage-L", [80.08, 72.36, 85.40, 13.25], "protocol"),
    ("pascal-invpt", "TSP-Transformer", "ViT-L", [81.48, 70.64, 84.86, 13.69, 74.80], "unknown"),
]


@pytest.mark.parametrize(("protocol", "method", "backbone", "printed", "edge_tool"), FIELD)
def test_systems_of_the_last_years_are_listed(protocol, method, backbone, printed, edge_tool):
    row = find(protocol, method, backbone, "released" if method == "BridgeNet" else "paper")
    tasks = [task for task in PROTOCOLS[protocol].tasks if task.name in row.scores]
    values = [row.scores[task.name][task.headline] for task in tasks]
    factors = [100 if task.headline in ("miou", "maxF", "odsF") else 1 for task in tasks]
    assert [value * factor for value, factor in zip(values, factors, strict=True)] == pytest.approx(printed)
    assert (row.certainty, row.evaluator("edge")) == ("stated", edge_tool)
    assert row.source.startswith("README of")


# The tables of Nash-MTL and PRISM print scores and gains; but for two rows (see their notes) they agree, and
# so check the typed numbers as well as the conventions of the gain.
ODD = {"IMTL-G": -0.60, "PRISM": 2.52}


@pytest.mark.parametrize("row", published_rows("nyuv2-mtan"), ids=lambda row: row.method)
def test_printed_gains_follow_from_printed_scores_nash_mtl(row):
    base = find("nyuv2-mtan", "single-task", "SegNet")
    found = gain(PROTOCOLS["nyuv2-mtan"].tasks, row.scores, base.scores, "metrics")
    assert found.percent == pytest.approx(ODD.get(row.method, row.gain["percent"]), abs=0.02)
    assert (row.method in ODD) == ("the printed scores give a gain of" in row.note)


PRISM = [row for row in published_rows("pascal-invpt") if row.gain]


@pytest.mark.parametrize("row", PRISM, ids=lambda row: row.method)
def test_printed_gains_follow_from_printed_scores_prism(row):
    base = find("pascal-invpt", "single-task", "ViT-B")
    found = gain(PROTOCOLS["pascal-invpt"].tasks, row.scores, base.scores)
    assert found.percent == pytest.approx(ODD.get(row.method, row.gain["percent"]), abs=0.02)
    assert (row.method in ODD) == ("the printed scores give a gain of" in row.note)


SURVEY = [
    ("pascal-survey", "HRNet18", "MTI-Net"), ("pascal-survey", "HRNet18", "multi-task baseline"),
    ("pascal-survey", "R18", "multi-task baseline"), ("pascal-survey", "R18", "Cross-Stitch"),
    ("nyud-survey", "HRNet18", "MTI-Net"), ("nyud-survey", "HRNet18", "MTI-Net (+ edge and normals)"),
    ("nyud-survey", "R50", "MTAN"), ("nyud-survey", "R50", "multi-task baseline"),
]  # fmt: skip


@pytest.mark.parametrize(("protocol", "backbone", "method"), SURVEY)
def test_printed_gains_follow_from_printed_scores_survey(protocol, backbone, method):
    row, base = find(protocol, method, backbone), find(protocol, "single-task", backbone)
    tasks = [task for task in PROTOCOLS[protocol].tasks if task.name in row.scores]
    # scores with one decimal: rounding moves each relative change by up to 0.3 points
    assert gain(tasks, row.scores, base.scores).percent == pytest.approx(row.gain["percent"], abs=0.3)


RMSE = re.compile(r"its normals are an RMSE, ([\d.]+)")
ADAPTED = [row for row in published_rows() if RMSE.match(row.note)]


@pytest.mark.parametrize("row", ADAPTED, ids=lambda row: f"{row.protocol} {row.method}")
def test_printed_gains_follow_from_printed_scores_low_rank(row):
    def numbers(item):
        return {**item.scores, "normals": {"mean": float(RMSE.match(item.note)[1])}}

    base = find(row.protocol, "single-task", "Swin-T")
    tasks = [task for task in PROTOCOLS[row.protocol].tasks if task.name in numbers(row)]
    tasks += [] if "normals" in {task.name for task in tasks} else [normals()]
    odd = re.search(r"the printed scores give a gain of ([\d.]+)", row.note)
    expected = float(odd[1]) if odd else row.gain["percent"]
    assert gain(tasks, numbers(row), numbers(base)).percent == pytest.approx(expected, abs=0.02)


def test_trained_parameters_are_printed_where_they_are_all_that_is_known():
    records = published_records("pascal-survey", CERTAINTIES)
    (mtlora,) = [item for item in records if item.method == "MTLoRA (rank 64) (second-hand)"]
    assert mtlora.cost["parameters"] == {"trainable": 8_340_000}
    text = render_table(records, "markdown", mixed="mark", columns=["method", "parameters", "trainable"])
    assert "| MTLoRA (rank 64) (second-hand) |  | 8.34 |" in text
    assert "| trained M |" in render_table(records, "markdown", mixed="mark")


def test_baselines_of_protocols_are_the_published_single_task_rows():
    for protocol, backbone in (("nyud-invpt", "ViT-B"), ("pascal-invpt", "ViT-B"), ("pascal-invpt", "ViT-L")):
        row = find(protocol, "single-task", backbone)
        base = next(value for name, value in PROTOCOLS[protocol].baselines.items() if backbone in name)
        for task in get_protocol(protocol).tasks:
            assert row.scores[task.name][task.headline] == pytest.approx(base[task.name], abs=1e-9)


def test_unsure_numbers_are_left_out_unless_asked_for():
    stated = published_rows("nyud-invpt", ("stated",))
    assert {row.certainty for row in stated} == {"stated"}
    assert "MTMamba" not in {row.method for row in stated}
    second = {row.method: row for row in published_rows("nyud-invpt", ("stated", "second-hand"))}
    assert "normals" not in second["MTMamba"].scores  # that one value is from memory
    assert find("nyud-invpt", "MTMamba", "Swin-L").scores["normals"]["mean"] == 18.63
    with pytest.raises(UnknownNameError, match="Unknown certainty 'sure'"):
        published_rows(certainties=("sure",))


@pytest.mark.parametrize("protocol", TABLES)
def test_published_rows_are_valid_records(protocol):
    records = published_records(protocol, CERTAINTIES)
    assert records
    assert [problem for record in records for problem in violations(record.to_json())] == []


def test_public_tables_label_what_is_unsure():
    text = render_table(published_records("nyud-invpt", CERTAINTIES), "markdown", mixed="mark")
    assert "| MTMamba (second-hand) | Swin-L |" in text
    assert "18.63‡" in text
    assert "MTMamba" not in render_table(published_records("nyud-invpt"), "markdown", mixed="mark")


def test_published_evaluators_do_not_mix_silently():
    with pytest.raises(MixedRecordsError, match=r"semseg/miou: scores of 2 evaluators"):
        render_table(published_records("nyud-invpt"))
    text = render_table(published_records("nyud-invpt"), "markdown", mixed="mark")
    assert "85.27†" in text  # the highest of all, by an unknown evaluator, is not the best
    assert "**78.89**" in text


def changed(**changes):
    """The file with one row of NYUD replaced."""
    data = yaml.safe_load(Path(published.__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    data["tables"] = [table for table in data["tables"] if table["protocol"] == "nyud-invpt"]
    data["tables"][0]["rows"] = [{**data["tables"][0]["rows"][1], **changes}]
    return published_rows(data=data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": [5356, 0.5183, 19.04, 78.1]}, "semseg/miou is 53.56, outside 0.05 to 0.95; wrong column"),
        ({"scores": [53.56, 19.04, 0.5183, 78.1]}, "depth/rmse is 19.04, outside"),
        ({"scores": [53.56, 0.5183, 19.04, 85]}, "edge/odsF is 0.85, outside the usual 0.74 to 0.8, yet"),
        ({"certainty": "sure"}, "certainty 'sure'"),
        ({"provenance": "ours"}, "provenance 'ours', expected paper or released"),
    ],
)  # fmt: skip
def test_rules_catch_typing_errors(changes, message):
    found = check_published(changed_rows(changes))
    assert any(message in problem for problem in found), found


def changed_rows(changes):
    base = changed(**{key: value for key, value in changes.items() if key == "scores"})[0]
    return [replace(base, **{key: value for key, value in changes.items() if key != "scores"})]


def test_rules_catch_unknown_names_and_repetition():
    row = changed()[0]
    assert "no protocol has this id" in check_published([replace(row, protocol="nyud")])[0]
    assert "no task 'parts'" in check_published([replace(row, scores={"parts": {"miou": 0.5}})])[0]
    assert "without evaluator" in check_published([replace(row, evaluators={})])[0]
    assert "occurs 2 times" in check_published([row, row])[0]


def test_a_row_needs_a_score_per_column_and_a_known_source():
    with pytest.raises(ValueError, match="3 scores for 4 columns; write null"):
        changed(scores=[1, 2, 3])
    with pytest.raises(UnknownNameError, match="Unknown source 'invtp'. Did you mean 'invpt'"):
        changed(source="invtp")
    with pytest.raises(UnknownNameError, match="Unknown published table 'nyud-invtp'"):
        published_rows("nyud-invtp")


def test_backbone_names():
    assert backbone_name("vit_large_patch16_384.augreg_in21k_ft_in1k") == "ViT-L"
    assert backbone_name("swin_large_patch4_window12_384") == "Swin-L"
    assert backbone_name("tiny") == "tiny"


def reproduced(values, **changes):
    runs = [make_record(value, seed=seed, method="invpt", **changes) for seed, value in enumerate(values)]
    return [replace(run, protocol="nyud-invpt", backbone="vit_large_patch16_384") for run in runs]


def test_differences_and_their_sign():
    rows = [find("nyud-invpt", "InvPT", "ViT-L")]
    found = {(item.task, item.score): item for item in compare(reproduced([0.55]), rows)}
    semseg, depth = found["semseg", "miou"], found["depth", "rmse"]
    assert semseg.gain == pytest.approx(0.55 - 0.5356)
    assert depth.gain == pytest.approx(0.5183 - 0.6)  # a larger error is worse
    assert semseg.verdict == ONE_SEED
    assert set(found) == {("semseg", "miou"), ("depth", "rmse")}  # what both have


def test_verdict_is_a_prediction_interval():
    rows = [find("nyud-invpt", "InvPT", "ViT-L")]
    values = [0.51, 0.52, 0.53]
    width = 4.302652729911275 * 0.01 * math.sqrt(4 / 3)  # t(0.975, 2) = 4.3027
    for published_value, verdict in ((0.52 + 0.99 * width, WITHIN), (0.52 + 1.01 * width, OUTSIDE)):
        row = replace(rows[0], scores={"semseg": {"miou": published_value}})
        [found] = compare(reproduced(values), [row])
        assert (found.verdict, found.count) == (verdict, 3)
        assert found.std == pytest.approx(0.01)


def test_other_evaluators_get_no_verdict():
    row = replace(find("nyud-invpt", "InvPT", "ViT-L"), evaluators={"semseg": "unknown"})
    verdicts = {item.task: item.verdict for item in compare(reproduced([0.5, 0.5]), [row])}
    assert verdicts["semseg"] == OTHER_TOOL


def test_only_the_same_protocol_method_and_backbone_compare():
    rows = published_rows("nyud-invpt")
    assert compare([replace(item, protocol="pascal-invpt") for item in reproduced([0.5])], rows) == []
    assert compare([replace(item, backbone="resnet18") for item in reproduced([0.5])], rows) == []
    found = {item.published for item in compare(reproduced([0.5]), rows) if item.task == "depth"}
    assert found == {0.5183, 0.5083}  # the paper's and the released checkpoint's
    renamed = [replace(item, method="mine") for item in reproduced([0.5])]
    assert compare(renamed, rows, {"Mine": "InvPT"})


def test_comparison_as_text():
    rows = [find("nyud-invpt", "InvPT", "ViT-L")]
    text = render_comparison(reproduced([0.51, 0.52, 0.53]), rows, "markdown")
    assert "| InvPT | ViT-L | semseg mIoU | 53.56 | 52.00 ± 1.00 | 3 | -1.56 |" in text
    assert "within seed noise | stated |" in text
    with pytest.raises(ValueError, match="nothing published matches invpt / tiny"):
        render_comparison([replace(item, backbone="tiny") for item in reproduced([0.5])], rows)


def test_importing_needs_no_protocol():
    code = (
        "import sys, mtvision.report.published, mtvision.report.compare\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'mtvision.protocols', 'scipy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
