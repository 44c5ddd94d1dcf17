"""Results -> one HTML file."""

from __future__ import annotations

import ast
import json
import socket
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import tiepoint
from support.pages import NASTY, Page
from support.registered import registration_values
from tiepoint.errors import ConfigError
from tiepoint.images.encoding import write_picture
from tiepoint.reports import html, registrations, report, words
from tiepoint.reports.pieces import Note, Section
from tiepoint.reports.report import make_report
from tiepoint.reports.words import KOREAN, Words
from tiepoint.training.log import CURVES
from tiepoint.weights.checkpoint import locate


def page_of(*sources: Path | str, **options: Any) -> Page:
    made = make_report(sources, **options)
    assert made.failures == () and made.sections > 0
    page = Page(made.page)
    page.check()
    return page


def test_registrations_have_a_table_and_pictures(registered: Path) -> None:
    page = page_of(registered)
    text = page.text
    assert "1 of 2 pairs registered" in text
    assert text.count("a.png → b.png") == 2  # in the table and as a heading
    assert "not registered" in text and "are asked for" in text
    # overlay, residuals and matches of the first, matches of the refused one
    assert len(page.all("img")) == 4
    sources = [image["src"] or "" for image in page.all("img")]
    assert all(one.startswith("data:image/jpeg;base64,/9j/") for one in sources)
    assert tiepoint.__version__ in text and "max_false_alarms" in text


def test_the_overlay_shows_the_aligned_scene(registered: Path) -> None:
    """Aligned, red and cyan are the same; a transform that is off leaves fringes."""
    import base64

    def fringes(file: Path) -> float:
        first = page_of(file).all("img")[0]["src"] or ""
        data = np.frombuffer(base64.b64decode(first.partition(",")[2]), np.uint8)
        pixels = cv2.imdecode(data, cv2.IMREAD_COLOR).astype(int)
        return float(np.abs(pixels[100:300, 150:400, 0] - pixels[100:300, 150:400, 2]).mean())

    aligned = fringes(registered)
    values = json.loads(registered.read_text().splitlines()[0])
    values["matrix"][0][2] += 8
    off = registered.with_name("off.json")
    off.write_text(json.dumps(values))
    assert aligned < 8 < fringes(off) / 2


def test_without_points_the_overlay_remains_and_a_note_names_the_option(
    scene: Path, tmp_path: Path
) -> None:
    file = tmp_path / "one.json"
    names = str(scene / "a.png"), str(scene / "b.png")
    file.write_text(json.dumps(registration_values(*names, points=False)))
    page = page_of(file)
    assert len(page.all("img")) == 1 and "--points" in page.text
    assert len(page_of(file, pictures=False).all("img")) == 0


def test_images_are_found_next_to_the_file(scene: Path) -> None:
    file = scene / "here.json"
    file.write_text(json.dumps(registration_values("a.png", "b.png")))
    assert len(page_of(file).all("img")) == 3


def test_an_image_of_another_size_or_none_leaves_a_note(scene: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.png"
    write_picture(small, np.zeros((20, 30), np.uint8))
    for name in (str(small), "missing.png"):
        file = tmp_path / "one.json"
        file.write_text(json.dumps(registration_values(name, str(scene / "b.png"))))
        page = page_of(file)
        assert page.all("img") == [] and "No pictures" in page.text


def test_no_url_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a report opened a connection")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    file = tmp_path / "one.json"
    file.write_text(json.dumps(registration_values("http://localhost:9/a.png", "b.png")))
    page = page_of(file)
    assert page.all("img") == [] and "http://localhost:9/a.png" in page.text


def test_two_view_models_have_matches_and_no_overlay(scene: Path, tmp_path: Path) -> None:
    file = tmp_path / "one.json"
    values = registration_values(str(scene / "a.png"), str(scene / "b.png"))
    values |= {"model": "fundamental", "overlap_sd_px": None, "agreement": None}
    file.write_text(json.dumps(values))
    assert len(page_of(file).all("img")) == 1


def test_names_of_files_are_text(scene: Path, tmp_path: Path, store: Path) -> None:
    odd = tmp_path / NASTY.replace("/", "_")
    odd.write_bytes((scene / "a.png").read_bytes())
    file = tmp_path / "<img src=x onerror=alert(2)>.json"
    file.write_text(json.dumps(registration_values(str(odd), str(scene / "b.png"))))
    made = make_report([file, store, tmp_path / NASTY], title="<b>title</b>\x00\x1b")
    page = Page(made.page)
    page.check()
    assert b"<script" not in made.page and b"onerror=alert(2)>" not in made.page.replace(
        b"onerror=alert(2)&gt;", b""
    )
    assert odd.name in page.text and "<img src=x onerror=alert(2)>.json" in page.text
    assert "<b>title</b>" in page.text and b"\x00" not in made.page and b"\x1b" not in made.page


def test_names_that_are_no_unicode_do_not_end_the_report(tmp_path: Path) -> None:
    made = make_report([str(tmp_path / "bad\udcff.json")])
    assert made.sections == 0 and "bad\\udcff.json" in Page(made.page).text


def test_a_comparison_has_its_methods_and_reasons(compared: Path) -> None:
    page = page_of(compared)
    assert "Comparison of methods: a.png → b.png" in page.text
    assert "neither a bundled name" in page.text and "detection, ms" in page.text
    assert "1 of 2 methods registered the images" in page.text


def test_an_evaluation_has_table_plot_worst_pairs_and_failures(evaluated: Path) -> None:
    page = page_of(evaluated)
    text = page.text
    rows = [t for place, t in page.texts if place == "th"]
    assert {"sift", "orb", "within 3 px", "AUC 3 px"} <= set(rows)
    assert "Share of 2 pairs within an error" in text and "Largest errors of sift" in text
    assert "pair 2" in text  # the failure
    assert "0123abcd" in text and "magsac_iterations" in text
    assert len([one for one in page.all("path") if one["class"] == "k1"]) == 2  # curve and legend


def test_a_run_has_its_curves_and_held_out_pairs(run: Path) -> None:
    page = page_of(run)
    titles = [text for place, text in page.texts if place == "figcaption"]
    assert "descriptor loss (nats)" in titles and "match accuracy, cosines" in titles
    text = page.text
    assert "finished" in text and "Held-out pairs at step 100" in text and "0.62" in text
    manifest = json.loads((run / "checkpoint" / "manifest.json").read_text())
    assert manifest["sha256"] in text and manifest["commit"] in text
    assert "15937" in text


def test_a_checkpoint_without_a_log_is_a_run(tmp_path: Path) -> None:
    text = page_of(Path(locate("base"))).text
    assert "The run has no log yet." in text and "preset" in text


def test_a_store_has_counts_and_failures(store: Path) -> None:
    text = page_of(store).text
    assert "with failures" in text and "5 images" not in text
    assert "3 images, failures: 1" in text
    assert NASTY.replace("/", "_") in text and "only with --retry-failed" in text


def test_bad_sources_are_listed_with_their_reasons(registered: Path, tmp_path: Path) -> None:
    damaged = json.loads(registered.read_text().splitlines()[0])
    damaged["matrix"] = [1]
    contents = {
        "empty.json": "", "text.txt": "hello", "other.json": '{"a": 1}',
        "damaged.json": json.dumps(damaged), "list.json": "[1, 2]",
        "eval.json": '{"rows": [{}], "methods": {}, "pairs": [], "failures": []}',
        "compare.json": '{"kind": "comparison", "methods": [{}]}', "deep.json": "[" * 100_000,
    }  # fmt: skip
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "folder").mkdir()
    names = [*contents, "binary.json", "folder", "missing.json"]
    made = make_report([registered, *(tmp_path / name for name in names)])
    assert made.sections == 1
    assert [Path(source).name for source, _ in made.failures] == names
    page = Page(made.page)
    page.check()
    for _, reason in made.failures:
        assert len(reason) > 30 and reason[:500] in page.text


def test_a_damaged_line_leaves_the_other_pairs(registered: Path) -> None:
    first, last = registered.read_text().splitlines()
    registered.write_text(f'{first}\n{{"a": 1}}\n{last}\n')
    made = make_report([registered])
    assert made.sections == 1 and "1 of 2 pairs registered" in Page(made.page).text
    assert [reason.split(": ")[1] for _, reason in made.failures] == ["object 2"]


@pytest.mark.parametrize(
    "matrix",
    [
        [[1, 0, 0], [0, 1, 0], [-0.01, 0, 1]],  # the horizon runs through A
        [[1, 0, 1e9], [0, 1, 1e9], [0, 0, 1]],  # far outside of OpenCV's coordinates
    ],
)
def test_a_record_that_cannot_be_drawn_leaves_the_other_pairs(
    registered: Path, matrix: list[list[float]]
) -> None:
    first, last = map(json.loads, registered.read_text().splitlines())
    lines = {**first, "matrix": matrix}, last
    registered.write_text("".join(f"{json.dumps(one)}\n" for one in lines))
    assert "1 of 2 pairs registered" in page_of(registered).text


def test_results_that_cannot_be_plotted_are_listed(evaluated: Path, run: Path) -> None:
    values = json.loads(evaluated.read_text())
    other = evaluated.with_name("other.json")
    other.write_text(json.dumps({**values, "methods": {"another": {}}}))
    lines = [{"step": 1, "detector": 1e308}, {"step": 2, "detector": -1e308}]
    (run / "log.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in lines))
    made = make_report([evaluated, other, run])
    assert made.sections == 1 and [Path(name) for name, _ in made.failures] == [other, run]


def test_a_store_whose_provenance_is_not_known_is_shown(store: Path) -> None:
    manifest = json.loads((store / "manifest.json").read_text())
    manifest["provenance"] |= {"checkpoint": None, "weights_sha256": None, "precision": None}
    (store / "manifest.json").write_text(json.dumps(manifest))
    assert "Store of features" in page_of(store).text


def test_a_log_of_other_values_is_listed(run: Path) -> None:
    (run / "log.jsonl").write_text(
        '{"step": 1, "benchmark": {"sift": 3}}\n{"step": 2, "loss": []}\n'
    )
    page_of(run)
    (run / "log.jsonl").write_bytes(b"\xff\xff")
    made = make_report([run])
    assert made.sections == 0 and "not the log of a run" in made.failures[0][1]


def test_a_run_with_a_damaged_manifest_is_listed(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("[]")
    made = make_report([tmp_path])
    assert made.sections == 0 and "expected a JSON object" in made.failures[0][1]


def test_korean_pages_have_no_english_of_their_own(
    registered: Path, compared: Path, evaluated: Path, store: Path, run: Path
) -> None:
    sources = registered, compared, evaluated, store, run
    page = page_of(*sources, language="ko")
    assert page.all("html")[0]["lang"] == "ko"
    headings = [text for place, text in page.texts if place in ("caption", "summary", "h4")]
    assert headings and all(any("가" <= one <= "힣" for one in text) for text in headings)
    assert "정합되지 않음" in page.text
    english = [one for one in page.all("span") if one.get("lang") == "en"]
    assert english  # the reasons
    with pytest.raises(ConfigError, match="language"):
        make_report([registered], language="de")  # type: ignore[arg-type]


def constants() -> tuple[set[str], set[str]]:
    """All texts in the package but the keys of KOREAN, and those that `words(...)` gets."""
    texts, translated = set(), set()
    for file in Path(report.__file__).parent.glob("*.py"):
        if file == Path(words.__file__):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.add(node.value)
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "words":
                translated |= {one.value for one in node.args if isinstance(one, ast.Constant)}
    return texts, translated


def test_every_text_has_a_korean_one_with_the_same_values() -> None:
    texts, translated = constants()
    titles = {title for title, _ in CURVES}
    assert len(translated) > 60 and (translated | titles) - set(KOREAN) == set()
    assert set(KOREAN) - texts - titles == set()  # nothing is translated in vain

    def values(text: str) -> list[str]:
        return sorted(part.partition("}")[0] for part in text.split("{")[1:])

    assert [one for one, korean in KOREAN.items() if values(one) != values(korean)] == []


def test_a_thousand_pairs_stay_small(scene: Path, tmp_path: Path) -> None:
    values = registration_values(str(scene / "a.png"), str(scene / "b.png"))
    line = json.dumps(values) + "\n"
    file = tmp_path / "many.jsonl"
    file.write_text(line * (registrations.MOST_ROWS + 5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registrations, "MOST_PICTURE_BYTES", 600_000)
        made = make_report([file])
    page = Page(made.page)
    assert len(made.page) < 600_000 * 1.34 + 250_000 * 1.34 + 2_000_000
    assert "5 more rows are left out." in page.text
    drawn = len(page.all("img")) // 3
    left_out = registrations.MOST_ROWS + 5 - drawn
    assert 1 <= drawn < 20 and f"Pictures of {left_out} more pairs are left out" in page.text


def test_a_page_never_exceeds_its_limit() -> None:
    long = [Section(f"section {number}", [Note("x" * 500)] * 2000) for number in range(20)]
    page = html.page("title", "byline", long, Words())
    assert len(page) <= html.MOST_BYTES
    text = Page(page).text
    assert "section 19" in text and "Left out, because the page would be larger" in text


def test_many_sources_are_bounded(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MOST_SOURCES", 3)
    made = make_report([run] * 5)
    assert made.sections == 3 and "2 more sources are left out" in Page(made.page).text


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_are_readable(scheme: str) -> None:
    """WCAG 2.1 AA: a contrast of 4.5 for text, in both schemes."""
    css = (Path(report.__file__).parent / "report.css").read_text(encoding="utf-8")
    blocks = css.split(":root {")[1:3]
    block = blocks[scheme == "dark"].split("}")[0]
    colours = dict(
        part.strip().removeprefix("--").split(": ")
        for part in block.split(";")
        if part.strip().startswith("--")
    )

    def luminance(colour: str) -> float:
        channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(
            channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
        )
        return float(linear @ [0.2126, 0.7152, 0.0722])

    def contrast(one: str, other: str) -> float:
        low, high = sorted(luminance(colours[name]) for name in (one, other))
        return (high + 0.05) / (low + 0.05)

    pairs = [(name, "page") for name in ("text", "soft", "link", *(f"c{i}" for i in range(6)))]
    pairs += [("good", "good-band"), ("bad", "bad-band"), ("soft", "band")]
    assert [pair for pair in pairs if contrast(*pair) < 4.5] == []
