"""`evaluate` on a small cache: what it writes, what it refuses, and that its page says what metrics.json says."""

from __future__ import annotations

import json
import re
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from markupsafe import escape

from frozen_cache.cache.reader import CacheReader
from frozen_cache.errors import UserError
from frozen_cache.evaluation import evaluate as evaluation
from frozen_cache.evaluation.ahead import ahead
from frozen_cache.report.data_section import data_section
from frozen_cache.report.page import Facts
from frozen_cache.stages.ablate import ablate
from frozen_cache.stages.evaluate import EvaluateResult, evaluate, write_submission
from frozen_cache.stages.extract import extract_features
from frozen_cache.stages.train import train_head


@pytest.fixture(scope="module")
def cache(fake, tmp_path_factory) -> Path:
    """A cache of seven images."""
    folder = tmp_path_factory.mktemp("cache")
    images, annotations = fake.write_folder(folder / "data")
    extract_features(detector=fake.uneven(), images=images, annotations=annotations, out=folder / "val.zarr")
    return folder / "val.zarr"


@pytest.fixture(scope="module")
def results(cache, tmp_path_factory) -> Path:
    """The filled boxes, evaluated, and beside them another tool's results: every second one of these."""
    folder = tmp_path_factory.mktemp("results")
    evaluate(cache=cache, out=folder / "half", baseline="box")
    file = folder / "half" / "segm_results.json"
    file.write_text(json.dumps(json.loads(file.read_text())[::2]))
    others = [folder / "half", file]
    evaluate(cache=cache, out=folder / "box", baseline="box", others=others)
    return folder / "box"


class Page(HTMLParser):
    """Tags with their attributes, and the text of every table row."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.cell = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.cell = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.cell = False

    def handle_data(self, data):
        if self.cell:
            self.rows[-1][-1] += data


def test_the_page_needs_nothing_from_outside_and_is_readable_without_pictures_or_a_mouse(results):
    text = (results / "report.html").read_text()
    page = Page(text)
    assert "http:" not in text and "https:" not in text and "url(" not in text and "<script" not in text
    for tag, attributes in page.tags:
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/"))
        if tag == "img":
            assert attributes["alt"]
    names = [tag for tag, _ in page.tags]
    assert names.count("h1") == 1 and names.count("h2") >= 5 and "img" in names and "svg" in names
    anchors = {attributes["href"][1:] for tag, attributes in page.tags if tag == "a"}
    assert anchors <= {attributes.get("id") for _, attributes in page.tags}
    assert ("html", {"lang": "en"}) in page.tags
    assert "prefers-color-scheme: dark" in text and "width=device-width" in text


def test_the_page_s_tables_hold_the_numbers_of_metrics_json(results):
    metrics = json.loads((results / "metrics.json").read_text())
    rows = {row[0]: row[1:] for row in reversed(Page((results / "report.html").read_text()).rows)}
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl")
    expected = {key: [metrics[key][name] for name in names] for key in ("segm", "bbox")}

    def shown(values):
        return ["–" if value < 0 else f"{100 * value:.1f}" for value in values]

    assert rows["masks"] == shown(expected["segm"])
    assert rows["boxes"] == shown(expected["bbox"])
    for entry in metrics["classes"]:
        values = [entry["segm"][name] for name in names]
        assert rows[entry["name"]][:7] == [str(entry["objects"]), *shown(values)]
    for kind, count in metrics["mistakes"]["objects"].items():
        assert rows[kind][0] in (str(count), str(metrics["mistakes"]["detections"].get(kind)))
    assert sum(metrics["mistakes"]["objects"].values()) == metrics["of"]["objects"] == 12


def test_metrics_name_what_they_are_of(cache, results):
    of = json.loads((results / "metrics.json").read_text())["of"]
    assert of["name"] == "baseline: filled boxes"
    assert of["cache"] == str(cache)
    assert of["detector"] == "fake"
    assert of["images"] == 7
    assert of["version"]


def test_a_comparison_is_paired_and_reads_folders_and_files_alike(results):
    rows = json.loads((results / "compare.json").read_text())
    assert [row["difference"] is None for row in rows] == [True, False, False]
    assert rows[1]["difference"] == rows[2]["difference"]
    own = json.loads((results / "metrics.json").read_text())["segm"]["AP"]
    assert rows[0]["ap"]["value"] == own
    assert rows[1]["difference"]["value"] == pytest.approx(rows[1]["metrics"]["AP"] - own)
    assert rows[0]["ap"]["low"] <= rows[0]["ap"]["high"]
    page = Page((results / "report.html").read_text())
    head = next(row for row in page.rows if row[0] == "class")
    assert head[-2:] == ["AP, half", "AP, segm_results.json"]
    shown = {row[0]: row[-2:] for row in page.rows if len(row) == len(head)}
    for entry in json.loads((results / "metrics.json").read_text())["classes"]:
        others = [f"{100 * row['classes'][str(entry['id'])]:.1f}" for row in rows[1:]]
        assert shown[entry["name"]] == others


@pytest.mark.parametrize("other", ["nowhere", "text.txt", "list.json", "empty"])
def test_what_cannot_be_compared_with_is_found_before_the_work(cache, tmp_path, monkeypatch, other):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("text")
    (tmp_path / "list.json").write_text("[1]")
    monkeypatch.setattr("frozen_cache.stages.evaluate.evaluate_cache", lambda *_, **__: pytest.fail("it began"))
    with pytest.raises(UserError, match=f"--compare .*{other}"):
        evaluate(cache=cache, out=tmp_path / "out", baseline="box", others=[tmp_path / other])


def test_other_results_are_overwritten_only_when_told(cache, results, tmp_path):
    out = tmp_path / "out"
    evaluate(cache=cache, out=out, baseline="box")
    evaluate(cache=cache, out=out, baseline="box")  # the same once more
    metrics = json.loads((out / "metrics.json").read_text())
    (out / "metrics.json").write_text(json.dumps(metrics | {"of": metrics["of"] | {"name": "head best"}}))
    with pytest.raises(UserError, match=r"head best.*--overwrite"):
        evaluate(cache=cache, out=out, baseline="box")
    assert json.loads((out / "metrics.json").read_text())["of"]["name"] == "head best"
    evaluate(cache=cache, out=out, baseline="box", overwrite=True)
    assert json.loads((out / "metrics.json").read_text()) == metrics


def test_a_place_that_cannot_be_written_is_said_before_the_work(cache, tmp_path, monkeypatch):
    def fails(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_text", fails)
    monkeypatch.setattr("frozen_cache.stages.evaluate.evaluate_cache", lambda *a, **k: pytest.fail("work was done"))
    with pytest.raises(UserError, match=r"cannot be written \(Permission denied\)"):
        evaluate(cache=cache, out=tmp_path / "out", baseline="box")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read"),
        ("{}", "holds no list"),
        ('[{"image_id": 10}]', "entry 0 has no `category_id`"),
        ('[{"image_id": 11, "category_id": 3, "score": 1, "segmentation": {}}]', "image_id 11"),
        ('[{"image_id": 10, "category_id": 4, "score": 1, "segmentation": {}}]', "category_id 4"),
    ],
)
def test_results_of_something_else_are_refused(cache, tmp_path, content, said):
    (tmp_path / "other.json").write_text(content)
    with pytest.raises(UserError, match=said):
        evaluate(cache=cache, out=tmp_path / "out", baseline="box", others=[tmp_path / "other.json"])


def test_a_submission_has_coco_s_name_and_form(cache, tmp_path):
    file = write_submission(cache=cache, out=tmp_path / "out", name="mine-1", head=None, baseline="box")
    assert file.name == "detections_test-dev2017_mine-1_results.zip"
    with zipfile.ZipFile(file) as archive:
        assert archive.namelist() == ["detections_test-dev2017_mine-1_results.json"]
        results = json.loads(archive.read(archive.namelist()[0]))
    assert set(results[0]) == {"image_id", "category_id", "segmentation", "score"}
    assert len(results) == 7 * 6
    with pytest.raises(UserError, match="file name"):
        write_submission(cache=cache, out=tmp_path / "out", name="a/b", head=None, baseline="box")


def test_a_submission_needs_no_ground_truth(cache, fake, tmp_path):
    """COCO's file for test-dev lists images and categories alone: the masks are those that annotated images get."""
    images, annotations = fake.write_folder(tmp_path / "data")
    listed = {key: value for key, value in json.loads(annotations.read_text()).items() if key != "annotations"}
    annotations.write_text(json.dumps(listed))
    bare = tmp_path / "dev.zarr"
    extract_features(detector=fake.uneven(), images=images, annotations=annotations, out=bare, force=True)
    contents = []
    for name, path in (("bare", bare), ("annotated", cache)):
        file = write_submission(cache=path, out=tmp_path / "out", name=name, head=None, baseline="box")
        with zipfile.ZipFile(file) as archive:
            contents.append(json.loads(archive.read(archive.namelist()[0])))
    assert contents[0] == contents[1] and len(contents[0]) == 7 * 6


def test_a_training_and_an_ablation_leave_pages_too(cache, tmp_path):
    small = {"head.width": 16, "head.roi_size": 16, "head.image_width": 16, "head.image_layers": 1}
    small |= {"head.box_layers": 1, "optim.epochs": 1, "optim.batch_size": 4, "loss.points": 16}
    (tmp_path / "grid.toml").write_text(
        "title = 'two <b>'\n[[rows]]\nname = 'a'\n[[rows]]\nname = 'b'\nset = {seed = 1}\n"
    )
    rows = ablate(
        cache=cache, val_cache=cache, grid=str(tmp_path / "grid.toml"), out=tmp_path / "out", overrides=small
    ).rows
    text = (tmp_path / "out" / "report.html").read_text()
    assert "two &lt;b&gt;" in text and "two <b>" not in text
    shown = {row[0]: row for row in Page(text).rows}
    assert [shown[row["variant"]][3] for row in rows] == [f"{100 * row['AP']:.1f}" for row in rows]
    run = (tmp_path / "out" / "variants" / "00-a" / "run" / "report.html").read_text()
    assert "Training loss over steps" in run and "optim.batch_size" in run
    assert "Training loss over steps" in text and text.count("<polyline") == 2
    classes = next(row for row in Page(text).rows if row[:2] == ["class", "objects"])
    assert classes[2:] == [row["variant"] for row in rows]


def test_the_page_of_a_training_shows_classes_pictures_data_and_cost(cache, tmp_path):
    small = {"head.width": 16, "head.roi_size": 16, "head.image_width": 16, "head.image_layers": 1}
    small |= {"head.box_layers": 1, "optim.epochs": 2, "optim.batch_size": 4, "loss.points": 16}
    run = tmp_path / "run"
    trained = train_head(cache=cache, val_cache=cache, out=run, overrides=small)
    assert "report.html" in trained.text() and "report.html" in (run / "README.md").read_text()
    evaluate(cache=cache, head=run / "best.safetensors", out=tmp_path / "results")
    text, other = (folder / "report.html" for folder in (run, tmp_path / "results"))
    text, other = text.read_text(), other.read_text()
    page, evaluated = Page(text), Page(other)
    sections = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert sections == ["validation", "curves", "classes", "precision", "pictures", "data", "made-from"]
    metrics = json.loads((tmp_path / "results" / "metrics.json").read_text())
    classes = {entry["name"] for entry in metrics["classes"] if entry["objects"]}
    # The best checkpoint's values, as evaluate gives them on its own.
    ours, theirs = ({row[0]: row for row in each.rows if len(row) == 10} for each in (page, evaluated))
    assert ours.keys() >= classes and ours == {name: theirs[name] for name in ours}
    attributes = CacheReader(cache).attributes
    names = {entry["id"]: entry["name"] for entry in attributes.categories}
    data = {row[0]: row[1] for row in page.rows if len(row) == 2}
    assert data == {names[at]: str(n) for at, n in attributes.data.counts.per_category.items() if n} | {
        "class": "objects"
    }
    assert text.count("data:image/jpeg;base64,") == 6  # one of the seven images has no object
    for each in (text, other):
        assert "The checks found nothing to repair or to leave out." in each
        assert "multiply-adds" in each and "seconds a view" in each and "loss.points" in each
    assert train_head(cache=cache, out=run, resume=True).steps
    assert (run / "report.html").read_text() == text


def test_what_was_repaired_stands_in_the_page(cache):
    attributes = CacheReader(cache).attributes
    counts = attributes.data.counts.model_copy(update={"repaired_boxes": 1234, "malformed": 5})
    data = attributes.data.model_copy(update={"counts": counts, "missing": (3, 4)})
    section = data_section(attributes.model_copy(update={"data": data}))
    shown = [(number, what) for block in section.blocks if isinstance(block, Facts) for what, number in block.rows]
    assert [number for number, _ in shown] == ["1,234", "5", "2"]
    assert "boxes taken from their masks" in shown[0][1] and "without a file" in shown[2][1]
    assert "nothing" not in section.text


def test_the_ladder_stands_in_metrics_report_and_text(cache, tmp_path):
    result = evaluate(cache=cache, out=tmp_path / "x", baseline="box", ladder=True)
    metrics = json.loads((tmp_path / "x" / "metrics.json").read_text())
    ladder = metrics["ladder"]
    assert ladder["as it is"] == metrics["segm"]
    assert ladder["true masks in the boxes"]["AP"] > metrics["segm"]["AP"]
    text = (tmp_path / "x" / "report.html").read_text()
    rows = {row[0]: row for row in Page(text).rows}
    [plot] = re.findall(r"<svg [^>]*>\s*<title>Mask AP with one thing put right.*?</svg>", text, re.DOTALL)
    for rung, values in ladder.items():
        assert rows[rung][1] == f"{100 * values['AP']:.1f}"
        assert re.search(rf">{re.escape(escape(rung))}</text>.*?>{100 * values['AP']:.1f}</text>", plot, re.DOTALL)
        assert f"{values['AP']:8.3f}  {rung}" in result.table()
    assert rows["boundaries"][1] == f"{100 * metrics['boundary']['AP']:.1f}"
    assert rows["near the edge"][1] == f"{100 * metrics['edge_iou']['near_edge']['all']:.1f}"


def test_a_size_that_no_object_has_is_a_dash(results):
    found = json.loads((results / "metrics.json").read_text())
    found["segm"]["APl"] = -1.0
    lines = EvaluateResult(what="x", metrics=found, summary=found, compared=[]).table().splitlines()
    names, segm = (line.split() for line in lines[1:3])
    assert segm[1:][names.index("APl")] == "–" and "–: there is no object of that size" in lines
    assert not any("-1.000" in line for line in lines)


def test_a_threshold_leaves_out_what_scores_lower(cache, results, tmp_path):
    file = results / "bbox_results.json"
    scores = sorted(found["score"] for found in json.loads(file.read_text()))
    least = scores[len(scores) // 2]
    evaluated = evaluate(cache=cache, out=tmp_path / "out", baseline="box", threshold=least)
    kept = json.loads((tmp_path / "out" / file.name).read_text())
    assert len(kept) == sum(score >= least for score in scores) < len(scores)
    assert evaluated.what.endswith(f", scores from {least:g}")
    assert evaluated.summary["mean_iou"] == json.loads((results / "metrics.json").read_text())["mean_iou"]
    with pytest.raises(UserError, match="--threshold 2"):
        evaluate(cache=cache, out=tmp_path / "out", baseline="box", threshold=2)
    with pytest.raises(UserError, match="--threshold 2"):
        write_submission(cache=cache, out=tmp_path / "sent", name="x", baseline="box", threshold=2)


def test_a_baseline_has_no_precision(cache, tmp_path):
    with pytest.raises(UserError, match="--mixed-precision is for heads"):
        evaluate(cache=cache, out=tmp_path / "out", baseline="box", mixed_precision="bf16")


def test_threads_that_predict_change_no_number(scene_cache, scene_run, tmp_path, monkeypatch):
    asked, before = [], torch.get_num_threads()

    def watched(work, places, *, threads):
        asked.append(threads)
        return ahead(work, places, threads=threads)

    monkeypatch.setattr(evaluation, "ahead", watched)
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            evaluate(cache=scene_cache, out=tmp_path / str(threads), head=scene_run, device="cpu")
    finally:
        torch.set_num_threads(before)
    assert asked == [1, 2]
    for name in ("segm_results.json", "bbox_results.json", "metrics.json"):
        one, two = ((tmp_path / threads / name).read_bytes() for threads in ("1", "2"))
        assert one == two and len(one) > 100
