"""What some systems bring along beside the microscope's client."""  # noqa: N999 - the vendor's name
