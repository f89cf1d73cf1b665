"""The X-ray program's functions, by their vendor's name. This microscope has no laser, and no EBSD."""  # noqa: N999 - the vendor's name

from typing import NoReturn

from simulator.autoscript.xray import control

TestConnection = control.test_connection
EDS_CameraStatus = control.camera_status
EDS_InsertCamera = control.insert_camera
EDS_RetractCamera = control.retract_camera
EDS_StartMap = control.start_map
EDS_MappingStatus = control.mapping_status


def __getattr__(name: str) -> NoReturn:
    msg = f"Laser.PythonControl.{name} is not there: this microscope has EDS, but no laser and no EBSD"
    raise AttributeError(msg)
