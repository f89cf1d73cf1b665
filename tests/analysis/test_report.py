"""A report says what its run shows, in the run's own figures; what is missing is said; nothing comes from outside."""

from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from analysis.composition import Recipe, balance
from analysis.eds import compare
from analysis.heights import height_profile
from analysis.measure import phase_fractions
from analysis.pairs import OpenPores
from analysis.phases import merged
from analysis.reliability import Reliability
from analysis.report import (
    COOPER_2022,
    Activity,
    Check,
    Comparison,
    Decision,
    Eds,
    Pair,
    Picture,
    RealMicrograph,
    ReportData,
    SliceRow,
    Stage,
    build,
    render,
)
from tests.analysis.drawn import drawn
from tests.analysis.mapped import mapped

PIXEL = 60e-9
VOID = {"meta", "img", "br", "path", "circle", "rect", "polyline", "polygon"}


class _Page(HTMLParser):
    """Collects what a page holds, and checks that every tag is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict[str, str]] = []
        self.words: list[str] = []
        self.sources: list[str] = []
        self.plots = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.sources += [values[name] for name in ("src", "href", "srcset", "action") if name in values]
        if tag == "img":
            self.images.append(values)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def _rows() -> list[SliceRow]:
    return [
        SliceRow(
            name=f"s{k + 1:04d}",
            z_m=k * 100e-9 + (3e-9 if k % 2 else 0.0),
            z_sigma_m=4e-9,
            thickness_m=100e-9 if k else None,
            fractions={"pore": 0.2 - 0.004 * (k % 5), "cbd": 0.1 + 0.004 * (k % 5), "active": 0.7},
            truth_fractions={"pore": 0.2, "cbd": 0.1, "active": 0.7},
            unfilled_share=0.06 * (k % 5),
            fill_before=k % 5 == 0,
            fill_age_m=(k % 5) * 100e-9,
            film_fraction=0.001,
            confidence=0.93,
            doubt=0.02,
        )
        for k in range(12)
    ]


@pytest.fixture(scope="module")
def full() -> ReportData:
    face = drawn(3, (260, 340), PIXEL)
    labels = merged(face.fine)
    worse = labels.copy()
    worse[:, :170][labels[:, :170] == 1] = 2  # without platinum, pores on the left are taken for binder
    picture = Picture(image=face.channels["CBS"], pixel_m=PIXEL, labels=labels)
    element_map = mapped(labels, PIXEL, 100e-9, (140, 190))
    fractions = phase_fractions([labels, labels], PIXEL)
    return ReportData(
        title="Night <one> & only",
        virtual=True,
        instrument="simulator:3",
        sample="NMC",
        recipe="steps: [<none>]",
        stages=[
            Stage(letter="b", name="Cap", picture=picture),
            Stage(letter="c", name="Block", picture=None),
            Stage(letter="d", name="Face under platinum", picture=picture),
        ],
        pairs=[
            Pair(
                name="first fill",
                before=Picture(image=face.channels["CBS"], pixel_m=PIXEL, labels=worse),
                after=picture,
                before_fractions={"pore": 0.11, "cbd": 0.17, "active": 0.72},
                after_fractions={"pore": 0.18, "cbd": 0.10, "active": 0.72},
                truth_fractions={"pore": 0.17, "cbd": 0.105, "active": 0.725},
                gap_m=31e-9,
            )
        ],
        open_pores=OpenPores(pairs=1, pixels=900, missed=0.15, taken_for={"cbd": 0.09, "active": 0.06, "outside": 0.0}),
        reliability=[
            Reliability(confidence=0.6, right=0.5, share=0.2),
            Reliability(confidence=0.9, right=0.9, share=0.8),
        ],
        rows=_rows(),
        refill_threshold=0.2,
        comparison=Comparison(label="same seed, refills off", z_m=[0, 1e-6], unfilled_share=[0.0, 0.6]),
        decisions=[
            Decision(slice="s0005", evidence="s0004", value=0.24, threshold=0.2, outcome="fill", reason="two in a row"),
            *[
                Decision(slice=f"s{k:04d}", evidence=None, value=None, threshold=0.2, outcome="go on")
                for k in range(6, 14)
            ],
        ],
        real=RealMicrograph(
            picture=Picture(image=face.channels["CBS"], pixel_m=186e-9, labels=labels, caption="Published"),
            scores={"mean IoU": 0.81},
            others={"multi-Otsu": 0.63},
        ),
        activities=[
            Activity(kind="block", start_s=0, seconds=3600, name="trenches"),
            Activity(kind="films", start_s=3600, seconds=1800),
            Activity(kind="something new", start_s=5400, seconds=600),
        ],
        wall_s=141,
        hydra_s={"block": 7200, "films": 3600, "slicing": 1320},
        gallery=[picture],
        fractions=fractions,
        profile=height_profile([labels], PIXEL),
        particle_m=5e-6,
        eds=Eds(result=compare(element_map, labels, PIXEL), element_map=element_map, slice="s0010"),
        balance=balance(fractions.phases, Recipe(active=0.96, carbon=0.02, binder=0.02)),
        checks=[
            Check(name="fiducial", value="0.87", limit="0.75", kept=True),
            Check(name="drift", value="12", kept=False),
        ],
        model_id="kintsugi-unet-0123",
        notes=["A note."],
        versions={"numpy": "2"},
    )


@pytest.fixture(scope="module")
def page(full: ReportData) -> _Page:
    return _Page(render(full, width_px=320))


def test_it_opens_with_the_five_things_in_order(page: _Page) -> None:
    order = [
        "From the cap to a clean face",
        "Without platinum CBD 0.17, with it 0.10, truth 0.10",
        "Pores open as the face recedes",
        "The same weights on a real micrograph",
        "On a real Hydra this recipe takes 3:22 h",
    ]
    places = [page.text.index(words) for words in order]
    assert places == sorted(places)


def test_sentences_are_in_the_runs_own_figures(page: _Page) -> None:
    for words in (
        "The fill before s0006 brought the share of empty pores from 24 % to 0 %; 0.4 µm further into the block",
        "CBD → pore",
        "Of the pores that platinum filled, 15.0 % of the area was labelled otherwise before it (CBD 9.0 %, active",
        "as right as it says",
        "Agreement with the authors' own segmentation, which is not independent truth: mean IoU 0.81.",
        "multi-Otsu 0.63",
        "1:40 h of simulated instrument time and 141 s on the wall",
        "9 decisions; 8 times the outcome was “go on”.",
        "No tortuosity is given",
        "two particle diameters",
        "not kept",
        "Not taken: c (Block).",
        "same seed, refills off",
        COOPER_2022.split(",")[0],
    ):
        assert words in page.text, words


def test_a_drift_with_the_age_of_a_fill_is_a_bias(page: _Page) -> None:
    # cbd rises by 0.4 points a slice of 0.1 um after each fill, at whatever depth
    assert re.search(r"CBD drifts by \+4\.\d ± 0\.\d points per µm cut since the last fill", page.text)


def test_everything_is_inside_and_well_formed(page: _Page) -> None:
    assert len(page.images) >= 11
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    assert all(image["alt"] for image in page.images)
    assert len(page.plots) >= 7
    for plot in page.plots:
        assert "nan" not in plot
        ElementTree.fromstring(plot)


def test_words_are_escaped(full: ReportData) -> None:
    html = render(full, width_px=240)
    assert "Night &lt;one&gt; &amp; only" in html
    assert "<one>" not in html
    assert "steps: [&lt;none&gt;]" in html


def test_the_simulated_is_marked_and_the_real_is_not(full: ReportData) -> None:
    marked = render(full, width_px=240)
    assert "<title>VIRTUAL Night" in marked
    assert "simulated electrode" in marked
    plain = render(dataclasses.replace(full, virtual=False), width_px=240)
    assert "VIRTUAL" not in plain
    assert "simulated" not in plain
    real = re.search(r'<section id="real">(.*?)</section>', marked, re.DOTALL)
    same = re.search(r'<section id="real">(.*?)</section>', plain, re.DOTALL)
    assert real is not None
    assert same is not None
    assert real[1] == same[1]  # its pictures carry no mark in either


def test_an_empty_run_says_what_is_missing() -> None:
    page = _Page(render(ReportData(title="Nothing", virtual=False)))
    for words in (
        "No pictures of the preparation were kept",
        "No plane was imaged both before and after a fill",
        "Fewer than two labelled slices",
        "No real micrograph",
        "No time line was kept",
        "No slice has labels",
        "heights",
        "No element map was taken",
        "nothing can be compared",
        "No refill was decided on",
        "No health figures",
    ):
        assert words in page.text, words
    assert page.images == []


@pytest.mark.parametrize(
    "name",
    [
        "stages",
        "pairs",
        "rows",
        "comparison",
        "decisions",
        "real",
        "activities",
        "hydra_s",
        "fractions",
        "profile",
        "eds",
        "open_pores",
        "reliability",
    ],
)
def test_any_part_may_be_missing(full: ReportData, name: str) -> None:
    field = next(item for item in dataclasses.fields(ReportData) if item.name == name)
    empty = field.default if field.default is not dataclasses.MISSING else field.default_factory()  # type: ignore[misc]
    _Page(render(dataclasses.replace(full, **{name: empty}), width_px=240))


def test_a_single_slice_and_values_that_are_unknown() -> None:
    row = SliceRow(name="s0001", z_m=0.0, fractions={})
    page = _Page(render(ReportData(title="One", virtual=True, rows=[row, dataclasses.replace(row, z_m=1e-7)])))
    assert "nan" not in page.text.lower().replace("nanometre", "")


def test_pictures_are_made_smaller_until_the_page_fits(tmp_path: Path, full: ReportData) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (900, 1200)).astype(np.uint8)
    data = dataclasses.replace(full, gallery=[Picture(image=noise, pixel_m=20e-9)] * 4)
    large = build(data, tmp_path / "large.html")
    small = build(data, tmp_path / "report.html", most_bytes=large - 1)
    assert small < large
    assert (tmp_path / "report.html").stat().st_size == small
    with pytest.raises(ValueError, match="even with the smallest pictures"):
        build(data, tmp_path / "report.html", most_bytes=20_000)
    assert (tmp_path / "report.html").stat().st_size == small  # the old one stays


def test_a_picture_that_is_not_there_is_named(tmp_path: Path) -> None:
    data = ReportData(
        title="x", virtual=True, stages=[Stage(letter="b", name="Cap", picture=Picture(image=tmp_path / "none.png"))]
    )
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        render(data)
