"""What clients import beside the microscope's client."""
