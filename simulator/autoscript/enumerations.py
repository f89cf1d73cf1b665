"""The client's enumerations: plain classes of constants, as clients subclass them and pass their values on."""

from __future__ import annotations


class BeamType:
    ELECTRON, ION = 1, 2


class ImagingDevice:
    ELECTRON_BEAM, ION_BEAM, CCD_CAMERA, IR_CAMERA, NAV_CAM = 1, 2, 3, 4, 5
    OPTICAL_MICROSCOPE, VOLUMESCOPE_APPROACH_CAMERA, FLUORESCENCE_LIGHT_MICROSCOPE = 6, 7, 8


class ImagingState:
    IDLE, ACQUIRING = "Idle", "Acquiring"


class ImageFileFormat:
    RAW, TIFF = "Raw", "Tiff"


class ScanningMode:
    FULL_FRAME, LINE, SPOT, REDUCED_AREA, EXTERNAL, CROSSOVER, OTHER = 1, 2, 3, 4, 5, 6, 7


class ScanningFilterType:
    NONE, AVERAGING, INTEGRATION = 1, 2, 3


class CoordinateSystem:
    RAW, SPECIMEN = "Raw", "Specimen"


class StageAxis:
    X, Y, Z, R, T = "X", "Y", "Z", "R", "T"


class DetectorType:
    ABS, CBS, CDEM, ECD, ETD, EXTERNAL = "ABS", "CBS", "CDEM", "ECD", "ETD", "External"
    GBSD, GSED, ICE, LFD, LVD, LVSED = "GBSD", "GSED", "ICE", "LFD", "LVD", "LVSED"
    MD, MIX, NONE, STEM3, STEM3_PLUS, STEM4 = "MD", "Mix", "None", "STEM3", "STEM3+", "STEM4"
    T1, T2, T3, TLD = "T1", "T2", "T3", "TLD"


class DetectorMode:
    ALL, A_MINUS_B, A_PLUS_B, ANGULAR = "All", "AMinusB", "APlusB", "Angular"
    ANGULAR_PARTIAL, ANGULAR_PARTIAL_COMPLEMENT = "AngularPartial", "AngularPartialComplement"
    ANULAR_A, ANULAR_B, ANULAR_C, ANULAR_D = "AnularA", "AnularB", "AnularC", "AnularD"
    BACKSCATTER_ELECTRONS, BEAM_DECELERATION, BRIGHT_FIELD = "BackscatterElectrons", "BeamDeceleration", "BrightField"
    CATHODO_LUMINESCENCE, CHARGE_NEUTRALIZATION = "CathodoLuminescence", "ChargeNeutralization"
    CUSTOM, CUSTOM2, CUSTOM3, CUSTOM4, CUSTOM5 = "Custom", "Custom2", "Custom3", "Custom4", "Custom5"
    DARK_FIELD, DARK_FIELD1, DARK_FIELD2, DARK_FIELD3, DARK_FIELD4 = (
        "DarkField", "DarkField1", "DarkField2", "DarkField3", "DarkField4",
    )  # fmt: skip
    DOWN_HOLE_VISIBILITY, HIGH_ANGLE, INNER_MINUS_OUTER = "DownHoleVisibility", "HighAngle", "InnerMinusOuter"
    LOW_ANGLE, MIX, NONE, SCINTILLATION = "LowAngle", "Mix", "None", "Scintillation"
    SECONDARY_ELECTRONS, SECONDARY_IONS = "SecondaryElectrons", "SecondaryIons"
    SEGMENT_A, SEGMENT_B, TOPOGRAPHY, Z_CONTRAST = "SegmentA", "SegmentB", "Topography", "ZContrast"


class RetractableDeviceState:
    BUSY, ERROR, INSERTED, OTHER, RETRACTED = "Busy", "Error", "Inserted", "Other", "Retracted"


class VacuumState:
    ERROR, PUMPED, PUMPED_FOR_WAFER_EXCHANGE, PUMPING = "Error", "Pumped", "PumpedForWaferExchange", "Pumping"
    UNKNOWN, VENTED, VENTING = "Unknown", "Vented", "Venting"


class ProtectiveShutterMode:
    OFF, AUTOMATIC = "Off", "Automatic"


class AngularCorrectionMode:
    AUTOMATIC, MANUAL = "Automatic", "Manual"


class PatternScanDirection:
    BOTTOM_TO_TOP, TOP_TO_BOTTOM, LEFT_TO_RIGHT, RIGHT_TO_LEFT = (
        "BottomToTop", "TopToBottom", "LeftToRight", "RightToLeft",
    )  # fmt: skip
    DYNAMIC_ALL_DIRECTIONS, DYNAMIC_INNER_TO_OUTER = "DynamicAllDirections", "DynamicInnerToOuter"
    DYNAMIC_LEFT_TO_RIGHT, DYNAMIC_TOP_TO_BOTTOM = "DynamicLeftToRight", "DynamicTopToBottom"
    INNER_TO_OUTER, OUTER_TO_INNER = "InnerToOuter", "OuterToInner"


class PatternScanType:
    RASTER, SERPENTINE, CIRCULAR = "Raster", "Serpentine", "Circular"


class PatterningState:
    IDLE, RUNNING, PAUSED = "Idle", "Running", "Paused"


class PatterningMode:
    SERIAL, PARALLEL = "Serial", "Parallel"


class ManipulatorState:
    INSERTED, RETRACTED = "Inserted", "Retracted"


class ManipulatorSavedPosition:
    PARK, EUCENTRIC = "Park", "Eucentric"


class ManipulatorCoordinateSystem:
    RAW, STAGE = "Raw", "Stage"


class MultiChemInsertPosition:
    ELECTRON_DEFAULT, ION_DEFAULT = "Electron Default", "Ion Default"


class RegularCrossSectionScanMethod:
    SINGLE_SCAN, MULTI_SCAN = 0, 1


class PlasmaGasType:
    ARGON, OXYGEN, XENON, NITROGEN = "Argon", "Oxygen", "Xenon", "Nitrogen"


class CameraEmissionType:
    BLUE, GREEN_YELLOW, RED, VIOLET = "Blue", "GreenYellow", "Red", "Violet"


class CameraFilterType:
    REFLECTION, FLUORESCENCE = "Reflection", "Fluorescence"


class RtmMode:
    LOW_RESOLUTION, HIGH_RESOLUTION = 1, 2


class RtmCoordinateSystem:
    IMAGE_PIXELS, METERS = "ImagePixels", "Meters"


class OpticalMode:
    FIELD_FREE, IMMERSION, EDX, INTERMEDIATE, FIB_IMMERSION = (
        "FieldFree", "Immersion", "EDX", "Intermediate", "FIBImmersion",
    )  # fmt: skip
