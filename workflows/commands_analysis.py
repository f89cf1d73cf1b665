"""Commands that make labels and numbers: segment, train, measure, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workflows.terminal import DONE, Wrong, complain, console, say, say_json

if TYPE_CHECKING:
    from workflows.store import RunFolder

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
RunDir = Annotated[Path, typer.Argument(metavar="DIR", help="A run's folder.")]


def segment(
    inputs: Annotated[list[Path] | None, typer.Argument(metavar="[INPUT...]", help="Slices, folders, runs.")] = None,
    channel: Annotated[
        list[str] | None, typer.Option("--channel", metavar="NAME=FILE", help="One detector's image, stack or folder.")
    ] = None,
    pixel_size: Annotated[str | None, typer.Option(metavar="LENGTH", help='Such as "20 nm".')] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for labels, overlay and summary.")] = Path("labels"),
    model: Annotated[
        Path | None, typer.Option("--model", help="Folder of a model; the package's own if not given.")
    ] = None,
    fillable: Annotated[str, typer.Option(help="Pores narrower than this could be filled.")] = "1.2 um",
    reference: Annotated[Path | None, typer.Option(help="Label image to compare the first slice with.")] = None,
    as_json: AsJson = False,
) -> int:
    """Label images that exist already."""
    from analysis.segment import segment_images

    channels: dict[str, Path] = {}
    for given in channel or []:
        name, separator, file = given.partition("=")
        if not separator or not name or not file:
            msg = f"--channel is {given!r}; write it as NAME=FILE, such as CBS=cbs.png"
            raise Wrong(msg)
        channels[name] = Path(file)
    try:
        summary = segment_images(
            channels, out, inputs=inputs or [], pixel_m=_length("--pixel-size", pixel_size), model=model,
            fillable_m=_length("--fillable", fillable) or 1.2e-6, reference=reference,
        )  # fmt: skip
    except ValueError as error:
        raise Wrong(str(error)) from error
    if as_json:
        say_json(summary.model_dump(mode="json"))
        return DONE
    shares = ", ".join(f"{name} {100 * value:.1f} %" for name, value in summary.phase_fractions.items())
    say(f"{summary.slices} slices by {summary.model_id}: {shares}; mean confidence {summary.confidence:.2f}")
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
    quick: Annotated[bool, typer.Option("--quick", help="Ten CPU-minutes at most.")] = False,
    seed: Annotated[int, typer.Option(help="Even; odd seeds are kept for scoring.")] = 0,
    init: Annotated[Path | None, typer.Option(help="Model folder to start from.")] = None,
    threads: Annotated[int, typer.Option(help="Threads of the network.")] = 2,
) -> int:
    """Train the segmentation network on simulated slices."""
    from rich.progress import Progress

    from analysis.train import train_on
    from simulator.dataset import renderer_sha256, samples

    with Progress(console=console(errors=True)) as progress:
        tasks: dict[str, Any] = {}

        def told(what: str, done: int, total: int, loss: float) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total or None)
            text = what if loss != loss else f"{what}, loss {loss:.3f}"
            progress.update(tasks[what], completed=done, total=total or None, description=text)

        try:
            card = train_on(
                samples, quick, out, seed=seed, renderer_sha256=renderer_sha256(), threads=threads, progress=told,
                init=init,
            )  # fmt: skip
        except ValueError as error:
            raise Wrong(str(error)) from error
    for name, value in card.figures.items():
        say(f"{name:28} {value:.3f}")
    say(f"{out}: {card.model_id}, {card.seconds / 60:.1f} min")
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
    from workflows.reporting import write_report, write_volume
    from workflows.results import summarise
    from workflows.soundness import set_aside_damaged

    folder = _folder(directory)
    other = None if compare is None else _folder(compare)
    with Journal(folder.journal) as journal:
        for name in set_aside_damaged(folder, journal):
            complain(f"{name} is damaged or missing; it is set aside, and the report goes on without it")
        virtual = bool((journal.meta("instrument") or {}).get("virtual", False))
        folder.write_summary(summarise(folder, journal), virtual=virtual)
        say(f"  {folder.summary}")
        for path in (write_volume(folder, journal), write_report(folder, journal, compare=other, real=real)):
            if path is not None:
                say(f"  {path}")
    return DONE


COMMANDS = (segment, train, measure, report)


def _folder(directory: Path) -> RunFolder:
    from workflows.store import RunFolder

    return RunFolder.open(directory)


def _length(name: str, text: str | None) -> float | None:
    from instrument.units import UnitError, quantity

    if text is None:
        return None
    try:
        return quantity(text, "length")
    except UnitError as error:
        msg = f"{name} is {text!r}: {error.problem}; {error.remedy}"
        raise Wrong(msg) from error


def _tell(values: dict[str, Any], indent: str = "") -> None:
    for key, value in values.items():
        if isinstance(value, dict):
            say(f"{indent}{key}:")
            _tell(value, indent + "  ")
        elif isinstance(value, float):
            say(f"{indent}{key}: {value:.4g}")
        elif not isinstance(value, list):
            say(f"{indent}{key}: {value}")
