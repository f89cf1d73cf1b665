"""Takes pictures and element maps of the block, keeps the truth about them, runs automatic routines on small ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from instrument import durable
from instrument.process import mill_rate
from instrument.settings import Beam, DetectorSettings, Device, EdsScan, Scan, Tune, Tuning
from simulator import chamber, disturbances, electronimage, faults, ionimage, tuning
from simulator.askew import along_edge, askew, turned_back
from simulator.beams import COINCIDENCE_M, ION_DISTANCE_M, Sight
from simulator.block import Block
from simulator.condition import Condition
from simulator.eds import element_counts, shadow_reach
from simulator.imaging import Electrons, Emission
from simulator.milling import inside, spot_sigma
from simulator.options import Options
from simulator.sidebyside import side_by_side
from simulator.writing import ALONG_FACE, ONTO_FACE

#: Pictures of automatic focus and stigmator: size, coarsest pixels (m); frames summed where the signal is faint.
_TUNE_PX, _TUNE_PIXEL_M, _STIGMATOR_PIXEL_M, _STIGMATOR_FRAMES = (256, 220), 25e-9, 6e-9, 16
#: How far around the present one the ion beam's working distances are tried, metres: its depth of focus is large; the
#: dwell of its pictures, s, and how many are summed: ions are few.
_ION_SWEEP_M, _ION_DWELL_S, _ION_FRAMES = 120e-6, 100e-9, 4
#: A focus with a lower score is none.
_LEAST_SHARP = 0.1


@dataclass(frozen=True)
class Taken:
    """Pixels (channel, y, x) and what the machine notes about them."""

    pixels: NDArray[Any]
    notes: dict[str, str] = field(default_factory=dict)


#: One usual picture's dose, C/m2 (night.md 17: 12): what counts as one scan of the same place before.
_PICTURE_DOSE = 12.0


class Pictures:
    """Looks at one block. `state` is where the truth is kept; None: nowhere."""

    def __init__(self, options: Options, block: Block, state: Path | None) -> None:
        self._options = options
        self._block = block
        self._truth = state / "truth" if state is not None else None

    def take(self, now: Condition, scan: Scan, started_s: float, seconds: float) -> Taken:
        """Take a picture with all its detectors."""
        sight = chamber.sight(self._options, now, scan.beam, started_s + seconds / 2)
        if scan.beam is Beam.ION:
            pixels = self._ion(now, scan, sight, started_s, self._key(now, scan))
            self._wear(now, scan, sight, started_s)
            return Taken(pixels)
        turned, asked = askew(sight), scan
        if turned:
            sight, scan = along_edge(sight, scan, turned)
        seen = electronimage.look(self._block, sight, scan, self._shear(now, sight, started_s, seconds))
        sent = self._sent(now, scan, seen, started_s)
        pictures = side_by_side(
            lambda one: self._electron(now, scan, seen, one, self._key(now, scan), started_s, sent), scan.detectors
        )
        pixels = np.stack(pictures)
        if turned:
            pixels = turned_back(pixels, asked, turned)
        pixels = self._disturbed(now, asked, pixels, started_s)
        if seen is not None:
            self._expose(seen, self._current(now, Beam.ELECTRON, started_s) * electronimage.frame_dwell(scan))
        names = {detector.name for detector in scan.detectors}
        if seen is not None and names & {"CBS", "TLD"} and not turned:
            self._keep_truth(now, scan, seen)
        return Taken(pixels)

    def map(self, now: Condition, scan: EdsScan, started_s: float, seconds: float) -> Taken:
        """Take element maps."""
        sight = chamber.sight(self._options, now, Beam.ELECTRON, started_s + seconds / 2)
        seen = electronimage.look(self._block, sight, scan)
        current, settings = self._current(now, Beam.ELECTRON, started_s), now.electron
        before, shaded = 0.0, None
        if seen is not None:
            before, shaded = self._given(self._block.maps.dose, seen), self._shaded(seen)
            self._expose(seen, current * scan.dwell_s * scan.frames)
        counts = element_counts(
            None if seen is None else seen.scene, scan.elements, (scan.height_px, scan.width_px),
            voltage_v=settings.voltage_v or 10e3, current_a=current, seconds=scan.dwell_s * scan.frames,
            dose=before, shaded=shaded, seed=self._options.seed, key=self._key(now, scan),
        )  # fmt: skip
        if seen is not None and any(seen.flip):
            counts = counts[:, :: -1 if seen.flip[1] else 1, :: -1 if seen.flip[0] else 1]
        return Taken(np.ascontiguousarray(counts), {"frames": str(scan.frames)})

    def tune(self, now: Condition, routine: Tune, scan: Scan, time_s: float) -> Tuning:
        """Find focus, stigmator or contrast on the scan's area."""
        sight = chamber.sight(self._options, now, scan.beam, time_s)
        if routine is Tune.CONTRAST:
            return self._contrast(now, scan, sight, time_s)
        if scan.beam is Beam.ION:
            return self._ion_tuned(now, routine, scan, sight, time_s)
        pixel = min(scan.pixel_m, _STIGMATOR_PIXEL_M if routine is Tune.STIGMATOR else _TUNE_PIXEL_M)
        frames = _STIGMATOR_FRAMES if routine is Tune.STIGMATOR else scan.frame_integrations
        size = {"width_px": _TUNE_PX[0], "height_px": _TUNE_PX[1], "pixel_m": pixel}
        small = scan.replace(**size, bits=8, frame_integrations=frames, detectors=scan.detectors[:1])
        seen = electronimage.look(self._block, sight, small)
        sent = self._sent(now, small, seen, time_s)
        tried = 0

        def take(**settings: float) -> NDArray[Any]:
            nonlocal tried
            tried += 1
            there = now.with_beam(Beam.ELECTRON, now.electron.replace(**settings))
            return self._electron(there, small, seen, small.detectors[0], (*self._key(now, small), tried), time_s, sent)

        if routine is Tune.STIGMATOR:
            return self._stigmator(now, take)
        start = now.electron.working_distance_m or COINCIDENCE_M
        found, score = tuning.focus(lambda distance: take(working_distance_m=distance), start)
        return Tuning(routine=routine, score=score, working_distance_m=found)

    def _expose(self, seen: electronimage.Seen, charge: float) -> None:
        """Note what the beam has given each pixel, coulombs, as dose on the face."""
        self._block.expose(seen.x, seen.scene.y_m, charge / (seen.scene.pixel_m[0] * seen.scene.pixel_m[1]))

    def _given(self, dose: NDArray[np.float32], seen: electronimage.Seen) -> float:
        """Return the electron dose that a scan's place has had by one of the maps, C/m2, its median."""
        if not dose.any():
            return 0.0
        return float(np.median(self._block.at(dose, seen.x[::8], seen.scene.y_m[::8])))

    def _shaded(self, seen: electronimage.Seen) -> NDArray[np.bool_]:
        """Return which columns the trench's wall on the detector's side, -x, hides from it."""
        trenches = [one.x0 for one in self._block.features if one.kind == "trench" and one.x0 < 0]
        wall = min(trenches, default=float(self._block.x[0]))
        return np.asarray(seen.x < wall + shadow_reach(seen.plane))

    # -- private ------------------------------------------------------------------------------------------------------

    def _key(self, now: Condition, scan: Scan | EdsScan) -> tuple[int, ...]:
        """Return the key of what a picture draws: each its own, or on a steady machine that of what is looked at."""
        if self._options.steady:
            return now.patterns, crc32(_rounded(scan).encode())
        return (now.counter,)

    def _ion_tuned(self, now: Condition, routine: Tune, scan: Scan, sight: Sight, time_s: float) -> Tuning:
        """Find the ion beam's focus, which mills a little.

        Its stigmators are as they should be, and pictures onto the face are always sharp. Where none is sharper than
        the others the beam stays as it was.
        """
        ion, tried = now.ion, 0
        if routine is Tune.STIGMATOR:
            return Tuning(routine=routine, score=1.0, stigmator_x=ion.stigmator_x, stigmator_y=ion.stigmator_y)
        if not _onto_top(sight):
            return Tuning(routine=routine, score=1.0, working_distance_m=ion.working_distance_m)
        sharp = spot_sigma(ion.current_a or 0.0, ion.voltage_v or 30e3)
        small = scan.replace(
            width_px=_TUNE_PX[0], height_px=_TUNE_PX[1], pixel_m=min(scan.pixel_m, max(_TUNE_PIXEL_M, sharp / 2)),
            bits=8, detectors=scan.detectors[:1], dwell_s=_ION_DWELL_S, line_integrations=1,
            frame_integrations=_ION_FRAMES,
        )  # fmt: skip

        def take(distance: float) -> NDArray[Any]:
            nonlocal tried
            tried += 1
            there = now.with_beam(Beam.ION, ion.replace(working_distance_m=distance))
            picture: NDArray[Any] = self._ion(there, small, sight, time_s, (*self._key(now, small), tried))[0]
            return picture

        start = ion.working_distance_m or ION_DISTANCE_M
        found, score = tuning.focus(take, start, _ION_SWEEP_M)
        if score < _LEAST_SHARP:
            found = start
        self._wear(now, small.replace(frame_integrations=tried * _ION_FRAMES), sight, time_s)
        return Tuning(routine=routine, score=score, working_distance_m=found)

    def _stigmator(self, now: Condition, take: Callable[..., NDArray[Any]]) -> Tuning:
        """Set one stigmator after the other where pictures are sharpest, twice."""
        x, y, score = now.electron.stigmator_x or 0.0, now.electron.stigmator_y or 0.0, 0.0
        for _ in range(2):
            x, score_x = tuning.stigmator(_with(take, "stigmator_x", stigmator_y=y), x)
            y, score_y = tuning.stigmator(_with(take, "stigmator_y", stigmator_x=x), y)
            score = max(score, score_x, score_y)
        return Tuning(routine=Tune.STIGMATOR, score=score, stigmator_x=x, stigmator_y=y)

    def _disturbed(self, now: Condition, scan: Scan, pixels: NDArray[Any], started_s: float) -> NDArray[Any]:
        """Return a picture with what fields and charging flares do to it."""
        wobble = faults.wobble_m(now, started_s)
        line_s = scan.width_px * scan.dwell_s * scan.line_integrations
        if wobble > 0:
            pixels = disturbances.wobbled(pixels, wobble / scan.pixel_m, line_s)
        if faults.flares(now, started_s):
            pixels = disturbances.flared(pixels, self._options.seed, now.counter)
        return pixels

    def _contrast(self, now: Condition, scan: Scan, sight: Sight, time_s: float) -> Tuning:
        coarse = max(1.0, scan.width_px / 400)
        small = scan.replace(
            width_px=max(12, round(scan.width_px / coarse)), height_px=max(12, round(scan.height_px / coarse)),
            pixel_m=scan.pixel_m * coarse, bits=8,
        ).model_copy(update={"bits": 16})  # fmt: skip
        seen = electronimage.look(self._block, sight, small) if scan.beam is Beam.ELECTRON else None
        sent = self._sent(now, small, seen, time_s)
        found, scores = [], []
        for detector in scan.detectors:

            def take(trial: DetectorSettings) -> NDArray[np.uint16]:
                if scan.beam is Beam.ION:
                    picture: NDArray[np.uint16] = self._ion(
                        now, small.replace(detectors=(trial,), bits=8), sight, time_s, self._key(now, small)
                    )[0]
                    return picture.astype(np.uint16) * np.uint16(257)
                return self._electron(now, small, seen, trial, self._key(now, small), time_s, sent).astype(np.uint16)

            best, score = tuning.contrast(detector.name, take)
            found.append(best)
            scores.append(score)
        return Tuning(routine=Tune.CONTRAST, score=min(scores), detectors=tuple(found))

    def _sent(
        self, now: Condition, scan: Scan, seen: electronimage.Seen | None, time_s: float
    ) -> dict[Electrons, Emission] | None:
        """Return what a scan's detectors take their parts of, None where the beam doesn't see the face."""
        if seen is None:
            return None
        return electronimage.emissions(seen, scan, now.electron, self._current(now, Beam.ELECTRON, time_s))

    def _electron(
        self,
        now: Condition,
        scan: Scan,
        seen: electronimage.Seen | None,
        detector: DetectorSettings,
        key: tuple[int, ...],
        time_s: float,
        sent: dict[Electrons, Emission] | None,
    ) -> NDArray[Any]:
        settings = now.electron
        focus_off = chamber.focus_off(self._options, settings.voltage_v or 0.0, settings.current_a or 0.0)
        return electronimage.picture(
            seen, scan, detector, settings, current_a=self._current(now, Beam.ELECTRON, time_s),
            focus_off_m=focus_off + faults.focus_off(now, time_s),
            stigmation_m=chamber.astigmatism(self._options, now, time_s),
            gain=chamber.brightness(self._options, now, detector.name, time_s),
            scans_before=0 if seen is None else round(self._given(self._block.maps.cracked, seen) / _PICTURE_DOSE),
            seed=self._options.seed, key=key, sent=sent,
        )  # fmt: skip

    def _ion(self, now: Condition, scan: Scan, sight: Sight, time_s: float, key: tuple[int, ...]) -> NDArray[Any]:
        settings, current = now.ion, self._current(now, Beam.ION, time_s)
        shaded = Device.CBS in now.inserted or Device.EDS in now.inserted
        if _onto_top(sight):
            return np.stack(
                [
                    ionimage.top_picture(
                        self._block, sight, scan, one, current_a=current, voltage_v=settings.voltage_v or 30e3,
                        defocus_m=chamber.ion_defocus(self._options, now), seed=self._options.seed,
                        key=(*key, one.name), shaded=shaded,
                    )
                    for one in scan.detectors
                ]
            )  # fmt: skip
        seen = electronimage.look(self._block, sight, scan)
        secondary = [one.replace(name="ETD") for one in scan.detectors]
        return np.stack(
            [
                electronimage.picture(
                    seen, scan, one, settings.replace(working_distance_m=None), current_a=current, focus_off_m=0.0,
                    seed=self._options.seed, key=key,
                )
                for one in secondary
            ]
        )  # fmt: skip

    def _wear(self, now: Condition, scan: Scan, sight: Sight, time_s: float) -> None:
        """Take off what an ion picture mills: of marks and caps in its field, or of the face where it lands on it."""
        settings = now.ion
        size = (scan.width_px * scan.pixel_m, scan.height_px * scan.pixel_m)
        seconds = scan.width_px * scan.height_px * scan.dwell_s * scan.line_integrations * scan.frame_integrations
        charge = self._current(now, Beam.ION, time_s) * seconds
        worn = charge * mill_rate("cap", settings.voltage_v or 30e3) / (size[0] * size[1])
        if abs(float(sight.flight[2])) < ALONG_FACE:
            x, z = sight.on_plane(1, 0.0)(scan.centre_x_m, scan.centre_y_m)
            box = (x - size[0] / 2, x + size[0] / 2, z - size[1] / 2, z + size[1] / 2)
            self._block.features = tuple(
                one.replace(worn=one.worn + worn) if one.kind != "trench" and one.near(*box) else one
                for one in self._block.features
            )
        elif float(sight.flight[2]) > ONTO_FACE:
            x, y = sight.on_plane(2, self._block.middle_z())(scan.centre_x_m, scan.centre_y_m)
            mask = inside(self._block.x[None, :], x, size[0], 50e-9) * inside(self._block.y[:, None], y, size[1], 50e-9)
            self._block.cut_to(self._block.maps.surface + mask * worn)

    def _shear(self, now: Condition, sight: Sight, started_s: float, seconds: float) -> tuple[float, float]:
        """Return how the sample stands off down the picture at a scan's first and last row against its middle, m."""
        ways = [chamber.position(self._options, now, started_s + seconds * share) for share in (0.0, 0.5, 1.0)]
        down = [x * float(sight.down[0]) + y * float(sight.down[1]) for x, y in ways]
        return down[0] - down[1], down[2] - down[1]

    def _current(self, now: Condition, beam: Beam, time_s: float) -> float:
        return chamber.current(self._options, now, beam, time_s)

    def _keep_truth(self, now: Condition, scan: Scan, seen: electronimage.Seen) -> None:
        """Write what a perfect segmentation of the frame would say; nothing but tests and benchmarks reads it."""
        if self._truth is None:
            return
        import tifffile

        durable.make_dir(self._truth)
        uid = f"sim-{self._options.seed}-{now.counter}"
        classes = electronimage.true_classes(seen, (scan.height_px, scan.width_px))
        path = self._truth / f"{uid}.tif"
        temporary = durable.temporary_for(path)
        tifffile.imwrite(temporary, classes, compression="zlib", compressionargs={"level": 1})
        durable.replace(temporary, path, sync=False)
        facts = {"z_m": seen.plane, "film_share": seen.film, "pixel_m": list(seen.step)}
        durable.atomic_write_bytes(self._truth / f"{uid}.json", json.dumps(facts).encode(), sync=False)


def _onto_top(sight: Sight) -> bool:
    """Tell whether a beam looks down on the block's top."""
    return abs(float(sight.flight[1])) > ONTO_FACE and abs(float(sight.flight[2])) < ONTO_FACE


def _rounded(scan: Scan | EdsScan) -> str:
    """Return a scan's place and pixels as text in which the last digits, that a detour may change, don't count."""
    shown = json.loads(scan.model_dump_json(), parse_float=lambda text: f"{float(text):.3g}")
    for name in ("centre_x_m", "centre_y_m"):  # near nothing is nothing
        shown[name] = round(float(getattr(scan, name)) * 1e9)
    shown.pop("detectors", None)  # each draws by its own name
    return json.dumps(shown)


def _with(take: Callable[..., NDArray[Any]], name: str, **held: float) -> tuning.Picture:
    """Return what takes a picture at a value of one setting, others held."""
    return lambda value: take(**{name: value}, **held)
