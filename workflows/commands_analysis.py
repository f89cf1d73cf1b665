"""Commands that make labels and numbers: segment, train, measure, report."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workflows.terminal import DONE, FAILED, Wrong, complain, console, in_one_sentence, length, say, say_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from analysis.model import Card
    from workflows.recipe import Recipe
    from workflows.store import RunFolder

Channel = Annotated[
    list[str] | None, typer.Option("--channel", metavar="NAME=FILE", help="One detector's image, stack or folder.")
]
PixelSize = Annotated[str | None, typer.Option("--pixel-size", metavar="LENGTH", help='Such as "20 nm".')]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda or mps.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
RunDir = Annotated[Path, typer.Argument(metavar="DIR", help="A run's folder.")]


def segment(
    inputs: Annotated[list[Path] | None, typer.Argument(metavar="[INPUT...]", help="Slices, folders, runs.")] = None,
    channel: Channel = None,
    pixel_size: PixelSize = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for labels, overlay and summary.")] = Path("labels"),
    model: Annotated[
        Path | None, typer.Option("--model", help="Folder of a model; the package's own if not given.")
    ] = None,
    fillable: Annotated[str, typer.Option(help="Pores narrower than this could be filled.")] = "1.2 um",
    reference: Annotated[Path | None, typer.Option(help="Label image to compare the first slice with.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Without each image's mirror image: half the time, labels a little worse.")
    ] = False,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> int:
    """Label images that exist already."""
    from analysis.memory import keep_freed_memory
    from analysis.segment import segment_images

    keep_freed_memory()
    with in_one_sentence():
        summary = segment_images(
            _channels(channel), out, inputs=inputs or [], pixel_m=_pixel_size(pixel_size), model=model,
            fillable_m=length("--fillable", fillable), reference=reference, quick=quick, device=_device(device),
        )  # fmt: skip
    if as_json:
        say_json(summary.model_dump(mode="json"))
        return DONE
    shares = ", ".join(f"{name} {100 * value:.1f} %" for name, value in summary.phase_fractions.items())
    say(f"{summary.slices} slices by {summary.model_id}: {shares}; mean confidence {summary.confidence:.2f}")
    between = ", ".join(
        f"{name} {100 * low:.1f} to {100 * high:.1f} %" for name, (low, high) in summary.electrode_intervals.items()
    )
    say(f"pore or CBD in doubt {100 * summary.doubt:.1f} %; of the electrode {between}")
    for remark in summary.remarks:
        say(f"note: {remark}")
    if summary.agreement is not None:
        each = ", ".join(f"{name} {value:.2f}" for name, value in summary.agreement.iou.items())
        say(f"agreement with {reference}: mean IoU {summary.agreement.mean_iou:.3f} ({each})")
    for name in summary.files.values():
        say(f"  {out / name}")
    return DONE


def train(
    out: Annotated[Path, typer.Option("--out", help="Folder for weights.safetensors and card.json.")],
    quick: Annotated[
        bool, typer.Option("--quick", help="Ten CPU-minutes at most; with strokes a few seconds.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Even; odd seeds are kept for scoring.")] = 0,
    init: Annotated[Path | None, typer.Option(help="Model folder to start from.")] = None,
    threads: Annotated[int, typer.Option(help="Threads of the network.")] = 2,
    device: Device = "cpu",
    channel: Channel = None,
    scribbles: Annotated[
        Path | None, typer.Option(metavar="IMAGE", help="Strokes in label codes, 255 unmarked; see `annotate`.")
    ] = None,
    pixel_size: PixelSize = None,
    from_run: Annotated[
        Path | None, typer.Option("--from-run", metavar="DIR", help="A run: its planes before and after fills teach.")
    ] = None,
) -> int:
    """Train the segmentation network on simulated slices, or teach it your own sample (--scribbles, --from-run).

    A training on simulated slices that was ended goes on when the same command is given again.
    """
    how: dict[str, Any] = {"seed": seed, "threads": threads, "device": _device(device)}
    if scribbles is not None and from_run is not None:
        msg = "--scribbles and --from-run teach one after the other; give what the first made as --init of the second"
        raise Wrong(msg)
    if from_run is not None:
        if channel or pixel_size is not None:
            msg = "--channel and --pixel-size are for --scribbles: a run's pictures say what they are"
            raise Wrong(msg)
        return _teach_pairs(_folder(from_run), out, init, quick=quick, **how)
    if scribbles is not None:
        given = _pixel_size(pixel_size)
        return _teach(_channels(channel), scribbles, given, out, init, quick=quick, **how)
    if channel:
        msg = "--channel goes with --scribbles; `kintsugi annotate` makes an image to paint strokes on"
        raise Wrong(msg)
    from rich.progress import Progress

    from analysis.checkpoint import path_for
    from analysis.train import train_on
    from simulator.dataset import renderer_sha256, samples

    if (kept := path_for(out)).exists():
        say(f"there is a checkpoint, {kept}; remove it to begin anew")
    with Progress(console=console(errors=True)) as progress:
        tasks: dict[str, Any] = {}

        def told(what: str, done: int, total: int, loss: float) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total or None)
            text = what if loss != loss else f"{what}, loss {loss:.3f}"
            progress.update(tasks[what], completed=done, total=total or None, description=text)

        with in_one_sentence():
            card = train_on(samples, quick, out, renderer_sha256=renderer_sha256(), progress=told, init=init, **how)
    for name, value in card.figures.items():
        say(f"{name:28} {value:.3f}")
    say(f"{out}: {card.model_id}, {card.seconds / 60:.1f} min")
    return DONE


def _teach(
    channels: dict[str, Path],
    scribbles: Path,
    pixel_m: float | None,
    out: Path,
    model: Path | None,
    *,
    quick: bool,
    **how: Any,
) -> int:
    """Teach a model one image by strokes, and say how well it took."""
    from rich.progress import Progress

    from analysis.adapt import STEPS, adapt
    from analysis.scribbles import read_scribbles

    images, pixel = _images(channels, pixel_m, "--scribbles goes with --channel")
    with in_one_sentence(), Progress(console=console(errors=True)) as progress:
        task = progress.add_task("strokes", total=None)
        card = adapt(
            images, read_scribbles(scribbles), pixel, out, model=model, steps=STEPS // 8 if quick else STEPS,
            progress=lambda done, total: progress.update(task, completed=done, total=total), **how,
        )  # fmt: skip
    _tell_card(card, out)
    return DONE


def _teach_pairs(folder: RunFolder, out: Path, model: Path | None, *, quick: bool, **how: Any) -> int:
    """Teach a model a run's sample by its planes before and after fills, and say how well it took."""
    from rich.progress import Progress

    from analysis.adapt import STEPS
    from analysis.pair_lessons import teach_pairs
    from workflows.journal import Journal
    from workflows.pairs import pairs

    with (
        in_one_sentence(),
        Journal(folder.journal, read_only=True) as journal,
        Progress(console=console(errors=True)) as progress,
    ):
        task = progress.add_task("planes before and after fills", total=None)
        card = teach_pairs(
            pairs(folder, journal), out, model=model, steps=STEPS // 8 if quick else STEPS,
            progress=lambda done, total: progress.update(task, completed=done, total=total), **how,
        )  # fmt: skip
    _tell_card(card, out)
    return DONE


def _tell_card(card: Card, out: Path) -> None:
    for name, value in card.figures.items():
        say(f"{name:28} {value:g}")
    say(f"{out}: {card.model_id}, {card.seconds:.0f} s; use it with --model {out}")


def annotate(
    channel: Channel = None,
    pixel_size: PixelSize = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for strokes.png, image.png, where.png.")] = Path("strokes"),
    model: Annotated[
        Path | None, typer.Option("--model", help="Folder of the model to be taught; the package's own if not given.")
    ] = None,
    spots: Annotated[int, typer.Option(min=0, help="How many places to name where a stroke would help.")] = 10,
    napari: Annotated[bool, typer.Option("--napari", help="Paint in napari (extra `annotate`).")] = False,
) -> int:
    """Prepare an image for strokes, and say where they would help most."""
    from analysis.annotate import IMAGE, STROKES, WHERE, paint
    from analysis.annotate import annotate as prepare
    from analysis.phases import NAMES

    images, pixel = _images(_channels(channel), _pixel_size(pixel_size), "annotate needs --channel")
    with in_one_sentence():
        found = prepare(images, pixel, out, model=model, count=spots)
    for number, spot in enumerate(found.spots, 1):
        first, second = (NAMES[phase] for phase in spot.phases)
        say(f"{number:3}  x {spot.x:5}  y {spot.y:5}  {first} or {second}?")
    for warning in found.warnings:
        say(f"  {warning}")
    for name in (IMAGE, WHERE, STROKES):
        say(f"  {out / name}")
    if napari:
        try:
            paint(images, out / STROKES)
        except ImportError as error:
            msg = "napari is not installed; install it with pip install 'kintsugi[annotate]', or paint on strokes.png"
            raise Wrong(msg) from error
    given = [f"--channel {item}" for item in channel or []]
    if pixel_size is not None:
        given.append(f'--pixel-size "{pixel_size}"')
    say(f"paint on {out / STROKES}, then: kintsugi train {' '.join(given)} "
        f"--scribbles {out / STROKES} --out MODEL")  # fmt: skip
    return DONE


def measure(
    directory: RunDir,
    truth: Annotated[bool, typer.Option("--truth", help="Hold the labels against the simulator's truth.")] = False,
    as_json: AsJson = False,
) -> int:
    """Measure a run: phase fractions with depth, empty pores; with --truth how right the labels are."""
    from workflows.measuring import against_truth, measures
    from workflows.store import RunFolder

    folder = RunFolder.open(directory)
    found = against_truth(folder) if truth else measures(folder)
    if as_json:
        say_json(found)
    else:
        _tell(found)
    return DONE


def report(
    directory: RunDir,
    compare: Annotated[Path | None, typer.Option(help="A run with refills off, to set its curve beside.")] = None,
    real: Annotated[Path | None, typer.Option(help="Folder with real micrographs cbs.png and tld.png.")] = None,
) -> int:
    """Write the report of a run again, with summary and volume."""
    from workflows.journal import Journal
    from workflows.kept_recipe import recipe_of
    from workflows.reporting import write_report, write_volume
    from workflows.results import summarise
    from workflows.soundness import set_aside_damaged

    folder = _folder(directory)
    other = None if compare is None else _folder(compare)
    with Journal(folder.journal) as journal:
        recipe_of(folder, journal, complain)
        for name in set_aside_damaged(folder, journal):
            complain(f"{name} is damaged or missing; it is set aside, and the report goes on without it")
        virtual = bool((journal.meta("instrument") or {}).get("virtual", False))
        folder.write_summary(summarise(folder, journal), virtual=virtual)
        say(f"  {folder.summary}")
        for path in (write_volume(folder, journal), write_report(folder, journal, compare=other, real=real)):
            if path is not None:
                say(f"  {path}")
    return DONE


def share(
    directory: RunDir,
    host: Annotated[str, typer.Option(help="Address to listen on; elsewhere than the loopback with TLS only.")] = "",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 0,
    certificates: Annotated[Path | None, typer.Option(help="Folder of certificates: two-way TLS.")] = None,
) -> int:
    """Lend a run's slices to a workstation that labels them over the network (the run: --model elsewhere)."""
    from instrument.link import check_host
    from workflows.launch import runs
    from workflows.sharing import Share, serve

    folder = _folder(directory)
    check_host(host, certificates)
    shared = Share(folder.root, _recipe_of(folder).fillable, lambda: runs(folder))

    def told(where: dict[str, Any]) -> None:
        say(f"copy {where['token_file']} to the workstation, then there:")
        more = "" if certificates is None else "&certificates=DIR"
        say(f'  kintsugi follow "pyro://{where["host"]}:{where["port"]}?token_file=FILE{more}"')

    serve(shared, folder.root / "share", port=port, host=host, certificates=certificates, told=told)
    return DONE


def follow(
    directory: Annotated[str, typer.Argument(metavar="DIR|URL", help="A run's folder, or what `share` told.")],
    model: Annotated[
        Path | None, typer.Option("--model", help="Folder of a model; the package's own if not given.")
    ] = None,
    device: Device = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="Threads of the network on a CPU.")] = 2,
    once: Annotated[bool, typer.Option("--once", help="Label what is there, and end.")] = False,
    poll: Annotated[float, typer.Option(min=0.05, help="Seconds between looks into the folder.")] = 0.5,
) -> int:
    """Label a run's slices from another machine: on its shared folder or over the network (the run: elsewhere)."""
    import threading

    import torch

    from analysis.core import SegmentationCore
    from analysis.memory import keep_freed_memory
    from instrument.errors import InstrumentError, NotInControl

    torch.set_num_threads(threads)
    keep_freed_memory()
    with in_one_sentence():
        core = SegmentationCore(model, _device(device))
    pause, bad, failed, done = threading.Event(), 0, set[str](), False
    with _followed(directory, once=once) as work:
        say(f"{core.model_id} on {device} follows {directory}; Ctrl+C ends it, the run goes on")
        while not done:
            try:
                for told in work(core, failed):
                    if told["error"]:
                        bad += 1
                        complain(f"{told['name']}: {told['error']}")
                    else:
                        say(f"{told['name']}  {told['numbers']['seconds']:.2f} s")
            except NotInControl:
                raise
            except (OSError, InstrumentError) as error:  # the other side is away, or its disk full, for a moment
                bad += once
                complain(str(error))
            done = once or pause.wait(poll)
    return FAILED if bad else DONE


@contextmanager
def _followed(where: str, *, once: bool) -> Iterator[Callable[[Any, set[str]], Iterator[dict[str, Any]]]]:
    """Give what labels all that waits in a run, told by its folder or by what `share` told."""
    if where.startswith("pyro:"):
        from instrument.link import place_of
        from workflows.mirror import Mirror

        with tempfile.TemporaryDirectory(prefix="kintsugi-") as copies:
            mirror = Mirror(place_of(where), Path(copies))
            try:
                yield partial(mirror.work, every=once)
            finally:
                mirror.close()
        return
    from analysis.watch import work
    from workflows.launch import runs

    folder = _folder(Path(where))
    fillable_m = _recipe_of(folder).fillable

    def labelled(core: Any, failed: set[str]) -> Iterator[dict[str, Any]]:
        ordering = runs(folder) and not once
        return work(core, folder.root, failed, fillable_m=fillable_m, ordering=ordering)

    yield labelled


COMMANDS = (segment, train, annotate, share, follow, measure, report)


def _folder(directory: Path) -> RunFolder:
    from workflows.store import RunFolder

    return RunFolder.open(directory)


def _recipe_of(folder: RunFolder) -> Recipe:
    from workflows.journal import Journal
    from workflows.kept_recipe import read_recipe

    with Journal(folder.journal, read_only=True) as journal:
        return read_recipe(folder, journal)


def _channels(given: list[str] | None) -> dict[str, Path]:
    channels: dict[str, Path] = {}
    for item in given or []:
        name, separator, file = item.partition("=")
        if not separator or not name or not file:
            msg = f"--channel is {item!r}; write it as NAME=FILE, such as CBS=cbs.png"
            raise Wrong(msg)
        if name in channels:
            msg = f"--channel {name} is given twice, {channels[name]} and {file}: give each detector once"
            raise Wrong(msg)
        channels[name] = Path(file)
    return channels


def _images(
    channels: dict[str, Path], pixel_m: float | None, needed: str
) -> tuple[dict[str, NDArray[np.float32]], float]:
    """Read one image a detector, and the pixel's edge (m) where it isn't given."""
    from analysis.sources import one_slice

    if not channels:
        msg = f"{needed} NAME=FILE, such as --channel CBS=cbs.png --channel TLD=tld.png"
        raise Wrong(msg)
    with in_one_sentence():
        read = one_slice(channels)
    for note in read.notes:
        say(f"note: {note}")
    pixel = read.pixel_m if pixel_m is None else pixel_m
    if pixel is None:
        msg = 'the image does not say its pixel size; give it, for example --pixel-size "20 nm"'
        raise Wrong(msg)
    return read.channels, pixel


def _pixel_size(text: str | None) -> float | None:
    """Return the pixel's edge (m); a bare number is refused with the unit that is meant, nm."""
    if text is None:
        return None
    try:
        float(text)
    except ValueError:
        return length("--pixel-size", text)
    msg = f"--pixel-size is {text!r}, which has no unit; write '{text.strip()} nm'"
    raise Wrong(msg)


def _device(name: str) -> str:
    """Return a device of torch's by its name; Wrong where it is none of the known ones, or not here."""
    import torch

    if name.partition(":")[0] not in ("cpu", "cuda", "mps"):
        msg = f"--device is {name!r}; known are cpu, cuda and mps"
        raise Wrong(msg)
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        msg = f"--device {name} can't be used here: {str(error).splitlines()[0]}"
        raise Wrong(msg) from error
    return name


def _tell(values: dict[str, Any], indent: str = "") -> None:
    for key, value in values.items():
        if isinstance(value, dict):
            say(f"{indent}{key}:")
            _tell(value, indent + "  ")
        elif isinstance(value, float):
            say(f"{indent}{key}: {value:.4g}")
        elif not isinstance(value, list):
            say(f"{indent}{key}: {value}")
