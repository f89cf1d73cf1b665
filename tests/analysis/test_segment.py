"""Labelling images that exist already: formats, sizes, stacks, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from analysis.core import DOUBTFUL, UNFAMILIAR, SegmentationCore
from analysis.follow import Order, label_slice
from analysis.model import load, save
from analysis.overlay import blended, length_text, scale_bar_m
from analysis.phases import COLOURS, Fine, Phase
from analysis.segment import Summary, segment_images
from analysis.sources import missing_numbers, read_grey
from tests.analysis.drawn import drawn
from tests.analysis.test_follow import run_with_slices
from tests.analysis.test_follow import save as save_slice

SIZE = (90, 140)


def bytes_of(image: NDArray[np.float32], dtype: type = np.uint8) -> NDArray[np.generic]:
    return np.rint(image * np.iinfo(dtype).max).astype(dtype)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    paths: dict[str, Path] = {}
    for name, image in drawn(3, SIZE).channels.items():
        paths[name] = tmp_path / f"{name}.png"
        Image.fromarray(bytes_of(image)).save(paths[name])
    return paths


def test_two_detectors_give_labels_picture_and_summary(
    files: dict[str, Path], small_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    summary = segment_images(files, out, pixel_m=60e-9, model=small_model)
    labels = tifffile.imread(out / "labels" / "s0001.tif")
    assert labels.shape == SIZE
    assert labels.dtype == np.uint8
    assert Summary.model_validate_json((out / "summary.json").read_bytes()) == summary
    assert sum(summary.phase_fractions.values()) == pytest.approx(1.0)
    assert (summary.slices, summary.height_px, summary.width_px) == (1, *SIZE)
    assert summary.channels == ("CBS", "TLD")
    with Image.open(out / "overlay.png") as picture:
        assert picture.width >= 2 * SIZE[1]
    with tifffile.TiffFile(out / "labels" / "s0001.tif") as tif:
        assert tif.pages[0].resolution[0] == pytest.approx(0.01 / 60e-9, rel=1e-6)


@pytest.mark.parametrize("name", ["CBS", "TLD"])
def test_one_detector_alone_is_enough(name: str, files: dict[str, Path], small_model: Path, tmp_path: Path) -> None:
    summary = segment_images({name: files[name]}, tmp_path / "out", pixel_m=186e-9, model=small_model)
    assert summary.channels == (name,)
    assert any("alone" in remark for remark in summary.remarks)
    assert any("enlarged" in remark for remark in summary.remarks)


def test_bits_and_colours_do_not_matter(tmp_path: Path) -> None:
    image = drawn(3, SIZE).channels["CBS"]
    Image.fromarray(bytes_of(image)).save(tmp_path / "grey8.png")
    Image.fromarray(bytes_of(image, np.uint16)).save(tmp_path / "grey16.png")
    Image.fromarray(np.repeat(bytes_of(image)[..., None], 3, axis=2)).save(tmp_path / "rgb.png")
    Image.fromarray(bytes_of(image)).convert("RGBA").save(tmp_path / "rgba.png")
    tifffile.imwrite(tmp_path / "grey16.tif", bytes_of(image, np.uint16))
    for path in sorted(tmp_path.iterdir()):
        np.testing.assert_allclose(read_grey(path), image, atol=0.004, err_msg=path.name)


def test_stacks_and_folders_are_labelled_slice_by_slice(small_model: Path, tmp_path: Path) -> None:
    stack = np.stack([bytes_of(drawn(seed, SIZE).channels["CBS"]) for seed in range(3)])
    tifffile.imwrite(tmp_path / "cbs.tif", stack, photometric="minisblack")
    folder = tmp_path / "tld"
    folder.mkdir()
    for index in range(3):
        Image.fromarray(bytes_of(drawn(index, SIZE).channels["TLD"])).save(folder / f"{index}.png")
    told: list[tuple[int, int]] = []
    summary = segment_images(
        {"CBS": tmp_path / "cbs.tif", "TLD": folder},
        tmp_path / "out",
        pixel_m=60e-9,
        model=small_model,
        told=lambda done, total: told.append((done, total)),
    )
    assert summary.slices == 3
    assert told == [(1, 3), (2, 3), (3, 3)]
    written = {path.name for path in (tmp_path / "out" / "labels").iterdir()}
    ends = (".tif", "-confidence.tif", "-doubt.tif", ".json")
    assert written == {f"s000{number}{end}" for number in (1, 2, 3) for end in ends}
    numbers = json.loads((tmp_path / "out" / "labels" / "s0002.json").read_text(encoding="utf-8"))
    assert numbers["name"] == "s0002"


def test_files_that_name_their_channels_need_nothing_else(small_model: Path, tmp_path: Path) -> None:
    slices = tmp_path / "RUN" / "slices"
    slices.mkdir(parents=True)
    for seed in range(2):
        sample = drawn(seed, SIZE)
        pixels = np.stack([bytes_of(image) for image in (*sample.channels.values(), sample.channels["CBS"])])
        meta = {
            "axes": "CYX",
            "Channel": {"Name": ["CBS", "TLD", "ICE"]},
            "PhysicalSizeX": 60.0,
            "PhysicalSizeXUnit": "nm",
            "PhysicalSizeY": 60.0,
            "PhysicalSizeYUnit": "nm",
        }
        tifffile.imwrite(slices / f"s{seed + 1:04d}.ome.tif", pixels, ome=True, photometric="minisblack", metadata=meta)
    summary = segment_images({}, tmp_path / "out", inputs=[tmp_path / "RUN"], model=small_model)
    assert summary.slices == 2
    assert summary.pixel_m == pytest.approx(60e-9)
    assert (summary.channels, summary.ignored_channels) == (("CBS", "TLD"), ("ICE",))
    left_out = "ICE isn't known and was left out; known are CBS, TLD, ETD (and their other names)"
    assert left_out in summary.remarks


def test_a_picture_without_names_counts_as_cbs(files: dict[str, Path], small_model: Path, tmp_path: Path) -> None:
    summary = segment_images({}, tmp_path / "out", inputs=[files["CBS"]], pixel_m=60e-9, model=small_model)
    assert summary.channels == ("CBS",)


def test_agreement_with_a_reference_is_reported(files: dict[str, Path], small_model: Path, tmp_path: Path) -> None:
    first = segment_images(files, tmp_path / "a", pixel_m=60e-9, model=small_model)
    assert first.agreement is None
    labels = tifffile.imread(tmp_path / "a" / "labels" / "s0001.tif")
    labels[:, 70:] = 255
    Image.fromarray(labels).save(tmp_path / "reference.png")
    second = segment_images(
        files, tmp_path / "b", pixel_m=60e-9, model=small_model, reference=tmp_path / "reference.png"
    )
    assert second.agreement is not None
    assert (second.agreement.accuracy, second.agreement.pixels) == (1.0, 90 * 70)


def test_what_cannot_be_labelled_is_said(files: dict[str, Path], small_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    Image.fromarray(np.zeros((10, 10), np.uint8)).save(tmp_path / "small.png")
    (tmp_path / "text.png").write_text("no picture", encoding="utf-8")
    (tmp_path / "text.tif").write_text("no picture", encoding="utf-8")
    tifffile.imwrite(tmp_path / "float.tif", np.full((9, 9), 7.5, np.float32))
    (tmp_path / "empty").mkdir()

    def refused(match: str, channels: dict[str, Path], pixel_m: float | None = 60e-9, **more: object) -> None:
        inputs = [Path(str(place)) for place in (more.get("inputs"),) if place]
        with pytest.raises(ValueError, match=match):
            segment_images(channels, out, inputs=inputs, pixel_m=pixel_m, model=small_model)

    refused("CBS 90 x 140, TLD 10 x 10", {"CBS": files["CBS"], "TLD": tmp_path / "small.png"})
    refused("does not say its pixel size", {"CBS": files["CBS"]}, pixel_m=None)
    refused("does not exist", {"CBS": tmp_path / "gone.png"})
    refused("cannot be read as an image", {"CBS": tmp_path / "text.png"})
    refused("cannot be read as a TIFF", {"CBS": tmp_path / "text.tif"})
    refused("its greys run from 7.5 to 7.5", {"CBS": tmp_path / "float.tif"})
    refused("no channel of ETD", {"ETD": files["CBS"]})
    refused("same number of images", {"CBS": files["CBS"], "TLD": tmp_path / "empty"})
    refused("nothing to label", {}, inputs=tmp_path / "empty")
    refused("not both", {"CBS": files["CBS"]}, inputs=files["CBS"])
    refused("CBS and BSE are both CBS: give each detector once", {"CBS": files["CBS"], "BSE": files["TLD"]})
    refused("s0001 has 10 x 10 pixels, and labels need 32 x 32 or more", {"CBS": tmp_path / "small.png"})
    assert not list(out.glob("**/*.tif"))


def test_the_overlay_tints_with_the_phases_colours_and_leaves_the_outside_grey() -> None:
    grey = np.full((1, 5), 0.5, np.float32)
    picture = blended(grey, np.arange(5, dtype=np.uint8)[None])
    assert picture[0, 0].tolist() == [128, 128, 128]
    for phase in range(1, 5):
        expected = 0.5 * 127.5 + 0.5 * np.array(COLOURS[Phase(phase)])
        np.testing.assert_allclose(picture[0, phase], expected, atol=1)


@pytest.mark.parametrize(
    ("width_m", "length_m", "text"), [(73e-6, 10e-6, "10 um"), (30e-6, 5e-6, "5 um"), (1e-6, 2e-7, "200 nm")]
)
def test_scale_bars_are_round_numbers(width_m: float, length_m: float, text: str) -> None:
    assert scale_bar_m(width_m) == pytest.approx(length_m)
    assert length_text(scale_bar_m(width_m)) == text


def test_an_image_of_something_else_is_labelled_but_not_believed(
    files: dict[str, Path], small_model: Path, tmp_path: Path
) -> None:
    model = load(small_model, fused=False)
    narrow = replace(model.known, weights=0 * model.known.weights, offset=5.0)
    save(tmp_path / "narrow", model.network, narrow, model.card)
    summary = segment_images(files, tmp_path / "out", pixel_m=60e-9, model=tmp_path / "narrow")
    assert summary.novelty > UNFAMILIAR
    assert "unlike anything the network was trained on" in " ".join(summary.remarks)
    between = replace(narrow, offset=-0.2)
    save(tmp_path / "between", model.network, between, model.card)
    summary = segment_images(files, tmp_path / "doubted", pixel_m=60e-9, model=tmp_path / "between")
    assert DOUBTFUL < summary.novelty < UNFAMILIAR
    assert "look at the overlay before you trust" in " ".join(summary.remarks)
    wide = replace(narrow, offset=-5.0)
    save(tmp_path / "wide", model.network, wide, model.card)
    summary = segment_images(files, tmp_path / "out", pixel_m=60e-9, model=tmp_path / "wide")
    assert "unlike" not in " ".join(summary.remarks)


def test_slices_that_are_missing_from_a_folder_are_named(small_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "CBS"
    folder.mkdir()
    grey = np.rint(255 * drawn(0, (64, 64)).channels["CBS"]).astype(np.uint8)
    for number in (7, 8, 10, 14):
        Image.fromarray(grey).save(folder / f"face_{number:03d}.png")
    summary = segment_images({"CBS": folder}, tmp_path / "out", pixel_m=60e-9, model=small_model)
    assert summary.slices == 4
    assert [one for one in summary.remarks if "number" in one] == [
        "no image has the number 11 to 13", "no image has the number 9",
    ]  # fmt: skip
    assert missing_numbers([Path("a1.tif"), Path("b1.tif")]) == []
    assert missing_numbers([Path("cbs.tif"), Path("tld.tif")]) == []


def test_greys_that_are_no_numbers_are_refused(tmp_path: Path, small_model: Path) -> None:
    grey = drawn(0, (64, 64)).channels["CBS"]
    grey[3, 4] = np.nan
    tifffile.imwrite(tmp_path / "nan.tif", grey)
    with pytest.raises(ValueError, match=r"nan\.tif: 1 of its 4096 pixels are NaN or infinite"):
        segment_images({"CBS": tmp_path / "nan.tif"}, tmp_path / "out", pixel_m=60e-9, model=small_model)


def vendors(path: Path, pixel_m: float = 60e-9, databar: int = 20, **told: object) -> Path:
    """A TIFF as the microscope writes it: the picture, a databar in white below it, and FEI's metadata."""
    image = bytes_of(drawn(3, SIZE).channels["CBS"])
    whole = np.concatenate([image, np.full((databar, SIZE[1]), 255, np.uint8)])
    values = {"ResolutionX": SIZE[1], "ResolutionY": SIZE[0], "DatabarHeight": databar, "PixelWidth": pixel_m} | told
    text = (
        "[Scan]\r\nPixelWidth={PixelWidth}\r\n[Image]\r\nResolutionX={ResolutionX}\r\nResolutionY={ResolutionY}\r\n"
        "[PrivateFei]\r\nDatabarHeight={DatabarHeight}\r\n"
    ).format(**values)
    tifffile.imwrite(path, whole, photometric="minisblack", metadata=None, extratags=[(34682, 2, 0, text, True)])
    return path


def test_a_vendors_picture_is_labelled_without_its_databar_at_its_own_pixel_size(
    files: dict[str, Path], small_model: Path, tmp_path: Path
) -> None:
    plain = segment_images({"CBS": files["CBS"]}, tmp_path / "plain", pixel_m=60e-9, model=small_model)
    path = vendors(tmp_path / "slice.tif")
    for number, (channels, inputs) in enumerate([({"CBS": path}, []), ({}, [path])]):
        found = segment_images(channels, tmp_path / f"{number}", inputs=inputs, model=small_model)
        assert (found.height_px, found.width_px) == SIZE
        assert found.pixel_m == pytest.approx(60e-9)
        assert found.phase_fractions == plain.phase_fractions
        assert any("databar, 20 rows" in remark for remark in found.remarks)
    np.testing.assert_allclose(read_grey(path), read_grey(files["CBS"]))


def test_a_pixel_size_that_the_file_denies_is_told_of(small_model: Path, tmp_path: Path) -> None:
    path = vendors(tmp_path / "slice.tif")
    for given, told in ((60.5e-9, False), (66e-9, True)):
        found = segment_images({"CBS": path}, tmp_path / "out", pixel_m=given, model=small_model)
        assert found.pixel_m == given
        assert any("60 nm, and 66 nm was given" in remark for remark in found.remarks) is told


@pytest.mark.parametrize(
    ("told", "height"),
    [
        ({"ResolutionY": 0}, SIZE[0]),  # the databar's own height says it
        ({"ResolutionY": 0, "DatabarHeight": 0}, SIZE[0] + 20),
        ({"ResolutionY": SIZE[0] + 20}, SIZE[0] + 20),  # saved without a databar
        ({"ResolutionY": "?", "DatabarHeight": "?"}, SIZE[0] + 20),
        ({"ResolutionX": 2 * SIZE[1], "ResolutionY": 50}, SIZE[0] + 20),  # made smaller: nothing of the scan holds
    ],
)
def test_only_what_was_scanned_is_read(told: dict[str, object], height: int, tmp_path: Path) -> None:
    assert read_grey(vendors(tmp_path / "slice.tif", **told)).shape == (height, SIZE[1])


def test_a_picture_made_smaller_has_no_known_pixel_size(small_model: Path, tmp_path: Path) -> None:
    path = vendors(tmp_path / "slice.tif", ResolutionX=2 * SIZE[1])
    with pytest.raises(ValueError, match="does not say its pixel size"):
        segment_images({"CBS": path}, tmp_path / "out", model=small_model)


def test_channels_of_one_slice_have_one_pixel_size(small_model: Path, tmp_path: Path) -> None:
    paths = {"CBS": vendors(tmp_path / "c.tif"), "TLD": vendors(tmp_path / "t.tif", pixel_m=30e-9)}
    with pytest.raises(ValueError, match="CBS 60 nm, TLD 30 nm"):
        segment_images(paths, tmp_path / "out", model=small_model)


def test_the_files_are_those_that_the_follower_writes(small_model: Path, tmp_path: Path) -> None:
    slice_ = save_slice(tmp_path / "s0001.ome.tif", seed=3)
    segment_images({}, tmp_path / "out", inputs=[slice_], model=small_model, quick=True)
    (tmp_path / "live").mkdir()
    label_slice(SegmentationCore(small_model), Order(name="s0001", path=slice_), tmp_path / "live")
    for name in ("s0001.tif", "s0001-confidence.tif", "s0001-doubt.tif"):
        assert (tmp_path / "out" / "labels" / name).read_bytes() == (tmp_path / "live" / name).read_bytes()


def test_what_is_in_doubt_is_summed_up_over_the_slices(small_model: Path, tmp_path: Path) -> None:
    model = load(small_model, fused=False)
    for code, more in ((Fine.CBD, 0.95), (Fine.PT_PORE, 0.65)):  # one is now about as likely as the other
        model.network.head.bias.data[4 * code : 4 * code + 4] += more
    save(tmp_path / "unsure", model.network, model.known, model.card)
    run = run_with_slices(tmp_path / "RUN", 2)
    summary = segment_images({}, tmp_path / "out", inputs=[run], model=tmp_path / "unsure")
    each = [json.loads((tmp_path / "out" / "labels" / f"s000{number}.json").read_text()) for number in (1, 2)]
    assert 0.0 < summary.doubt < 1.0
    assert summary.doubt == pytest.approx(sum(one["doubt"] for one in each) / 2)
    for name in ("pore", "cbd"):
        low, high = summary.electrode_intervals[name]
        assert low < high
        assert low <= summary.electrode_fractions[name] <= high
        for end, found in enumerate((low, high)):
            assert found == pytest.approx(sum(one["electrode_intervals"][name][end] for one in each) / 2)


def test_the_slice_before_helps_where_it_is_the_very_one_before(small_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "CBS"
    folder.mkdir()
    whole = drawn(0, (100, 100)).channels["CBS"]
    faces = {1: whole[:96, :96], 2: whole[4:, 4:], 4: whole[:96, :96], 5: drawn(1, (96, 96)).channels["CBS"]}
    for number, grey in faces.items():
        Image.fromarray(bytes_of(grey)).save(folder / f"face_{number}.png")
    tifffile.imwrite(tmp_path / "stack.tif", np.stack([bytes_of(faces[1])] * 4), photometric="minisblack")

    def beside(place: Path) -> list[list[str]]:
        out = tmp_path / f"out-{place.name}"
        segment_images({"CBS": place}, out, pixel_m=60e-9, model=small_model)
        return [json.loads(path.read_text())["beside"] for path in sorted((out / "labels").glob("*.json"))]

    assert beside(folder) == [[], ["before"], [], []]  # the first, drifted, after a gap, of another place
    assert beside(tmp_path / "stack.tif") == [[], ["before"], ["before"], ["before"]]
    for number in (1, 2):
        (folder / f"face_{number}.png").rename(folder / f"face_{'ab'[number - 1]}.png")
    (folder / "face_4.png").unlink()
    (folder / "face_5.png").unlink()
    assert beside(folder / "face_a.png") == [[]]
    segment_images({"CBS": folder}, tmp_path / "unnumbered", pixel_m=60e-9, model=small_model)
    assert json.loads((tmp_path / "unnumbered" / "labels" / "s0002.json").read_text())["beside"] == []


def test_an_image_and_its_mirror_image_are_labelled_alike_but_for_quick(small_model: Path, tmp_path: Path) -> None:
    grey = bytes_of(drawn(3, (96, 128)).channels["CBS"])
    Image.fromarray(grey).save(tmp_path / "a.png")
    Image.fromarray(grey[:, ::-1]).save(tmp_path / "b.png")

    def confidence(name: str, *, quick: bool) -> NDArray[np.int16]:
        out = tmp_path / f"{name}-{quick}"
        segment_images({"CBS": tmp_path / f"{name}.png"}, out, pixel_m=60e-9, model=small_model, quick=quick)
        return tifffile.imread(out / "labels" / "s0001-confidence.tif").astype(np.int16)

    def apart(*, quick: bool) -> float:
        return float(np.abs(confidence("a", quick=quick) - confidence("b", quick=quick)[:, ::-1]).max())

    assert apart(quick=False) <= 1
    assert apart(quick=True) > 1


def test_labels_of_other_slices_are_neither_lost_nor_mixed_with_these(small_model: Path, tmp_path: Path) -> None:
    run, out = run_with_slices(tmp_path / "RUN", 3), tmp_path / "out"

    def segment(*inputs: Path, out: Path = out) -> Summary:
        return segment_images({}, out, inputs=inputs, model=small_model, quick=True)

    segment(run)
    kept = {path: path.read_bytes() for path in out.glob("**/*.*")}
    with pytest.raises(ValueError, match="labels of s0002, s0003, which are not made now; give another --out"):
        segment(run / "slices" / "s0001.ome.tif")
    assert {path: path.read_bytes() for path in out.glob("**/*.*")} == kept
    assert segment(run).slices == 3  # the same command again
    with pytest.raises(ValueError, match="RUN is a run's folder"):
        segment(run, out=run)


def test_a_command_that_ends_early_leaves_no_summary_of_other_labels(small_model: Path, tmp_path: Path) -> None:
    run, out = run_with_slices(tmp_path / "RUN", 2), tmp_path / "out"
    segment_images({}, out, inputs=[run], model=small_model, quick=True)
    save_slice(run / "slices" / "s0002.ome.tif", pixel_um=None)
    with pytest.raises(ValueError, match=r"s0002.*no PhysicalSizeX"):
        segment_images({}, out, inputs=[run], model=small_model, quick=True)
    assert (out / "labels" / "s0002.json").exists()
    assert not (out / "summary.json").exists()


def test_a_wrong_reference_is_refused_before_anything_is_labelled(
    files: dict[str, Path], small_model: Path, tmp_path: Path
) -> None:
    Image.fromarray(np.full(SIZE, 77, np.uint8)).save(tmp_path / "codes.png")
    Image.fromarray(np.ones((8, 9), np.uint8)).save(tmp_path / "size.png")
    for name, said in (("codes", "image of labels"), ("size", "reference has 8 x 9 pixels and s0001 90 x 140")):
        with pytest.raises(ValueError, match=said):
            segment_images(
                files, tmp_path / "out", pixel_m=60e-9, model=small_model, reference=tmp_path / f"{name}.png"
            )
        assert not list(tmp_path.glob("out/**/*.*"))


def test_a_detector_twice_in_one_file_is_told_of(small_model: Path, tmp_path: Path) -> None:
    cbs, tld = (bytes_of(image) for image in drawn(0, SIZE).channels.values())
    pixels = np.stack([cbs, tld, 255 - cbs])
    meta = {"axes": "CYX", "Channel": {"Name": ["CBS-A", "TLD", "CBS-B"]}, "PhysicalSizeX": 0.06, "PhysicalSizeY": 0.06}
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, ome=True, photometric="minisblack", metadata=meta)
    summary = segment_images({}, tmp_path / "out", inputs=[tmp_path / "a.ome.tif"], model=small_model)
    assert (summary.channels, summary.ignored_channels) == (("CBS-A", "TLD"), ("CBS-B",))
    assert "CBS-B is CBS once more and was left out; CBS-A is used" in summary.remarks


def test_detectors_without_a_picture_of_this_place_are_named_once(small_model: Path, tmp_path: Path) -> None:
    sample = drawn(0, (180, 200)).channels
    images = {"CBS": sample["CBS"], "TLD": sample["TLD"][:, ::-1], "ETD": np.zeros((180, 200), np.float32)}
    for name, image in images.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", np.stack([bytes_of(image)] * 2), photometric="minisblack")
    given = {name: tmp_path / f"{name}.tif" for name in images}
    summary = segment_images(given, tmp_path / "out", pixel_m=60e-9, model=small_model)
    numbers = json.loads((tmp_path / "out" / "labels" / "s0002.json").read_text())
    assert numbers["beside"] == ["before"]
    told = [remark for remark in summary.remarks if "was left out" in remark]
    assert told == [
        "s0001, s0002: the picture of ETD shows nothing and was left out; look at that detector",
        "s0001, s0002: the picture of TLD shows another place, or is mirrored or moved, and was left out; "
        "give pictures of one scan",
    ]


def test_a_detector_that_lies_off_is_laid_over_the_other_and_told_of(small_model: Path, tmp_path: Path) -> None:
    sample = drawn(4, (180, 200)).channels
    images = {"CBS": sample["CBS"], "TLD": np.roll(sample["TLD"], (3, -4), (0, 1))}
    for name, image in images.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", bytes_of(image), photometric="minisblack")
    given = {name: tmp_path / f"{name}.tif" for name in images}
    summary = segment_images(given, tmp_path / "out", pixel_m=60e-9, model=small_model)
    told = "s0001: TLD lay up to 4 px off the other detector, and was laid over it; look at the two if that is new"
    assert told in summary.remarks
    numbers = json.loads((tmp_path / "out" / "labels" / "s0001.json").read_text())
    assert numbers["moved"] == {"TLD": [3, -4]}


def test_colours_and_unknown_detectors_are_told_of(files: dict[str, Path], small_model: Path, tmp_path: Path) -> None:
    map_ = np.zeros((*SIZE, 3), np.uint8)
    map_[:40, :, 1] = 200
    Image.fromarray(map_).save(tmp_path / "eds.png")
    given = {"CBS": files["CBS"], "EDS": tmp_path / "eds.png", "SE": files["TLD"]}
    summary = segment_images(given, tmp_path / "out", pixel_m=60e-9, model=small_model)
    assert "EDS: colours were turned grey, and a detector's own picture has none" in summary.remarks
    left_out = "EDS, SE aren't known and were left out; known are CBS, TLD, ETD (and their other names)"
    assert left_out in summary.remarks
    assert summary.channels == ("CBS",)
