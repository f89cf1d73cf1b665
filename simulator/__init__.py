"""A virtual plasma FIB-SEM with a virtual electrode in it."""
