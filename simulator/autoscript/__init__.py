"""An AutoScript that anyone can dry-run on: the vendor's Python client, emulated over a virtual microscope.

`simulator/autoscript/site/` holds the packages by their vendor's names and nothing else: put it on PYTHONPATH
(`kintsugi autoscript --path`) and `import autoscript_sdb_microscope_client` works. What they do is written here, from
how open clients use the real one; no file of the vendor's was a source.

Environment
-----------
KINTSUGI_AUTOSCRIPT_SIMULATOR : URL of the virtual microscope, such as `simulator:3?coating=19um&pace=20`; without a
    pace its time follows the wall's
KINTSUGI_AUTOSCRIPT_STATE : folder in which it lasts; without one it ends with the process
KINTSUGI_AUTOSCRIPT_CLOCK : `stepped` lets its time jump, for a client that waits by `virtual_clock`, as our backend
KINTSUGI_AUTOSCRIPT_PROFILE : `hydra` (default), `hydra-gis` (single gas needles instead of a MultiChem), `offline`
    (limits and inertness of an office installation)
KINTSUGI_AUTOSCRIPT_MAP : the element map that is set up in the virtual X-ray program, which `Laser.PythonControl`
    starts, as `FOLDER?elements=C,O,Ni&size=256x192&dwell=1 ms&frames=2`: it exports TIFF files into that folder

Chosen, as no open client shows it
----------------------------------
- Raw X and Y are the negatives of the chamber's: at no scan rotation a larger X brings what is right of the centre
  into it, a larger Y what is above. A larger beam shift in X moves the picture's content right, in Y up. A positive
  scan rotation turns the scan clockwise on the screen.
- Specimen coordinates, the default until a client says otherwise: X and Y are Raw, shifted by a constant; Z, linked, is
  the free working distance, downwards. Hardware that is not fitted is there with `is_installed` False, as recorded.
- Setting a value out of its limits raises; resolution and detector take listed values only.
- A voltage becomes the nearest calibrated one, a current the nearest of its list, without a word. In an office
  installation voltages, currents, height and tilt read as they were asked for; the virtual microscope below goes as
  near as it can.
- A lens alignment is kept and does nothing. `move_to_device` stays where it is for both columns, and knows no others.
- Patterns unblank by themselves. Parallel patterns are written one after the other. A pattern's rotation is kept, not
  drawn. Circles are written as squares of their outer area, slender boxes as grooves, other polygons as boxes. A
  regular cross-section is deepest where its scan ends; a bitmap is milled to its shares of the depth, averaged to 128
  pixels a side where it is finer. Under an application file with a gas both are laid as boxes.
- A gas's valve opens for a pattern of its application file where the needle is in and its heater on, and shuts after.
- A live picture is made when it is asked for, line by line as the settings were when each line was scanned.
- A frame of a blanked beam is dark. A spot on an unblanked beam writes until it is blanked.
- A gas's heater is lukewarm after seconds, as clients wait for; its content is ready after as many minutes as ever.
- Names that the vendor's structures and client don't have are refused, not kept; subclasses may have their own.

Left out
--------
Compustage, autoloader, sputter coater, protective shutter and the fluorescence microscope (`detector.camera_settings`,
`detector.home`) are not fitted: what is asked of them says so. Of `Laser.PythonControl` there are the detector and the
maps of EDS, but no laser and no EBSD. `real_time_monitor` monitors nothing.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["client_path"]


def client_path() -> Path:
    """Return the folder that makes `import autoscript_sdb_microscope_client` work."""
    return Path(__file__).parent / "site"
